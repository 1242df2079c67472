"""The Nth write, sync or truncation fails, for N = 1, 2, ... until a whole scenario meets no fault any more.

Each command must succeed, and be there, or raise a StoreError of the right kind, and have changed nothing; afterwards
the store must work again without being opened anew, and a power cut must take nothing that was acknowledged.
"""

from __future__ import annotations

import logging
import os
import random
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import apsw
import click

from davsql.errors import StoreError, StoreFull, StoreUnavailable
from davsql.store.check import check
from davsql.store.options import Durability, StoreOptions
from davsql.store.store import Store
from tests.faults.disk import MEMORY, Disk, Operation, injected, restore
from tests.faults.fault_scenario import AFTER, BEFORE, SCENARIO, Step
from tests.faults.openings import OPENINGS, Opening
from tests.faults.workload import Tree, small_pieces, tree_of

STORE = "store.db"
_vfs_numbers = count()


class Fault(NamedTuple):
    """Which operations fail, and how."""

    name: str
    kinds: frozenset[str]
    files: str  # how their names end
    result: int  # of SQLite
    error: type[apsw.Error]
    is_lasting: bool  # all operations from the Nth on, until somebody repairs the disk
    durability: Durability = "full"

    @property
    def expected(self) -> tuple[type[StoreError], ...]:
        """What a command may raise for it."""
        return (StoreFull, StoreUnavailable) if self.error is apsw.FullError else (StoreUnavailable,)


_FAULTS = (
    ("write to the WAL: EIO", {"write"}, "-wal", apsw.SQLITE_IOERR_WRITE, apsw.IOError),
    ("write to the WAL: ENOSPC", {"write"}, "-wal", apsw.SQLITE_FULL, apsw.FullError),
    ("sync of the WAL: EIO", {"sync"}, "-wal", apsw.SQLITE_IOERR_FSYNC, apsw.IOError),
    ("write to the database: EIO", {"write"}, ".db", apsw.SQLITE_IOERR_WRITE, apsw.IOError),
    ("write to the database: ENOSPC", {"write"}, ".db", apsw.SQLITE_FULL, apsw.FullError),
    ("sync of the database: EIO", {"sync"}, ".db", apsw.SQLITE_IOERR_FSYNC, apsw.IOError),
    ("truncation: EIO", {"truncate"}, "", apsw.SQLITE_IOERR_TRUNCATE, apsw.IOError),
    ("any change: EIO", {"write", "sync", "truncate", "delete"}, "", apsw.SQLITE_IOERR, apsw.IOError),
)
FAULTS_OF_FULL = tuple(
    Fault(f"{name}, {'lasting' if is_lasting else 'once'}", frozenset(kinds), files, result, error, is_lasting)
    for name, kinds, files, result, error in _FAULTS
    for is_lasting in (False, True)
)
# At "normal" commits are synced by the checkpoint only. When that sync fails and a later one says it is well, Linux has
# dropped what the first did not write: until the next checkpoint is over, a power cut can damage the store.
FAULTS = FAULTS_OF_FULL + tuple(
    fault._replace(name=f"durability normal, {fault.name}", durability="normal")
    for fault in FAULTS_OF_FULL
    if "sync" not in fault.kinds
)


class Result(NamedTuple):
    """One pass through the scenario with a fault at one place, or the sum of many."""

    passes: int = 0
    hits: int = 0  # passes that met their fault
    commands: int = 0
    errors: Counter[str] = Counter()  # noqa: RUF012  # a tuple: never changed; what commands raised
    cuts: int = 0
    undecided: int = 0  # power cuts after an error that left the command done all the same
    troubles: tuple[str, ...] = ()

    def __add__(self, other: object) -> Result:
        assert isinstance(other, Result)
        return Result(
            self.passes + other.passes,
            self.hits + other.hits,
            self.commands + other.commands,
            self.errors + other.errors,
            self.cuts + other.cuts,
            self.undecided + other.undecided,
            self.troubles + other.troubles,
        )


class _Left(NamedTuple):
    """What a power cut left, and the trees that it may hold."""

    files: dict[str, bytes]
    allowed: list[Tree]  # what clients were told, then `past` ones, then those with a command that failed
    past: int
    words: str


class Pass:
    """The scenario once, with one fault."""

    def __init__(self, folder: Path, fault: Fault, number: int) -> None:
        self._file = folder / STORE
        self._fault = fault
        self._number = number
        self._rng = random.Random(f"{fault.name} {number}")  # noqa: S311
        self._disk = Disk(f"fault-sweep-{os.getpid()}-{next(_vfs_numbers)}", number)
        self.seen = 0
        self._is_repaired = False
        self._tree: Tree = {}
        self._floating: list[Tree] = []  # what a power cut may leave of commands that failed
        self._past: list[Tree] = []  # a power cut leads back to them at durability "normal"
        self._cuts: list[_Left] = []
        self._errors: Counter[str] = Counter()
        self._troubles: list[str] = []
        self._commands = 0

    def go(self) -> Result:
        """Run the scenario, repair the disk, go on, and compare."""
        try:
            with small_pieces(), self._disk.in_charge_of_folders():
                self._go()
        finally:
            self._disk.unregister()
        undecided = self._look_at_cuts()
        troubles = tuple(f"{self._fault.name}, operation {self._number}: {each}" for each in self._troubles)
        is_hit = self.seen >= self._number
        return Result(1, is_hit, self._commands, self._errors, len(self._cuts), undecided, troubles)

    def _go(self) -> None:
        options = StoreOptions(vfs=self._disk.vfs_name, durability=self._fault.durability, readers=4, cache_mb=1)
        with Store.open(self._file, options, create=True) as store:
            for step in BEFORE:
                self._take(store, [step])
            store.checkpoint()
            self._disk.before = self._maybe_fail
            for group in SCENARIO:
                self._take(store, [group] if isinstance(group, Step) else list(group))
            self._is_repaired = True
            self._cut("at the end of the scenario")
            for step in AFTER:
                self._take(store, [step])
            self._cut("after the repair")
        with Store.open(self._file, StoreOptions(readers=1)) as store:
            self._compare(store, "closed and opened", [self._tree])

    def _maybe_fail(self, operation: Operation) -> None:
        fault = self._fault
        if self._is_repaired or operation.kind not in fault.kinds or not operation.file.endswith(fault.files):
            return
        self.seen += 1
        if self.seen == self._number or (fault.is_lasting and self.seen > self._number):
            raise injected(fault.error, fault.result, operation)

    # --- commands ------------------------------------------------------------------------------------------------

    def _take(self, store: Store, steps: list[Step]) -> None:
        """Run one command, or several as one batch, and see that each did what it was answered."""
        answers = _together(store, steps) if len(steps) > 1 else [_answer(store, steps[0])]
        failed: list[Step] = []
        for step, error in zip(steps, answers, strict=True):
            self._commands += 1
            after = step.change(self._tree)
            if error is None:
                if after is None:
                    self._troubles.append(f"{step.words} succeeded and should have been refused")
                elif after != self._tree:
                    self._past.append(self._tree)
                    self._tree, self._floating = after, []
            elif after is not None:
                self._note(step, error)
                failed.append(step)
        for number in range(1, 2 ** len(failed)):
            self._floating.append(self._with([step for bit, step in enumerate(failed) if number >> bit & 1]))
        self._see(store, steps)
        if failed and len(self._cuts) < 3:
            self._cut("after an error of " + ", ".join(step.words for step in failed))

    def _with(self, steps: list[Step]) -> Tree:
        tree = self._tree
        for step in steps:
            tree = step.change(tree) or tree
        return tree

    def _note(self, step: Step, error: BaseException) -> None:
        self._errors[type(error).__name__] += 1
        if isinstance(error, step.may_raise):
            return
        if self._is_repaired:
            self._troubles.append(f"{step.words} failed after the repair: {error!r}")
        elif not isinstance(error, self._fault.expected):
            self._troubles.append(f"{step.words} raised {error!r} from {error.__cause__!r}")

    def _see(self, store: Store, steps: list[Step]) -> None:
        """What clients read is what they were told, though the disk is still broken."""
        with suppress(StoreError):  # the writer may be at a checkpoint, which goes as far as readers let it
            store.write(lambda _: None)
        words = "after " + ", ".join(step.words for step in steps)
        try:
            if tree_of(store) != self._tree:
                self._troubles.append(f"{words}: the tree is not what was answered")
        except StoreError as error:
            self._troubles.append(f"{words}: cannot be read: {error!r}")

    # --- power cuts ----------------------------------------------------------------------------------------------

    def _cut(self, words: str) -> None:
        past = self._past if self._fault.durability == "normal" else []
        allowed = [self._tree, *past, *self._floating]
        self._cuts.append(_Left(self._disk.cut(self._rng), allowed, len(past), f"power cut {words}"))

    def _look_at_cuts(self) -> int:
        """Open what each cut left; how often a command that failed is done all the same."""
        undecided = 0
        for left in self._cuts:
            with tempfile.TemporaryDirectory(dir=self._file.parent) as place:
                restore(left.files, Path(place))
                try:
                    with Store.open(Path(place) / STORE, StoreOptions(readers=1)) as store:
                        undecided += self._compare(store, left.words, left.allowed) > left.past
                except StoreError as error:
                    self._troubles.append(f"{left.words}: does not open: {error!r}")
        return undecided

    def _compare(self, store: Store, words: str, allowed: list[Tree]) -> int:
        """See that the store is sound and holds an allowed tree; says which."""
        if violations := check(store, deep=True):
            self._troubles.append(f"{words}: check: {violations[0].message}")
        found = tree_of(store)
        if found in allowed:
            return allowed.index(found)
        self._troubles.append(f"{words}: the tree is none that it may be")
        return 0


def _answer(store: Store, step: Step) -> BaseException | None:
    try:
        step.run(store)
    except Exception as error:  # noqa: BLE001  # of which kind it is, is the question
        return error
    return None


def _together(store: Store, steps: list[Step]) -> list[BaseException | None]:
    """Run commands from threads of their own while the writer is held, so that it finds all of them waiting."""
    answers: list[BaseException | None] = [None] * len(steps)

    def work(number: int) -> None:
        answers[number] = _answer(store, steps[number])

    held, release = threading.Event(), threading.Event()

    def hold(_tx: object) -> None:
        held.set()
        release.wait()

    holder = threading.Thread(target=lambda: _answer(store, Step("hold", lambda s: s.write(hold), lambda tree: tree)))
    holder.start()
    if not held.wait(10):  # BEGIN failed: nobody holds the writer
        holder.join()
    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(steps))]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 0.2
    while store.stats().queue_depth < len(steps) and time.monotonic() < deadline:
        time.sleep(0.0005)
    release.set()
    for thread in (holder, *threads):
        thread.join()
    return answers


def sweep(fault: Fault, every: int, first: int = 1) -> Result:
    """Every `every`th place of a fault, from `first` on, until there is none any more."""
    total = Result()
    for number in count(first, every):
        with tempfile.TemporaryDirectory(dir=MEMORY) as name:
            result = Pass(Path(name), fault, number).go()
        total += result
        if not result.hits:
            return total
    raise AssertionError


def _listed(errors: Counter[str]) -> str:
    return ", ".join(f"{name} {n}" for name, n in sorted(errors.items()))


def _be_quiet() -> None:
    logging.disable(logging.CRITICAL)  # every fault is logged; all are counted here


def sweep_openings(opening: Opening, every: int) -> tuple[int, Counter[str], tuple[str, ...]]:
    """The same for the places of an opening: places, errors, what was wrong."""
    places, errors, troubles = 0, Counter[str](), list[str]()
    for number in count(1, every):
        with tempfile.TemporaryDirectory(dir=MEMORY) as name:
            result = opening.run(Path(name), number)
        places += result.is_hit
        errors += result.errors
        troubles.extend(f"operation {number}: {trouble}" for trouble in result.troubles)
        if not result.is_hit:
            break
    return places, errors, tuple(troubles)


@click.command("fault-sweep")
@click.option("--every", default=1, show_default=True, help="Try every so many-th place only.")
@click.option("--jobs", default=os.cpu_count() or 1, show_default=True, help="Processes.")
def command(every: int, jobs: int) -> bool:
    """Let each write, sync and truncation of a scenario fail once, or from then on, with EIO and with ENOSPC.

    Each answer must be true, nothing that was acknowledged be lost, and the store work on once the disk does.
    """
    is_good = True
    with ProcessPoolExecutor(jobs, get_context("spawn"), _be_quiet) as pool:
        for fault, result in zip(FAULTS, pool.map(sweep, FAULTS, [every] * len(FAULTS)), strict=True):
            is_good &= not result.troubles
            click.echo(
                f"{fault.name}: {result.hits} places, {result.commands} commands ({_listed(result.errors)}), "
                f"{result.cuts} power cuts ({result.undecided} left a failed command done), "
                f"{len(result.troubles)} wrong"
            )
            for trouble in result.troubles[:5]:
                click.echo(f"        {trouble}")
        for opening, (places, errors, troubles) in zip(
            OPENINGS, pool.map(sweep_openings, OPENINGS, [every] * len(OPENINGS)), strict=True
        ):
            is_good &= not troubles
            click.echo(f"{opening.name}: {places} places ({_listed(errors)}), {len(troubles)} wrong")
            for trouble in troubles[:5]:
                click.echo(f"        {trouble}")
    return is_good

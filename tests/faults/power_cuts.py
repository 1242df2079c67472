"""Power cuts while clients write: what was acknowledged, and what is there afterwards.

`full` must lose nothing; `normal` may lose the last commits and nothing in between; `off` (synchronous=OFF) must lose
or corrupt, which shows that a loss would be seen.
"""

from __future__ import annotations

import os
import random
import re
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import Literal, NamedTuple
from unittest.mock import patch

import click

from davsql.errors import NotAStore, NotFound, StoreBusy, StoreError
from davsql.keys.envelope import new_data_key
from davsql.keys.secret import GivenKey, new_key_text
from davsql.maintenance.gc import collect_garbage
from davsql.store.check import check
from davsql.store.options import Durability, StoreOptions
from davsql.store.store import Store
from tests.faults.disk import MEMORY, Disk, Operation, restore
from tests.faults.workload import Client, Tree, small_pieces, tree_of

Mode = Literal["full", "normal", "off"]
MODES: tuple[Mode, ...] = ("full", "normal", "off")

CLIENTS = 3
CUTS_OF_A_RUN = 100
OPERATIONS_BETWEEN_CUTS = 50  # on average
RARE_WEIGHT = 10  # a sync, truncation or deletion is so much more likely to be cut than one of the many writes
STEPS_BETWEEN_REOPENINGS = 25
PAGE_BYTES = 8192
STORE = "store.db"
PART = re.compile(r"^\..*\.davsql-part")  # a store that is being made
_vfs_numbers = count()


@dataclass(slots=True)
class Journal:
    """What one client asked for and was told; the clock ticks are of the whole run."""

    states: list[Tree] = field(default_factory=lambda: [{}])  # after so many commands
    submitted_at: list[int] = field(default_factory=list)
    acknowledged_at: list[int] = field(default_factory=list)


class Cut(NamedTuple):
    left: dict[str, bytes]
    moment: str  # what the disk was about to do
    is_created: bool  # Store.open had returned
    started: tuple[int, ...]  # commands of each client
    acknowledged: tuple[int, ...]


class Outcome(NamedTuple):
    """What one cut did."""

    lost: int  # acknowledged commands that are not there
    trouble: str  # "": all is well but for what is lost

    @property
    def is_clean(self) -> bool:
        return not self.lost and not self.trouble


class Run:
    """Clients, maintenance and cuts over one store on one disk."""

    def __init__(self, folder: Path, mode: Mode, seed: int, cuts: int = CUTS_OF_A_RUN, *, is_encrypted: bool) -> None:
        self._rng = random.Random(f"{mode} {seed}")  # noqa: S311
        self._disk = Disk(f"power-cuts-{os.getpid()}-{next(_vfs_numbers)}")
        self._key = new_data_key(PAGE_BYTES, [("key", GivenKey(new_key_text()))]) if is_encrypted else None
        self._file = folder / STORE
        self._mode = mode
        self._cuts_wanted = cuts
        self._until_next_cut = 0
        self._is_created = False
        self._clients = [Client(f"c{number}", self._rng.getrandbits(32)) for number in range(CLIENTS)]
        self._journals = [Journal() for _ in self._clients]
        self._clock = count()
        self._failures: list[BaseException] = []
        self.cuts: list[Cut] = []

    def go(self) -> None:
        """Work until enough cuts were made."""
        self._disk.before = self._maybe_cut
        try:
            with self._patched():
                while len(self.cuts) < self._cuts_wanted:
                    self._go_on_until_closed()
        finally:
            self._disk.unregister()
        if self._failures:
            raise self._failures[0]

    @contextmanager
    def _patched(self) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(small_pieces())
            stack.enter_context(self._disk.in_charge_of_folders())
            if self._mode == "off":
                stack.enter_context(patch.dict("davsql.store.connection._SYNCHRONOUS", {"normal": 0}))
            yield

    def _go_on_until_closed(self) -> None:
        durability: Durability = "full" if self._mode == "full" else "normal"
        vfs = self._disk.vfs_name if self._key is None else self._disk.encrypting_vfs_name
        options = StoreOptions(vfs=vfs, durability=durability, readers=CLIENTS, cache_mb=1, key=self._key)
        with Store.open(self._file, options, create=True) as store:
            self._is_created = True
            stopping = threading.Event()
            janitor = threading.Thread(target=self._look_after, args=(store, stopping))
            workers = [
                threading.Thread(target=self._work, args=(store, client, journal))
                for client, journal in zip(self._clients, self._journals, strict=True)
            ]
            for thread in (janitor, *workers):
                thread.start()
            for thread in workers:
                thread.join()
            stopping.set()
            janitor.join()

    def _work(self, store: Store, client: Client, journal: Journal) -> None:
        try:
            for _ in range(STEPS_BETWEEN_REOPENINGS):
                if len(self.cuts) >= self._cuts_wanted:
                    return
                step = client.next_step()
                journal.states.append(step.after)
                journal.submitted_at.append(next(self._clock))
                step.run(store)
                journal.acknowledged_at.append(next(self._clock))
                client.done(step)
        except BaseException as error:  # noqa: BLE001  # told by `go`
            self._failures.append(error)

    def _look_after(self, store: Store, stopping: threading.Event) -> None:
        try:
            while not stopping.wait(0.005):
                with suppress(StoreBusy):
                    store.checkpoint()
                collect_garbage(store, grace_s=0, upload_expiry_s=60, is_cancelled=stopping.is_set)
        except BaseException as error:  # noqa: BLE001  # told by `go`
            self._failures.append(error)

    def _maybe_cut(self, operation: Operation) -> None:
        """Called with the disk's lock held: nothing is written or synced meanwhile."""
        self._until_next_cut -= 1 if operation.kind == "write" else RARE_WEIGHT
        if self._until_next_cut > 0 or len(self.cuts) >= self._cuts_wanted:
            return
        between = OPERATIONS_BETWEEN_CUTS if self._is_created else OPERATIONS_BETWEEN_CUTS / 5
        self._until_next_cut = round(self._rng.expovariate(1 / between))
        is_created = self._is_created
        acknowledged = tuple(len(each.acknowledged_at) for each in self._journals)
        left = self._disk.cut(self._rng)
        started = tuple(len(each.submitted_at) for each in self._journals)
        moment = f"{operation.kind} {PART.sub('part', operation.file)}"
        self.cuts.append(Cut(left, moment, is_created, started, acknowledged))

    # --- after the cut -------------------------------------------------------------------------------------------

    def outcome(self, cut: Cut, folder: Path) -> Outcome:
        """Open what is left in the empty `folder`, check it, and compare it with what clients were told."""
        restore(cut.left, folder)
        try:
            with Store.open(folder / STORE, StoreOptions(readers=1, cache_mb=4, key=self._key)) as store:
                if violations := check(store, deep=True):
                    return Outcome(0, f"check: {violations[0].message}")
                found = tree_of(store)
        except (NotAStore, NotFound) as error:
            return Outcome(0, f"does not open: {error}" if cut.is_created else "")
        except StoreError as error:
            return Outcome(0, f"does not open: {type(error).__name__}: {error}")
        return self._compare(cut, found)

    def _compare(self, cut: Cut, found: Tree) -> Outcome:
        there: list[list[int]] = []  # of each client: after how many commands its collection looks like this
        for client, journal, started in zip(self._clients, self._journals, cut.started, strict=True):
            own = {path: entry for path, entry in found.items() if (path + "/").startswith(client.home + "/")}
            there.append([number for number in range(started + 1) if journal.states[number] == own])
            if not there[-1]:
                return Outcome(0, f"{client.home} is in a state it never had")
        lost = sum(max(0, told - fits[-1]) for told, fits in zip(cut.acknowledged, there, strict=True))
        return Outcome(lost, self._hole(there))

    def _hole(self, there: Sequence[Sequence[int]]) -> str:
        """A command that was acknowledged before another one was submitted must be there if the other one is."""
        newest = -1
        for journal, fits in zip(self._journals, there, strict=True):
            if fits[0]:
                newest = max(newest, journal.submitted_at[fits[0] - 1])
        for client, journal, fits in zip(self._clients, self._journals, there, strict=True):
            told_before = sum(tick < newest for tick in journal.acknowledged_at)
            if fits[-1] < told_before:
                return f"{client.home}: {told_before - fits[-1]} commands are missing that are older than others there"
        return ""


class Summary(NamedTuple):
    """The figures of many cuts."""

    cuts: int = 0
    cuts_with_loss: int = 0
    lost: int = 0
    troubles: tuple[str, ...] = ()  # one each
    moments: Counter[str] = Counter()  # noqa: RUF012  # a tuple: never changed; what the disk was about to do

    def __add__(self, other: object) -> Summary:
        assert isinstance(other, Summary)
        return Summary(
            self.cuts + other.cuts,
            self.cuts_with_loss + other.cuts_with_loss,
            self.lost + other.lost,
            self.troubles + other.troubles,
            self.moments + other.moments,
        )


def cut_many(mode: Mode, cuts: int, seed: int, *, is_encrypted: bool = False) -> Summary:
    """One run; its figures. Folders lie in memory where that is possible: only the simulated disk is to be slow."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        folder = Path(name)
        run = Run(folder, mode, seed, cuts, is_encrypted=is_encrypted)
        run.go()
        outcomes = []
        for cut in run.cuts:
            with tempfile.TemporaryDirectory(dir=folder) as place:
                outcomes.append(run.outcome(cut, Path(place)))
    lost = [outcome.lost for outcome in outcomes]
    troubles = tuple(f"{mode} seed {seed}: {outcome.trouble}" for outcome in outcomes if outcome.trouble)
    moments = Counter(cut.moment for cut in run.cuts)
    return Summary(len(outcomes), sum(map(bool, lost)), sum(lost), troubles, moments)


def is_as_promised(mode: Mode, summary: Summary) -> bool:
    match mode:
        case "full":
            return not summary.lost and not summary.troubles
        case "normal":
            return not summary.troubles
        case "off":  # the control
            return bool(summary.lost and summary.troubles)


@click.command("power-cuts")
@click.option("--cuts", default=3000, show_default=True, help="Power cuts of each mode.")
@click.option("--mode", "modes", type=click.Choice(MODES), multiple=True, default=MODES, show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--jobs", default=os.cpu_count() or 1, show_default=True, help="Processes.")
@click.option("--encrypted", "is_encrypted", is_flag=True, help="Of an encrypted store.")
def command(cuts: int, modes: Sequence[Mode], seed: int, jobs: int, *, is_encrypted: bool) -> bool:
    """Cut the power of a simulated disk again and again while clients write, at each durability.

    `full` must lose nothing; `normal` may lose the last commits and nothing in between; `off` is none of davsql's: it
    must lose and corrupt, or the disk is not simulated well.
    """
    is_good = True
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        for mode in modes:
            began = time.monotonic()
            runs = range(seed, seed + -(-cuts // CUTS_OF_A_RUN))
            sizes = [min(CUTS_OF_A_RUN, cuts - CUTS_OF_A_RUN * number) for number in range(len(runs))]
            cut = partial(cut_many, is_encrypted=is_encrypted)
            summary = sum(pool.map(cut, [mode] * len(runs), sizes, runs), Summary())
            is_kept = is_as_promised(mode, summary)
            is_good &= is_kept
            click.echo(
                f"{mode:6}  {summary.cuts} cuts in {time.monotonic() - began:.0f} s: {summary.cuts_with_loss} lost "
                f"acknowledged commands ({summary.lost} in all), {len(summary.troubles)} corrupt or not a prefix: "
                f"{'as promised' if is_kept else 'NOT AS PROMISED'}"
            )
            click.echo("        before " + ", ".join(f"{what} {n}" for what, n in sorted(summary.moments.items())))
            for trouble in summary.troubles[: 3 if mode == "off" else 20]:
                click.echo(f"        {trouble}")
    return is_good

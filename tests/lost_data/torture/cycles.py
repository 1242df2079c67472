"""The loop: start, let clients write, kill at a random moment, start again, look whether anything is lost."""

from __future__ import annotations

import shutil
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from threading import Event, Thread

from davsql.store.check import check
from davsql.store.options import StoreOptions
from davsql.store.store import Store
from tests.http_client import Client
from tests.lost_data.torture.content import Bodies
from tests.lost_data.torture.history import History
from tests.lost_data.torture.large import LargeTree
from tests.lost_data.torture.operators import Operators
from tests.lost_data.torture.process import ServerProcess
from tests.lost_data.torture.steps import SHARED
from tests.lost_data.torture.verification import look, verify
from tests.lost_data.torture.worker import Report, Worker

WORK_S = (0.05, 0.7)  # of clients, before the kill
EARLY_KILLS = 0.1  # of all: while the server starts and recovers
EARLY_S = 0.6
LASTING = 0.3  # of all kills: `davsql maintain` and `davsql backup` outlive the server
CLIENT_TIMEOUT_S = 60.0
TELL_EVERY = 50  # cycles


@dataclass(frozen=True, slots=True)
class Options:
    """What is to be done."""

    kills: int = 100
    clients: int = 6
    seed: int = 0
    durability: str = "full"
    processes: int = 1  # of the server
    terms: int = 10  # cycles that end with SIGTERM, beside those that end with a kill
    check_every: int = 10  # cycles; 0: only at the end
    large: int = 4500  # resources of a tree that is copied as a whole; 0: none
    is_encrypted: bool = False


@dataclass(slots=True)
class Result:
    """What has come of it."""

    report: Report = field(default_factory=Report)
    kills: int = 0
    early_kills: int = 0
    terms: int = 0
    checks: int = 0
    starts_s: list[float] = field(default_factory=list)
    seconds: float = 0.0
    operators: Counter[str] = field(default_factory=Counter)

    @property
    def faults(self) -> list[str]:
        return self.report.faults

    def summary(self, options: Options) -> str:
        """One line."""
        report, starts = self.report, sorted(self.starts_s)
        return (
            f"torture: seed {options.seed}, durability {options.durability}, "
            f"{'encrypted, ' if options.is_encrypted else ''}{options.processes} workers, {options.clients} clients, "
            f"{self.seconds:.0f} s: {self.kills} kills, {self.early_kills} more while starting, {self.terms} SIGTERM; "
            f"{report.acknowledged} writes acknowledged, {report.refused} refused, {report.cut} cut "
            f"({report.cut_applied} of them had happened), {report.reads} reads; first answer after "
            f"{statistics.median(starts):.2f} s (median), {starts[-1]:.2f} s (longest); beside the server: "
            f"{', '.join(f'{work} {number}' for work, number in self.operators.most_common())}; "
            f"{self.checks} deep checks; {len(self.faults)} faults"
        )


class Torture:
    """One run over one store in one folder."""

    def __init__(self, folder: Path, options: Options) -> None:
        self.result = Result()
        self._options = options
        self._random = Random(options.seed)  # noqa: S311
        self._server = ServerProcess(folder, options.durability, options.processes, is_encrypted=options.is_encrypted)
        random = Random(f"{options.seed} operators")  # noqa: S311
        self._operators = Operators(folder, self._server.configuration, random, self.result.report.fault)
        self.result.operators = self._operators.done
        self._bodies = Bodies()
        self._history = History()
        self._history.start_again(dict.fromkeys(SHARED))
        self._workers = [
            Worker(number, Random(f"{options.seed} {number}"), self._bodies, self._history, self.result.report)  # noqa: S311
            for number in range(options.clients)
        ]
        self._large: LargeTree | None = None
        if options.large:
            self._large = LargeTree(options.large, Random(f"{options.seed} large"), self.result.report)  # noqa: S311

    def run(self, tell: Callable[[str], object]) -> Result:
        """Run all cycles, or up to the first fault; `tell` gets a line now and then."""
        began = time.monotonic()
        try:
            self._start()
            self._prepare()
            is_by_term = [False] * self._options.kills + [True] * self._options.terms
            self._random.shuffle(is_by_term)
            for number, each in enumerate(is_by_term, 1):
                self._cycle(number, is_by_term=each)
                self.result.seconds = time.monotonic() - began
                if self.result.faults:
                    break
                if number % TELL_EVERY == 0:
                    tell(self.result.summary(self._options))
            else:
                self._end()
        finally:
            self._operators.kill()
            self._server.kill()
            self.result.seconds = time.monotonic() - began
        return self.result

    def _start(self) -> None:
        self._server.start()
        self.result.starts_s.append(self._server.wait_until_it_answers())

    def _prepare(self) -> None:
        with Client(self._server.address) as client:
            for worker in self._workers:
                worker.make_folder(client)
            if self._large is not None:
                self._large.make(client)

    def _cycle(self, number: int, *, is_by_term: bool) -> None:
        """From a server that runs to the next one, with all that it has verified."""
        self._work(is_by_term=is_by_term)
        if self._options.check_every and number % self._options.check_every == 0:
            self._check_copy()
        while self._random.random() < EARLY_KILLS:
            self._server.start()
            time.sleep(self._random.uniform(0, EARLY_S))
            self._server.kill()
            self.result.early_kills += 1
        self._operators.start()
        self._start()
        self._verify()

    def _verify(self) -> None:
        folders = [worker.folder for worker in self._workers]
        known = set() if self._large is None else self._large.names
        found = look(self._server.address, folders, self._bodies, ignored=known)
        verify(found, self._workers, self._history, self.result.report)
        if self._large is not None:
            self._large.verify(self._server.address)

    def _work(self, *, is_by_term: bool) -> None:
        is_ending = Event()
        clients: list[Worker | LargeTree] = [*self._workers]
        if self._large is not None:
            clients.append(self._large)
        threads = [
            Thread(target=client.run, args=(self._server.address, is_ending), name=client.name) for client in clients
        ]
        for thread in threads:
            thread.start()
        time.sleep(self._random.uniform(*WORK_S))
        if not self._server.is_running:
            self.result.report.fault("the server has ended by itself")
        is_ending.set()
        if is_by_term:
            self._terminate()
        else:
            self._kill()
        for thread in threads:
            thread.join(CLIENT_TIMEOUT_S)
            if thread.is_alive():
                self.result.report.fault(f"{thread.name} waits for an answer of a server that is gone")

    def _kill(self) -> None:
        self.result.kills += 1
        if self._random.random() < LASTING:
            self._server.kill()
            return
        together = [self._server.kill, self._operators.kill]
        self._random.shuffle(together)
        for kill in together:
            kill()

    def _terminate(self) -> None:
        self.result.terms += 1
        self._operators.kill()
        code, left = self._server.terminate(), self._server.leftovers()
        if code or left:
            self.result.report.fault(f"after SIGTERM: exit code {code}, files {left}")

    def _check_copy(self) -> None:
        """Check a copy of the files as the kill left them, so that the server recovers by itself afterwards."""
        self._operators.kill()
        store = self._server.store
        folder = store.parent / "copy"
        folder.mkdir()
        for suffix in ("", "-wal"):
            file = store.with_name(store.name + suffix)
            if file.exists():
                shutil.copyfile(file, folder / file.name)
        self._check(folder / store.name)
        shutil.rmtree(folder)
        if self._operators.backup.exists():
            self._check(self._operators.backup)

    def _check(self, file: Path) -> None:
        self.result.checks += 1
        with Store.open(file, StoreOptions(key=self._server.key)) as store:
            for violation in check(store, deep=True):
                self.result.report.fault(f"invariant {violation.rule}: {violation.message}")

    def _end(self) -> None:
        self._terminate()
        self._check(self._server.store)

"""What the worker processes and the keeper say together, for /health and /metrics.

Nothing is shared in memory: the keeper asks each worker when somebody asks it, and adds the numbers up.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from multiprocessing.connection import Connection
from typing import Any

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from davsql.maintenance.health import Complaint, Health, ServerHealth, Status, together
from davsql.metrics import HIGHEST, LOWEST
from davsql.server.admin import OneProcess

HEALTH, METRICS = "health", "metrics"  # what a worker is asked
ANSWER_TIMEOUT_S = 3.0  # a look at a store may wait a second for a reader
COUNTED = ("counter", "histogram")

Families = dict[str, Metric]

_log = logging.getLogger(__name__)


def answer_for(process: OneProcess, question: str) -> object:
    """What a worker answers: ServerHealth, or a list of metrics."""
    return process.health() if question == HEALTH else list(process.collect())


class Team(Collector):
    """All processes of a server, seen from the keeper. Threads: any."""

    def __init__(self, keeper: OneProcess, workers: int) -> None:
        self._keeper = keeper
        self._workers = workers
        self._lock = threading.Lock()  # one question at a time
        self._connections: dict[int, Connection] = {}
        self._overdue: set[int] = set()  # who owes an answer to an earlier question
        self._last: dict[int, list[Metric]] = {}  # what each worker counted when it was last asked
        self._gone: Families = {}  # what those counted that are gone: a sum must not become less

    def meet(self, pid: int, connection: Connection) -> None:
        """A worker that can be asked."""
        with self._lock:
            self._connections[pid] = connection

    def health(self) -> ServerHealth:
        """Look at every store in every process."""
        answers: dict[int, ServerHealth] = self._ask(HEALTH)
        looks = [self._keeper.health(), *answers.values()]
        missing = self._workers - len(answers)
        complaints: tuple[Complaint, ...] = ()
        if missing > 0:
            status = Status.DEGRADED if answers else Status.UNHEALTHY
            complaints = (Complaint(status, f"{missing} of {self._workers} workers do not answer"),)
        shares: dict[str, Health] = {}
        for share in looks[0].shares:
            of_share = together([each.shares[share] for each in looks if share in each.shares])
            shares[share] = of_share._replace(complaints=complaints + of_share.complaints)
        return ServerHealth(any(each.is_serving for each in answers.values()), shares)

    def collect(self) -> Iterable[Metric]:
        """The metrics of all processes, added up."""
        answers: dict[int, list[Metric]] = self._ask(METRICS)
        total: Families = {}
        with self._lock:
            for pid in self._last.keys() - self._connections.keys():
                _add(self._gone, (each for each in self._last.pop(pid) if each.type in COUNTED))
            self._last.update(answers)
            for pid, last in self._last.items():
                _add(total, (each for each in last if pid in answers or each.type in COUNTED))
            _add(total, self._keeper.collect())
            _add(total, self._gone.values())
        return total.values()

    def _ask(self, question: str) -> dict[int, Any]:
        """Ask all workers at once; what those say that answer in time."""
        answers: dict[int, Any] = {}
        with self._lock:
            deadline = time.monotonic() + ANSWER_TIMEOUT_S
            asked = [pid for pid in list(self._connections) if self._put(pid, question)]
            for pid in asked:
                self._take(pid, deadline, answers)
        return answers

    def _put(self, pid: int, question: str) -> bool:
        """Ask one worker; False when it is gone, or still owes an answer, which nobody waits for any more."""
        connection = self._connections[pid]
        try:
            if pid in self._overdue:
                if not connection.poll():
                    return False
                connection.recv()
            self._overdue.discard(pid)
            connection.send(question)
        except (EOFError, OSError):
            self._forget(pid)
            return False
        return True

    def _take(self, pid: int, deadline: float, answers: dict[int, Any]) -> None:
        connection = self._connections[pid]
        try:
            if connection.poll(max(0.0, deadline - time.monotonic())):
                answers[pid] = connection.recv()
            else:
                _log.warning("the worker with pid %d does not answer", pid)
                self._overdue.add(pid)
        except (EOFError, OSError):
            self._forget(pid)

    def _forget(self, pid: int) -> None:
        self._connections.pop(pid).close()
        self._overdue.discard(pid)


def _add(total: Families, families: Iterable[Metric]) -> None:
    """Add samples of the same name and labels; gauges of which a sum means nothing give their highest or lowest."""
    for family in families:
        sums = total.setdefault(family.name, Metric(family.name, family.documentation, family.type, family.unit))
        places = {(each.name, *sorted(each.labels.items())): at for at, each in enumerate(sums.samples)}
        for sample in family.samples:
            at = places.get((sample.name, *sorted(sample.labels.items())))
            if at is None:
                sums.samples.append(sample)
            else:
                value = _merged(family, sums.samples[at].value, sample.value)
                sums.samples[at] = sums.samples[at]._replace(value=value)


def _merged(family: Metric, left: float, right: float) -> float:
    if family.type == "info" or family.name in HIGHEST:
        return max(left, right)
    return min(left, right) if family.name in LOWEST else left + right

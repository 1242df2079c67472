"""Plain counters: changed by whoever does the work, read by whoever asks (metrics, stats, health).

Rule 1: counting takes no lock. A counter has one thread at a time that changes it: the writer's are changed by who
        writes, and of those that many threads keep each thread has its own (`PerThread`).
Rule 2: counters only grow. What is in use is the difference of two; who reads between them may see it one off.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from threading import get_ident
from typing import Any, Generic, NamedTuple, TypeVar

Tally = TypeVar("Tally")

_MS = 1_000_000
# Upper bounds of the buckets, in nanoseconds: 0.1 ms to 30 s.
TIME_BOUNDS_NS = tuple(
    int(ms * _MS) for ms in (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000)
)
BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Histogram:
    """How many values lie below each bound, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[int, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)  # the last: above all bounds
        self.total = 0

    def add(self, value: int) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def merge(self, other: Histogram) -> None:
        """Add what another one of the same bounds has counted."""
        self.counts = [mine + others for mine, others in zip(self.counts, other.counts, strict=True)]
        self.total += other.total


class PerThread(Generic[Tally]):
    """One tally for each thread that ever counted.

    The system gives the number of a thread that ended to a new one, which then goes on with the old tally: nothing is
    lost, and there are no more tallies than there were threads at one time.
    """

    __slots__ = ("_make", "_tallies")

    def __init__(self, make: Callable[[], Tally]) -> None:
        self._make = make
        self._tallies: dict[int, Tally] = {}

    def mine(self) -> Tally:
        """The calling thread's."""
        ident = get_ident()
        tally = self._tallies.get(ident)
        if tally is None:
            tally = self._tallies[ident] = self._make()
        return tally

    def all(self) -> list[Tally]:
        """Those of all threads, to be read only."""
        return list(self._tallies.values())

    def total(self) -> Tally:
        """A new tally: the sum of all."""
        total = self._make()
        for each in self.all():
            for counter in fields(total):  # type: ignore[arg-type]  # tallies are dataclasses
                setattr(total, counter.name, _sum(getattr(total, counter.name), getattr(each, counter.name)))
        return total


def _sum(left: Any, right: Any) -> Any:
    if isinstance(left, Histogram):
        left.merge(right)
        return left
    if isinstance(left, Counter):
        left.update(dict(list(right.items())))  # a copy in one go: its thread may be adding a key
        return left
    return left + right


def _times() -> Histogram:
    return Histogram(TIME_BOUNDS_NS)


class WriteFailure(NamedTuple):
    """Why the last transaction that failed did."""

    kind: str  # the name of the StoreError
    message: str
    at: int  # ns since the epoch


@dataclass(slots=True)
class WriterCounters:
    """Kept by whoever writes, one thread at a time; `refused` under the lock of the queue."""

    commands: int = 0  # taken from the queue
    failed: int = 0  # answered with an error, also with those that a client causes
    refused: int = 0  # found no place in the queue
    errors: Counter[str] = field(default_factory=Counter)  # of SQLite, by the name of the StoreError
    batches: Histogram = field(default_factory=lambda: Histogram(BATCH_BOUNDS))  # commands in each commit
    wait_ns: Histogram = field(default_factory=_times)  # of each command, from its coming to its batch's beginning
    hold_ns: Histogram = field(default_factory=_times)  # of each transaction, from BEGIN to after COMMIT
    hold_ns_max: int = 0
    began_ns: int = 0  # of the batch at work, monotonic; 0 while the writer waits for commands
    failure: WriteFailure | None = None  # the last one
    is_failing: bool = False  # nothing was written since

    def take(self, queued_ns: Iterable[int]) -> None:
        """Note the beginning of a batch whose commands came at these times."""
        self.began_ns = now = time.monotonic_ns()
        add = self.wait_ns.add
        for each in queued_ns:
            self.commands += 1
            add(now - each)

    def hold(self, began_ns: int) -> None:
        """Note the end of a transaction."""
        held_ns = time.monotonic_ns() - began_ns
        self.hold_ns.add(held_ns)
        self.hold_ns_max = max(self.hold_ns_max, held_ns)

    def fail(self, error: Exception) -> None:
        """Note an error that is SQLite's or the disk's, not the command's."""
        kind = type(error).__name__
        self.errors[kind] += 1
        self.failure = WriteFailure(kind, str(error), time.time_ns())
        self.is_failing = True


@dataclass(slots=True)
class ReaderTally:
    """Borrowing of readers."""

    taken: int = 0
    returned: int = 0
    waits: int = 0  # none was free at once
    exhausted: int = 0  # nor in time
    wait_ns: int = 0


@dataclass(slots=True)
class UploadTally:
    """Uploads to one store."""

    begun: int = 0
    ended: int = 0
    stored: int = 0
    stored_bytes: int = 0


@dataclass(slots=True)
class HttpTally:
    """Requests that reached the application, and those that the server refused itself."""

    begun: int = 0
    ended: int = 0
    cut: int = 0  # answers that were broken off
    received_bytes: int = 0
    sent_bytes: int = 0
    requests: Counter[tuple[str, str]] = field(default_factory=Counter)  # by method and status, "" without an answer
    request_ns: Histogram = field(default_factory=_times)  # from the end of the head to the end of the answer

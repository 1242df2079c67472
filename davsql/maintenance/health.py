"""Whether a store that is being served can do its work: healthy, degraded or unhealthy, and why.

Nothing here is expensive: a full integrity check has its schedule, its last result and age are told.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from davsql.counters import WriteFailure
from davsql.errors import StoreBusy, StoreError
from davsql.store.records import INTEGRITY_CHECK, QUICK_CHECK, SCRUB, TaskRecord, task_records
from davsql.store.store import Store
from davsql.store.vitals import Vitals

if TYPE_CHECKING:
    from davsql.maintenance.replica_progress import ReplicaStatus

WAL_BYTES_DEGRADED = 100 * 1024 * 1024
# With a replica it starts over when one of Litestream's PASSIVE checkpoints, twice a second, meets no writer for a
# moment: under load that is above 100 MiB at times.
LEFT_WAL_BYTES_DEGRADED = 512 * 1024 * 1024
QUEUE_DEPTH_DEGRADED = 1000
WRITING_S_DEGRADED = 10.0
DISK_FREE_DEGRADED = 100 * 1024 * 1024
DISK_FREE_UNHEALTHY = 1024 * 1024
READER_WAIT_S = 1.0
REPLICA_LAG_S_DEGRADED = 300.0
TRY_AGAIN_NS = 2_000_000_000  # between two attempts to write where nobody else writes
FAILURE_KEPT_NS = 60_000_000_000  # for so long a failure is told of after writing has gone on
INTEGRITY_TASKS = (INTEGRITY_CHECK, QUICK_CHECK)


class Status(IntEnum):
    """From good to bad."""

    HEALTHY = 0
    DEGRADED = 1
    UNHEALTHY = 2

    def __str__(self) -> str:
        return self.name.lower()


class Complaint(NamedTuple):
    """One thing that is not as it should be."""

    status: Status
    message: str


@dataclass(frozen=True, slots=True)
class Watched:
    """What this process serves, by mount path."""

    shares: Mapping[str, Store]
    replicas: Mapping[str, Callable[[], ReplicaStatus]] = field(default_factory=dict)  # of the shares that have one

    def replica_status(self, share: str) -> ReplicaStatus | None:
        """How far the replica of a share is; None when it has none."""
        status = self.replicas.get(share)
        return None if status is None else status()

    def health(self) -> dict[str, Health]:
        """Look at every share."""
        return {share: look_at(store, self.replica_status(share)) for share, store in self.shares.items()}


class Health(NamedTuple):
    """How one store is doing."""

    complaints: tuple[Complaint, ...]
    vitals: Vitals
    tasks: Mapping[str, TaskRecord]  # empty when they could not be read
    replica: ReplicaStatus | None

    @property
    def status(self) -> Status:
        """The worst of the complaints."""
        return max((each.status for each in self.complaints), default=Status.HEALTHY)

    def as_json(self) -> dict[str, Any]:
        """For the health endpoint."""
        vitals = self.vitals
        return {
            "status": str(self.status),
            "complaints": [{"status": str(each.status), "message": each.message} for each in self.complaints],
            "writer_alive": vitals.is_writer_alive,
            "queue_depth": vitals.queue_depth,
            "queue_size": vitals.queue_size,
            "readers_in_use": vitals.readers_in_use,
            "readers": vitals.readers,
            "wal_bytes": vitals.wal_bytes,
            **{name: self._last(name) for name in (*INTEGRITY_TASKS, SCRUB)},
            "replica": None if self.replica is None else asdict(self.replica),
        }

    def _last(self, task: str) -> dict[str, Any] | None:
        record = self.tasks.get(task)
        if record is None:
            return None
        return {"outcome": record.outcome or "unfinished", "age_s": record.age_s(), "detail": record.detail}


class ServerHealth(NamedTuple):
    """How a server and all its stores are doing."""

    is_serving: bool
    shares: Mapping[str, Health]

    @property
    def status(self) -> Status:
        """The worst of all."""
        worst = max((each.status for each in self.shares.values()), default=Status.HEALTHY)
        return worst if self.is_serving else Status.UNHEALTHY


def together(looks: Sequence[Health]) -> Health:
    """What several processes say of one store that they all serve; at least one does."""
    vitals = [each.vitals for each in looks]
    return Health(
        tuple(dict.fromkeys(complaint for each in looks for complaint in each.complaints)),
        vitals[0]._replace(
            is_writer_alive=all(each.is_writer_alive for each in vitals),
            queue_depth=sum(each.queue_depth for each in vitals),
            queue_size=sum(each.queue_size for each in vitals),
            readers=sum(each.readers for each in vitals),
            readers_in_use=sum(each.readers_in_use for each in vitals),
            wal_bytes=max(each.wal_bytes for each in vitals),
        ),
        next((each.tasks for each in looks if each.tasks), {}),
        next((each.replica for each in looks if each.replica is not None), None),
    )


def look_at(store: Store, replica: ReplicaStatus | None = None) -> Health:
    """Look at a store that this process serves."""
    vitals = store.vitals()
    complaints = [*_writer_complaints(store, vitals), *_pressure_complaints(store, vitals), *_disk_complaints(store)]
    tasks: Mapping[str, TaskRecord] = {}
    try:
        with store.read(READER_WAIT_S) as tx:
            tasks = task_records(tx)
    except StoreError as error:
        complaints.append(Complaint(Status.UNHEALTHY, f"nothing can be read: {error}"))
    complaints += _task_complaints(tasks)
    if replica is not None:
        complaints += _replica_complaints(replica)
    return Health(tuple(complaints), vitals, tasks, replica)


def _writer_complaints(store: Store, vitals: Vitals) -> Iterator[Complaint]:
    if not vitals.is_writer_alive:
        yield Complaint(Status.UNHEALTHY, "the writer has stopped; restart davsql")
    elif vitals.failure is not None:
        yield from _failure_complaints(store, vitals, vitals.failure)
    if vitals.is_writer_alive and vitals.writing_s > WRITING_S_DEGRADED:
        yield Complaint(Status.DEGRADED, f"the writer has been at one transaction for {vitals.writing_s:.0f} s")


def _failure_complaints(store: Store, vitals: Vitals, failure: WriteFailure) -> Iterator[Complaint]:
    age_ns = abs(time.time_ns() - failure.at)
    if vitals.is_failing:
        is_passing = failure.kind == StoreBusy.__name__  # another process has the lock; the disk and the file are well
        status = Status.DEGRADED if is_passing else Status.UNHEALTHY
        yield Complaint(status, f"the last write failed: {failure.message}")
        if not (vitals.writing_s or vitals.queue_depth) and age_ns > TRY_AGAIN_NS:
            with suppress(StoreError):
                store.try_writing()
    elif age_ns < FAILURE_KEPT_NS:  # on a disk that is nearly full small writes find a place, and large ones do not
        yield Complaint(Status.DEGRADED, f"a write failed {age_ns / 1e9:.0f} s ago: {failure.message}")


def _pressure_complaints(store: Store, vitals: Vitals) -> Iterator[Complaint]:
    if vitals.wal_bytes > (LEFT_WAL_BYTES_DEGRADED if store.options.leaves_checkpoints else WAL_BYTES_DEGRADED):
        size = f"{vitals.wal_bytes >> 20} MiB"
        yield Complaint(Status.DEGRADED, f"the WAL has grown to {size}: a long read holds it, or checkpoints fail")
    if vitals.queue_depth >= min(QUEUE_DEPTH_DEGRADED, vitals.queue_size):
        yield Complaint(Status.DEGRADED, f"{vitals.queue_depth} commands wait for the writer")
    if vitals.readers_in_use >= vitals.readers:
        yield Complaint(Status.DEGRADED, f"all {vitals.readers} readers are in use")


def _disk_complaints(store: Store) -> Iterator[Complaint]:
    """A small write may find a place where the next larger one does not: the disk itself is asked too."""
    try:
        free = shutil.disk_usage(store.file.parent).free
    except OSError as error:
        yield Complaint(Status.UNHEALTHY, f"the folder of the store cannot be looked at: {error.strerror}")
        return
    if free < DISK_FREE_DEGRADED and not store.options.read_only:
        status = Status.UNHEALTHY if free < DISK_FREE_UNHEALTHY else Status.DEGRADED
        yield Complaint(status, f"{free >> 10:,} KiB are free on the disk of the store")


def _task_complaints(tasks: Mapping[str, TaskRecord]) -> Iterator[Complaint]:
    for name, record in tasks.items():
        if record.outcome == "failed":
            status = Status.UNHEALTHY if name in INTEGRITY_TASKS else Status.DEGRADED
            yield Complaint(status, f"{name} failed: {record.detail}")


def _replica_complaints(replica: ReplicaStatus) -> Iterator[Complaint]:
    if replica.state == "failing":
        yield Complaint(Status.DEGRADED, f"the replica is not kept up: {replica.error}")
    elif replica.lag_s is not None and replica.lag_s > REPLICA_LAG_S_DEGRADED:
        yield Complaint(Status.DEGRADED, f"the replica is {replica.lag_s:.0f} s behind")

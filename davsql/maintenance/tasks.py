"""What the maintenance thread does besides garbage collection and checkpoints: tasks with a memory.

The last run of each is kept in the store (store/records.py), so that a restart neither forgets nor repeats it. Each
works in short steps and asks between them whether it is to stop.
"""

from __future__ import annotations

import json
import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from davsql.errors import StoreDamaged, StoreError, StoreUnavailable
from davsql.model import ChunkId
from davsql.store import integrity, presence, space
from davsql.store.records import (
    INTEGRITY_CHECK,
    QUICK_CHECK,
    SCRUB,
    TaskRecord,
    end_failures,
    finish_task,
    note_progress,
    start_task,
    task_records,
)
from davsql.store.rehash import paths_of_chunk, rehash_chunks
from davsql.store.store import Store
from davsql.store.trees import NEXT_INODE

NS_PER_S = 1_000_000_000
DAY_S = 24 * 3600
SCRUB_BATCH_CHUNKS = 16
SCRUB_NOTE_EVERY_S = 10.0
VACUUM_STEP_PAGES = 256
VACUUM_STEP_S = 0.03  # of the writer; after a longer step the next one is half as large
VACUUM_PAUSE = 19  # times as long as a step took, before the next one: a twentieth of a processor at most
VACUUM_FREE_SHARE = 0.25  # a full VACUUM is worth it above this

OPTIMIZE_FROM_INODES = 10_000  # ever made

IsCancelled = Callable[[], bool]
_log = logging.getLogger(__name__)


class Task(ABC):
    """One kind of work."""

    name: str
    slice_s = math.inf  # of a task that goes on where it stopped: how long it may keep the others waiting at a time

    @abstractmethod
    def is_due(self, store: Store, last: TaskRecord | None) -> bool:
        """Whether to run now; `last` is the last run, also one that was interrupted."""

    @abstractmethod
    def run(self, store: Store, is_cancelled: IsCancelled) -> str:
        """Do the work and say in a few words what came of it.

        Raises:
            StoreError: it failed, or found something.
        """


def is_older(last: TaskRecord | None, age_s: float) -> bool:
    """True when a task never ran, was interrupted, or began longer ago than `age_s` or in the future (clocks move)."""
    if last is None or last.finished_at is None:
        return True
    return not 0 <= time.time_ns() - last.started_at < age_s * NS_PER_S


def is_check_due(last: TaskRecord | None, interval_s: float) -> bool:
    """Whether to look for damage again; after some was found every day, as it may have been repaired."""
    has_failed = last is not None and last.outcome == "failed"
    return is_older(last, min(interval_s, DAY_S) if has_failed else interval_s)


def run_task(task: Task, store: Store, is_cancelled: IsCancelled) -> str:
    """Run a task and keep in the store how it ended; one that was cancelled counts as interrupted.

    Raises:
        StoreError: as the task.
    """
    with store.read() as tx:
        last = task_records(tx).get(task.name)
    kept = last.detail if last is not None and last.finished_at is None else ""  # where it is to go on
    store.write(lambda tx: start_task(tx, task.name, kept))
    try:
        detail = task.run(store, is_cancelled)
    except StoreError as error:
        if not is_cancelled():
            message = str(error)
            store.write(lambda tx: finish_task(tx, task.name, "failed", message))
        raise
    store.write(lambda tx: finish_task(tx, task.name, "ok", detail))
    return detail


class Optimize(Task):
    """PRAGMA optimize: statistics for the query planner, daily.

    Not for small stores: statistics of a few rows would make the planner read whole tables, also when they have grown.
    """

    name = "optimize"

    def is_due(self, store: Store, last: TaskRecord | None) -> bool:
        return is_older(last, DAY_S) and _inodes_made(store) >= OPTIMIZE_FROM_INODES

    def run(self, store: Store, is_cancelled: IsCancelled) -> str:
        del is_cancelled
        if _inodes_made(store) < OPTIMIZE_FROM_INODES:
            return "nothing to do for so small a store"
        store.write(lambda tx: tx.rows("PRAGMA optimize(0x10002)"))
        return ""


def _inodes_made(store: Store) -> int:
    with store.read() as tx:
        return int(tx.value(NEXT_INODE)) - 1


@dataclass(frozen=True)
class IncrementalVacuum(Task):
    """Give free pages back when more than `keep_bytes` of them lie in the file; some are kept for what comes next."""

    keep_bytes: int
    pause: float = VACUUM_PAUSE
    name = "incremental_vacuum"
    slice_s = 60.0

    def is_due(self, store: Store, last: TaskRecord | None) -> bool:
        del last
        with store.read() as tx:
            found = space.pages(tx)
        return found.free_bytes > self.keep_bytes + self.keep_bytes // 4

    def run(self, store: Store, is_cancelled: IsCancelled) -> str:
        with store.read() as tx:
            found = space.pages(tx)
        keep_pages = self.keep_bytes // found.page_size
        left, most = found.free_count, VACUUM_STEP_PAGES
        while left > keep_pages and not is_cancelled():
            step, started = min(most, left - keep_pages), time.monotonic()
            left = store.write(lambda tx, step=step: space.free_pages(tx, step))  # type: ignore[misc]
            # For each page that it moves SQLite looks through the list of free ones: with gigabytes of them a page can
            # take a millisecond, and all of them minutes. There is no hurry.
            took_s = time.monotonic() - started
            if took_s > VACUUM_STEP_S:
                most = max(1, most // 2)
            elif took_s < VACUUM_STEP_S / 4:
                most = min(2 * most, VACUUM_STEP_PAGES)
            time.sleep(min(self.pause * took_s, 1.0))
        return f"{(found.free_count - left) * found.page_size >> 20} MiB given back"


@dataclass(frozen=True)
class FullVacuum(Task):
    """VACUUM within a window of the day when more than a quarter of the file is free; writers wait meanwhile."""

    window: str  # "HH:MM-HH:MM" of local time, "" for never
    name = "vacuum"

    def is_due(self, store: Store, last: TaskRecord | None) -> bool:
        if not self.window or not is_older(last, DAY_S / 2) or not is_within(self.window, datetime.now().astimezone()):
            return False
        with store.read() as tx:
            return space.pages(tx).free_share > VACUUM_FREE_SHARE

    def run(self, store: Store, is_cancelled: IsCancelled) -> str:
        before = space.vacuum(store, is_cancelled)
        return f"{before.free_bytes >> 20} MiB were free"


class QuickCheck(Task):
    """quick_check after the store was not closed by the process that had it open last."""

    name = QUICK_CHECK

    def __init__(self) -> None:
        self._is_done = False

    def is_due(self, store: Store, last: TaskRecord | None) -> bool:
        del last
        return not (store.was_clean or self._is_done)

    def run(self, store: Store, is_cancelled: IsCancelled) -> str:
        integrity.quick_check(store, is_cancelled)
        self._is_done = True
        if store.was_clean:
            return ""
        store.write(lambda tx: presence.forget(tx, store.unclosed))
        return "after an unclean stop"


@dataclass(frozen=True)
class IntegrityCheck(Task):
    """integrity_check and foreign_key_check."""

    interval_s: float
    name = INTEGRITY_CHECK

    def is_due(self, store: Store, last: TaskRecord | None) -> bool:
        del store
        return is_check_due(last, self.interval_s)

    def run(self, store: Store, is_cancelled: IsCancelled) -> str:
        integrity.integrity_check(store, is_cancelled)
        store.write(lambda tx: end_failures(tx, (QUICK_CHECK,), "an integrity_check found nothing"))
        return ""


@dataclass(frozen=True)
class Scrub(Task):
    """Rehash all chunks, no faster than `bytes_per_s`, from where the last run was interrupted."""

    interval_s: float
    bytes_per_s: float
    name = SCRUB
    slice_s = 60.0

    def is_due(self, store: Store, last: TaskRecord | None) -> bool:
        del store
        return is_check_due(last, self.interval_s)

    def run(self, store: Store, is_cancelled: IsCancelled) -> str:
        position, damaged = self._resume(store)
        started, noted, size_bytes = time.monotonic(), time.monotonic(), 0
        while not is_cancelled():
            with store.read() as tx:
                batch = rehash_chunks(tx, position, SCRUB_BATCH_CHUNKS)
                for chunk_id in batch.damaged:
                    paths = paths_of_chunk(tx, chunk_id)
                    _log.error("%s: chunk %d is damaged; it is part of %s", store.file, chunk_id, paths)
            damaged += batch.damaged
            if batch.last is None:
                return self._finish(store, damaged, size_bytes)
            position, size_bytes = batch.last, size_bytes + batch.size_bytes
            if time.monotonic() - noted > SCRUB_NOTE_EVERY_S:
                noted = time.monotonic()
                self._note(store, position, damaged)
            time.sleep(max(0.0, min(1.0, started + size_bytes / self.bytes_per_s - time.monotonic())))
        self._note(store, position, damaged)
        raise StoreUnavailable("the scrub was interrupted; it goes on where it stopped")

    def _note(self, store: Store, position: ChunkId, damaged: list[ChunkId]) -> None:
        detail = json.dumps({"position": position, "damaged": damaged})
        store.write(lambda tx: note_progress(tx, self.name, detail))

    def _resume(self, store: Store) -> tuple[ChunkId, list[ChunkId]]:
        with store.read() as tx:
            last = task_records(tx).get(self.name)
        if last is not None and last.finished_at is None:
            with suppress(ValueError, KeyError, TypeError):
                state = json.loads(last.detail)
                return ChunkId(int(state["position"])), [ChunkId(int(each)) for each in state["damaged"]]
        return ChunkId(0), []

    def _finish(self, store: Store, damaged: list[ChunkId], size_bytes: int) -> str:
        if damaged:
            raise StoreDamaged(
                f"{store.file}: {len(damaged)} damaged chunks ({', '.join(map(str, damaged[:10]))}): "
                "the log names the files; restore them from a backup, or send them again"
            )
        return f"{size_bytes >> 20} MiB rehashed"


def is_within(window: str, now: datetime) -> bool:
    """Whether a time of day lies in `HH:MM-HH:MM`; a window may span midnight.

    Raises:
        ValueError: it is no such window.
    """
    start, end = (datetime.strptime(part.strip(), "%H:%M").time() for part in window.split("-"))  # noqa: DTZ007
    time_of_day = now.time()
    return start <= time_of_day < end if start <= end else time_of_day >= start or time_of_day < end

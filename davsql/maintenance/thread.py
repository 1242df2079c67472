"""The threads that look after one store until they are stopped, in one of the processes that serve it (sole.py).

The housekeeper does what must never wait long: checkpoints and garbage collection. The other runs the tasks of
tasks.py, one at a time, which may take hours. Both work in short steps and end within one when they are stopped.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from davsql.errors import StoreBusy, StoreError
from davsql.maintenance import tasks
from davsql.maintenance.gc import JOURNAL_DAYS, collect_garbage
from davsql.maintenance.sole import sole_keeper
from davsql.maintenance.tasks import Task, run_task
from davsql.store.records import task_records
from davsql.store.store import Store

QUIET_S = 30.0  # without a commit before the WAL is emptied
POLL_S = 0.25
TASKS_POLL_S = 5.0
MIB = 1024 * 1024

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MaintenanceOptions:
    """When maintenance does what; config.py fills it from the file."""

    gc_interval_s: float = 60.0
    gc_grace_s: float = 300.0  # how long content that nothing refers to is kept for downloads that still read it
    upload_expiry_s: float = 24 * 3600.0  # uploads that got no bytes for so long are given up
    journal_days: float = JOURNAL_DAYS  # how long a client that syncs may be away without beginning again
    keep_free_mb: int = 64  # free pages kept in the file; more are given back to the file system
    vacuum_window: str = ""  # "HH:MM-HH:MM", local time: when a full VACUUM may stop writers; "" for never
    integrity_interval_days: float = 7.0
    scrub_interval_days: float = 7.0
    scrub_mb_per_s: float = 20.0

    def __post_init__(self) -> None:
        """Raise ValueError, with the name of the field first, when the window is none."""
        if self.vacuum_window:
            try:
                tasks.is_within(self.vacuum_window, datetime.now().astimezone())
            except ValueError as error:
                raise ValueError(f'vacuum_window: "HH:MM-HH:MM" is wanted, found {self.vacuum_window!r}') from error

    def make_tasks(self) -> tuple[Task, ...]:
        """The tasks, in the order in which they run when several are due."""
        return (
            tasks.QuickCheck(),
            tasks.IncrementalVacuum(self.keep_free_mb * MIB),
            tasks.Optimize(),
            tasks.FullVacuum(self.vacuum_window),
            tasks.IntegrityCheck(self.integrity_interval_days * tasks.DAY_S),
            tasks.Scrub(self.scrub_interval_days * tasks.DAY_S, self.scrub_mb_per_s * MIB),
        )


class Maintenance:
    """Owns the maintenance threads of one store."""

    def __init__(
        self, store: Store, options: MaintenanceOptions | None = None, more_tasks: Sequence[Task] = ()
    ) -> None:
        self._store = store
        self._options = options or MaintenanceOptions()
        self._tasks = (*self._options.make_tasks(), *more_tasks)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="davsql-housekeeper", daemon=True)

    def start(self) -> None:
        """Begin as soon as no other process does it; nothing is done to a store that is served read-only."""
        if not self._store.options.read_only:
            self._thread.start()

    def stop(self) -> None:
        """End after the steps that are running; harmless when never started."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    # --- the housekeeper -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        tasks_thread = threading.Thread(target=self._run_tasks, name="davsql-tasks", daemon=True)
        try:
            with sole_keeper(self._store.file, self._stopping) as is_sole:
                if is_sole:
                    tasks_thread.start()
                    self._keep_house()
                    tasks_thread.join()
        except OSError as error:
            _log.error("nobody looks after %s: %s cannot be made: %s", self._store.file, error.filename, error.strerror)

    def _keep_house(self) -> None:
        next_gc = time.monotonic()
        seen_bytes, seen_at = 0, time.monotonic()
        while not self._stopping.wait(POLL_S):
            wal_bytes, now = self._store.wal_bytes, time.monotonic()
            if wal_bytes != seen_bytes:
                seen_bytes, seen_at = wal_bytes, now
            elif wal_bytes and now - seen_at > QUIET_S:
                self._attempt("checkpoint", lambda: self._store.checkpoint(truncate=True))
                seen_at = now
            if now >= next_gc:
                next_gc = now + self._options.gc_interval_s
                self._attempt("garbage collection", self._collect)

    def _collect(self) -> None:
        removed = collect_garbage(
            self._store,
            grace_s=self._options.gc_grace_s,
            upload_expiry_s=self._options.upload_expiry_s,
            journal_days=self._options.journal_days,
            is_cancelled=self._stopping.is_set,
        )
        if removed:
            _log.info("garbage collection removed %d rows from %s", removed, self._store.file)

    # --- the tasks -----------------------------------------------------------------------------------------------

    def _run_tasks(self) -> None:
        while not self._stopping.wait(TASKS_POLL_S):
            for task in self._tasks:
                if not self._stopping.is_set():
                    self._attempt(task.name, lambda task=task: self._run_if_due(task))  # type: ignore[misc]

    def _run_if_due(self, task: Task) -> None:
        with self._store.read() as tx:
            last = task_records(tx).get(task.name)
        if not task.is_due(self._store, last):
            return
        deadline = time.monotonic() + task.slice_s

        def is_over() -> bool:
            return self._stopping.is_set() or time.monotonic() >= deadline

        try:
            detail = run_task(task, self._store, is_over)
        except StoreError:
            if not is_over():
                raise
        else:
            _log.info("%s of %s is done%s", task.name, self._store.file, f": {detail}" if detail else "")

    def _attempt(self, what: str, work: Callable[[], object]) -> None:
        """Whatever happens, the thread goes on: the next round tries again."""
        try:
            work()
        except StoreBusy as error:
            _log.info("%s waits: %s", what, error)
        except StoreError as error:
            if not self._stopping.is_set():
                _log.error("%s failed: %s", what, error)
        except Exception:  # noqa: BLE001  # a fault of one round must not end them all
            _log.exception("%s failed", what)

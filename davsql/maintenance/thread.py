"""The thread that looks after one store: garbage collection and checkpoints, in short steps, until it is stopped."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass

from davsql.errors import StoreBusy, StoreError
from davsql.maintenance.gc import collect_garbage
from davsql.store.store import Store

CHECKPOINT_BYTES = 8 * 1024 * 1024  # in the WAL before a checkpoint is worth its fsync
POLL_S = 0.25

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MaintenanceOptions:
    """When maintenance does what; config.py fills it from the file."""

    gc_interval_s: float = 60.0
    gc_grace_s: float = 300.0  # how long content that nothing refers to is kept for downloads that still read it
    upload_expiry_s: float = 24 * 3600.0  # uploads that got no bytes for so long are given up


class Maintenance:
    """Owns the maintenance thread of one store."""

    def __init__(self, store: Store, options: MaintenanceOptions | None = None) -> None:
        self._store = store
        self._options = options or MaintenanceOptions()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="davsql-maintenance", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End after the step that is running; harmless when never started."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        next_gc = time.monotonic()
        seen_bytes = 0
        while not self._stopping.wait(POLL_S):
            try:
                wal_bytes = self._store.wal_bytes
                if wal_bytes >= CHECKPOINT_BYTES and wal_bytes != seen_bytes:
                    self._store.checkpoint()
                    seen_bytes = wal_bytes
                if time.monotonic() >= next_gc:
                    next_gc = time.monotonic() + self._options.gc_interval_s
                    self._collect()
            except StoreBusy as error:
                _log.info("maintenance waits: %s", error)
            except StoreError as error:
                _log.warning("maintenance failed and will try again: %s", error)
            except Exception:
                _log.exception("maintenance failed and will try again")

    def _collect(self) -> None:
        if self._store.options.read_only:
            return
        removed = collect_garbage(
            self._store,
            grace_s=self._options.gc_grace_s,
            upload_expiry_s=self._options.upload_expiry_s,
            is_cancelled=self._stopping.is_set,
        )
        if removed:
            _log.info("garbage collection removed %d rows from %s", removed, self._store.file)

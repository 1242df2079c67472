"""The connection that moves pages from the WAL into the database, beside the writer.

With no busy timeout: PASSIVE never waits, and TRUNCATE gives up at once instead of holding the writer's lock while it
waits for readers, which would give the writer SQLITE_BUSY.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from pathlib import Path

import apsw

from davsql.errors import StoreBusy, StoreError, StoreReadOnly, StoreUnavailable
from davsql.store.connection import Role, open_connection
from davsql.store.options import StoreOptions
from davsql.store.transaction import translated

CHECKPOINT_BYTES = 8 * 1024 * 1024  # in the WAL before a checkpoint is worth its fsync

REMEDY = (
    "What was copied into the file may be missing after a power cut; "
    "once the disk works again, `davsql maintain vacuum` writes all of it anew"
)

_log = logging.getLogger(__name__)


class Checkpointer:
    """Runs one checkpoint at a time. Threads: any."""

    def __init__(self, file: Path, options: StoreOptions) -> None:
        self._file = file
        self._options = options
        self._lock = threading.Lock()
        self._connection: apsw.Connection | None = None
        self.is_closed = False
        self._beside = threading.Lock()  # held while a thread of `run_beside` is at work
        self._page_size = 0
        self._wal_bytes = 0  # at the last look

    @property
    def wal_bytes(self) -> int:
        """What the WAL holds, whoever wrote it; while a checkpoint runs, what it held before. Waits for nothing."""
        if not self._options.read_only and self._lock.acquire(blocking=False):
            try:
                with suppress(StoreError), translated():
                    connection = self._connected()
                    pages, _ = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)  # looks at the WAL-index
                    self._wal_bytes = max(0, pages) * self._page_size
            finally:
                self._lock.release()
        return self._wal_bytes

    def run_beside(self, least_bytes: int) -> None:
        """Begin PASSIVE in a thread of its own, unless one is at it; for the writer, which goes on meanwhile.

        Args:
            least_bytes: nothing is done where less is left to copy, since another process has just done it.
        """
        if self._options.leaves_checkpoints or not self._beside.acquire(blocking=False):
            return
        try:
            threading.Thread(
                target=self._run_once, args=(least_bytes,), name="davsql-checkpointer", daemon=True
            ).start()
        except RuntimeError:  # the system has no more threads: at its limit the WAL is dealt with without one
            self._beside.release()

    def _run_once(self, least_bytes: int) -> None:
        try:
            if self._left_bytes() >= least_bytes:
                self.run()
        except StoreBusy:  # another process is at it
            pass
        except StoreError as error:
            if not self.is_closed:
                _log.warning("checkpoint failed: %s", error)
        finally:
            self._beside.release()

    def _left_bytes(self) -> int:
        """What the WAL holds that is not in the database yet."""
        pages, copied = self._run(apsw.SQLITE_CHECKPOINT_NOOP)
        return (pages - copied) * self._page_size

    def run(self, *, truncate: bool = False) -> tuple[int, int]:
        """Checkpoint as far as no reader needs the WAL; with `truncate` all of it, and empty it.

        Where checkpoints are left to Litestream nothing is done.

        Returns:
            Pages in the WAL, and how many of them are in the database now.

        Raises:
            StoreBusy: `truncate`, and somebody reads or writes.
        """
        if self._options.leaves_checkpoints:
            return self._run(apsw.SQLITE_CHECKPOINT_NOOP)
        return self._run(apsw.SQLITE_CHECKPOINT_TRUNCATE if truncate else apsw.SQLITE_CHECKPOINT_PASSIVE)

    def empty_wal(self) -> None:
        """TRUNCATE whoever makes the checkpoints (store/replication.py, rule 2).

        Raises:
            StoreBusy: somebody reads or writes; always while Litestream runs.
        """
        self._run(apsw.SQLITE_CHECKPOINT_TRUNCATE)

    def _run(self, mode: int) -> tuple[int, int]:
        if self._options.read_only:
            raise StoreReadOnly("this share is read-only")
        with self._lock, translated():
            connection = self._connected()
            try:
                return connection.wal_checkpoint(mode=mode)
            except apsw.IOError:
                # What checkpoints before this one have copied need not be synced yet: SQLite syncs once the whole WAL
                # is copied, and copies no page of it twice. Linux forgets what a sync could not write.
                _log.error("%s: the disk failed during a checkpoint. %s", self._file, REMEDY)
                raise

    def _connected(self) -> apsw.Connection:
        if self.is_closed:
            raise StoreUnavailable("the store is closed")
        if self._connection is None:
            self._connection = open_connection(self._file, Role.WRITER, self._options)
            self._connection.set_busy_timeout(0)
            self._page_size = int(self._connection.pragma("page_size"))
        return self._connection

    def close(self) -> None:
        with self._lock:
            self.is_closed = True
            if self._connection is not None:
                self._connection.close()

"""How long the WAL is after each commit, and what keeps it short.

Threads: who writes, one at a time; `bytes` from any.
"""

from __future__ import annotations

import logging
import time

import apsw

from davsql.counters import WriterCounters
from davsql.errors import StoreBusy, StoreError
from davsql.store.checkpointer import CHECKPOINT_BYTES, Checkpointer
from davsql.store.options import StoreOptions
from davsql.store.room import Room

BYTES_LIMIT = 64 * 1024 * 1024  # above it the writer waits for a checkpoint and lets the WAL start over
LEFT_BYTES_LIMIT = 1024 * 1024 * 1024  # the same where Litestream should have done it and seems not to run
CHECKPOINT_WAIT_S = 0.5  # for the checkpoint of another process, before the WAL grows on

_log = logging.getLogger(__name__)


class Wal:
    """The WAL as the writer's connection sees it."""

    def __init__(
        self,
        connection: apsw.Connection,
        options: StoreOptions,
        checkpointer: Checkpointer,
        room: Room,
        counters: WriterCounters,
    ) -> None:
        self._checkpointer = checkpointer
        self._options = options
        self._room = room
        self._counters = counters
        self._page_size: int = connection.pragma("page_size")
        self._grown_bytes = 0  # written since the last checkpoint beside the writer began
        self._tried_bytes = 0  # what it had when emptying it was last tried in vain
        self.bytes = 0  # in it after the last commit
        self.is_at_limit = False  # after the last commit, until it was tried to have it copied
        connection.set_wal_hook(self._note_commit)

    def _note_commit(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        before, self.bytes = self.bytes, pages * self._page_size
        # A WAL that is not longer than before has started over.
        self._grown_bytes += self.bytes - before if self.bytes > before else self.bytes
        self.is_at_limit = self.bytes > self._room.wal_limit(self.bytes, BYTES_LIMIT)
        self._counters.is_failing = False
        return apsw.SQLITE_OK

    @property
    def is_long(self) -> bool:
        """Whether `keep_short` has something to do."""
        return self._grown_bytes >= CHECKPOINT_BYTES or self.is_at_limit

    def keep_short(self) -> None:
        """Have the WAL copied beside the writer as it grows; at the limit wait for that, so that it can start over.

        At the limit the caller has the turn: nobody writes, so PASSIVE can finish if no reader is behind.
        """
        if self.is_at_limit:
            self._grown_bytes, self.is_at_limit = 0, False
            self._checkpoint()
        elif self._grown_bytes >= CHECKPOINT_BYTES:
            self._grown_bytes = 0
            self._checkpointer.run_beside(CHECKPOINT_BYTES)

    def empty(self) -> None:
        """Copy all of it into the database, and empty it.

        Raises:
            StoreBusy: somebody reads or writes.
        """
        self._checkpointer.empty_wal()
        self.bytes = 0

    def _checkpoint(self) -> None:
        try:
            if self._options.leaves_checkpoints:
                self._empty_what_is_left()
            else:
                self._checkpoint_soon()
        except StoreBusy:
            pass  # another process is at it, or Litestream runs
        except StoreError as error:
            if not self._checkpointer.is_closed:
                _log.warning("checkpoint failed: %s", error)

    def _checkpoint_soon(self) -> None:
        deadline = time.monotonic() + CHECKPOINT_WAIT_S
        while True:
            try:
                self._checkpointer.run()
            except StoreBusy:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(0.001)
            else:
                return

    def _empty_what_is_left(self) -> None:
        """Litestream seems not to run: not PASSIVE (store/replication.py), no waiting, not again after each commit."""
        if self.bytes < max(LEFT_BYTES_LIMIT, self._tried_bytes + BYTES_LIMIT):
            return
        self._tried_bytes = self.bytes
        self.empty()
        self._tried_bytes = 0

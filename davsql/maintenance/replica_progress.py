"""How far a replica is behind its store, from what Litestream tells of itself.

Litestream says when it last began to copy from the WAL to its own folder, and when it last found everything there in
the replica. Neither says what that covers, so moments are marked and followed: what was committed at a mark is in the
replica once

  1. a run that began after the mark has copied the WAL, and
  2. two uploads have ended after that: the second of them began when the copy was there.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Literal

from davsql.errors import StoreError
from davsql.maintenance.litestream import Look
from davsql.store.store import Store

MARKS_MAX = 64  # followed at one time
UPLOADS_NEEDED = 2
PHANTOM_LOOKS = 3
WAL_HEADER_BYTES, FRAME_HEADER_BYTES = 32, 24  # https://www.sqlite.org/fileformat2.html 4.1

State = Literal["starting", "replicating", "failing", "elsewhere", "stopped"]


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """How far the replica is behind the store."""

    url: str
    state: State  # "elsewhere": another davsql that serves the same store has it replicated
    lag_s: float | None  # all that was committed so long ago is in the replica; None: not known yet
    bytes_behind: int | None  # written to the WAL since then, about
    restarts: int  # of Litestream, after it ended unasked
    error: str  # why it is failing; "" when it is not


@dataclass(slots=True)
class _Mark:
    """A moment that is followed."""

    at: float
    written: int
    run: str  # that was the last one then
    upload: str = ""
    uploads_left: int | None = None  # None: its WAL is not copied yet


class Progress:
    """Follows one replica. Threads: any."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._state: State = "stopped"
        self._error = ""
        self._restarts = 0
        self._written = 0  # bytes that went through the WAL, as far as we looked
        self._wal_bytes = 0
        self._marks: deque[_Mark] = deque()
        self._replicated: tuple[float, int] | None = None  # the last mark that was reached

    def note(self, state: State, error: str = "", *, is_restart: bool = False) -> bool:
        """Take down a new state; True when it is another one than before."""
        with self._lock:
            changed = (state, error) != (self._state, self._error)
            self._state, self._error = state, error
            self._restarts += is_restart
            if state != "replicating":
                self._marks.clear()  # another Litestream counts anew
            return changed

    def complain(self, error: str) -> bool:
        """Litestream met an error; it is over with the next mark that is reached. True when it is a new one."""
        with self._lock:
            changed = error != self._error
            if self._state in ("starting", "replicating", "failing"):
                self._state, self._error = "failing", error
            return changed

    def see(self, look: Look, wal_bytes: int) -> bool:
        """Follow all marks and make a new one; True when the state is "replicating" from now on."""
        with self._lock:
            self._count(wal_bytes)
            reached = [mark for mark in self._marks if _advance(mark, look)]
            if len(self._marks) < MARKS_MAX:
                self._marks.append(_Mark(time.monotonic(), self._written, look.run))
            if not reached:
                return False
            self._marks = deque(mark for mark in self._marks if mark not in reached)
            self._replicated = reached[-1].at, reached[-1].written
            is_news, self._state, self._error = self._state != "replicating", "replicating", ""
            return is_news

    def finish(self, began: float) -> None:
        """Litestream has ended well, with everything committed before `began` in the replica."""
        with self._lock:
            self._replicated = began, self._written

    def status(self, wal_bytes: int | None) -> ReplicaStatus:
        """What is known at this moment."""
        with self._lock:
            if wal_bytes is not None:
                self._count(wal_bytes)
            at, written = self._replicated or (None, 0)
            return ReplicaStatus(
                self._url,
                self._state,
                None if at is None else round(time.monotonic() - at, 3),
                None if at is None else self._written - written,
                self._restarts,
                self._error,
            )

    def _count(self, wal_bytes: int) -> None:
        # A WAL that is smaller than it was has started over in between.
        self._written += wal_bytes - self._wal_bytes if wal_bytes >= self._wal_bytes else wal_bytes
        self._wal_bytes = wal_bytes


def _advance(mark: _Mark, look: Look) -> bool:
    """Follow one mark; True when it is reached."""
    if mark.uploads_left is None:
        if look.is_copied and look.run != mark.run:
            mark.uploads_left, mark.upload = UPLOADS_NEEDED, look.upload
    elif look.upload != mark.upload:
        mark.uploads_left, mark.upload = mark.uploads_left - 1, look.upload
    return mark.uploads_left == 0


class PhantomWatch:
    """Tells when Litestream has copied frames out of the WAL that are not in the WAL-index.

    They are there for the time of an fsync in each COMMIT. They stay when the process that wrote them was killed then
    and others have the store open: SQLite writes over them, and what is written there Litestream skips.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._last: tuple[int, int] | None = None
        self._looks = 0

    def is_there(self, look: Look) -> bool:
        """Compare with what Litestream said a moment ago."""
        try:
            pages, _ = self._store.checkpoint()  # only tells: checkpoints are left to Litestream
            with self._store.read() as tx:
                page_size = int(tx.value("PRAGMA page_size"))
        except StoreError:  # closed
            return False
        copied = (look.wal_offset - WAL_HEADER_BYTES) // (page_size + FRAME_HEADER_BYTES)
        found = (copied, pages) if copied > pages else None
        self._looks = self._looks + 1 if found is not None and found == self._last else 0
        self._last = found
        return self._looks >= PHANTOM_LOOKS

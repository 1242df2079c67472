"""Whose turn it is to write, among the davsql processes that have a store open.

SQLite's lock on the WAL decides who may write; this only brings order into the waiting for it. SQLite waits by trying
again after pauses of up to 100 ms (https://www.sqlite.org/c3ref/busy_timeout.html), while whoever has just committed
begins anew at once: under load some processes write all the time and others wait for seconds.
So a writer first takes two locks on the empty file `NAME-turn`: "next", then "turn". It gives back "next" when it has
the turn. Who has written and wants to go on finds the next one in front, so they alternate. A process that dies lets go
of both. Where the file cannot be had there is only SQLite's waiting.
Threads: one.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

if os.name == "posix":
    import fcntl

TURN, NEXT = 0, 1  # the bytes that are locked
LOOK_EVERY_S = {TURN: 0.0003, NEXT: 0.001}  # whoever is next looks often; a turn is short


class Turn:
    """One process's place in the order of all."""

    def __init__(self, file: Path, *, is_needed: bool = True) -> None:
        """The file is made when it is first needed."""
        self._path = file.with_name(file.name + "-turn")
        self._wal = file.with_name(file.name + "-wal")
        self._is_needed = is_needed and os.name == "posix"
        self._descriptor: int | None = None

    def take(self, timeout_s: float) -> bool:
        """Wait for the turn, at most so long; False: it is not ours, and SQLite's lock decides alone."""
        if self._is_needed and self._descriptor is None:
            try:
                self._descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            except OSError:
                self._is_needed = False
        if self._descriptor is None:
            return False
        deadline = time.monotonic() + timeout_s
        if not self._lock(NEXT, deadline):
            return False
        is_ours = self._lock(TURN, deadline)
        self._unlock(NEXT)
        return is_ours

    def give(self) -> None:
        """Let the next one write; harmless when it is not our turn."""
        if self._descriptor is not None:
            self._unlock(TURN)

    def close(self) -> None:
        """Let go; whoever closes the store last removes the file: then there is no WAL any more."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        if self._is_needed and not self._wal.exists():
            with suppress(OSError):
                self._path.unlink()

    def _lock(self, byte: int, deadline: float) -> bool:
        assert self._descriptor is not None
        while True:
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
            except OSError:
                if time.monotonic() >= deadline:
                    return False
                time.sleep(LOOK_EVERY_S[byte])
            else:
                return True

    def _unlock(self, byte: int) -> None:
        assert self._descriptor is not None
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, byte)

"""Whose turn it is to write, among the davsql processes that have a store open.

SQLite's lock on the WAL decides who may write; this only brings order into the waiting for it. SQLite waits by trying
again after pauses of up to 100 ms (https://www.sqlite.org/c3ref/busy_timeout.html), while whoever has just committed
begins anew at once: under load some processes write all the time and others wait for seconds.
So a writer first takes two locks on the empty file `NAME-turn`: "next", then "turn". It gives back "next" when it has
the turn. Who has written and wants to go on finds the next one in front, so they alternate. A process that dies lets go
of both. Where the file cannot be had there is only SQLite's waiting.

The system would let a writer wait for such a lock without end, so he tries it again after a pause. On Linux who gives a
lock back also rings for the one who listens, and the pause is over: with pauses alone 0.24 ms went by between two who
write, now 0.07. The ring is an empty datagram to a name made of the file's number. Nothing depends on it; a false one
makes somebody look once more. Who writes alone does not ring: he meets the other one at his next turn, and then does.
Threads: one at a time.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

if os.name == "posix":
    import fcntl

TURN, NEXT = 0, 1  # the bytes that are locked
LOOK_EVERY_S = {TURN: 0.0003, NEXT: 0.001}  # whoever is next looks often; a turn is short
LISTEN_S = 0.002  # with a bell: for who died, or rings in another network namespace
RING_S = 1.0  # after somebody had to be waited for
CAN_RING = sys.platform == "linux"  # where names of sockets need no file


class Turn:
    """One process's place in the order of all."""

    def __init__(self, file: Path, *, is_needed: bool = True) -> None:
        """The file is made when it is first needed."""
        self._path = file.with_name(file.name + "-turn")
        self._wal = file.with_name(file.name + "-wal")
        self._is_needed = is_needed and os.name == "posix"
        self._descriptor: int | None = None
        self._is_ours = False
        self._ringer: socket.socket | None = None
        self._bells: dict[int, str] = {}
        self._rings_until = 0.0  # monotonic: who has met nobody for a while need not ring

    def take(self, timeout_s: float) -> bool:
        """Wait for the turn, at most so long; False: it is not ours, and SQLite's lock decides alone."""
        if self._is_needed and self._descriptor is None:
            try:
                self._open()
            except OSError:
                self._is_needed = False
        if self._descriptor is None:
            return False
        deadline = time.monotonic() + timeout_s
        if not self._lock(NEXT, deadline):
            return False
        self._is_ours = self._lock(TURN, deadline)
        self._unlock(NEXT)
        return self._is_ours

    def give(self) -> None:
        """Let the next one write; harmless when it is not our turn."""
        if self._is_ours:
            self._is_ours = False
            self._unlock(TURN)

    def close(self) -> None:
        """Let go; whoever closes the store last removes the file: then there is no WAL any more."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        if self._ringer is not None:
            self._ringer.close()
            self._ringer = None
        if self._is_needed and not self._wal.exists():
            with suppress(OSError):
                self._path.unlink()

    def _open(self) -> None:
        self._descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        if CAN_RING:
            status = os.fstat(self._descriptor)
            self._bells = {byte: f"\0davsql-{status.st_dev}-{status.st_ino}-{byte}" for byte in (TURN, NEXT)}
            with suppress(OSError):
                self._ringer = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    def _lock(self, byte: int, deadline: float) -> bool:
        if self._try(byte):
            return True
        self._rings_until = time.monotonic() + RING_S
        with closing(_Bell(self._bells.get(byte))) as bell:  # what is given back from here on is heard
            while not self._try(byte):
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    return False
                bell.wait(min(left_s, LISTEN_S), LOOK_EVERY_S[byte])
        return True

    def _try(self, byte: int) -> bool:
        assert self._descriptor is not None
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except OSError:
            return False
        return True

    def _unlock(self, byte: int) -> None:
        assert self._descriptor is not None
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, byte)
        if self._ringer is not None and time.monotonic() < self._rings_until:
            with suppress(OSError):  # nobody listens, or has heard enough
                self._ringer.sendto(b"", self._bells[byte])


class _Bell:
    """Hears when a lock is given back, where it can."""

    def __init__(self, name: str | None) -> None:
        """Args: name: under which to listen; None: there is no ringing."""
        self._socket: socket.socket | None = None
        if name is None:
            return
        with suppress(OSError):  # somebody else listens, or there are no more descriptors
            bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                bell.bind(name)
            except OSError:
                bell.close()
                raise
            self._socket = bell

    def wait(self, heard_s: float, deaf_s: float) -> None:
        """Wait for a ring at most `heard_s`, or where nothing can be heard `deaf_s`."""
        if self._socket is None:
            time.sleep(deaf_s)
            return
        self._socket.settimeout(heard_s)
        with suppress(OSError):  # TimeoutError
            self._socket.recv(1)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()

"""The connections whose clients are at work: one thread goes round them and serves what comes, one after the other.

Python runs one thread at a time. Threads that each wait for a client of their own take the interpreter from each other
at every system call, and each wakes on a processor that has forgotten it; one that goes on from request to request
spends half as much. Nobody has to wait for slow requests: before the thread waits for a client, or for a commit, it
leaves the round to another; and who takes long for another reason (a disk, a password that is checked) loses it.

Rule 1: only the thread that goes round asks the selector, and not while it serves: so a member stays registered then.
Rule 2: where there are members and nobody goes round, a thread has been called, or is on its way to `next`; `look` sees
        to it.
Threads: any.
"""

from __future__ import annotations

import selectors
import threading
import time
from collections import deque
from collections.abc import Callable
from threading import get_ident
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from davsql.server.connection import Connection

Item = TypeVar("Item")

SILENT_S = 0.02  # a client that sends nothing for so long is not at work
SLOW_S = 0.02  # a request that takes longer loses the round

_NOBODY = 0
_CLOSED = -1


class Round:
    """Of one server."""

    def __init__(self, call: Callable[[], object], let_go: Callable[[Connection], object]) -> None:
        """Args:
        call: makes another thread come to `next`, soon.
        let_go: gets connections whose clients are not at work any more.
        """
        self._call = call
        self._let_go = let_go
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()  # of all that follows
        self._leader = _NOBODY  # the thread that goes round
        self._members: dict[Connection, float] = {}  # and when each was served: the longest ago first
        self._ready: deque[Connection] = deque()
        self._serving: object = None  # by the leader, a member or not
        self._since = 0.0

    def close(self) -> None:
        """Nobody goes round any more."""
        with self._lock:
            self._leader, self._serving = _CLOSED, None
            self._selector.close()

    @property
    def is_empty(self) -> bool:
        """Whether there is nobody to go round for."""
        return not self._members

    @property
    def left_alone(self) -> int:
        """How many members wait because no thread is free to go round."""
        return len(self._members) if self._leader == _NOBODY else 0

    # --- the thread that goes round -------------------------------------------------------------------------------

    def next(self, waiting: Callable[[], object | None]) -> object | None:
        """What to serve next; None: another thread goes round, or there is nobody to go round for.

        Args:
            waiting: gives what waits elsewhere for a thread, if anything does.
        """
        me = get_ident()
        with self._lock:
            if self._leader == _NOBODY and self._members:
                self._leader = me
            if self._leader != me:
                return None
            self._serving = None
            if self._ready:
                return self._serve(self._ready.popleft())
        while self._leader == me:
            taken = waiting()
            if taken is not None:
                with self._lock:
                    return self._serve(taken)
            connection = self._ask()
            if connection is not None:
                return connection
        return None

    def _ask(self) -> Connection | None:
        """Wait until a member has sent something, not for long; part with those that are silent."""
        events = self._selector.select(SILENT_S)
        with self._lock:
            # one that was closed meanwhile is no member any more
            self._ready.extend(key.data for key, _ in events if key.data in self._members)
            silent = self._remove_silent(time.monotonic() - SILENT_S)
            if not self._members:
                self._leader = _NOBODY
            first = self._serve(self._ready.popleft()) if self._ready else None
        for connection in silent:
            self._let_go(connection)
        return first

    def _serve(self, connection: Item) -> Item:
        self._serving, self._since = connection, time.monotonic()
        return connection

    def _remove_silent(self, limit: float) -> list[Connection]:
        silent = []
        for connection, since in self._members.items():
            if since > limit:
                break
            if connection not in self._ready:
                silent.append(connection)
        for connection in silent:
            self._remove(connection)
        return silent

    # --- any thread -----------------------------------------------------------------------------------------------

    def add(self, connection: Connection) -> None:
        """Wait for the next request of a connection that was served; then this thread comes to `next`."""
        with self._lock:
            if connection in self._members:
                del self._members[connection]  # it becomes the last one
                self._serving = None
            else:
                self._selector.register(connection.socket.fileno(), selectors.EVENT_READ, connection)
            self._members[connection] = time.monotonic()

    def forget(self, connection: Connection) -> None:
        """Before a connection is closed, or waits elsewhere."""
        with self._lock:
            if connection in self._members:
                self._remove(connection)

    def leave(self) -> None:
        """Let another thread go round, if it is this one that does; before it waits for something."""
        if self._leader == get_ident():
            with self._lock:
                if self._leader == get_ident():  # it may have been slow
                    self._end()

    def look(self) -> None:
        """Take the round from a thread that is slow; to be called every now and then while there are members."""
        with self._lock:
            if self._leader == _NOBODY:
                if self._members:
                    self._call()  # once more: there may have been no thread that could come
            elif self._serving is not None and time.monotonic() - self._since > SLOW_S:
                self._end()

    def _end(self) -> None:
        """Nobody goes round; who was served comes back by `add`."""
        serving, self._serving = self._serving, None
        self._leader = _NOBODY
        self._ready.clear()  # who comes next is told again
        if serving in self._members:
            self._remove(serving)
        if self._members:
            self._call()

    def _remove(self, connection: Connection) -> None:
        del self._members[connection]
        self._selector.unregister(connection.socket.fileno())
        if connection in self._ready:
            self._ready.remove(connection)

"""The pool of read-only connections.

Rule 1: a reader is borrowed for one snapshot and given back; nobody keeps one while bytes travel to a client.
Threads: any.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, TypeVar

import apsw

from davsql.counters import PerThread, ReaderTally
from davsql.errors import StoreBusy, StoreUnavailable
from davsql.store.connection import Role, open_connection
from davsql.store.options import StoreOptions
from davsql.store.transaction import Bindings, ReadTx, Row, store_error

Answer = TypeVar("Answer")


class CacheUse(NamedTuple):
    """Pages that readers found in their caches, and those that they had to fetch."""

    hits: int
    misses: int


class Readers:
    """Up to `options.readers` connections, opened when first needed, the last used first (its cache is warm)."""

    def __init__(self, file: Path, options: StoreOptions) -> None:
        self._file = file
        self._options = options
        self._free: deque[apsw.Connection | None] = deque([None] * options.readers)  # None: not opened yet
        self._came_free = threading.Condition()
        self._waiting = 0  # callers that wait for one
        self._is_closed = False
        self.tallies = PerThread(ReaderTally)
        self._connections: list[apsw.Connection] = []  # free or borrowed
        self._cache_use = CacheUse(0, 0)
        self._cache_lock = threading.Lock()
        self._free[-1] = self._open()  # fail when the store is opened, not later

    def snapshot(self, timeout_s: float | None = None) -> AbstractContextManager[ReadTx]:
        """Borrow a reader for one consistent view.

        Args:
            timeout_s: how long to wait for one; None: `queue_timeout_s`.

        Raises (when the `with` block is entered):
            StoreBusy: none came free in time.
            StoreUnavailable: the pool is closed.
        """
        return _Snapshot(self, self._options.queue_timeout_s if timeout_s is None else timeout_s)

    def row(self, sql: str, bindings: Bindings = ()) -> Row | None:
        """The first row of one query, which is a snapshot by itself (https://www.sqlite.org/isolation.html).

        Raises:
            StoreError: as `snapshot`.
        """
        return self._ask(ReadTx.row, sql, bindings)

    def rows(self, sql: str, bindings: Bindings = ()) -> list[Row]:
        """As `row`, all of them."""
        return self._ask(ReadTx.rows, sql, bindings)

    def _ask(self, read: Callable[[ReadTx, str, Bindings], Answer], sql: str, bindings: Bindings) -> Answer:
        tally = self.tallies.mine()
        connection = self.borrow(tally, self._options.queue_timeout_s)
        tally.taken += 1
        try:
            return read(ReadTx(connection), sql, bindings)
        except apsw.Error as error:
            raise store_error(error) from error
        finally:
            try:
                self.give_back(connection)
            finally:
                tally.returned += 1

    def borrow(self, tally: ReaderTally, timeout_s: float) -> apsw.Connection:
        """A connection; for `snapshot`."""
        try:
            connection = self._free.pop()
        except IndexError:
            connection = self._wait(tally, timeout_s)
        try:
            if self._is_closed:
                raise StoreUnavailable("the store is closed")
            return connection or self._open()
        except BaseException:
            self._release(connection)
            raise

    def give_back(self, connection: apsw.Connection) -> None:
        """End what is open on a borrowed connection and let others have it."""
        place: apsw.Connection | None = None
        try:
            if connection.in_transaction:
                connection.execute("COMMIT")
            place = connection
        except apsw.Error:  # never back into the pool in an unknown state
            connection.close(force=True)
            self._connections.remove(connection)
        finally:
            self._release(place)

    def _release(self, place: apsw.Connection | None) -> None:
        if place is None:
            self._free.appendleft(None)
        else:
            self._free.append(place)
        if self._is_closed:
            self.close()
        if self._waiting:  # counted before they look again: either they see the place, or this sees them
            with self._came_free:
                self._came_free.notify()

    def _wait(self, tally: ReaderTally, timeout_s: float) -> apsw.Connection | None:
        began_ns = time.monotonic_ns()
        taken: list[apsw.Connection | None] = []

        def take() -> bool:
            try:
                taken.append(self._free.pop())
            except IndexError:
                return False
            return True

        with self._came_free:
            self._waiting += 1
            try:
                is_free = self._came_free.wait_for(take, timeout_s)
            finally:
                self._waiting -= 1
        tally.waits += 1
        tally.wait_ns += time.monotonic_ns() - began_ns
        if not is_free:
            tally.exhausted += 1
            raise StoreBusy(f"all {self._options.readers} readers are busy; try again in a moment")
        return taken[0]

    def cache_use(self) -> CacheUse:
        """What the page caches of all readers did since the store was opened; a reader at work is counted later."""
        with self._cache_lock:
            for connection in tuple(self._connections):
                try:
                    hits = connection.status(apsw.SQLITE_DBSTATUS_CACHE_HIT, reset=True)[0]
                    misses = connection.status(apsw.SQLITE_DBSTATUS_CACHE_MISS, reset=True)[0]
                except apsw.Error:  # at work in another thread, or closed
                    continue
                self._cache_use = CacheUse(self._cache_use.hits + hits, self._cache_use.misses + misses)
            return self._cache_use

    def close(self) -> None:
        """Close idle readers now and borrowed ones when they come back."""
        self._is_closed = True
        for _ in range(self._options.readers):
            with suppress(IndexError):  # borrowed
                if (connection := self._free.pop()) is not None:
                    connection.close()
                self._free.appendleft(None)

    def _open(self) -> apsw.Connection:
        connection = open_connection(self._file, Role.READER, self._options)
        self._connections.append(connection)
        return connection


class _Snapshot:
    """A reader between BEGIN and COMMIT. Not a generator: every request passes through here, some several times."""

    __slots__ = ("_connection", "_readers", "_tally", "_timeout_s")

    def __init__(self, readers: Readers, timeout_s: float) -> None:
        self._readers = readers
        self._timeout_s = timeout_s

    def __enter__(self) -> ReadTx:
        self._tally = tally = self._readers.tallies.mine()
        self._connection = connection = self._readers.borrow(tally, self._timeout_s)
        tally.taken += 1
        try:
            connection.execute("BEGIN")
        except BaseException as error:
            self._end()
            if isinstance(error, apsw.Error):
                raise store_error(error) from error
            raise
        return ReadTx(connection)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        if isinstance(error, apsw.Error):
            raise store_error(error) from error

    def _end(self) -> None:
        try:
            self._readers.give_back(self._connection)
        finally:
            self._tally.returned += 1

"""The pool of read-only connections.

Rule 1: a reader is borrowed for one snapshot and given back; nobody keeps one while bytes travel to a client.
Threads: any.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import apsw

from davsql.counters import PerThread, ReaderTally
from davsql.errors import StoreBusy, StoreUnavailable
from davsql.store.connection import Role, open_connection
from davsql.store.options import StoreOptions
from davsql.store.transaction import ReadTx, store_error


class CacheUse(NamedTuple):
    """Pages that readers found in their caches, and those that they had to fetch."""

    hits: int
    misses: int


class Readers:
    """Up to `options.readers` connections, opened when first needed, the last used first (its cache is warm)."""

    def __init__(self, file: Path, options: StoreOptions) -> None:
        self._file = file
        self._options = options
        self._places = threading.Semaphore(options.readers)
        self._idle: deque[apsw.Connection] = deque()
        self._is_closed = False
        self.tallies = PerThread(ReaderTally)
        self._connections: list[apsw.Connection] = []  # idle or borrowed
        self._cache_use = CacheUse(0, 0)
        self._cache_lock = threading.Lock()
        self._idle.append(self._open())  # fail when the store is opened, not later

    @contextmanager
    def snapshot(self, timeout_s: float | None = None) -> Iterator[ReadTx]:
        """Borrow a reader for one consistent view.

        Args:
            timeout_s: how long to wait for one; None: `queue_timeout_s`.

        Raises:
            StoreBusy: none came free in time.
            StoreUnavailable: the pool is closed.
        """
        tally = self.tallies.mine()
        if not self._places.acquire(blocking=False):
            self._wait_for_place(tally, self._options.queue_timeout_s if timeout_s is None else timeout_s)
        tally.taken += 1
        try:
            connection = self._take()
            try:
                connection.execute("BEGIN")
                yield ReadTx(connection)
            except apsw.Error as error:
                raise store_error(error) from error
            finally:
                self._give_back(connection)
        finally:
            tally.returned += 1
            self._places.release()

    def _wait_for_place(self, tally: ReaderTally, timeout_s: float) -> None:
        began_ns = time.monotonic_ns()
        is_free = self._places.acquire(timeout=timeout_s)
        tally.waits += 1
        tally.wait_ns += time.monotonic_ns() - began_ns
        if not is_free:
            tally.exhausted += 1
            raise StoreBusy(f"all {self._options.readers} readers are busy; try again in a moment")

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
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> apsw.Connection:
        if self._is_closed:
            raise StoreUnavailable("the store is closed")
        try:
            return self._idle.pop()
        except IndexError:
            return self._open()

    def _open(self) -> apsw.Connection:
        connection = open_connection(self._file, Role.READER, self._options)
        self._connections.append(connection)
        return connection

    def _give_back(self, connection: apsw.Connection) -> None:
        try:
            if connection.in_transaction:
                connection.execute("COMMIT")
        except apsw.Error:  # never back into the pool in an unknown state
            connection.close(force=True)
            self._connections.remove(connection)
            return
        if self._is_closed:
            connection.close()
        else:
            self._idle.append(connection)

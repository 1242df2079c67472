"""The pool of read-only connections.

Rule 1: a reader is borrowed for one snapshot and given back; nobody keeps one while bytes travel to a client.
Threads: any.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from davsql.errors import StoreBusy, StoreUnavailable
from davsql.store.connection import Role, open_connection
from davsql.store.options import StoreOptions
from davsql.store.transaction import ReadTx, store_error


class Readers:
    """Up to `options.readers` connections, opened when first needed, the last used first (its cache is warm)."""

    def __init__(self, file: Path, options: StoreOptions) -> None:
        self._file = file
        self._options = options
        self._places = threading.Semaphore(options.readers)
        self._idle: deque[apsw.Connection] = deque()
        self._is_closed = False
        self._idle.append(open_connection(file, Role.READER, options))  # fail when the store is opened, not later

    @contextmanager
    def snapshot(self) -> Iterator[ReadTx]:
        """Borrow a reader for one consistent view.

        Raises:
            StoreBusy: none came free within `queue_timeout_s`.
            StoreUnavailable: the pool is closed.
        """
        if not self._places.acquire(timeout=self._options.queue_timeout_s):
            raise StoreBusy(f"all {self._options.readers} readers are busy; try again in a moment")
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
            self._places.release()

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
            return open_connection(self._file, Role.READER, self._options)

    def _give_back(self, connection: apsw.Connection) -> None:
        try:
            if connection.in_transaction:
                connection.execute("COMMIT")
        except apsw.Error:  # never back into the pool in an unknown state
            connection.close(True)
            return
        if self._is_closed:
            connection.close()
        else:
            self._idle.append(connection)

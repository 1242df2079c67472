"""What commands and readers may do with a connection, and apsw's errors in the store's words.

Rule 1: only this module knows apsw's exceptions; everything above sees StoreError.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import apsw

from davsql.errors import StoreBusy, StoreDamaged, StoreError, StoreFull, StoreReadOnly, StoreUnavailable

Row = tuple[Any, ...]
Bindings = Sequence[Any] | Mapping[str, Any]

_ERRORS: tuple[tuple[type[apsw.Error], type[StoreError], str], ...] = (
    (apsw.BusyError, StoreBusy, "another process holds the store's lock; try again in a moment"),
    (apsw.LockedError, StoreBusy, "the store is locked; try again in a moment"),
    (apsw.FullError, StoreFull, "no space is left for the store; free some on its file system"),
    (apsw.CorruptError, StoreDamaged, "the store's file is damaged; run `davsql check` and restore a backup"),
    (apsw.NotADBError, StoreDamaged, "the store's file is not a database, or its key is wrong"),
    (apsw.ReadOnlyError, StoreReadOnly, "the store's file, or its folder, cannot be written"),
    (apsw.IOError, StoreUnavailable, "reading or writing the store's file failed; look at its disk"),
    (apsw.CantOpenError, StoreUnavailable, "the store's file cannot be opened; look at its permissions and folder"),
)


def store_error(error: apsw.Error) -> StoreError:
    """The StoreError for an error of apsw; the cause's own words are kept at the end of the message."""
    for kind, translation, message in _ERRORS:
        if isinstance(error, kind):
            return translation(f"{message} ({error})")
    return StoreUnavailable(f"SQLite refused: {type(error).__name__}: {error}")


def _no_text(error: UnicodeDecodeError) -> StoreDamaged:
    # SQLite does not look into TEXT, and only whole UTF-8 was ever put there.
    return StoreDamaged(f"the store's file is damaged; run `davsql check` and restore a backup ({error.reason})")


@contextmanager
def translated() -> Iterator[None]:
    """Raise StoreError for whatever apsw raises inside."""
    try:
        yield
    except apsw.Error as error:
        raise store_error(error) from error


class Source(Protocol):
    """Where one query can be asked: a snapshot, or the pool of readers."""

    def row(self, sql: str, bindings: Bindings = ()) -> Row | None:
        """The first row; None where there is none."""

    def rows(self, sql: str, bindings: Bindings = ()) -> list[Row]:
        """All rows."""


class ReadTx:
    """Queries in one snapshot of the store."""

    __slots__ = ("_connection", "now")

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self.now = time.time_ns()

    def rows(self, sql: str, bindings: Bindings = ()) -> list[Row]:
        try:
            return self._connection.execute(sql, bindings).fetchall()
        except UnicodeDecodeError as error:
            raise _no_text(error) from error

    def row(self, sql: str, bindings: Bindings = ()) -> Row | None:
        try:
            return self._connection.execute(sql, bindings).fetchone()
        except UnicodeDecodeError as error:
            raise _no_text(error) from error

    def value(self, sql: str, bindings: Bindings = ()) -> Any:
        """The first column of the first row; None without a row."""
        row = self.row(sql, bindings)
        return None if row is None else row[0]


class WriteTx(ReadTx):
    """Queries and changes inside the writer's transaction. Only writer.py and sidefile.py make these."""

    __slots__ = ()

    def change(self, sql: str, bindings: Bindings = ()) -> int:
        """Run an INSERT, UPDATE or DELETE and return the number of rows it changed, triggers not counted."""
        self._connection.execute(sql, bindings)
        return self._connection.changes()

    def insert(self, sql: str, bindings: Bindings = ()) -> int:
        """Run an INSERT of one row and return its rowid."""
        self._connection.execute(sql, bindings)
        return self._connection.last_insert_rowid()

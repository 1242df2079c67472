"""A small database beside the stores: few rows, several processes, read at every request and seldom written.

What it holds is its owner's business (accounts/ keeps one). Only the owner of the file may read it, and nobody else may
write to its folder: who can exchange the file could let himself in.
Rule 1: a write is one transaction, BEGIN IMMEDIATE to COMMIT, and takes no time worth naming. It survives a kill, and
        a power cut too unless its kind says that its owner calls `sync`.
Rule 2: connections are opened after a fork, and never shared across one.
Rule 3: what is read is the file that has the name now: SQLite would go on reading one that was moved away, and never
        learn of what is changed in the one that took its place.
Threads: any.
"""

from __future__ import annotations

import os
import stat
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import apsw

from davsql.errors import InsecureFile, NotAStore, NotFound, StoreUnavailable, StoreVersionError
from davsql.store.connection import create_exclusively, protect, require_sqlite, set_pragma
from davsql.store.creation import making
from davsql.store.transaction import Bindings, ReadTx, Row, WriteTx, store_error, translated

BUSY_TIMEOUT_MS = 5000
CACHE_KIB = 2000


class Kind(NamedTuple):
    """What such a file is."""

    noun: str  # for messages: "account file"
    application_id: int
    version: int  # of the schema
    schema: str  # SQL that makes an empty one
    is_synced: bool = True  # each write; False: its owner calls `sync`


class SideFile:
    """An open side file; use it in a `with` statement or close it."""

    def __init__(self, file: Path, kind: Kind) -> None:
        """Open a file that exists.

        Raises:
            NotFound: it does not.
            InsecureFile: others can read or exchange it.
            NotAStore, StoreVersionError: it is something else, or of a newer davsql.
            StoreError: it cannot be read.
        """
        require_sqlite()
        if not os.path.lexists(file):
            raise NotFound(f"{file} does not exist")
        require_private(file)
        self.file = file
        self._identity = _identity_of(file)
        self._kind = kind
        self._idle: deque[apsw.Connection] = deque()
        self._writing = threading.Lock()
        self._writer: apsw.Connection | None = None
        with translated():  # fail now, not later
            self._idle.append(self._take())

    @classmethod
    def create(cls, file: Path, kind: Kind) -> None:
        """Make an empty one (mode 0600), complete or not at all.

        Raises:
            InsecureFile: others can write to its folder.
            StoreUnavailable: the name is taken, or the folder is missing or cannot be written.
        """
        require_sqlite()
        require_private_folder(file)
        with making(file) as part, translated():
            create_exclusively(part)
            connection = apsw.Connection(str(part), flags=apsw.SQLITE_OPEN_READWRITE)
            try:
                set_pragma(connection, "journal_mode", "wal")
                set_pragma(connection, "application_id", kind.application_id)
                with connection:
                    connection.execute(kind.schema).fetchall()
                    connection.pragma("user_version", kind.version)
            finally:
                connection.close()

    def row(self, sql: str, bindings: Bindings = ()) -> Row | None:
        """The first row of one query. For what every request asks: without the cost of a snapshot."""
        try:
            connection = self._take()
            row: Row | None = connection.execute(sql, bindings).fetchone()
        except apsw.Error as error:
            raise store_error(error) from error
        self._idle.append(connection)
        return row

    @contextmanager
    def snapshot(self) -> Iterator[ReadTx]:
        """Several queries on one state."""
        with translated():
            connection = self._take()
            connection.execute("BEGIN")
            yield ReadTx(connection)
            connection.execute("COMMIT")
            self._idle.append(connection)

    @contextmanager
    def write(self) -> Iterator[WriteTx]:
        """One transaction: it is committed when the block ends well, and rolled back after an error.

        Raises:
            StoreError: nothing was changed.
        """
        with self._writing, translated():
            connection = self._writer_open()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield WriteTx(connection)
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    def sync(self) -> bool:
        """Make what was written survive a power cut: a checkpoint syncs the WAL (https://www.sqlite.org/wal.html).

        False: another process makes a checkpoint at this moment, and may have begun before; try again.
        """
        with self._writing, translated():
            try:
                self._writer_open().wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            except apsw.BusyError:
                return False
        return True

    def close(self) -> None:
        """Close it; nothing may be under way."""
        while self._idle:
            self._idle.pop().close()
        if self._writer is not None:
            self._writer.close()

    def _take(self) -> apsw.Connection:
        """A reader; whoever takes one puts it back, but for errors: then its state is unknown, and Python closes it."""
        self._require_same()
        try:
            return self._idle.pop()
        except IndexError:
            connection = self._open()
            set_pragma(connection, "query_only", 1)
            return connection

    def _writer_open(self) -> apsw.Connection:
        self._require_same()
        if self._writer is None:
            self._writer = self._open()
        return self._writer

    def _require_same(self) -> None:
        if _identity_of(self.file) != self._identity:
            raise StoreUnavailable(f"{self.file} was exchanged for another file while it was in use; restart davsql")

    def _open(self) -> apsw.Connection:
        # For readers too: the last connection to be closed takes WAL and SHM away, if it may write.
        connection = apsw.Connection(str(self.file), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            connection.set_busy_timeout(BUSY_TIMEOUT_MS)
            self._require_kind(connection)
            protect(connection)
            set_pragma(connection, "foreign_keys", 1)
            set_pragma(connection, "synchronous", 2 if self._kind.is_synced else 1)
            set_pragma(connection, "cache_size", -CACHE_KIB)
        except BaseException:
            connection.close()
            raise
        return connection

    def _require_kind(self, connection: apsw.Connection) -> None:
        try:
            found = connection.pragma("application_id")
        except apsw.NotADBError:
            found = None
        if found != self._kind.application_id:
            raise NotAStore(f"{self.file} is no {self._kind.noun} of davsql; nothing was changed")
        version = int(connection.pragma("user_version"))
        if version != self._kind.version:
            raise StoreVersionError(f"{self.file} was written by a newer davsql (version {version}); update davsql")


def _identity_of(file: Path) -> tuple[int, int]:
    try:
        found = file.stat()
    except OSError as error:
        raise StoreUnavailable(f"{file} cannot be used: {error.strerror}") from error
    return found.st_dev, found.st_ino


def require_private(file: Path) -> None:
    """Raise InsecureFile unless `file` is a regular file that nobody but its owner can read, write or exchange."""
    if os.name == "nt":  # modes say nothing there
        return
    found = file.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise InsecureFile(f"{file} is not a regular file; name the file itself")
    if found.st_uid not in (0, os.geteuid()) and os.geteuid() != 0:
        raise InsecureFile(f"{file} belongs to another user; davsql must run as that user")
    if found.st_mode & 0o077:
        raise InsecureFile(f"others can read or write {file}; take that from them: chmod 600 {file}")
    require_private_folder(file)


def require_private_folder(file: Path) -> None:
    """Raise InsecureFile when others can exchange what lies in the folder of `file`."""
    if os.name == "nt":
        return
    folder = file.parent
    try:
        mode = folder.stat().st_mode
    except OSError as error:
        raise StoreUnavailable(f"{file} cannot be used: {folder}: {error.strerror}") from error
    if mode & 0o022 and not mode & stat.S_ISVTX:
        raise InsecureFile(
            f"others can write to the folder of {file} and exchange the file; take that from them: "
            f"chmod go-w {folder.absolute()}"
        )

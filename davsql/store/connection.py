"""Opening the file: flags, PRAGMAs (each verified), creation, and the refusal of what is no store of ours.

Rule 1: every connection to a store is made here.
Rule 2: a PRAGMA is read back after it was set; a connection that is not as wanted is never used.
Rule 3: a connection has its key before anything else (cipher.py).
Rule 4: nobody opens the database, its WAL or its SHM by other means inside this process: closing such a descriptor
        drops SQLite's POSIX locks (https://www.sqlite.org/howtocorrupt.html 2.2).
"""

from __future__ import annotations

import os
from dataclasses import replace
from enum import Enum
from pathlib import Path

import apsw

from davsql.errors import InsecureFile, NotAStore, NotFound, StoreReadOnly, StoreUnavailable
from davsql.store.cipher import apply_key, unreadable
from davsql.store.options import Durability, StoreOptions
from davsql.store.transaction import translated

APPLICATION_ID = 0x44415653  # "DAVS"
MIN_SQLITE = (3, 51, 3)  # earlier ones can lose a WAL reset (https://www.sqlite.org/wal.html)
_SYNCHRONOUS: dict[Durability, int] = {"full": 2, "normal": 1}
_INCREMENTAL = 2  # auto_vacuum
KEPT_WAL_BYTES = 96 * 1024 * 1024  # of the WAL's file, when it starts over after a reader let it grow


class Role(Enum):
    """What a connection is for."""

    WRITER = "writer"
    READER = "reader"


def open_connection(file: Path, role: Role, options: StoreOptions) -> apsw.Connection:
    """Open `file`, which exists, and set the connection up for its role; with `read_only` neither role changes it.

    Raises:
        NotAStore: the file is something else.
        InsecureFile: it is a symbolic link, and the options do not allow that.
        StoreError: it cannot be opened, or a PRAGMA does not hold.
    """
    require_sqlite()
    _require_no_link(file, options)
    if role is Role.READER and options.read_only:
        return _open_as_it_is(file, options, apsw.SQLITE_OPEN_READONLY)
    flags = apsw.SQLITE_OPEN_READWRITE if role is Role.WRITER else apsw.SQLITE_OPEN_READONLY
    with translated():
        # URI: for the names of copies that are encrypted otherwise (backup.py); a path from the root is none itself.
        name, flags = str(file.absolute()), flags | apsw.SQLITE_OPEN_URI
        connection = apsw.Connection(name, flags=flags, vfs=options.vfs)
        try:
            connection.set_busy_timeout(options.busy_timeout_s * 1000)
            _require_store(connection, file, options)
            _configure(connection, role, options)
        except BaseException:
            connection.close()
            raise
    return connection


def create_file(file: Path, options: StoreOptions) -> apsw.Connection:
    """Create the database `file` (mode 0600) and return a connection that has page size, auto_vacuum and WAL set.

    Raises:
        StoreUnavailable: there is a file already, or its folder is missing or cannot be written.
    """
    require_sqlite()
    create_exclusively(file)
    with translated():
        connection = apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READWRITE, vfs=options.vfs)
        connection.set_busy_timeout(options.busy_timeout_s * 1000)
        apply_key(connection, options.key)
        # page_size and auto_vacuum take effect only before the first table (https://www.sqlite.org/pragma.html).
        set_pragma(
            connection, "page_size", options.page_size if options.key is None else options.key.envelope.page_size
        )
        set_pragma(connection, "auto_vacuum", _INCREMENTAL)
        set_pragma(connection, "journal_mode", "wal")
        set_pragma(connection, "application_id", APPLICATION_ID)
        _configure(connection, Role.WRITER, replace(options, read_only=False))
    sync_folder(file.parent)
    return connection


def create_copy(file: Path, options: StoreOptions) -> apsw.Connection:
    """Create the empty database `file` (mode 0600) for SQLite's backup to fill.

    Nothing protects it against a crash: whoever makes a copy syncs and verifies it before it gets a name.

    Raises:
        StoreUnavailable: there is a file already, or its folder is missing or cannot be written.
    """
    require_sqlite()
    create_exclusively(file)
    with translated():
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_NOFOLLOW
        connection = apsw.Connection(str(file), flags=flags, vfs=options.vfs)
        apply_key(connection, options.key)
        set_pragma(connection, "journal_mode", "off")
        set_pragma(connection, "synchronous", 0)
        set_pragma(connection, "cache_size", -options.cache_mb * 1000)
    return connection


def create_rewritten(file: Path, options: StoreOptions, page_size: int) -> apsw.Connection:
    """Create the empty database `file` (mode 0600) for the rows of a store, which another one can be attached to.

    It has a rollback journal, so that what was committed to it can be gone on with after a kill or a power cut.

    Raises:
        StoreUnavailable: there is a file already, or its folder is missing or cannot be written.
    """
    require_sqlite()
    create_exclusively(file)
    connection = _open_rewritten(file, options)
    with translated():
        set_pragma(connection, "page_size", page_size)
        set_pragma(connection, "auto_vacuum", _INCREMENTAL)
        set_pragma(connection, "application_id", APPLICATION_ID)
    sync_folder(file.parent)
    return connection


def open_rewritten(file: Path, options: StoreOptions) -> apsw.Connection:
    """Open what `create_rewritten` has made, after a kill perhaps.

    Raises:
        NotAStore: it has another key, or is something else.
        StoreError: it cannot be opened.
    """
    connection = _open_rewritten(file, options)
    try:
        with translated():
            _require_application(connection, file, options)
            set_pragma(connection, "journal_mode", "delete")  # it may have been complete, and in WAL mode as stores are
    except BaseException:
        connection.close()
        raise
    return connection


def _open_rewritten(file: Path, options: StoreOptions) -> apsw.Connection:
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_NOFOLLOW | apsw.SQLITE_OPEN_URI  # URI: to attach by
    with translated():
        connection = apsw.Connection(str(file.absolute()), flags=flags, vfs=options.vfs)
        apply_key(connection, options.key)
        set_synchronous(connection, "full")
        set_pragma(connection, "cache_size", -options.cache_mb * 1000)
        set_pragma(connection, "temp_store", 2)
    return connection


def open_copy(file: Path, options: StoreOptions) -> apsw.Connection:
    """Open a store or a copy of one to read it as it is: nothing in the file changes, and no WAL is taken in.

    SQLite may write nevertheless, to make the WAL and the SHM of a store in WAL mode and to take them away again.

    Raises:
        NotAStore: the file is something else.
        StoreError: it cannot be read.
    """
    require_sqlite()
    _require_no_link(file, options)
    return _open_as_it_is(file, options, apsw.SQLITE_OPEN_READWRITE)


def _open_as_it_is(file: Path, options: StoreOptions, flags: int) -> apsw.Connection:
    try:
        return _open_copy(file, str(file), options, flags)
    except (StoreUnavailable, StoreReadOnly):
        # A cold copy in WAL mode on a medium that is read-only: nobody changes it, and SQLite cannot make its SHM.
        if os.access(file.parent, os.W_OK) or file.with_name(file.name + "-wal").exists():
            raise
        uri = f"{file.absolute().as_uri()}?immutable=1"
        return _open_copy(file, uri, options, apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)


def open_frozen(file: Path, options: StoreOptions) -> apsw.Connection:
    """Open a store that is one file, and that nobody can write to, without taking a lock.

    Raises:
        NotAStore: the file is something else.
        StoreError: it cannot be read.
    """
    require_sqlite()
    uri = f"{file.absolute().as_uri()}?immutable=1"
    return _open_copy(file, uri, options, apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)


def is_plain(file: Path, options: StoreOptions) -> bool:
    """Whether the database can be read without a key, asked of SQLite (rule 4)."""
    with translated():
        connection = apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READONLY, vfs=options.vfs)
        try:
            connection.set_busy_timeout(options.busy_timeout_s * 1000)
            connection.pragma("application_id")
        except apsw.NotADBError:
            return False
        finally:
            connection.close()
    return True


def set_pragma(connection: apsw.Connection, name: str, value: str | int) -> None:
    """Set a PRAGMA and read it back.

    Raises:
        StoreUnavailable: it did not take the value.
    """
    connection.pragma(name, value)
    found = connection.pragma(name)
    if found != value:
        raise StoreUnavailable(f"PRAGMA {name} is {found!r} after it was set to {value!r}")


def set_synchronous(connection: apsw.Connection, durability: Durability) -> None:
    """Whether a COMMIT returns when the disk has it, or the operating system (https://www.sqlite.org/pragma.html)."""
    set_pragma(connection, "synchronous", _SYNCHRONOUS[durability])


def sync_folder(folder: Path) -> None:
    """fsync a folder, so that a new name in it survives a power cut; nothing on Windows, which cannot."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_file(file: Path) -> None:
    """Raise NotFound, with the remedy, when there is no store at `file`."""
    if not file.exists():
        raise NotFound(f"{file} does not exist; `davsql init --db {file}` makes a new store")
    if not file.is_file():
        raise NotAStore(f"{file} is not a regular file")


def _open_copy(file: Path, name: str, options: StoreOptions, flags: int) -> apsw.Connection:
    has_wal = file.with_name(file.name + "-wal").exists()
    with translated():
        connection = apsw.Connection(name, flags=flags, vfs=options.vfs)
        try:
            if has_wal:  # leave it as it is
                connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            connection.set_busy_timeout(options.busy_timeout_s * 1000)
            _require_store(connection, file, options)
            protect(connection)
            set_pragma(connection, "cache_size", -options.cache_mb * 1000)
            set_pragma(connection, "temp_store", 2)
            set_pragma(connection, "query_only", 1)
            set_pragma(connection, "mmap_size", _mmap_bytes(options))
        except BaseException:
            connection.close()
            raise
    return connection


def create_exclusively(file: Path) -> None:
    """Make the empty file, mode 0600.

    Raises:
        StoreUnavailable: there is a file already, or its folder is missing or cannot be written.
    """
    try:
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        raise StoreUnavailable(f"{file} exists already; choose another path or delete it") from None
    except OSError as error:
        raise StoreUnavailable(f"{file} cannot be created: {error.strerror}") from error


def require_sqlite() -> None:
    """Raise StoreUnavailable when the library is one that can lose commits."""
    version = tuple(int(part) for part in apsw.sqlite_lib_version().split("."))
    if version < MIN_SQLITE:
        wanted = ".".join(map(str, MIN_SQLITE))
        raise StoreUnavailable(
            f"SQLite {apsw.sqlite_lib_version()} is too old, {wanted} is needed: install apsw-sqlite3mc (and not apsw)"
        )


def _require_no_link(file: Path, options: StoreOptions) -> None:
    if file.is_symlink() and not options.follow_symlinks:
        raise InsecureFile(
            f"{file} is a symbolic link to {file.resolve()}: name the file itself, or set store.follow_symlinks = true"
        )


def _require_store(connection: apsw.Connection, file: Path, options: StoreOptions) -> None:
    """Give the connection its key, and prove it."""
    apply_key(connection, options.key)
    _require_application(connection, file, options)


def _require_application(connection: apsw.Connection, file: Path, options: StoreOptions) -> None:
    """The application's id stands in the first page."""
    try:
        found = connection.pragma("application_id")
    except apsw.NotADBError:
        raise unreadable(file, options.key) from None
    if found != APPLICATION_ID:
        raise NotAStore(f"{file} is not a davsql store (its application_id is {found}); nothing was changed")


def protect(connection: apsw.Connection) -> None:
    """What every connection has, whatever it is for."""
    # Integrity first: rows of a damaged or hostile file must not run code or lead reads astray.
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
    # With STAT4, which this build has, SQLite plans a statement anew whenever a value is bound to it
    # (https://www.sqlite.org/c3ref/prepare.html), which costs more than running it; the plan would be the same.
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)


def _mmap_bytes(options: StoreOptions) -> int:
    return 0 if options.key is not None else options.mmap_mb * 1024 * 1024  # encrypted pages cannot be used in place


def _configure(connection: apsw.Connection, role: Role, options: StoreOptions) -> None:
    protect(connection)
    if connection.pragma("journal_mode") != "wal" and not options.read_only:
        set_pragma(connection, "journal_mode", "wal")
    set_synchronous(connection, options.durability)
    set_pragma(connection, "cache_size", -options.cache_mb * 1000)
    set_pragma(connection, "temp_store", 2)
    set_pragma(connection, "foreign_keys", 1)
    if role is Role.READER:
        set_pragma(connection, "query_only", 1)
        set_pragma(connection, "mmap_size", _mmap_bytes(options))
        return
    # Checkpoints run beside the writer; one inside COMMIT could fail after the commit and look like its error.
    set_pragma(connection, "wal_autocheckpoint", 0)
    set_pragma(connection, "journal_size_limit", KEPT_WAL_BYTES)
    # Else, in this build, each page that becomes free is overwritten first: deleting cost twice the content in writes.
    connection.pragma("secure_delete", "fast")
    set_pragma(connection, "query_only", int(options.read_only))
    if options.leaves_checkpoints:
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    if connection.pragma("auto_vacuum") != _INCREMENTAL:
        raise StoreUnavailable("PRAGMA auto_vacuum is not INCREMENTAL: this file was not made by davsql")

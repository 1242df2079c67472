"""Opening files: each PRAGMA as wanted, new files private, other people's files refused and untouched."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from davsql.errors import NotAStore, NotFound, StoreError, StoreUnavailable, StoreVersionError
from davsql.store import connection as connection_module
from davsql.store import migrate
from davsql.store.connection import (
    APPLICATION_ID,
    KEPT_WAL_BYTES,
    Role,
    create_file,
    open_connection,
    require_file,
    set_pragma,
)
from davsql.store.options import Durability, StoreOptions
from davsql.store.store import Store
from tests.store_steps import put, read

OPTIONS = StoreOptions(cache_mb=8, mmap_mb=1, busy_timeout_s=3)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A finished, closed store."""
    file = tmp_path / "store.db"
    with Store.open(file, create=True) as store:
        put(store, "/f", b"content")
    return file


def pragmas(connection: apsw.Connection, *names: str) -> dict[str, object]:
    return {name: connection.pragma(name) for name in names}


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(("durability", "synchronous"), [("full", 2), ("normal", 1)])
def test_open_connection__sets_every_pragma(file: Path, role: Role, durability: Durability, synchronous: int) -> None:
    options = StoreOptions(durability=durability, cache_mb=8, mmap_mb=1)
    connection = open_connection(file, role, options)
    assert pragmas(
        connection, "journal_mode", "synchronous", "cache_size", "temp_store", "foreign_keys", "auto_vacuum"
    ) == {
        "journal_mode": "wal",
        "synchronous": synchronous,
        "cache_size": -8000,
        "temp_store": 2,
        "foreign_keys": 1,
        "auto_vacuum": 2,
    }
    assert connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, -1) == 1
    assert connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, -1) == 0
    if role is Role.READER:
        assert pragmas(connection, "query_only", "mmap_size") == {"query_only": 1, "mmap_size": 1024 * 1024}
    else:
        assert pragmas(connection, "query_only", "wal_autocheckpoint", "journal_size_limit", "secure_delete") == {
            "query_only": 0,
            "wal_autocheckpoint": 0,
            "journal_size_limit": KEPT_WAL_BYTES,
            "secure_delete": 2,  # FAST
        }
    connection.close()


@pytest.mark.parametrize("role", Role)
def test_open_connection__plans_a_statement_once(file: Path, role: Role) -> None:
    planned: list[int] = []  # SQLite asks the authorizer while it plans

    def note(operation: int, *_: str | None) -> int:
        planned.append(operation)
        return apsw.SQLITE_OK

    connection = open_connection(file, role, OPTIONS)
    connection.authorizer = note
    for inode in (1, 2, 3):
        begun = len(planned)
        connection.execute("SELECT size FROM entries WHERE inode = ?", (inode,)).fetchall()
        assert (len(planned) > begun) == (inode == 1)
    connection.close()


def test_open_connection__of_a_reader_cannot_write(file: Path) -> None:
    connection = open_connection(file, Role.READER, OPTIONS)
    with pytest.raises(apsw.ReadOnlyError):
        connection.execute("DELETE FROM nodes")
    with pytest.raises(apsw.ReadOnlyError):
        connection.pragma("query_only", 0)
        connection.execute("DELETE FROM nodes")
    connection.close()


def test_open_connection__waits_for_locks(file: Path) -> None:
    connection = open_connection(file, Role.WRITER, OPTIONS)
    assert connection.pragma("busy_timeout") == 3000
    connection.close()


def test_create_file__has_page_size_vacuum_and_identity(tmp_path: Path) -> None:
    connection = create_file(tmp_path / "new.db", StoreOptions(page_size=16384))
    assert pragmas(connection, "page_size", "auto_vacuum", "application_id", "journal_mode", "foreign_keys") == {
        "page_size": 16384,
        "auto_vacuum": 2,
        "application_id": APPLICATION_ID,
        "journal_mode": "wal",
        "foreign_keys": 1,
    }
    connection.close()


def test_create_file__is_private(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        with Store.open(tmp_path / "new.db", create=True) as store:
            put(store, "/f", b"x")
            modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()}
    finally:
        os.umask(previous)
    assert modes == dict.fromkeys(("new.db", "new.db-wal", "new.db-shm", "new.db-turn"), 0o600)


def test_create_file__refuses_what_is_there(tmp_path: Path) -> None:
    file = tmp_path / "there"
    file.write_bytes(b"")
    with pytest.raises(StoreUnavailable, match="exists already"):
        create_file(file, OPTIONS)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreUnavailable, match="exists already"):
        create_file(link, OPTIONS)
    with pytest.raises(StoreUnavailable):
        Store.open(link, create=True)
    assert not (tmp_path / "elsewhere").exists()


def test_create_file__in_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="cannot be created"):
        Store.open(tmp_path / "missing" / "store.db", create=True)


def test_store_open__without_a_file_names_the_remedy(tmp_path: Path) -> None:
    file = tmp_path / "missing.db"
    with pytest.raises(NotFound, match="davsql init --db"):
        Store.open(file)
    with pytest.raises(NotFound):
        require_file(file)
    assert list(tmp_path.iterdir()) == []


def test_store_open__with_create_opens_what_is_there(file: Path) -> None:
    with Store.open(file, create=True) as store:
        assert read(store, "/f") == b"content"


def make_text(file: Path) -> None:
    file.write_text("Not a database, but long enough to be taken for one.\n" * 100)


def make_short_text(file: Path) -> None:
    file.write_text("short")


def make_empty(file: Path) -> None:
    file.touch()


def make_zeros(file: Path) -> None:
    file.write_bytes(bytes(8192))


def make_other_database(file: Path) -> None:
    with apsw.Connection(str(file)) as connection:
        connection.execute("CREATE TABLE t (a); INSERT INTO t VALUES (1)")
    connection.close()


def make_other_application(file: Path) -> None:
    make_other_database(file)
    connection = apsw.Connection(str(file))
    connection.pragma("application_id", 0x0F055112)
    connection.close()


def make_unfinished_store(file: Path) -> None:
    create_file(file, OPTIONS).close()


@pytest.mark.parametrize(
    "make",
    [
        make_text,
        make_short_text,
        make_empty,
        make_zeros,
        make_other_database,
        make_other_application,
        make_unfinished_store,
    ],
)
@pytest.mark.parametrize("create", [True, False])
def test_store_open__refuses_what_is_no_store_and_leaves_it(
    tmp_path: Path, make: Callable[[Path], None], create: bool
) -> None:
    file = tmp_path / "other.db"
    make(file)
    before = file.read_bytes()
    with pytest.raises(NotAStore):
        Store.open(file, create=create)
    assert file.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["other.db"]


def test_store_open__refuses_a_folder(tmp_path: Path) -> None:
    with pytest.raises(NotAStore, match="not a regular file"):
        Store.open(tmp_path)


def test_store_open__refuses_a_newer_schema_and_leaves_it(file: Path) -> None:
    connection = apsw.Connection(str(file))
    connection.execute(migrate.SET_META, ("schema_version", str(migrate.SCHEMA_VERSION + 1)))
    connection.close()
    before = file.read_bytes()
    with pytest.raises(StoreVersionError, match="install a newer davsql"):
        Store.open(file)
    assert file.read_bytes() == before


def test_store_open__refuses_a_file_without_incremental_vacuum(file: Path) -> None:
    connection = apsw.Connection(str(file))
    connection.pragma("journal_mode", "delete")
    connection.pragma("auto_vacuum", 0)
    connection.execute("VACUUM")
    connection.close()
    with pytest.raises(StoreUnavailable, match="auto_vacuum"):
        Store.open(file)


def test_store_open__takes_a_copy_in_another_journal_mode(file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    connection = apsw.Connection(str(file))
    connection.execute("VACUUM INTO ?", (str(copy),))
    connection.close()
    with Store.open(copy) as store:
        assert read(store, "/f") == b"content"


def test_store_open__of_a_damaged_header_says_so(file: Path) -> None:
    damaged = bytearray(file.read_bytes())
    damaged[0:16] = b"SQLite format 4\x00"
    file.write_bytes(damaged)
    with pytest.raises(NotAStore):
        Store.open(file)


@pytest.mark.parametrize("keep", [100, 512, 5000])
def test_store_open__of_a_truncated_file_is_an_error_of_ours(file: Path, keep: int) -> None:
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(StoreError):
        Store.open(file)


def test_store_open__leaves_no_connection_after_a_failure(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Descriptors are a store's life: a failed start must give them back."""

    def fail(*_: object) -> None:
        raise StoreUnavailable("not today")

    before = len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr("davsql.store.store.readers.Readers", fail)
    for _ in range(5):
        with pytest.raises(StoreUnavailable, match="not today"):
            Store.open(file)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_store_open__takes_a_relative_path(file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with Store.open(Path("store.db")) as store:
        monkeypatch.chdir("/")
        assert read(store, "/f") == b"content"  # a reader is opened now or later


def test_store_open__wants_a_sqlite_without_the_wal_bug(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "MIN_SQLITE", (99, 0, 0))
    with pytest.raises(StoreUnavailable, match="too old"):
        Store.open(file)


def test_set_pragma__that_does_not_take_is_an_error(file: Path) -> None:
    connection = apsw.Connection(str(file))
    with pytest.raises(StoreUnavailable, match="page_size"):
        set_pragma(connection, "page_size", 65536)  # too late: there are tables
    connection.close()


def test_close__leaves_one_file_without_wal(file: Path) -> None:
    assert [each.name for each in file.parent.iterdir()] == [file.name]
    with Store.open(file) as store:
        put(store, "/g", b"x" * 100_000)
        read(store, "/g")
        store.checkpoint()
    assert [each.name for each in file.parent.iterdir()] == [file.name]

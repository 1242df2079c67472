"""Older stores are brought up to date in one step, and come to the schema that a new one has."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from davsql.errors import NotAStore, StoreError, StoreVersionError
from davsql.maintenance.gc import collect_garbage
from davsql.paths import ROOT
from davsql.store import migrate
from davsql.store.check import check
from davsql.store.connection import Role, create_file, open_connection
from davsql.store.options import StoreOptions
from davsql.store.store import Store
from davsql.store.transaction import Row
from tests.store_steps import at, put, read, tree

DATA = Path(__file__).resolve().parents[1] / "data"
OLD_STORES = sorted(DATA.glob("store-v*.db"))

# What every version since the first has, in the columns that it had then.
KEPT = {
    "paths": """
        WITH RECURSIVE tree (inode, path) AS (
          SELECT inode, '' FROM nodes WHERE inode = 1
          UNION ALL
          SELECT n.inode, t.path || '/' || coalesce(n.sent_name, n.name)
          FROM tree AS t JOIN nodes AS n ON n.parent_inode = t.inode
        )
        SELECT t.path, n.inode, n.node_type, n.content_type, n.created_at, n.modified_at, b.size, b.digest
        FROM tree AS t JOIN nodes AS n ON n.inode = t.inode LEFT JOIN blobs AS b ON b.blob_id = n.blob_id
        ORDER BY t.path
    """,
    "properties": "SELECT inode, namespace, name, xml FROM properties ORDER BY 1, 2, 3",
    "locks": """
        SELECT token, inode, scope, is_depth_infinity, owner_xml, principal, timeout_s, expires_at FROM locks ORDER BY 1
    """,
    "chunks": "SELECT digest, size FROM chunks ORDER BY 1",
    "identity": "SELECT value FROM meta WHERE key IN ('store_id', 'created_at') ORDER BY key",
    "sequence": "SELECT seq FROM sqlite_sequence WHERE name = 'nodes'",
}


@pytest.fixture(params=OLD_STORES, ids=lambda path: path.stem)
def old_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of each store that an older davsql wrote."""
    copy = tmp_path / "old.db"
    shutil.copyfile(request.param, copy)
    return copy


def kept(file: Path) -> dict[str, list[Row]]:
    """What must be the same before and after."""
    connection = apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return {name: connection.execute(sql).fetchall() for name, sql in KEPT.items()}
    finally:
        connection.close()


def version_of(file: Path) -> int:
    connection = apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return migrate.schema_version(connection)
    finally:
        connection.close()


# --- the same schema --------------------------------------------------------------------------------------------------


def normalised(sql: str) -> str:
    """SQL without comments and without layout."""
    text = re.sub(r"--[^\n]*", "", sql)
    return re.sub(r"\s*([(),])\s*", r"\1", re.sub(r"\s+", " ", text)).replace('"', "").strip()


def checks_of(sql: str) -> list[str]:
    """The CHECK constraints of a table, with what is in their parentheses."""
    found = []
    for match in re.finditer(r"CHECK ?\(", sql):
        depth, end = 1, match.end()
        while depth:
            depth += {"(": 1, ")": -1}.get(sql[end], 0)
            end += 1
        found.append(sql[match.start() : end])
    return sorted(found)


def described(connection: apsw.Connection) -> Iterator[tuple[object, ...]]:
    """Everything of a schema that matters, whether a table was made at once or grew by ALTER TABLE."""
    rows_of_schema: list[tuple[str, str, str]] = connection.execute(  # type: ignore[assignment]
        "SELECT type, name, coalesce(sql, '') FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY type, name"
    ).fetchall()
    for kind, name, sql in rows_of_schema:
        if kind != "table":
            yield kind, name, normalised(sql)
            continue
        yield kind, name, checks_of(normalised(sql)), "AUTOINCREMENT" in sql
        for pragma in ("table_xinfo", "foreign_key_list", "index_list"):
            rows = connection.execute(f"SELECT * FROM pragma_{pragma}(?)", (name,)).fetchall()  # noqa: S608
            # The first column is a position, and names of automatic indexes count up.
            yield pragma, name, sorted(repr(row[2:] if pragma == "index_list" else row[1:]) for row in rows)
    yield (
        "flags",
        sorted(
            connection.execute("SELECT name, type, wr, strict FROM pragma_table_list WHERE schema = 'main'").fetchall()
        ),
    )


def test_described__sees_a_difference(tmp_path: Path) -> None:
    schemas = [
        "CREATE TABLE t (a INTEGER, b TEXT CHECK (b <> ''))",
        "CREATE TABLE t (a INTEGER, b TEXT CHECK (b <> 'x'))",
        "CREATE TABLE t (a INTEGER, b TEXT NOT NULL CHECK (b <> ''))",
        "CREATE TABLE t (a INTEGER, b TEXT CHECK (b <> '')) STRICT",
        "CREATE TABLE t (a INTEGER, b TEXT CHECK (b <> '')); CREATE INDEX i ON t (a)",
        "CREATE TABLE t (a INTEGER, b TEXT CHECK (b <> '')); CREATE INDEX i ON t (a) WHERE b > 'x'",
    ]
    seen = []
    for sql in [*schemas, "CREATE TABLE t (a INTEGER); ALTER TABLE t ADD COLUMN b TEXT CHECK (b <> '')"]:
        connection = apsw.Connection("")
        connection.execute(sql)
        seen.append(list(described(connection)))
        connection.close()
    assert seen.pop() == seen[0]
    assert all(seen[first] != seen[second] for first in range(len(seen)) for second in range(first))


def test_migrate__leads_to_the_schema_of_a_new_store(old_file: Path, tmp_path: Path) -> None:
    Store.open(old_file).close()
    Store.open(tmp_path / "new.db", create=True).close()
    schemas = []
    for file in (old_file, tmp_path / "new.db"):
        connection = apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READONLY)
        schemas.append(list(described(connection)))
        connection.close()
    for migrated, fresh in zip(*schemas, strict=True):
        assert migrated == fresh


# --- the same content -------------------------------------------------------------------------------------------------


def test_old_stores__are_there(tmp_path: Path) -> None:
    versions = [int(path.stem.removeprefix("store-v")) for path in OLD_STORES]
    assert versions == list(range(1, len(versions) + 1))
    assert len(versions) >= migrate.SCHEMA_VERSION - 1, "run tests/data/make_store.py with the version before"
    copies = [Path(shutil.copy(path, tmp_path)) for path in OLD_STORES]  # to look at one leaves files beside it
    assert [version_of(path) for path in copies] == versions


def test_migrate__keeps_everything(old_file: Path) -> None:
    before = kept(old_file)
    with Store.open(old_file) as store:
        assert check(store, deep=True) == []
        contents = tree(store)
        assert len(contents) == len(before["paths"]) - 1  # the root has no content
        assert any(contents.values())
    assert version_of(old_file) == migrate.SCHEMA_VERSION
    assert kept(old_file) == before


def test_migrate__gives_a_store_that_works(old_file: Path) -> None:
    with Store.open(old_file) as store:
        contents = tree(store)
        put(store, "/new", b"new content")
        store.copy(at("/new"), at("/newer"))
        for path in [path for path in contents if path.count("/") == 1]:
            with store.snapshot() as view:
                is_locked = view.locks_covering(at(path)) != []
            if not is_locked:
                store.delete(at(path))
        collect_garbage(store, grace_s=0, upload_expiry_s=0)
        assert read(store, "/newer") == b"new content"
        assert check(store, deep=True) == []
        assert store.node(ROOT).is_collection


def test_migrate__happens_once(old_file: Path) -> None:
    found = version_of(old_file)
    connection = open_connection(old_file, Role.WRITER, StoreOptions())
    assert migrate.migrate(connection) == found
    assert migrate.migrate(connection) == migrate.SCHEMA_VERSION
    assert connection.pragma("foreign_keys") == 1
    connection.close()


# --- failures ---------------------------------------------------------------------------------------------------------


def schema_and_rows(file: Path) -> dict[str, list[Row]]:
    connection = apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        schema = connection.execute("SELECT name, sql FROM sqlite_schema ORDER BY 1").fetchall()
        tables = [str(name) for name, sql in schema if str(sql).startswith("CREATE TABLE")]
        rows = {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in tables}  # noqa: S608
    finally:
        connection.close()
    return {**rows, "schema": schema}


@pytest.fixture
def next_version(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Pretends that there is one version more; the test fills in its script."""
    scripts: list[str] = []
    monkeypatch.setattr(migrate, "SCHEMA_VERSION", migrate.SCHEMA_VERSION + 1)
    monkeypatch.setattr(migrate, "pending_migrations", lambda _version: scripts)
    return scripts


@pytest.fixture
def current_file(tmp_path: Path) -> Path:
    file = tmp_path / "current.db"
    with Store.open(file, create=True) as store:
        put(store, "/f", b"content")
    return file


def test_migrate__runs_every_statement_of_a_script(current_file: Path, next_version: list[str]) -> None:
    next_version.append(
        """
        ALTER TABLE nodes ADD COLUMN extra TEXT;
        SELECT count(*) FROM nodes;  -- a row in the middle must not end the script
        PRAGMA user_version;
        UPDATE nodes SET extra = name;
        """
    )
    next_version.append("CREATE INDEX nodes_extra ON nodes (extra)")
    Store.open(current_file).close()
    assert version_of(current_file) == migrate.SCHEMA_VERSION
    connection = apsw.Connection(str(current_file))
    assert connection.execute("SELECT extra FROM nodes ORDER BY 1").fetchall() == [("",), ("f",)]
    assert connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'nodes_extra'").fetchall() == [(1,)]
    connection.close()


@pytest.mark.parametrize(
    "script",
    [
        "CREATE TABLE extra (a); INSERT INTO extra VALUES (1); INSERT INTO missing VALUES (1);",
        "DELETE FROM properties; DROP TABLE locks; not SQL;",
        "DROP TABLE chunk_data; INSERT INTO meta (key, value) VALUES ('schema_version', '9');",
        "DELETE FROM blobs;",  # foreign keys are off while it runs, and looked at before it ends
    ],
)
def test_migrate__that_fails_leaves_the_file_as_it_was(
    current_file: Path, next_version: list[str], script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = schema_and_rows(current_file)
    next_version.extend(["CREATE TABLE first_step (a)", script])
    with pytest.raises(StoreError):
        Store.open(current_file)
    assert schema_and_rows(current_file) == before
    monkeypatch.undo()
    with Store.open(current_file) as store:
        assert read(store, "/f") == b"content"
        assert check(store, deep=True) == []


def test_migrate__waits_for_another_process_and_sees_what_it_did(current_file: Path, next_version: list[str]) -> None:
    """Two processes start at once: the second finds the file newer than it looked, and refuses what is too new."""
    next_version.append("CREATE TABLE extra (a)")
    connection = open_connection(current_file, Role.WRITER, StoreOptions())
    other = apsw.Connection(str(current_file))
    found: list[int] = []

    def upgraded_meanwhile(looked_at: apsw.Connection) -> int:
        version = original(looked_at)
        if not found:  # between the first look and BEGIN
            other.execute(migrate.SET_META, ("schema_version", str(migrate.SCHEMA_VERSION + 5)))
        found.append(version)
        return version

    original = migrate.schema_version
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(migrate, "schema_version", upgraded_meanwhile)
        with pytest.raises(StoreVersionError):
            migrate.migrate(connection)
    connection.close()
    other.close()
    assert version_of(current_file) == migrate.SCHEMA_VERSION + 5


def test_pending_migrations__are_all_that_come_after_a_version() -> None:
    assert migrate.pending_migrations(migrate.SCHEMA_VERSION) == []
    assert len(migrate.pending_migrations(1)) == migrate.SCHEMA_VERSION - 1
    for version in range(1, migrate.SCHEMA_VERSION):
        assert migrate.pending_migrations(version) == migrate.pending_migrations(1)[version - 1 :]


def test_schema_version__of_an_unfinished_store_is_refused(tmp_path: Path) -> None:
    connection = create_file(tmp_path / "store.db", StoreOptions())
    with pytest.raises(NotAStore, match="never finished"):
        migrate.schema_version(connection)
    connection.execute("CREATE TABLE meta (key, value)")
    with pytest.raises(NotAStore, match="never finished"):
        migrate.schema_version(connection)
    connection.close()


def test_create_schema__is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrate, "INSERT_ROOT", "not SQL")
    with pytest.raises(StoreError):
        Store.open(tmp_path / "store.db", create=True)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    with Store.open(tmp_path / "store.db", create=True) as store:
        assert check(store) == []

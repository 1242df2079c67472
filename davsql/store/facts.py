"""What there is to know about a store's file without serving it: for `davsql doctor`, which changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import apsw

from davsql.errors import StoreBusy, StoreError, StoreReadOnly, StoreUnavailable
from davsql.store import queries, space
from davsql.store.connection import MIN_SQLITE, open_copy, require_file
from davsql.store.migrate import create_schema, schema_version
from davsql.store.options import StoreOptions
from davsql.store.records import TaskRecord, task_records
from davsql.store.replication import leaves_checkpoints
from davsql.store.space import Pages
from davsql.store.transaction import ReadTx, translated

LOCK_WAIT_MS = 2000

LAST_CREATED = "SELECT created_at FROM nodes WHERE inode = (SELECT max(inode) FROM nodes)"
LAST_UPLOAD = "SELECT max(touched_at) FROM uploads"
LAST_ORPHANED = "SELECT max(orphaned_at) FROM blobs WHERE orphaned_at IS NOT NULL"
FIRST_ORPHANED = "SELECT min(orphaned_at) FROM blobs WHERE orphaned_at IS NOT NULL"
STORE_CREATED = "SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'created_at'"


class Library(NamedTuple):
    """The SQLite in use."""

    sqlite_version: str
    apsw_version: str
    is_new_enough: bool
    min_sqlite_version: str
    can_encrypt: bool  # SQLite3 Multiple Ciphers: apsw-sqlite3mc, not apsw


def library() -> Library:
    """Look at what is installed."""
    version = apsw.sqlite_lib_version()
    is_new_enough = tuple(map(int, version.split("."))) >= MIN_SQLITE
    wanted = ".".join(map(str, MIN_SQLITE))
    return Library(version, apsw.apsw_version(), is_new_enough, wanted, hasattr(apsw, "mc_version"))


class Facts(NamedTuple):
    """What `look_into` found."""

    schema_version: int
    journal_mode: str
    auto_vacuum: int
    pages: Pages
    missing: list[str]  # tables, indexes and triggers that the schema has and the file has not
    scanning: list[str]  # constants of SQL that would read a whole table
    write_lock: StoreError | None  # why a transaction could not be begun; None: it could
    leaves_checkpoints: bool  # to Litestream
    created_at: int
    newest_at: int  # the latest time that davsql, not a client, has written into it
    oldest_orphan_at: int | None
    tasks: dict[str, TaskRecord]


def look_into(file: Path, options: StoreOptions) -> Facts:
    """Open the file as it is, and look; it may be served meanwhile.

    Raises:
        StoreError: it cannot be opened, or is none of ours.
    """
    require_file(file)
    with _opened(file, options) as connection:
        found = schema_version(connection)
        missing = missing_objects(connection)
        tx = ReadTx(connection)
        tasks = {} if "table tasks" in missing else task_records(tx)
        created_at = int(tx.value(STORE_CREATED) or 0)
        times = [tx.value(query) for query in (LAST_CREATED, LAST_UPLOAD, LAST_ORPHANED)]
        return Facts(
            schema_version=found,
            journal_mode=connection.pragma("journal_mode"),
            auto_vacuum=connection.pragma("auto_vacuum"),
            pages=space.pages(tx),
            missing=missing,
            scanning=[] if missing else scanning_queries(connection),
            write_lock=None if options.read_only else _try_write_lock(connection),
            leaves_checkpoints=leaves_checkpoints(tx),
            created_at=created_at,
            newest_at=max(created_at, *(each or 0 for each in times), *(each.started_at for each in tasks.values())),
            oldest_orphan_at=tx.value(FIRST_ORPHANED),
            tasks=tasks,
        )


@contextmanager
def _opened(file: Path, options: StoreOptions) -> Iterator[apsw.Connection]:
    connection = open_copy(file, options)
    try:
        with translated():
            yield connection
    finally:
        connection.close()


OBJECTS = "SELECT type || ' ' || name FROM sqlite_schema WHERE name NOT LIKE 'sqlite!_%' ESCAPE '!' ORDER BY 1"


def missing_objects(connection: apsw.Connection) -> list[str]:
    """What a new store of this davsql has and this one has not, as `index nodes_blob`."""
    with translated():
        fresh = apsw.Connection(":memory:")
        try:
            create_schema(fresh)
            wanted = [row[0] for row in fresh.execute(OBJECTS)]
        finally:
            fresh.close()
        there = {row[0] for row in connection.execute(OBJECTS)}
    return [each for each in wanted if each not in there]


def scanning_queries(connection: apsw.Connection) -> list[str]:
    """Constants of SQL that read a whole table where an index is meant, with the table."""
    return [
        f"{constant.name}: {step}"
        for constant in queries.constants()
        if constant.name not in queries.SCANS
        for step in queries.full_scans(connection, constant.sql)
    ]


def _try_write_lock(connection: apsw.Connection) -> StoreError | None:
    """Begin a writing transaction and give it up."""
    if connection.readonly("main"):
        return StoreReadOnly("the store's file, or its folder, cannot be written")
    connection.set_busy_timeout(LOCK_WAIT_MS)
    connection.pragma("query_only", 0)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    except apsw.BusyError:
        return StoreBusy(f"another process has held the write lock for {LOCK_WAIT_MS // 1000} s")
    except apsw.ReadOnlyError:
        return StoreReadOnly("the store's file, or its folder, cannot be written")
    except apsw.Error as error:
        return StoreUnavailable(f"a transaction cannot be begun: {error}")
    finally:
        connection.pragma("query_only", 1)
    return None

"""The schema of a file: making it, telling its version, bringing an older one up to date.

`schema.sql` is the schema as it is now. `migrations/NNNN_name.sql` leads from version NNNN - 1 to NNNN; migrating and
making anew give the same schema (a test compares them). Forward only, in one transaction.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import apsw

from davsql.errors import NotAStore, StoreDamaged, StoreVersionError
from davsql.store.transaction import translated

SCHEMA_VERSION = 5

GET_META = "SELECT value FROM meta WHERE key = ?"
SET_META = "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
INSERT_ROOT = "INSERT INTO nodes (inode, name, node_type, created_at, modified_at) VALUES (1, '', 1, ?1, ?1)"


def create_schema(connection: apsw.Connection) -> None:
    """Fill a new, empty database."""
    with translated(), connection:
        connection.execute(_sql("schema.sql")).fetchall()
        now = time.time_ns()
        for key, value in (("schema_version", SCHEMA_VERSION), ("store_id", uuid.uuid4()), ("created_at", now)):
            connection.execute(SET_META, (key, str(value)))
        connection.execute(INSERT_ROOT, (now,))
    with translated():  # at durability "normal" COMMIT syncs nothing, and a new store would not survive a power cut
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)


def schema_version(connection: apsw.Connection) -> int:
    """The version on record.

    Raises:
        NotAStore: there is none; the file was never finished.
    """
    with translated():
        has_meta = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'meta'").fetchone()
        row = connection.execute(GET_META, ("schema_version",)).fetchone() if has_meta else None
    if row is None:
        raise NotAStore("the store was never finished: delete the file and run `davsql init` again")
    return int(row[0])


def migrate(connection: apsw.Connection, before: Callable[[int], None] = lambda _version: None) -> int:
    """Bring an older schema up to date and return the version it had.

    Args:
        before: is called with that version when nobody else can write any more, and nothing is changed yet.

    Raises:
        StoreVersionError: the file was written by a newer davsql.
        StoreDamaged: the result would break foreign keys; nothing was changed.
    """
    found = known_version(connection)
    if found == SCHEMA_VERSION:
        return found
    with translated():
        # Foreign keys would follow a table that a migration renames (https://www.sqlite.org/lang_altertable.html 7).
        connection.pragma("foreign_keys", 0)
        try:
            connection.execute("BEGIN IMMEDIATE")
            current = known_version(connection)  # another process may have been faster
            if current < SCHEMA_VERSION:
                before(current)
            for script in pending_migrations(current):
                connection.execute(script).fetchall()  # a statement that gives rows would end the script
            broken = connection.execute("PRAGMA foreign_key_check").fetchone()
            if broken is not None:
                raise StoreDamaged(
                    f"the store cannot be migrated, a row of {broken[0]} refers to nothing: restore a backup, or run "
                    "`davsql check` of the davsql that wrote it"
                )
            connection.execute(SET_META, ("schema_version", str(SCHEMA_VERSION)))
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            connection.pragma("foreign_keys", 1)
    return found


def known_version(connection: apsw.Connection) -> int:
    """The version on record.

    Raises:
        NotAStore: there is none; the file was never finished.
        StoreVersionError: the file was written by a newer davsql.
    """
    found = schema_version(connection)
    if found > SCHEMA_VERSION:
        raise StoreVersionError(
            f"the store has schema version {found}, this davsql knows up to {SCHEMA_VERSION}: install a newer davsql"
        )
    return found


def require_present_version(connection: apsw.Connection, file: Path) -> None:
    """Raise StoreVersionError, with the remedy, where the schema is another one: who only reads does not migrate."""
    found = known_version(connection)
    if found < SCHEMA_VERSION:
        raise StoreVersionError(
            f"{file} has schema version {found}, this davsql reads {SCHEMA_VERSION}: bring it up to date with "
            f"`davsql migrate --db {file}`, or a copy of it with `davsql restore {file} --db NEW`"
        )


def pending_migrations(version: int) -> list[str]:
    """The scripts that lead from `version` to the newest, in order."""
    folder = files("davsql.store").joinpath("migrations")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [_sql(f"migrations/{name}") for name in names if int(name.split("_")[0]) > version]


def _sql(name: str) -> str:
    return files("davsql.store").joinpath(name).read_text(encoding="utf-8")

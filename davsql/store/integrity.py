"""SQLite's own checks of the file while it is in use."""

from __future__ import annotations

from collections.abc import Callable

import apsw

from davsql.errors import StoreDamaged
from davsql.store.connection import Role, open_connection
from davsql.store.store import Store
from davsql.store.transaction import translated

PROGRESS_STEPS = 100_000  # of SQLite's virtual machine between two looks at `is_cancelled`
TABLES = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite!_%' ESCAPE '!' ORDER BY name"


def quick_check(store: Store, is_cancelled: Callable[[], bool]) -> None:
    """SQLite's quick_check: everything but whether indexes agree with their tables.

    Raises:
        StoreDamaged: what is wrong.
        StoreUnavailable: cancelled.
    """
    _check(store, "quick_check", is_cancelled)


def integrity_check(store: Store, is_cancelled: Callable[[], bool]) -> None:
    """SQLite's integrity_check and foreign_key_check.

    Raises:
        StoreDamaged: what is wrong.
        StoreUnavailable: cancelled.
    """
    _check(store, "integrity_check", is_cancelled)


def _check(store: Store, pragma: str, is_cancelled: Callable[[], bool]) -> None:
    """Table by table, each in a snapshot of its own: one snapshot for all would keep the WAL growing meanwhile."""
    with translated():
        connection = open_connection(store.file, Role.READER, store.options)
        try:
            connection.set_progress_handler(is_cancelled, PROGRESS_STEPS)
            for (table,) in connection.execute(TABLES).fetchall():
                _require_ok(store, connection, f"PRAGMA {pragma}({table})")
                if connection.execute(f"PRAGMA foreign_key_check({table})").fetchone() is not None:
                    raise StoreDamaged(f"{store.file}: a row of {table} refers to nothing; run `davsql check`")
        finally:
            connection.close()


def _require_ok(store: Store, connection: apsw.Connection, pragma: str) -> None:
    messages = [row[0] for row in connection.execute(pragma)]
    if messages != ["ok"]:
        raise StoreDamaged(f"{store.file}: {'; '.join(messages[:3])}; run `davsql check`, restore a backup")

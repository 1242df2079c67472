"""What the tests of backups share."""

from __future__ import annotations

from pathlib import Path

import apsw

from davsql.store.backup import CopyOptions, back_up
from davsql.store.migrate import schema_version
from davsql.store.options import StoreOptions
from davsql.store.store import Store
from tests.store_steps import tree

OPTIONS = StoreOptions(busy_timeout_s=5)
REPLACING = CopyOptions(may_replace=True)


def backup_of(store: Path, name: str = "backup.davsql") -> Path:
    """A backup beside the store."""
    return back_up(store, store.with_name(name), OPTIONS).file


def tree_in(file: Path) -> dict[str, bytes | None]:
    """What a closed store, or a backup, holds."""
    with Store.open(file, OPTIONS) as store:
        return tree(store)


def version_of(file: Path) -> int:
    connection = apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READWRITE)  # to leave no WAL behind
    try:
        return schema_version(connection)
    finally:
        connection.close()


def names_in(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())

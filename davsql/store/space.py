"""Giving free pages of the file back to the file system."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import NamedTuple

import apsw

from davsql.errors import StoreFull
from davsql.store.store import Store
from davsql.store.transaction import ReadTx, WriteTx

PROGRESS_STEPS = 10_000  # of SQLite's virtual machine between two looks at `is_cancelled`


class Pages(NamedTuple):
    """How full the file is."""

    page_size: int
    page_count: int
    free_count: int

    @property
    def free_bytes(self) -> int:
        return self.page_size * self.free_count

    @property
    def free_share(self) -> float:
        return self.free_count / self.page_count


def pages(tx: ReadTx) -> Pages:
    """Count the pages of the file."""
    return Pages(*(tx.value(f"PRAGMA {name}") for name in ("page_size", "page_count", "freelist_count")))


def free_pages(tx: WriteTx, limit: int) -> int:
    """Move up to `limit` free pages to the end of the file and cut them off; returns how many are still free.

    Source: https://www.sqlite.org/pragma.html#pragma_incremental_vacuum
    """
    tx.rows(f"PRAGMA incremental_vacuum({int(limit)})")  # a row a page: reading them all is what does the work
    return int(tx.value("PRAGMA freelist_count"))


def vacuum(store: Store, is_cancelled: Callable[[], bool] = lambda: False) -> Pages:
    """Rebuild the whole file, which stops writers meanwhile; returns how full it was.

    Raises:
        StoreFull: the disk has no room for the rebuilt file and the WAL it passes through.
    """
    with store.read() as tx:
        before = pages(tx)
    needed = 2 * (before.page_count - before.free_count) * before.page_size
    free = shutil.disk_usage(store.file.parent).free
    if free < needed:
        raise StoreFull(
            f"VACUUM of {store.file} may need {needed >> 20} MiB beside it, {free >> 20} MiB are free: make room first"
        )

    def run(connection: apsw.Connection) -> None:
        connection.set_progress_handler(is_cancelled, PROGRESS_STEPS)
        try:
            connection.execute("VACUUM")
        finally:
            connection.set_progress_handler(None)

    store.write_alone(run)
    return before

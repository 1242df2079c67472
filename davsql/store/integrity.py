"""Looking for damage in the file while it is in use: SQLite's own checks, and rehashing of chunks in small batches."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import apsw

from davsql.errors import StoreDamaged
from davsql.model import ChunkId, Inode
from davsql.store.connection import Role, open_connection
from davsql.store.nodes import path_of
from davsql.store.store import Store
from davsql.store.transaction import ReadTx, translated

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


class Batch(NamedTuple):
    """What one step of the scrub looked at."""

    last: ChunkId | None  # None: there are no more chunks
    size_bytes: int
    damaged: list[ChunkId]


NEXT_CHUNKS = """
SELECT c.chunk_id, c.digest, d.data
FROM chunks AS c LEFT JOIN chunk_data AS d ON d.chunk_id = c.chunk_id
WHERE c.chunk_id > :after ORDER BY c.chunk_id LIMIT :limit
"""


def rehash(tx: ReadTx, after: ChunkId, limit: int) -> Batch:
    """Rehash up to `limit` chunks in the order of their ids."""
    rows = tx.rows(NEXT_CHUNKS, {"after": after, "limit": limit})
    damaged = [row[0] for row in rows if row[2] is None or hashlib.sha256(row[2]).digest() != row[1]]
    return Batch(rows[-1][0] if rows else None, sum(len(row[2] or b"") for row in rows), damaged)


NODES_OF_CHUNK = """
SELECT DISTINCT n.inode
FROM blob_chunks AS b CROSS JOIN nodes AS n ON n.blob_id = b.blob_id WHERE b.chunk_id = :chunk_id LIMIT :limit
"""


def paths_of_chunk(tx: ReadTx, chunk_id: ChunkId, limit: int = 20) -> list[str]:
    """Up to `limit` paths of files that use a chunk; of deleted ones that are still there only the end of the path."""
    rows = tx.rows(NODES_OF_CHUNK, {"chunk_id": chunk_id, "limit": limit})
    return [str(path_of(tx, Inode(inode))) for (inode,) in rows]

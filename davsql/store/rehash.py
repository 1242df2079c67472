"""Rehashing everything that a store holds: the deep check (rule 15), of a store that is open or of a copy of one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

from davsql.store.transaction import ReadTx


def rehash(tx: ReadTx, progress: Callable[[int, int], None]) -> Iterator[str]:
    """Rehash every chunk and every blob, and tell what is not as it was stored.

    Args:
        progress: is called with the bytes rehashed and the bytes to rehash; what it raises ends the work.
    """
    yield from _damaged_chunks(tx, progress)
    yield from _damaged_blobs(tx)


TOTAL_BYTES = "SELECT coalesce(sum(size), 0) FROM chunks"
NEXT_CHUNKS = """
SELECT c.chunk_id, c.digest, d.data
FROM chunks AS c JOIN chunk_data AS d ON d.chunk_id = c.chunk_id
WHERE c.chunk_id > ? ORDER BY c.chunk_id LIMIT 16
"""
PATHS_OF_CHUNK = """
SELECT DISTINCT n.inode
FROM blob_chunks AS b JOIN nodes AS n ON n.blob_id = b.blob_id WHERE b.chunk_id = ? LIMIT 20
"""


def _damaged_chunks(tx: ReadTx, progress: Callable[[int, int], None]) -> Iterator[str]:
    total, done, last = tx.value(TOTAL_BYTES), 0, 0
    while rows := tx.rows(NEXT_CHUNKS, (last,)):
        for chunk_id, digest, data in rows:
            if hashlib.sha256(data).digest() != digest:
                yield f"chunk {chunk_id}: its bytes are not those that were stored; used by {_users(tx, chunk_id)}"
            last, done = chunk_id, done + len(data)
        progress(done, total)


def _users(tx: ReadTx, chunk_id: int) -> str:
    paths = [_path(tx, inode) for (inode,) in tx.rows(PATHS_OF_CHUNK, (chunk_id,))]
    return ", ".join(paths) or "no file"


UP = """
WITH RECURSIVE up (inode, parent_inode, name, height) AS (
  SELECT inode, parent_inode, coalesce(sent_name, name), 0 FROM nodes WHERE inode = :inode
  UNION ALL
  SELECT n.inode, n.parent_inode, coalesce(n.sent_name, n.name), u.height + 1
  FROM up AS u JOIN nodes AS n ON n.inode = u.parent_inode WHERE u.height < 1000
)
SELECT inode, name FROM up ORDER BY height DESC
"""


def _path(tx: ReadTx, inode: int) -> str:
    rows = tx.rows(UP, {"inode": inode})
    names = "/".join(name for _, name in rows[1:])
    return f"/{names}" if rows[0][0] == 1 else f"(deleted) /{names}"


NEXT_BLOBS = """
SELECT b.blob_id, b.digest FROM blobs AS b WHERE b.digest IS NOT NULL AND b.blob_id > ? ORDER BY b.blob_id LIMIT 100
"""
NEXT_OF_BLOB = """
SELECT b.start, d.data FROM blob_chunks AS b JOIN chunk_data AS d ON d.chunk_id = b.chunk_id
WHERE b.blob_id = :blob_id AND b.start > :after ORDER BY b.start LIMIT 16
"""
BLOB_DIGESTS = """
SELECT c.digest FROM blob_chunks AS b JOIN chunks AS c ON c.chunk_id = b.chunk_id
WHERE b.blob_id = ? ORDER BY b.start LIMIT 2
"""


def _damaged_blobs(tx: ReadTx) -> Iterator[str]:
    last = 0
    while rows := tx.rows(NEXT_BLOBS, (last,)):
        for blob_id, digest in rows:
            last = blob_id
            if _blob_digest(tx, blob_id) != digest:
                yield f"blob {blob_id}: its chunks together are not the content on record"


def _blob_digest(tx: ReadTx, blob_id: int) -> bytes:
    parts = tx.rows(BLOB_DIGESTS, (blob_id,))
    if len(parts) == 1:  # rehashed as a chunk already
        return bytes(parts[0][0])
    whole, position = hashlib.sha256(), -1
    while rows := tx.rows(NEXT_OF_BLOB, {"blob_id": blob_id, "after": position}):
        for start, data in rows:
            whole.update(data)
            position = start
    return whole.digest()

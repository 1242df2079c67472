"""Rehashing what a store holds, all of it (rule 15) or a step at a time, of a store that is open or of a copy of one.

Damage can lead from a row of a table back to an earlier one, thus round in circles: keys must ascend.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from davsql.errors import StoreDamaged
from davsql.model import ChunkId, Inode
from davsql.store.nodes import place_of
from davsql.store.transaction import ReadTx

BATCH_CHUNKS = 16


class Batch(NamedTuple):
    """What one step looked at."""

    last: ChunkId | None  # None: there are no more chunks
    size_bytes: int
    damaged: list[ChunkId]


# A bit that rots in the type of a value can make a text of it; whether its bytes are right the digest tells.
NEXT_CHUNKS = """
SELECT c.chunk_id, c.digest, CAST(d.data AS BLOB)
FROM chunks AS c LEFT JOIN chunk_data AS d ON d.chunk_id = c.chunk_id
WHERE c.chunk_id > :after ORDER BY c.chunk_id LIMIT :limit
"""


def rehash_chunks(tx: ReadTx, after: ChunkId, limit: int) -> Batch:
    """Rehash up to `limit` chunks in the order of their ids.

    Raises:
        StoreDamaged: the table leads back.
    """
    last, size_bytes, damaged = None, 0, []
    for chunk_id, digest, data in tx.rows(NEXT_CHUNKS, {"after": after, "limit": limit}):
        last = ChunkId(ascending(after if last is None else last, chunk_id))
        size_bytes += len(data or b"")
        if data is None or hashlib.sha256(data).digest() != digest:
            damaged.append(chunk_id)
    return Batch(last, size_bytes, damaged)


def ascending(last: int, key: int) -> int:
    """The key of a row that follows the one with the key `last`.

    Raises:
        StoreDamaged: it does not follow.
    """
    if key <= last:
        raise StoreDamaged(f"a table of the store is out of order: {key} comes after {last}; restore a backup")
    return key


NODES_OF_CHUNK = """
SELECT DISTINCT n.inode
FROM blob_chunks AS b CROSS JOIN nodes AS n ON n.blob_id = b.blob_id WHERE b.chunk_id = :chunk_id LIMIT :limit
"""


def paths_of_chunk(tx: ReadTx, chunk_id: ChunkId, limit: int = 20) -> str:
    """Up to `limit` paths of files that use a chunk, for people; of deleted ones that are still there only the end."""
    rows = tx.rows(NODES_OF_CHUNK, {"chunk_id": chunk_id, "limit": limit})
    return ", ".join(_words_for(tx, Inode(inode)) for (inode,) in rows) or "no file"


def _words_for(tx: ReadTx, inode: Inode) -> str:
    try:
        path, is_detached = place_of(tx, inode)
    except StoreDamaged:
        return f"node {inode}"
    return f"(deleted) {path}" if is_detached else str(path)


def rehash(tx: ReadTx, progress: Callable[[int, int], None]) -> Iterator[str]:
    """Rehash every chunk and every blob, and tell what is not as it was stored.

    Args:
        progress: is called with the bytes rehashed and the bytes to rehash; what it raises ends the work.

    Raises:
        StoreDamaged: what follows cannot be found.
    """
    yield from _damaged_chunks(tx, progress)
    yield from _damaged_blobs(tx)


TOTAL_BYTES = "SELECT coalesce(sum(size), 0) FROM chunks"


def _damaged_chunks(tx: ReadTx, progress: Callable[[int, int], None]) -> Iterator[str]:
    total, done, position = tx.value(TOTAL_BYTES), 0, ChunkId(0)
    while (batch := rehash_chunks(tx, position, BATCH_CHUNKS)).last is not None:
        for chunk_id in batch.damaged:
            users = paths_of_chunk(tx, chunk_id)
            yield f"chunk {chunk_id}: its bytes are not those that were stored; used by {users}"
        position, done = batch.last, done + batch.size_bytes
        progress(done, total)


NEXT_BLOBS = """
SELECT b.blob_id, b.digest FROM blobs AS b WHERE b.digest IS NOT NULL AND b.blob_id > ? ORDER BY b.blob_id LIMIT 100
"""
NEXT_OF_BLOB = """
SELECT b.start, CAST(d.data AS BLOB)
FROM blob_chunks AS b JOIN chunk_data AS d ON d.chunk_id = b.chunk_id
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
            last = ascending(last, blob_id)
            if _blob_digest(tx, blob_id) != digest:
                yield f"blob {blob_id}: its chunks together are not the content on record"


def _blob_digest(tx: ReadTx, blob_id: int) -> object:
    parts = tx.rows(BLOB_DIGESTS, (blob_id,))
    if len(parts) == 1:  # rehashed as a chunk already
        return parts[0][0]
    whole, position = hashlib.sha256(), -1
    while rows := tx.rows(NEXT_OF_BLOB, {"blob_id": blob_id, "after": position}):
        for start, data in rows:
            whole.update(data or b"")
            position = ascending(position, start)
    return whole.digest()

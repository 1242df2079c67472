"""Numbers about a store."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from davsql.store.migrate import GET_META
from davsql.store.transaction import ReadTx


class Stats(NamedTuple):
    """What `davsql stats` shows."""

    schema_version: int
    collections: int
    files: int
    detached_nodes: int  # deleted, not yet taken away
    blobs: int
    orphaned_blobs: int
    chunks: int
    logical_bytes: int  # of all files
    stored_bytes: int  # of all chunks
    locks: int
    properties: int
    uploads: int
    page_size: int
    page_count: int
    freelist_count: int
    file_bytes: int
    wal_bytes: int
    queue_depth: int


COUNT_NODES = "SELECT count(*) FILTER (WHERE node_type = 1), count(*) FILTER (WHERE node_type = 2) FROM nodes"
COUNT_DETACHED = "SELECT count(*) FROM nodes WHERE parent_inode IS NULL AND inode <> 1"
COUNT_BLOBS = (
    "SELECT count(*), count(orphaned_at), coalesce(sum(size * refcount), 0) FROM blobs WHERE digest IS NOT NULL"
)
COUNT_CHUNKS = "SELECT count(*), coalesce(sum(size), 0) FROM chunks"


def collect(tx: ReadTx, file: Path, queue_depth: int) -> Stats:
    """Count everything in one snapshot."""
    collections, files = tx.rows(COUNT_NODES)[0]
    blobs, orphaned, logical_bytes = tx.rows(COUNT_BLOBS)[0]
    chunks, stored_bytes = tx.rows(COUNT_CHUNKS)[0]
    wal = file.with_name(file.name + "-wal")
    return Stats(
        schema_version=int(tx.value(GET_META, ("schema_version",))),
        collections=collections,
        files=files,
        detached_nodes=tx.value(COUNT_DETACHED),
        blobs=blobs,
        orphaned_blobs=orphaned,
        chunks=chunks,
        logical_bytes=logical_bytes,
        stored_bytes=stored_bytes,
        locks=tx.value("SELECT count(*) FROM locks WHERE expires_at > ?", (tx.now,)),
        properties=tx.value("SELECT count(*) FROM properties"),
        uploads=tx.value("SELECT count(*) FROM uploads"),
        page_size=tx.value("PRAGMA page_size"),
        page_count=tx.value("PRAGMA page_count"),
        freelist_count=tx.value("PRAGMA freelist_count"),
        file_bytes=file.stat().st_size,
        wal_bytes=wal.stat().st_size if wal.exists() else 0,
        queue_depth=queue_depth,
    )

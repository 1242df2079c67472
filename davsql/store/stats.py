"""Numbers about a store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from davsql.store.migrate import GET_META
from davsql.store.records import INTEGRITY_CHECK, QUICK_CHECK, SCRUB, task_records
from davsql.store.transaction import ReadTx
from davsql.store.vitals import Vitals

LARGEST = 5  # collections that are named
HOLDERS = 20  # users that are


class Large(NamedTuple):
    """A collection that stands out."""

    path: str
    figure: int


class Holder(NamedTuple):
    """How much somebody holds, as quotas count it."""

    owner: str  # "": nobody
    nodes: int
    size_bytes: int


class Check(NamedTuple):
    """How one of the checks for damage last ended."""

    name: str
    outcome: str  # ok, failed, unfinished, never
    age_s: int | None


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
    dedup_ratio: float  # logical for each stored byte; 1.0 for an empty store
    locks: int
    properties: int
    uploads: int
    page_size: int
    page_count: int
    freelist_count: int
    file_bytes: int
    wal_bytes: int
    queue_depth: int
    queue_size: int
    readers_in_use: int
    readers: int
    cache_hits: int  # of the readers of this process
    cache_misses: int
    checks: tuple[Check, ...]  # quick_check, integrity_check, scrub
    most_members: tuple[Large, ...]  # collections by the number of their members
    most_bytes: tuple[Large, ...]  # by the size of the files that are their members
    holders: tuple[Holder, ...]  # those who hold most


COUNT_NODES = "SELECT count(*) FILTER (WHERE node_type = 1), count(*) FILTER (WHERE node_type = 2) FROM nodes"
COUNT_DETACHED = "SELECT count(*) FROM nodes WHERE parent_inode IS NULL AND inode <> 1"
COUNT_BLOBS = (
    "SELECT count(*), count(orphaned_at), coalesce(sum(size * refcount), 0) FROM blobs WHERE digest IS NOT NULL"
)
COUNT_CHUNKS = "SELECT count(*), coalesce(sum(size), 0) FROM chunks"
COUNT_LOCKS = "SELECT count(*) FROM locks WHERE expires_at > ?"
COUNT_PROPERTIES = "SELECT count(*) FROM properties"
COUNT_UPLOADS = "SELECT count(*) FROM uploads"
MOST_HELD = "SELECT owner, nodes, bytes FROM usage WHERE nodes > 0 ORDER BY bytes DESC, owner LIMIT :limit"


def collect(tx: ReadTx, file: Path, look: Callable[[], Vitals]) -> Stats:
    """Count everything in one snapshot."""
    collections, files = tx.rows(COUNT_NODES)[0]
    blobs, orphaned, logical_bytes = tx.rows(COUNT_BLOBS)[0]
    chunks, stored_bytes = tx.rows(COUNT_CHUNKS)[0]
    most_members, most_bytes = _largest(tx, MOST_MEMBERS), _largest(tx, MOST_BYTES)
    wal = file.with_name(file.name + "-wal")
    vitals = look()  # last: the cache has seen what was read here
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
        dedup_ratio=round(logical_bytes / stored_bytes, 3) if stored_bytes else 1.0,
        locks=tx.value(COUNT_LOCKS, (tx.now,)),
        properties=tx.value(COUNT_PROPERTIES),
        uploads=tx.value(COUNT_UPLOADS),
        page_size=tx.value("PRAGMA page_size"),
        page_count=tx.value("PRAGMA page_count"),
        freelist_count=tx.value("PRAGMA freelist_count"),
        file_bytes=file.stat().st_size,
        wal_bytes=wal.stat().st_size if wal.exists() else 0,
        queue_depth=vitals.queue_depth,
        queue_size=vitals.queue_size,
        readers_in_use=vitals.readers_in_use,
        readers=vitals.readers,
        cache_hits=vitals.cache_hits,
        cache_misses=vitals.cache_misses,
        checks=_checks(tx),
        most_members=most_members,
        most_bytes=most_bytes,
        holders=tuple(Holder._make(row) for row in tx.rows(MOST_HELD, {"limit": HOLDERS})),
    )


def _checks(tx: ReadTx) -> tuple[Check, ...]:
    records = task_records(tx)
    found = [(name, records.get(name)) for name in (QUICK_CHECK, INTEGRITY_CHECK, SCRUB)]
    return tuple(
        Check(name, "never", None) if last is None else Check(name, last.outcome or "unfinished", last.age_s())
        for name, last in found
    )


# Twice as many as are shown: those of deleted trees fall away when their paths do not end at the root.
MOST_MEMBERS = """
WITH RECURSIVE top (inode, figure) AS (
  SELECT parent_inode, count(*) FROM nodes WHERE parent_inode IS NOT NULL
  GROUP BY parent_inode ORDER BY 2 DESC LIMIT 2 * :limit
), up (at, path, figure) AS (
  SELECT inode, '', figure FROM top
  UNION ALL
  SELECT n.parent_inode, '/' || coalesce(n.sent_name, n.name) || u.path, u.figure
  FROM up AS u JOIN nodes AS n ON n.inode = u.at
  WHERE n.parent_inode IS NOT NULL AND length(u.path) < 100000  -- damage can make circles
)
SELECT path, figure FROM up WHERE at = 1 ORDER BY figure DESC, path LIMIT :limit
"""
MOST_BYTES = """
WITH RECURSIVE top (inode, figure) AS (
  SELECT n.parent_inode, sum(b.size) FROM nodes AS n JOIN blobs AS b ON b.blob_id = n.blob_id
  WHERE n.parent_inode IS NOT NULL
  GROUP BY n.parent_inode ORDER BY 2 DESC LIMIT 2 * :limit
), up (at, path, figure) AS (
  SELECT inode, '', figure FROM top
  UNION ALL
  SELECT n.parent_inode, '/' || coalesce(n.sent_name, n.name) || u.path, u.figure
  FROM up AS u JOIN nodes AS n ON n.inode = u.at
  WHERE n.parent_inode IS NOT NULL AND length(u.path) < 100000  -- damage can make circles
)
SELECT path, figure FROM up WHERE at = 1 ORDER BY figure DESC, path LIMIT :limit
"""


def _largest(tx: ReadTx, query: str) -> tuple[Large, ...]:
    """The collections that a query puts first, with their paths."""
    return tuple(Large(path or "/", figure) for path, figure in tx.rows(query, {"limit": LARGEST}))

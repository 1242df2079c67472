"""Taking away what nobody refers to any more: detached trees, orphaned blobs and chunks, stale uploads, old locks.

Each function is one command with a bound on what it changes, and looks inside its own transaction at what is still
unreferenced; it returns how many rows it removed, so that 0 means there is nothing left to do.
"""

from __future__ import annotations

import json
from collections.abc import Set as AbstractSet

from davsql.model import BlobId
from davsql.store.transaction import ReadTx, WriteTx

# Both CTEs are bounded, so that a step is short however many tops there are and however many members one has.
DELETE_LEAVES = """
WITH tops AS MATERIALIZED (
  SELECT inode FROM detached ORDER BY inode LIMIT :limit
),
members AS MATERIALIZED (
  SELECT n.inode FROM tops JOIN nodes AS n ON n.parent_inode = tops.inode LIMIT :limit
)
DELETE FROM nodes WHERE inode IN (
  SELECT inode FROM members AS m WHERE NOT EXISTS (SELECT 1 FROM nodes AS n WHERE n.parent_inode = m.inode)
)
"""
DETACH_MEMBERS = """
WITH tops AS MATERIALIZED (
  SELECT inode FROM detached ORDER BY inode LIMIT :limit
)
UPDATE nodes SET parent_inode = NULL WHERE inode IN (
  SELECT n.inode FROM tops JOIN nodes AS n ON n.parent_inode = tops.inode LIMIT :limit
)
"""
DELETE_TOPS = """
DELETE FROM nodes WHERE inode IN (
  SELECT inode FROM detached ORDER BY inode LIMIT :limit
)
"""


def remove_detached(tx: WriteTx, limit: int) -> int:
    """Take deleted trees apart from the outside: leaves go, collections that still hold something become tops.

    Each statement looks at the same first tops: where the one before found nothing, they have no members any more.
    """
    return (
        tx.change(DELETE_LEAVES, {"limit": limit})
        or tx.change(DETACH_MEMBERS, {"limit": limit})
        or tx.change(DELETE_TOPS, {"limit": limit})
    )


HAS_DETACHED = "SELECT EXISTS (SELECT 1 FROM detached)"


def has_detached(tx: ReadTx) -> bool:
    """Whether a deleted tree waits to be taken apart."""
    return bool(tx.value(HAS_DETACHED))


END_STALE_UPLOADS = """
DELETE FROM uploads WHERE upload_id IN (SELECT upload_id FROM uploads WHERE touched_at < :before LIMIT :limit)
"""


def end_stale_uploads(tx: WriteTx, before: int, limit: int) -> int:
    """Give up uploads that got no bytes since `before`; their blobs become orphans."""
    return tx.change(END_STALE_UPLOADS, {"before": before, "limit": limit})


DELETE_EXPIRED_LOCKS = (
    "DELETE FROM locks WHERE lock_id IN (SELECT lock_id FROM locks WHERE expires_at <= :now LIMIT :limit)"
)

SHORTEN_LOCKS = """
UPDATE locks SET expires_at = :now + timeout_s * 1000000000 WHERE lock_id IN (
  SELECT lock_id FROM locks WHERE expires_at > :now AND expires_at > :now + timeout_s * 1000000000 LIMIT :limit
)
"""


def remove_expired_locks(tx: WriteTx, limit: int) -> int:
    """Remove locks that ended by themselves; where the clock was set back, none lasts longer than was granted."""
    found = {"now": tx.now, "limit": limit}
    return tx.change(DELETE_EXPIRED_LOCKS, found) + tx.change(SHORTEN_LOCKS, found)


ORPHANED_BLOBS = """
SELECT blob_id FROM blobs
WHERE orphaned_at < :before AND blob_id NOT IN (SELECT value FROM json_each(:pinned))
ORDER BY orphaned_at LIMIT :limit
"""
DELETE_BLOB_CHUNKS = """
DELETE FROM blob_chunks WHERE blob_id = :blob_id AND start IN (
  SELECT start FROM blob_chunks WHERE blob_id = :blob_id ORDER BY start DESC LIMIT :limit
)
"""
DELETE_BLOB = "DELETE FROM blobs WHERE blob_id = :blob_id AND refcount = 0"
UNSEAL_BLOB = "UPDATE blobs SET digest = NULL WHERE blob_id = :blob_id"


def remove_orphaned_blobs(tx: WriteTx, before: int, pinned: AbstractSet[BlobId], limit: int) -> int:
    """Remove blobs that are orphans since before `before`; a long one loses its last `limit` chunks per call.

    A blob that is being taken apart is unsealed first, so that no PUT of the same bytes finds it any more.
    """
    removed = 0
    orphans = tx.rows(ORPHANED_BLOBS, {"before": before, "pinned": json.dumps(sorted(pinned)), "limit": limit})
    for (blob_id,) in orphans:
        tx.change(UNSEAL_BLOB, {"blob_id": blob_id})
        removed += tx.change(DELETE_BLOB_CHUNKS, {"blob_id": blob_id, "limit": limit - removed})
        if removed >= limit:
            return removed
        removed += tx.change(DELETE_BLOB, {"blob_id": blob_id})
    return removed


DELETE_CHUNK_DATA = """
DELETE FROM chunk_data WHERE chunk_id IN (SELECT chunk_id FROM chunks WHERE refcount = 0 ORDER BY chunk_id LIMIT :limit)
"""
DELETE_CHUNKS = """
DELETE FROM chunks WHERE chunk_id IN (SELECT chunk_id FROM chunks WHERE refcount = 0 ORDER BY chunk_id LIMIT :limit)
"""


def remove_orphaned_chunks(tx: WriteTx, limit: int) -> int:
    """Remove chunks that no blob has, with their bytes; a chunk lives exactly as long as a blob that has it."""
    tx.change(DELETE_CHUNK_DATA, {"limit": limit})
    return tx.change(DELETE_CHUNKS, {"limit": limit})

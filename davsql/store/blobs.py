"""Content: blobs, their chunks, and the uploads that are still adding to one.

Bytes lie in `chunk_data` alone, so another place for them would change `_insert_chunk` and `CHUNKS_FROM` only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, NewType

from davsql.errors import StoreError, StoreUnavailable
from davsql.model import BlobId, ChunkId, Node
from davsql.store.transaction import Source, WriteTx

UploadId = NewType("UploadId", int)

EMPTY_DIGEST = bytes.fromhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
CHUNK_BYTES = 256 * 1024  # figures in docs/tuning.md
SHARED_CHUNK_BYTES = 64 * 1024  # chunks of this size and more are found again (index chunks_digest)


class NewChunk(NamedTuple):
    """Bytes to be stored, hashed by the caller."""

    digest: bytes  # SHA-256
    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)


class Place(NamedTuple):
    """A stored chunk of a blob, without its bytes; another blob may share it."""

    start: int  # offset in the blob
    size: int
    digest: bytes
    chunk_id: ChunkId


class StoredChunk(NamedTuple):
    """A chunk as the store gives it back."""

    start: int  # offset in the blob
    size: int
    digest: bytes
    data: bytes | None  # None: the bytes are missing


INSERT_BLOB = "INSERT INTO blobs (digest, size, orphaned_at) VALUES (:digest, :size, :now)"
FIND_BLOB = "SELECT blob_id FROM blobs WHERE digest = ?"


def put_content(tx: WriteTx, digest: bytes, data: bytes) -> BlobId:
    """The blob that holds `data`, at most one chunk: one that is there already, or a new one.

    Nothing refers to a new blob yet: the caller points a node at it in the same transaction.
    """
    found = tx.value(FIND_BLOB, (digest,))
    if found is not None:
        _heal_last_chunk(tx, BlobId(found), NewChunk(digest, data))
        return BlobId(found)
    blob_id = BlobId(tx.insert(INSERT_BLOB, {"digest": digest, "size": len(data), "now": tx.now}))
    if data:
        _append(tx, blob_id, 0, NewChunk(digest, data))
    return blob_id


INSERT_UPLOAD = "INSERT INTO uploads (blob_id, started_at, touched_at) VALUES (:blob_id, :now, :now)"


def begin_upload(tx: WriteTx) -> tuple[UploadId, BlobId]:
    """Make an unsealed blob and the upload that refers to it."""
    blob_id = BlobId(tx.insert(INSERT_BLOB, {"digest": None, "size": 0, "now": tx.now}))
    return UploadId(tx.insert(INSERT_UPLOAD, {"blob_id": blob_id, "now": tx.now})), blob_id


# Only from where it ends: after a batch that was lost, nothing can be appended any more.
GROW_BLOB = "UPDATE blobs SET size = :size WHERE blob_id = :blob_id AND size = :start AND digest IS NULL"
TOUCH_UPLOAD = "UPDATE uploads SET touched_at = :now WHERE upload_id = :upload_id"


def stage_chunks(
    tx: WriteTx, upload_id: UploadId, blob_id: BlobId, start: int, chunks: Sequence[NewChunk | Place]
) -> None:
    """Append chunks, new ones and such as other blobs have, to an unsealed blob whose size is `start`.

    Raises:
        StoreError: the upload is gone (it was stale and GC took it), the blob has another size, or a chunk to share is
            gone.
    """
    if tx.change(TOUCH_UPLOAD, {"now": tx.now, "upload_id": upload_id}) != 1:
        raise StoreError("the upload took too long and was given up; send the file again")
    end = start + sum(chunk.size for chunk in chunks)
    if tx.change(GROW_BLOB, {"size": end, "blob_id": blob_id, "start": start}) != 1:
        raise StoreError("a part of the upload was lost; send the file again")
    for chunk in chunks:
        if isinstance(chunk, Place):
            _share(tx, blob_id, start, chunk)
        else:
            _append(tx, blob_id, start, chunk)
        start += chunk.size


SEAL_BLOB = "UPDATE blobs SET digest = :digest WHERE blob_id = :blob_id AND size = :size AND digest IS NULL"
END_UPLOAD = "DELETE FROM uploads WHERE upload_id = ?"


def seal_upload(tx: WriteTx, upload_id: UploadId, blob_id: BlobId, digest: bytes, size: int) -> BlobId:
    """Give a complete upload its digest, or find the blob that has these bytes already, and end the upload.

    Raises:
        StoreError: the upload is gone, or not all of it was staged.
    """
    if not end_upload(tx, upload_id):  # GC may have begun to take the blob apart
        raise StoreError("the upload took too long and was given up; send the file again")
    found = tx.value(FIND_BLOB, (digest,))
    if found is None:
        if tx.change(SEAL_BLOB, {"digest": digest, "blob_id": blob_id, "size": size}) != 1:
            raise StoreError("a part of the upload was lost; send the file again")
        return blob_id
    start, chunk_digest, _, data = tx.rows(LAST_CHUNK, (blob_id,))[0]
    if data is not None:  # of a shared chunk they may have been lost since
        _heal_last_chunk(tx, BlobId(found), NewChunk(chunk_digest, data), start)
    return BlobId(found)


def end_upload(tx: WriteTx, upload_id: UploadId) -> bool:
    """Let go of an upload; without a node its blob becomes an orphan. False when it was gone already."""
    return tx.change(END_UPLOAD, (upload_id,)) == 1


FIND_CHUNK = "SELECT chunk_id FROM chunks WHERE digest = ? AND size >= 65536"
INSERT_CHUNK = "INSERT INTO chunks (digest, size) VALUES (:digest, :size)"
INSERT_CHUNK_DATA = "INSERT INTO chunk_data (chunk_id, data) VALUES (:chunk_id, :data)"
INSERT_BLOB_CHUNK = """
INSERT INTO blob_chunks (blob_id, start, chunk_id, digest_start) VALUES (:blob_id, :start, :chunk_id, :digest_start)
"""


def _append(tx: WriteTx, blob_id: BlobId, start: int, chunk: NewChunk) -> None:
    found = tx.value(FIND_CHUNK, (chunk.digest,)) if len(chunk.data) >= SHARED_CHUNK_BYTES else None
    if found is None:
        chunk_id = _insert_chunk(tx, chunk)
    else:
        chunk_id = ChunkId(found)
        _heal(tx, chunk_id, chunk.data)
    place = {"blob_id": blob_id, "start": start, "chunk_id": chunk_id, "digest_start": chunk.digest[:8]}
    tx.change(INSERT_BLOB_CHUNK, place)


# The digest tells whether the number is still that of the chunk that was read.
SHARE_CHUNK = """
INSERT INTO blob_chunks (blob_id, start, chunk_id, digest_start)
SELECT :blob_id, :start, chunk_id, substr(digest, 1, 8) FROM chunks
WHERE chunk_id = :chunk_id AND digest = :digest AND size = :size
"""


def _share(tx: WriteTx, blob_id: BlobId, start: int, place: Place) -> None:
    bindings = {**place._asdict(), "blob_id": blob_id, "start": start}
    if tx.change(SHARE_CHUNK, bindings) != 1:
        raise StoreUnavailable("what is to be continued was removed meanwhile; try again")


def _insert_chunk(tx: WriteTx, chunk: NewChunk) -> ChunkId:
    chunk_id = ChunkId(tx.insert(INSERT_CHUNK, {"digest": chunk.digest, "size": len(chunk.data)}))
    tx.change(INSERT_CHUNK_DATA, {"chunk_id": chunk_id, "data": chunk.data})
    return chunk_id


# --- a good copy of bytes that rotted ------------------------------------------------------------------------------

# A bit that rots in the type of a value makes a text of it.
STORED_BYTES = "SELECT CASE typeof(data) WHEN 'blob' THEN data END FROM chunk_data WHERE chunk_id = ?"
REPLACE_BYTES = """
INSERT INTO chunk_data (chunk_id, data) VALUES (:chunk_id, :data)
ON CONFLICT (chunk_id) DO UPDATE SET data = excluded.data
"""
LAST_CHUNK = """
SELECT b.start, c.digest, b.chunk_id, CASE typeof(d.data) WHEN 'blob' THEN d.data END
FROM blob_chunks AS b
JOIN chunks AS c ON c.chunk_id = b.chunk_id
LEFT JOIN chunk_data AS d ON d.chunk_id = b.chunk_id
WHERE b.blob_id = ? ORDER BY b.start DESC LIMIT 1
"""


def _heal(tx: WriteTx, chunk_id: ChunkId, data: bytes) -> None:
    """See that a chunk found by its digest holds the bytes: a client that sends a file again must get it back."""
    if tx.value(STORED_BYTES, (chunk_id,)) != data:
        tx.change(REPLACE_BYTES, {"chunk_id": chunk_id, "data": data})


def _heal_last_chunk(tx: WriteTx, blob_id: BlobId, chunk: NewChunk, start: int = 0) -> None:
    """The same for the last chunk of a blob found by its digest; full chunks before it were looked at one by one."""
    last = tx.row(LAST_CHUNK, (blob_id,))
    if last is not None and last[:2] == (start, chunk.digest) and last[3] != chunk.data:
        tx.change(REPLACE_BYTES, {"chunk_id": last[2], "data": chunk.data})


# --- reading ------------------------------------------------------------------------------------------------------

CHUNKS_FROM = """
SELECT b.start, c.size, c.digest, CAST(d.data AS BLOB)
FROM blobs AS o
CROSS JOIN blob_chunks AS b ON b.blob_id = o.blob_id
CROSS JOIN chunks AS c
  ON c.chunk_id = b.chunk_id AND typeof(c.size) = 'integer' AND substr(c.digest, 1, 8) = b.digest_start
LEFT JOIN chunk_data AS d ON d.chunk_id = b.chunk_id
WHERE o.blob_id = :blob_id AND o.digest = :digest AND b.start < :stop
  AND b.start >= (SELECT max(start) FROM blob_chunks WHERE blob_id = :blob_id AND start <= :offset)
ORDER BY b.start LIMIT :limit
"""


def chunks_from(source: Source, file: Node, offset: int, stop: int, limit: int) -> list[StoredChunk]:
    """Up to `limit` chunks of a file in order, from the one that holds byte `offset` to the one that holds byte
    `stop` - 1; none when its content has gone."""
    return [StoredChunk._make(row) for row in source.rows(CHUNKS_FROM, _part_of(file, offset, stop, limit))]


PLACES_FROM = """
SELECT b.start, c.size, c.digest, b.chunk_id
FROM blobs AS o
CROSS JOIN blob_chunks AS b ON b.blob_id = o.blob_id
CROSS JOIN chunks AS c
  ON c.chunk_id = b.chunk_id AND typeof(c.size) = 'integer' AND substr(c.digest, 1, 8) = b.digest_start
WHERE o.blob_id = :blob_id AND o.digest = :digest AND b.start < :stop
  AND b.start >= (SELECT max(start) FROM blob_chunks WHERE blob_id = :blob_id AND start <= :offset)
ORDER BY b.start LIMIT :limit
"""


def places_from(source: Source, file: Node, offset: int, stop: int, limit: int) -> list[Place]:
    """As `chunks_from`, without bytes."""
    return [Place._make(row) for row in source.rows(PLACES_FROM, _part_of(file, offset, stop, limit))]


def _part_of(file: Node, offset: int, stop: int, limit: int) -> dict[str, object]:
    return {"blob_id": file.blob_id, "digest": file.digest, "offset": offset, "stop": stop, "limit": limit}


IS_THERE = "SELECT 1 FROM blobs WHERE blob_id = :blob_id AND digest = :digest"


def is_there(source: Source, file: Node) -> bool:
    """Whether the store has the content of a file still; GC may have removed its blob, and given the number again."""
    return source.row(IS_THERE, {"blob_id": file.blob_id, "digest": file.digest}) is not None

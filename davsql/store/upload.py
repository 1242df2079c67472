"""Receiving content: cut into chunks, hashed, staged, and put in place by one last command.

A body of one chunk is one transaction. A longer one is staged inside the database in batches, one batch on its way
while the next is received; nobody sees it before the last command. Memory is bounded by two batches.
Threads: one upload belongs to one thread.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from davsql.counters import PerThread, UploadTally
from davsql.errors import StoreError
from davsql.model import NO_GUARD, BlobId, Guard, PutResult
from davsql.paths import DavPath
from davsql.store import blobs, commands
from davsql.store.blobs import CHUNK_BYTES, NewChunk, UploadId
from davsql.store.nodes import Content
from davsql.store.options import StoreOptions
from davsql.store.transaction import WriteTx
from davsql.store.writer import Pending, Writer

STAGE_BATCH_BYTES = 4 * 1024 * 1024  # bounds one upload's hold on the writer


class Upload:
    """Bytes on their way into the store, from `Store.upload`. Leaving its `with` block before `commit` drops them."""

    def __init__(
        self,
        writer: Writer,
        options: StoreOptions,
        tallies: PerThread[UploadTally],
        with_room: Callable[[Callable[[], PutResult]], PutResult],
    ) -> None:
        """Args: with_room: see Store._with_room."""
        self._with_room = with_room
        self._writer = writer
        self._tally = tallies.mine()
        self._tally.begun += 1
        self._options = options
        self._digest = hashlib.sha256()
        self._parts: list[bytes | memoryview] = []  # of the chunk that is not full yet
        self._parts_bytes = 0
        self._batch: list[NewChunk] = []
        self._staged_bytes = 0
        self._staging: tuple[UploadId, BlobId] | None = None
        self._pending: Pending[None] | None = None
        self._is_over = False
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._is_over:
            self.abort()

    def write(self, data: bytes | memoryview) -> None:
        """Add bytes; waits while the writer is behind.

        Raises:
            StoreBusy, StoreFull, StoreUnavailable: the upload has failed; nothing will come of it.
        """
        self.size += len(data)
        position = 0
        while len(data) - position >= CHUNK_BYTES - self._parts_bytes:
            end = position + CHUNK_BYTES - self._parts_bytes
            self._parts.append(data[position:end] if position or end < len(data) else data)
            self._cut_chunk()
            position = end
        if position < len(data):
            # A view would keep all of the caller's block, which it may reuse.
            self._parts.append(bytes(data[position:]))
            self._parts_bytes += len(data) - position

    def commit(
        self,
        target: DavPath,
        *,
        content_type: str | None = None,
        guard: Guard = NO_GUARD,
        modified_at: int | None = None,
    ) -> PutResult:
        """Point `target` at the bytes, all of them or none.

        Raises:
            As `commands.put_file`; StoreError.
        """
        store_content, size_bytes = self._finish(content_type)
        incoming = commands.Incoming(self.size, store_content)

        def command(tx: WriteTx) -> PutResult:
            return commands.put_file(tx, target, incoming, guard, self._options, modified_at=modified_at)

        result = self._with_room(lambda: self._writer.submit(command, size_bytes).wait())
        self._end()
        self._tally.stored += 1
        self._tally.stored_bytes += self.size
        return result

    def abort(self) -> None:
        """Drop the bytes; what was staged is left to GC."""
        self._end()
        self._parts, self._batch = [], []
        if self._staging is None:
            return
        upload_id, _ = self._staging
        with suppress(StoreError):  # the batch on its way does not matter any more
            self._wait()
        with suppress(StoreError):  # the store is full or closing: GC finds the stale upload later
            self._writer.run(lambda tx: blobs.end_upload(tx, upload_id))

    def _end(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._tally.ended += 1

    def _finish(self, content_type: str | None) -> tuple[Callable[[WriteTx], Content], int]:
        """What the last command does to have the content, and how many bytes it carries."""
        size = self.size
        if self._staging is None and size <= CHUNK_BYTES:
            data = self._batch[0].data if self._batch else b"".join(self._parts)
            digest = self._batch[0].digest if self._batch else hashlib.sha256(data).digest()
            return lambda tx: Content(blobs.put_content(tx, digest, data), digest, size, content_type), size
        if self._parts:
            self._cut_chunk()
        if self._batch:
            self._stage()
        self._wait()
        assert self._staging is not None
        upload_id, blob_id = self._staging
        whole = self._digest.digest()
        return lambda tx: Content(blobs.seal_upload(tx, upload_id, blob_id, whole, size), whole, size, content_type), 0

    def _cut_chunk(self) -> None:
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        chunk = data if isinstance(data, bytes) else bytes(data)
        self._parts, self._parts_bytes = [], 0
        self._digest.update(chunk)
        self._batch.append(NewChunk(hashlib.sha256(chunk).digest(), chunk))
        if len(self._batch) * CHUNK_BYTES >= STAGE_BATCH_BYTES:
            self._stage()

    def _stage(self) -> None:
        """Hand the batch to the writer once the one before it is committed."""
        self._wait()
        if self._staging is None:
            self._staging = self._writer.run(blobs.begin_upload)
        upload_id, blob_id = self._staging
        batch, start = self._batch, self._staged_bytes
        size_bytes = sum(len(chunk.data) for chunk in batch)
        self._batch = []
        self._staged_bytes += size_bytes
        self._pending = self._writer.submit(
            lambda tx: blobs.stage_chunks(tx, upload_id, blob_id, start, batch), size_bytes
        )

    def _wait(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.wait()

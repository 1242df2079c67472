"""Receiving content: cut into chunks, hashed, staged, and put in place by one last command.

What is stored already is not received again: an upload may share chunks of other files, so that a file is changed in
part, or put together of others, and only new bytes are written.

A body of one chunk is one transaction. A longer one is staged inside the database in batches, one batch on its way
while the next is received; nobody sees it before the last command. Memory is bounded by two batches, which are smaller
the more uploads there are.
Threads: one upload belongs to one thread.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import NamedTuple, Self

from davsql.counters import PerThread, UploadTally
from davsql.errors import StoreError
from davsql.model import NO_GUARD, BlobId, Checksums, Guard, Inode, PutResult
from davsql.paths import DavPath
from davsql.store import blobs, commands
from davsql.store.assembly import Assembly
from davsql.store.blobs import CHUNK_BYTES, SHARED_CHUNK_BYTES, NewChunk, Place, UploadId
from davsql.store.download import Download
from davsql.store.nodes import Content
from davsql.store.options import StoreOptions
from davsql.store.pending import Pending
from davsql.store.transaction import WriteTx
from davsql.store.writer import Writer

STAGE_BATCH_BYTES = 4 * 1024 * 1024  # bounds one upload's hold on the writer
STAGE_BATCH_LEAST_BYTES = 1024 * 1024  # where there are many uploads
RECEIVED_BYTES = 16 * 1024 * 1024  # in the batches that all uploads to a store, in one process, are receiving
STAGE_BATCH_CHUNKS = 1000  # the same where chunks are shared
KNOWN_BEGINNINGS = 256  # large contents that this process stored last; some 300 bytes each


class Beginning(NamedTuple):
    """All of a content but a small end, as it was hashed."""

    size: int
    hashed: hashlib._Hash


class Beginnings:
    """How the contents that were stored last began: who appends to one of them need not have it hashed again.

    Threads: any.
    """

    def __init__(self) -> None:
        self._by_digest: OrderedDict[bytes, Beginning] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, digest: bytes, beginning: Beginning) -> None:
        """Remember the beginning of the content with this digest."""
        with self._lock:
            self._by_digest[digest] = beginning
            self._by_digest.move_to_end(digest)
            if len(self._by_digest) > KNOWN_BEGINNINGS:
                self._by_digest.popitem(last=False)

    def find(self, digest: bytes | None) -> Beginning | None:
        """What `add` was told."""
        with self._lock:
            return None if digest is None else self._by_digest.get(digest)


class Upload:
    """Bytes on their way into the store, from `Store.upload`. Leaving its `with` block before `commit` drops them."""

    def __init__(
        self,
        writer: Writer,
        options: StoreOptions,
        tallies: PerThread[UploadTally],
        with_room: Callable[[Callable[[], PutResult]], PutResult],
        beginnings: Beginnings,
    ) -> None:
        """Args: with_room: see Store._with_room."""
        self._beginnings = beginnings
        self._with_room = with_room
        self._writer = writer
        self._tallies = tallies
        self._tally = tallies.mine()
        self._tally.begun += 1
        self._options = options
        self._digest = hashlib.sha256()
        self._parts: list[bytes | memoryview] = []  # of the chunk that is not full yet
        self._parts_bytes = 0
        self._batch: list[NewChunk | Place] = []
        self._batch_bytes = 0  # of new chunks
        self._staged_bytes = 0
        self._staging: tuple[UploadId, BlobId] | None = None
        self._pending: Pending[None] | None = None
        self._is_over = False
        self.size = 0
        self.checksums: Checksums | None = None  # of the bytes, to be kept beside their SHA-256

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

    def share(
        self,
        download: Download,
        start: int = 0,
        stop: int | None = None,
        *,
        hear: Callable[[bytes], object] | None = None,
    ) -> None:
        """Add the bytes of a stored file from `start` up to `stop` (default: its end).

        They are read to be hashed, if this process does not remember how; large chunks are not written again.

        Args:
            hear: is called with all the bytes, in pieces.

        Raises:
            As `write`; StoreDamaged.
        """
        stop = download.node.size if stop is None else stop
        if stop - start <= CHUNK_BYTES:  # so that a small file stays one chunk
            for data in download.chunks(start, stop):
                self.write(data)
                if hear is not None:
                    hear(data)
            return
        if hear is None and self.size == 0 and start == 0 and stop == download.node.size:
            start = self._continue(download)
        pieces, rest = download.chunks(start, stop), b""
        for place in download.places(start, stop) if start < stop else ():
            begin, end = max(place.start, start), min(place.start + place.size, stop)
            while len(rest) < end - begin:
                rest += next(pieces)
            data, rest = rest[: end - begin], rest[end - begin :]
            if hear is not None:
                hear(data)
            if len(data) < place.size or place.size < SHARED_CHUNK_BYTES:
                self.write(data)
                continue
            if self._parts:
                self._cut_chunk()
            self._digest.update(data)
            self._refer(place)

    def _continue(self, download: Download) -> int:
        """Begin as a stored file does, without reading it if it is known how; the offset up to which that is done."""
        beginning = self._beginnings.find(download.node.digest)
        if beginning is None:
            return 0
        places = list(download.places(0, beginning.size))
        if not places or places[-1].start + places[-1].size != beginning.size:  # the same content in other chunks
            return 0
        for place in places:
            self._refer(place)
        self._digest = beginning.hashed.copy()
        return beginning.size

    def _refer(self, place: Place) -> None:
        self.size += place.size
        self._batch.append(place)
        if len(self._batch) >= STAGE_BATCH_CHUNKS:
            self._stage()

    def commit(
        self,
        target: DavPath,
        *,
        content_type: str | None = None,
        guard: Guard = NO_GUARD,
        modified_at: int | None = None,
        base: bytes | None = None,
        made_of: Inode | None = None,
    ) -> PutResult:
        """Point `target` at the bytes, all of them or none.

        Args:
            base: the digest of the content that `target` must still have, because the bytes are a change of it;
                commands.ABSENT: there must be none.
            made_of: the collection of the parts that the bytes are of (see assembly.py), which goes in the same step.

        Raises:
            As `commands.put_file`; StoreError.
        """
        store_content, size_bytes = self._finish(content_type)
        incoming = commands.Incoming(self.size, store_content, base, made_of, self.checksums)

        def command(tx: WriteTx) -> PutResult:
            return commands.put_file(tx, target, incoming, guard, self._options, modified_at=modified_at)

        return self._commit(command, size_bytes)

    def commit_part(self, assembly: Assembly, name: str, guard: Guard) -> PutResult:
        """Store the bytes as a part of a file that comes in parts.

        Raises:
            NotAllowed, ParentMissing, QuotaExceeded; StoreError.
        """
        store_content, size_bytes = self._finish(None)
        return self._commit(
            partial(commands.put_part, assembly, name, commands.Incoming(self.size, store_content), guard), size_bytes
        )

    def _commit(self, command: Callable[[WriteTx], PutResult], size_bytes: int) -> PutResult:
        result = self._with_room(lambda: self._writer.run(command, size_bytes))
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
            first = self._batch[0] if self._batch else None
            data = first.data if isinstance(first, NewChunk) else b"".join(self._parts)
            digest = hashlib.sha256(data).digest() if first is None else first.digest
            return lambda tx: Content(blobs.put_content(tx, digest, data), digest, size, content_type), size
        if self._parts_bytes >= SHARED_CHUNK_BYTES:
            self._cut_chunk()
        beginning = Beginning(size - self._parts_bytes, self._digest.copy())
        if self._parts:
            self._cut_chunk()
        if self._batch:
            self._stage()
        self._wait()
        assert self._staging is not None
        upload_id, blob_id = self._staging
        whole = self._digest.digest()
        self._beginnings.add(whole, beginning)
        return lambda tx: Content(blobs.seal_upload(tx, upload_id, blob_id, whole, size), whole, size, content_type), 0

    def _cut_chunk(self) -> None:
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        chunk = data if isinstance(data, bytes) else bytes(data)
        self._parts, self._parts_bytes = [], 0
        self._digest.update(chunk)
        self._batch.append(NewChunk(hashlib.sha256(chunk).digest(), chunk))
        self._batch_bytes += len(chunk)
        if self._is_batch_full():
            self._stage()

    def _is_batch_full(self) -> bool:
        if len(self._batch) >= STAGE_BATCH_CHUNKS or self._batch_bytes >= STAGE_BATCH_BYTES:
            return True
        if self._batch_bytes < STAGE_BATCH_LEAST_BYTES:
            return False
        uploads = sum(each.begun - each.ended for each in self._tallies.all())
        return self._batch_bytes * uploads >= RECEIVED_BYTES

    def _stage(self) -> None:
        """Hand the batch to the writer once the one before it is committed."""
        self._wait()
        if self._staging is None:
            self._staging = self._writer.run(blobs.begin_upload)
        upload_id, blob_id = self._staging
        batch, start, size_bytes = self._batch, self._staged_bytes, self._batch_bytes
        self._batch, self._batch_bytes = [], 0
        self._staged_bytes += sum(chunk.size for chunk in batch)
        self._pending = self._writer.submit(
            lambda tx: blobs.stage_chunks(tx, upload_id, blob_id, start, batch), size_bytes
        )

    def _wait(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.wait()

"""Giving content back: pinned against GC, read in segments, each chunk verified before it is handed out.

No reader is held between segments, so a slow client pins neither a connection nor the WAL. Of a long download the next
segments are read and hashed by other threads while one is on its way to the client.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future, wait
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import NamedTuple, Self

from davsql.errors import StoreDamaged, StoreError, StoreUnavailable
from davsql.model import BlobId, Node
from davsql.store.blobs import CHUNK_BYTES, Place, StoredChunk, chunks_from, is_there, places_from
from davsql.store.pins import LOOK_EVERY_S, TOUCH_EVERY_S, PinId, keep_pinned, unpin
from davsql.store.readers import Readers
from davsql.store.writer import Writer

SEGMENT_BYTES = 2 * CHUNK_BYTES  # what one snapshot reads
PLACES_STEP = 1000
SEGMENTS_AHEAD = 2  # a core reads and hashes about half as fast as another one sends

Segment = tuple[list[bytes], StoreError | None]  # pieces, and why there are no more


class Pins:
    """The blobs that downloads of this process are reading; GC leaves them alone.

    GC of this process asks `current`. That of others sees rows of the table `pins`: a thread writes them for what has
    been read for a minute, however slow the client is, and takes them away again. Short downloads never write.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._counts: Counter[BlobId] = Counter()
        self._due: dict[BlobId, float] = {}  # when its row is to be written or touched (time.monotonic())
        self._rows: dict[BlobId, PinId] = {}  # for the thread, and `close` after it
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self.downloads_begun = 0

    @property
    def downloads_active(self) -> int:
        """Downloads that are not closed; several may read one blob."""
        with self._lock:
            return self._counts.total()

    def add(self, blob_id: BlobId) -> None:
        with self._lock:
            if not self._counts[blob_id]:
                self._due[blob_id] = time.monotonic() + TOUCH_EVERY_S
            self._counts[blob_id] += 1
            self.downloads_begun += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._keep, name="davsql-pins", daemon=True)
                self._thread.start()

    def remove(self, blob_id: BlobId) -> None:
        with self._lock:
            self._counts[blob_id] -= 1
            if not self._counts[blob_id]:
                del self._counts[blob_id], self._due[blob_id]

    def current(self) -> frozenset[BlobId]:
        with self._lock:
            return frozenset(self._counts)

    def keep(self) -> None:
        """Write what is due to the store; a store that cannot take it now is asked again at the next look."""
        with self._lock:
            now = time.monotonic()
            due = [blob_id for blob_id, at in self._due.items() if now >= at]
            over = [blob_id for blob_id in self._rows if blob_id not in self._counts]
        for blob_id in over:
            pin_id = self._rows[blob_id]
            with suppress(StoreError):
                self._writer.run(lambda tx, pin_id=pin_id: unpin(tx, pin_id))  # type: ignore[misc]
                del self._rows[blob_id]
        for blob_id in due:
            with suppress(StoreError):
                self._rows[blob_id] = self._writer.run(
                    partial(keep_pinned, blob_id=blob_id, pin_id=self._rows.get(blob_id))
                )
                self._touched(blob_id)

    def close(self) -> None:
        """Keep nothing any more; before the writer is closed."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()
        for pin_id in self._rows.values():
            with suppress(StoreError):  # GC ends it later
                self._writer.submit(lambda tx, pin_id=pin_id: unpin(tx, pin_id))  # type: ignore[misc]
        self._rows.clear()

    def _touched(self, blob_id: BlobId) -> None:
        with self._lock:
            if blob_id in self._due:
                self._due[blob_id] = time.monotonic() + TOUCH_EVERY_S

    def _keep(self) -> None:
        while not self._closing.wait(LOOK_EVERY_S):
            self.keep()


class Means(NamedTuple):
    """What the downloads of one store work with."""

    readers: Readers
    pins: Pins
    helpers: Executor  # threads that read ahead


class Download:
    """The content of a file as it was when it was opened, whatever happens to the file meanwhile."""

    def __init__(self, node: Node, first: list[StoredChunk], means: Means) -> None:
        assert node.blob_id is not None
        self.node = node
        self._blob_id = node.blob_id
        self._first = first
        self._readers, self._pins, self._helpers = means
        self._is_open = True
        self._pins.add(node.blob_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the content."""
        if self._is_open:
            self._is_open = False
            self._pins.remove(self._blob_id)

    def chunks(self, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` up to `stop` (default: the end), in pieces.

        Raises:
            StoreDamaged: a chunk is missing or not what was stored; what came before it was right.
            StoreError: the store cannot be read.
        """
        stop = self.node.size if stop is None else stop
        if stop - start <= SEGMENT_BYTES:
            yield from self._pieces(start, stop)
            return
        coming: deque[Future[Segment]] = deque()
        try:
            while start < stop or coming:
                while start < stop and len(coming) <= SEGMENTS_AHEAD:
                    end = min(stop, start - start % SEGMENT_BYTES + SEGMENT_BYTES)
                    coming.append(self._read_ahead(start, end))
                    start = end
                pieces, error = coming.popleft().result()
                yield from pieces
                if error is not None:
                    raise error
        finally:
            wait([each for each in coming if not each.cancel()])

    def places(self, start: int, stop: int) -> Iterator[Place]:
        """The chunks that hold the bytes from `start` up to `stop`, in order, without their bytes.

        Raises:
            StoreDamaged: there is a gap.
            StoreError: the store cannot be read.
        """
        position = start
        while position < stop:
            places = places_from(self._readers, self.node, position, stop, PLACES_STEP)
            if not places:
                raise self._missing(position)
            for place in places:
                if position not in (place.start, start) or not place.start <= position < place.start + place.size:
                    raise self._damaged(position)
                position = place.start + place.size
                yield place

    def _read_ahead(self, start: int, stop: int) -> Future[Segment]:
        try:
            return self._helpers.submit(self._segment, start, stop)
        except RuntimeError:
            raise StoreUnavailable("the store is closed") from None

    def _segment(self, start: int, stop: int) -> Segment:
        pieces: list[bytes] = []
        try:
            for piece in self._pieces(start, stop):
                pieces.append(piece)  # noqa: PERF402  # what came before an error counts
        except StoreError as error:
            return pieces, error
        return pieces, None

    def _pieces(self, start: int, stop: int) -> Iterator[bytes]:
        position = start
        while position < stop:
            for chunk in self._batch(position, stop):
                if position not in (chunk.start, start):  # only the first may begin before what is asked for
                    raise self._damaged(position)
                data = self._verified(chunk, position)
                from_, to = position - chunk.start, min(stop - chunk.start, chunk.size)
                position = chunk.start + to
                yield data if to - from_ == chunk.size else data[from_:to]

    def _batch(self, position: int, stop: int) -> list[StoredChunk]:
        batch, self._first = self._first, []
        if not batch or not batch[0].start <= position < batch[0].start + batch[0].size:
            batch = chunks_from(self._readers, self.node, position, stop, SEGMENT_BYTES // CHUNK_BYTES)
        if not batch:
            raise self._missing(position)
        return batch

    def _missing(self, position: int) -> StoreError:
        if is_there(self._readers, self.node):
            return self._damaged(position)
        return StoreUnavailable(f"{self.node.name}: the content was removed during the download; begin again")

    def _verified(self, chunk: StoredChunk, position: int) -> bytes:
        data = chunk.data
        is_whole = chunk.size == self.node.size
        if (
            data is None
            or len(data) != chunk.size
            or not chunk.start <= position < chunk.start + chunk.size <= self.node.size
            or hashlib.sha256(data).digest() != chunk.digest
            or (is_whole and chunk.digest != self.node.digest)
        ):
            raise self._damaged(position)
        return data

    def _damaged(self, position: int) -> StoreDamaged:
        return StoreDamaged(
            f"{self.node.name}: what is stored at byte {position} is missing or damaged; "
            "run `davsql check --deep` and restore a backup"
        )

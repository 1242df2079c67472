"""How one open store is doing, at a glance: nothing here waits or takes a reader."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from davsql.counters import ReaderTally, UploadTally, WriteFailure, WriterCounters

if TYPE_CHECKING:
    from davsql.store.readers import Readers
    from davsql.store.store import Store
    from davsql.store.writer import Writer


class Vitals(NamedTuple):
    """What health, metrics and stats look at."""

    is_writer_alive: bool
    failure: WriteFailure | None  # why the last write that failed did
    is_failing: bool  # none was made since
    writing_s: float  # since the batch at work began; 0 while the writer has nothing to do
    queue_depth: int
    queue_size: int
    wal_bytes: int  # in the WAL, whichever process wrote it
    readers: int
    readers_in_use: int
    writer: WriterCounters
    reader: ReaderTally
    upload: UploadTally
    downloads_begun: int
    downloads_active: int
    pinned_blobs: int
    cache_hits: int
    cache_misses: int


def vitals_of(store: Store, writer: Writer, readers: Readers) -> Vitals:
    """Read the counters of a store's parts."""
    began_ns = writer.counters.began_ns
    reader = readers.tallies.total()
    cache = readers.cache_use()
    return Vitals(
        is_writer_alive=writer.is_alive,
        failure=writer.counters.failure,
        is_failing=writer.counters.is_failing,
        writing_s=(time.monotonic_ns() - began_ns) / 1e9 if began_ns else 0.0,
        queue_depth=writer.queue_depth,
        queue_size=store.options.queue_size,
        wal_bytes=store.wal_bytes,
        readers=store.options.readers,
        readers_in_use=max(0, reader.taken - reader.returned),
        writer=writer.counters,
        reader=reader,
        upload=store.upload_tallies.total(),
        downloads_begun=store.pins.downloads_begun,
        downloads_active=store.pins.downloads_active,
        pinned_blobs=len(store.pins.current()),
        cache_hits=cache.hits,
        cache_misses=cache.misses,
    )

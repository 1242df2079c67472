"""How a store is opened: durability, sizes and limits."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Literal

from davsql.keys.envelope import DataKey

Durability = Literal["full", "normal"]


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """Settings of one open store; config.py fills them from the file.

    `durability` "full": an acknowledged write survives a power cut (synchronous=FULL). "normal": the store is
    consistent after a power cut, but the last commits may be missing (synchronous=NORMAL).
    """

    durability: Durability = "full"
    cache_mb: int = 32  # page caches of all connections of a process together, at most (caches.py)
    mmap_mb: int = 0  # memory-mapped I/O of readers (mmap_size)
    readers: int = field(default_factory=lambda: 2 * (os.cpu_count() or 1))
    queue_size: int = 1000  # commands that may wait for the writer
    queue_timeout_s: float = 10.0  # how long a caller waits for a place in the queue, or for a reader
    busy_timeout_s: int = 30  # how long to wait for another process's lock on the file
    reserve_mb: int = 16  # left free on the file system, so that DELETE works when all else is full; 0: nothing
    read_only: bool = False
    leaves_checkpoints: bool = False  # to Litestream (store/replication.py); the mark in the store says so too
    max_depth: int = 128  # names in a path
    max_properties: int = 256  # dead properties of one resource
    max_property_bytes: int = 64 * 1024
    max_locks: int = 1000  # active locks of one principal
    follow_symlinks: bool = False  # where the file itself is a link; folders on the way to it may be
    page_size: int = 8192  # of a new file, bytes; figures in docs/tuning.md
    key: DataKey | None = None  # of an encrypted store
    vfs: str | None = None  # name of a registered SQLite VFS; None: SQLite's own

"""The page caches of all connections in this process.

Each connection may fill `cache_mb`, and all of them together get no more: at that limit a connection that wants a page
uses one of its own again (https://www.sqlite.org/c3ref/hard_heap_limit64.html). What lies in the cache of a connection
that does nothing stays there until somebody takes it.
"""

from __future__ import annotations

from contextlib import suppress

import apsw


def limit_caches(cache_mb: int) -> None:
    """Let page caches, and what else SQLite allocates, take about so much of this process's memory."""
    apsw.soft_heap_limit(cache_mb * 1_000_000)


def release_caches() -> None:
    """Give back the pages that no statement is at work on. Threads: any; no connection is made to wait."""
    for connection in apsw.connections():
        with suppress(apsw.Error):  # at work in another thread, or closed meanwhile
            connection.release_memory()

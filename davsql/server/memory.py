"""What a process does not need any more goes back to the system.

After a burst of load much of a process is free and its own all the same: page caches of connections that do nothing
now, and what the C library keeps of freed memory, for each of up to eight threads a core apart.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

RELEASE_EVERY_S = 60.0  # filling the caches again takes some ten milliseconds
M_ARENA_MAX = -8  # mallopt(3)

# Of glibc only: other C libraries have no such functions, and less need of them.
_LIBC: Any = ctypes.CDLL(None) if sys.platform == "linux" else None


def share_one_heap() -> None:
    """Let all threads, and those of children, allocate from one heap; before there are threads.

    With a heap for each thread, what one upload has freed is of no use to the next one, in another thread.
    """
    if hasattr(_LIBC, "mallopt"):
        _LIBC.mallopt(M_ARENA_MAX, 1)


def trim_heap() -> None:
    """Give back what was freed."""
    if hasattr(_LIBC, "malloc_trim"):
        _LIBC.malloc_trim(0)  # malloc_trim(3); without the GIL


@contextmanager
def releasing_memory(free_caches: Callable[[], object], every_s: float = RELEASE_EVERY_S) -> Iterator[None]:
    """Free what is kept in case it is wanted again, and give that back, again and again."""
    stopping = threading.Event()

    def run() -> None:
        while not stopping.wait(every_s):
            free_caches()
            trim_heap()

    thread = threading.Thread(target=run, name="davsql-memory", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()

"""One process looks after a store, however many serve it.

The lock is an empty file beside the store, `NAME-keeper`. The system drops it with the process that holds it, and the
next one gets it. A file of its own: closing another descriptor of the database, its WAL or its SHM would drop SQLite's
locks (https://www.sqlite.org/howtocorrupt.html 2.2).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event

if os.name == "posix":
    import fcntl

POLL_S = 0.5


@contextmanager
def sole_keeper(store: Path, stopping: Event) -> Iterator[bool]:
    """Wait until nobody else looks after the store; False when `stopping` was set before.

    Windows has no such lock: there everybody who serves a store looks after it.

    Raises:
        OSError: the lock's file cannot be made.
    """
    if os.name != "posix":
        yield not stopping.is_set()
        return
    file = store.with_name(store.name + "-keeper")
    while (descriptor := _locked(file)) is None:
        if stopping.wait(POLL_S):
            yield False
            return
    try:
        yield not stopping.is_set()
    finally:
        with suppress(OSError):
            file.unlink()  # while it is locked: `_locked` tells this file from the next one
        os.close(descriptor)


def _locked(file: Path) -> int | None:
    """Open and lock the file that has this name now; None when somebody else has it."""
    descriptor = os.open(file, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), file.stat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None

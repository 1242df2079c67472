"""Who else uses a database's file, asked of SQLite's own locks.

The lock is taken through SQLite's VFS. It sees the connections of this process too, and gives none of their locks up,
as a descriptor of our own would when it is closed. It needs no readable header, so it works on a damaged store.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from davsql.errors import StoreBusy
from davsql.store.transaction import translated

_SUFFIXES = ("-wal", "-shm", "-journal")


def leftovers(file: Path, *, existing: bool = True) -> list[Path]:
    """What SQLite would take for parts of the database `file`: WAL, SHM and journal; only those that are there."""
    paths = [file.with_name(file.name + suffix) for suffix in _SUFFIXES]
    return [path for path in paths if path.exists()] if existing else paths


def require_unused(file: Path) -> None:
    """Raise StoreBusy when any connection, of this process or another, has read the database `file`."""
    with sole_use(file):
        pass


@contextmanager
def sole_use(file: Path) -> Iterator[None]:
    """Keep everybody from reading and writing the database `file`.

    In WAL mode a connection holds its shared lock on the file until it is closed, so this tells of idle ones too.

    Raises:
        StoreBusy: some connection has it open.
    """
    with translated():
        opened = apsw.VFSFile("", str(file), [apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READWRITE, 0])
    try:
        try:
            opened.xLock(apsw.SQLITE_LOCK_SHARED)
            opened.xLock(apsw.SQLITE_LOCK_EXCLUSIVE)
        except apsw.BusyError:
            raise StoreBusy(
                f"{file} is in use; stop the davsql that serves it, and other programs that have it open"
            ) from None
        yield
    finally:
        opened.xUnlock(apsw.SQLITE_LOCK_NONE)
        opened.xClose()

"""Room on the file system: commands that bring content are refused while some is left.

Everything is written to the WAL first, also what deletes. On a disk without a free byte DELETE, garbage collection and
checkpoints would fail like everything else; the reserve is theirs (StoreOptions.reserve_mb).
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import apsw

from davsql.store.checkpointer import Checkpointer
from davsql.store.options import StoreOptions

MIB = 1024 * 1024
AMPLE_BYTES = 256 * MIB  # with so much more there is no need to look closely
ROWS_BYTES = 64 * 1024  # what a command writes besides its content, at most
PRAGMAS = ("page_size", "page_count", "freelist_count")
WAL_BYTES_TIGHT = 4 * MIB  # on a disk that is nearly full the WAL starts over this often


class Room:
    """How much may still be added. For whoever writes."""

    def __init__(self, file: Path, options: StoreOptions, checkpointer: Checkpointer) -> None:
        self._file = file
        self._checkpointer = checkpointer
        self._wal = file.with_name(file.name + "-wal")
        self._reserve_bytes = options.reserve_mb * MIB

    def allows(self, connection: apsw.Connection, size_bytes: int) -> bool:
        """Whether a command may add so much content, with what is in the WAL and cannot be written over yet."""
        if not self._reserve_bytes:
            return True
        free = self._free_bytes()
        if free >= self._reserve_bytes + AMPLE_BYTES:
            return True
        needed = size_bytes + size_bytes // 16 + ROWS_BYTES
        page_size, pages, free_pages = (int(connection.pragma(name)) for name in PRAGMAS)
        wal_growth = max(0, self._checkpointer.wal_bytes + needed - _size(self._wal))
        # Some of its pages may be in the WAL only: they lengthen the file at the next checkpoint.
        file_bytes = max(pages * page_size, (pages - free_pages) * page_size + needed)
        file_growth = max(0, file_bytes - _size(self._file))
        if file_growth and free - file_growth < self._reserve_bytes:
            return False
        # The WAL gives back what it takes, so it may take half of the reserve.
        return not wal_growth or free - file_growth - wal_growth >= self._reserve_bytes // 2

    def wal_limit(self, wal_bytes: int, ample: int) -> int:
        """How long the WAL may be: `ample`, or less where that would take the last room."""
        if wal_bytes <= WAL_BYTES_TIGHT:
            return ample
        return min(ample, max(WAL_BYTES_TIGHT, self._free_bytes() // 4))

    def _free_bytes(self) -> int:
        try:
            return shutil.disk_usage(self._file.parent).free
        except OSError:  # what is not known is not refused: SQLite will tell
            return sys.maxsize


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0

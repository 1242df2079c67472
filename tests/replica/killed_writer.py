"""Writes to a store and dies in the middle of COMMIT: the frames are in the WAL, the WAL-index does not know them yet.

python -m tests.replica.killed_writer STORE
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import apsw

from davsql.store.options import StoreOptions
from davsql.store.store import Store
from tests.store_steps import put

is_armed = False


class DyingVFS(apsw.VFS):
    """SQLite's own, but the first sync of a WAL while it is armed kills the process."""

    def __init__(self) -> None:
        super().__init__("dying", "")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> DyingFile:
        return DyingFile("", name, flags)


class DyingFile(apsw.VFSFile):
    """See DyingVFS."""

    def __init__(self, parent: str, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        super().__init__(parent, name, flags)
        self._is_wal = bool(flags[0] & apsw.SQLITE_OPEN_WAL)

    def xSync(self, flags: int) -> None:
        if is_armed and self._is_wal:
            os.kill(os.getpid(), signal.SIGKILL)
        super().xSync(flags)


def main() -> None:
    global is_armed  # noqa: PLW0603  # one process, one death
    vfs = DyingVFS()
    with Store.open(Path(sys.argv[1]), StoreOptions(vfs="dying")) as store:
        is_armed = True
        put(store, "/never-acknowledged", os.urandom(200_000))
    raise AssertionError(f"{vfs} let the write through")


if __name__ == "__main__":
    main()

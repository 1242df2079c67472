"""What import and export must know about folders of the local disk."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

from davsql.errors import InvalidPath

PART_PREFIX, PART_SUFFIX = ".davsql-", ".part"

# How exactly file systems keep times: nanoseconds, NTFS 100 ns, network drives 1 us, HFS+ and ext3 1 s, FAT 2 s.
_TIME_GRAINS_NS = (1, 100, 1_000, 1_000_000_000, 2_000_000_000)

# https://learn.microsoft.com/windows/win32/fileio/naming-a-file
_WINDOWS_FORBIDDEN = re.compile(
    r'[\\:*?"<>|]|[ .]$|^(con|prn|aux|nul|com[0-9\u00b9\u00b2\u00b3]|lpt[0-9\u00b9\u00b2\u00b3])(\..*)?$', re.IGNORECASE
)


class StoreFiles:
    """The files that a store consists of, so that a transfer leaves them alone.

    Reading one would be worse than useless: closing a descriptor of an open database drops SQLite's locks on it
    (https://www.sqlite.org/howtocorrupt.html 2.2).
    """

    def __init__(self, db: Path) -> None:
        """Args: db: the file of a store that is open, so that all its files exist."""
        self._folder = db.resolve().parent
        self._names = frozenset(db.resolve().name + suffix for suffix in ("", "-wal", "-shm", "-journal"))
        self._identities = set()
        for name in self._names:
            with suppress(FileNotFoundError):
                self._identities.add(_identity((self._folder / name).stat()))

    def names_in(self, folder: Path) -> frozenset[str]:
        """The names in `folder` that belong to the store, whether such a file exists at the moment or not."""
        return self._names if folder.resolve() == self._folder else frozenset()

    def is_own(self, found: os.stat_result) -> bool:
        """True for a file of the store by whatever path, also through a hard link."""
        return _identity(found) in self._identities


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def part_path(folder: Path) -> Path:
    """A name in `folder` for a file that is not complete yet."""
    return folder / f"{PART_PREFIX}{token_hex(8)}{PART_SUFFIX}"


def is_same_time(disk_ns: int, store_ns: int) -> bool:
    """True when the disk's time is the store's as exactly as a file system may keep it."""
    return any(disk_ns % grain == 0 and disk_ns == store_ns // grain * grain for grain in _TIME_GRAINS_NS)


def is_case_insensitive(folder: Path) -> bool:
    """True when `A` and `a` are one file there (macOS, Windows)."""
    probe = part_path(folder)
    probe.touch(exist_ok=False)
    try:
        return (folder / probe.name.upper()).exists()
    finally:
        probe.unlink()


def require_local_name(name: str, *, is_windows: bool = os.name == "nt") -> str:
    """Return a store's name if it means one file in a folder of this system.

    Store names hold no slash, no control character and are neither `.` nor `..`; Windows forbids more, and there a
    backslash or a colon would reach other folders and streams.

    Raises:
        InvalidPath: this system cannot have such a file.
    """
    if is_windows and _WINDOWS_FORBIDDEN.search(name):
        raise InvalidPath("Windows cannot have a file of this name")
    return name

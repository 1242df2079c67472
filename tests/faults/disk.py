"""A disk that can lose what was not synced, and fail: an SQLite VFS over real files.

The real files are what a process sees (the page cache). Beside each stands what is certain to be on the platter, and
the sectors written since. `Disk.cut` says what a power cut at this moment might leave: any subset of those sectors,
in any order; a name whose folder was not synced may be missing, or still be the file of before.
Threads: any.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import apsw

# Where stores lie: only the simulated disk is to be slow. None: where temporary files do.
MEMORY = Path("/dev/shm") if Path("/dev/shm").is_dir() else None  # noqa: S108
SECTOR_BYTES = 512
SURVIVAL = (0.0, 0.1, 0.5, 0.9, 1.0)  # how likely an unsynced sector is on the platter, chosen anew for each cut

Write = tuple[int, bytes]
Truncate = int  # to so many bytes


@dataclass(slots=True)
class Platter:
    """One file of the disk."""

    durable: bytearray = field(default_factory=bytearray)
    unsynced: list[Write | Truncate] = field(default_factory=list)

    def sync(self) -> None:
        for change in self.unsynced:
            _apply(self.durable, change)
        self.unsynced.clear()

    def fail_to_sync(self, rng: random.Random) -> None:
        """Some of it got there; the rest counts as clean from now on and will never be written (Linux does that)."""
        self.durable[:] = self.after_cut(rng)
        self.unsynced.clear()

    def after_cut(self, rng: random.Random) -> bytes:
        """What is left: the changes since the last sync up to some moment, or any subset of their sectors."""
        content = bytearray(self.durable)
        if rng.random() < 0.3:
            for change in self.unsynced[: rng.randint(0, len(self.unsynced))]:
                _apply(content, change)
            return bytes(content)
        survival = rng.choice(SURVIVAL)
        for change in self.unsynced:
            if isinstance(change, int):
                if rng.random() < survival:
                    _apply(content, change)
                continue
            offset, data = change
            for start in range(0, len(data), SECTOR_BYTES):
                if rng.random() < survival:
                    _apply(content, (offset + start, data[start : start + SECTOR_BYTES]))
        return bytes(content)


def _apply(content: bytearray, change: Write | Truncate) -> None:
    if isinstance(change, int):
        del content[change:]
        return
    offset, data = change
    if offset > len(content):
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


@dataclass(frozen=True, slots=True)
class Operation:
    """Something that SQLite asks of the disk."""

    kind: str  # "write", "sync", "truncate", "delete"
    file: str  # its name without the folder


class Disk(apsw.VFS):
    """Register it by making it; `vfs_name` goes into StoreOptions.vfs. `unregister` when all files are closed.

    Attributes:
        encrypting_vfs_name: for encrypted stores; SQLite3MultipleCiphers makes this VFS when it is named first.
    """

    def __init__(self, vfs_name: str, seed: int = 0) -> None:
        super().__init__(vfs_name, "unix")
        self.rng = random.Random(seed)  # noqa: S311
        self.vfs_name = vfs_name
        self.encrypting_vfs_name = f"multipleciphers-{vfs_name}"
        self.lock = threading.RLock()
        # Called first, with the lock held. It may raise an error of apsw; half of a write that fails is done.
        self.before: Callable[[Operation], None] = lambda _operation: None
        self._files: dict[str, Platter] = {}
        self._durable_names: dict[str, Platter] = {}
        self._by_inode: dict[int, Platter] = {}  # a file that got another name is the same

    def unregister(self) -> None:
        if self.encrypting_vfs_name in apsw.vfs_names():  # it stands on this one
            apsw.unregister_vfs(self.encrypting_vfs_name)
        super().unregister()

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        if name is None:
            return apsw.VFSFile("unix", None, flags)
        path = Path(name.filename() if isinstance(name, apsw.URIFilename) else name)
        with self.lock:
            there = path.stat() if path.exists() else None
            platter = self._by_inode.get(there.st_ino) if there else None
            if platter is None:
                platter = Platter()
                if there and there.st_size:  # from before this disk
                    platter.durable[:] = path.read_bytes()
                    self._durable_names[path.name] = platter
            file = _DiskFile(self, platter, path.name, name, flags)
            self._by_inode[path.stat().st_ino] = self._files[path.name] = platter
            return file

    def xDelete(self, filename: str, syncdir: bool) -> None:
        name = Path(filename).name
        with self.lock:
            self.before(Operation("delete", name))
            super().xDelete(filename, syncdir)
            gone = self._files.pop(name, None)
            self._by_inode = {inode: platter for inode, platter in self._by_inode.items() if platter is not gone}
            if syncdir:
                self._durable_names.pop(name, None)

    @contextmanager
    def in_charge_of_folders(self) -> Iterator[None]:
        """Make davsql's own fsync of folders known: it does not pass through SQLite."""
        with ExitStack() as stack:
            for module in ("connection", "backup"):
                stack.enter_context(patch(f"davsql.store.{module}.sync_folder", self._sync_folder))
            yield

    def _sync_folder(self, folder: Path) -> None:
        """The names as they are now are durable."""
        with self.lock:
            found = {each.name: self._by_inode.get(each.stat().st_ino) for each in folder.iterdir()}
            self._files = {name: platter for name, platter in found.items() if platter is not None}
            self._durable_names = dict(self._files)

    def sync_name(self, name: str, platter: Platter) -> None:
        """SQLite's unix VFS syncs the folder with the first sync of a new journal or WAL."""
        if not name.endswith(".db") and self._files.get(name) is platter:
            self._durable_names[name] = platter

    def cut(self, rng: random.Random) -> dict[str, bytes]:
        """The files as a power cut now might leave them."""
        with self.lock:
            left: dict[str, bytes] = {}
            for name in sorted(self._files.keys() | self._durable_names.keys()):
                platter = rng.choice((self._files.get(name), self._durable_names.get(name)))
                if platter is not None:
                    left[name] = platter.after_cut(rng)
            return left


class _DiskFile(apsw.VFSFile):
    def __init__(
        self, disk: Disk, platter: Platter, name: str, filename: str | apsw.URIFilename, flags: list[int]
    ) -> None:
        super().__init__("unix", filename, flags)
        self._disk = disk
        self._platter = platter
        self._name = name

    def xWrite(self, data: bytes, offset: int) -> None:
        with self._disk.lock:
            try:
                self._disk.before(Operation("write", self._name))
            except apsw.Error:
                self._write(data[: len(data) // 2], offset)
                raise
            self._write(data, offset)

    def _write(self, data: bytes, offset: int) -> None:
        super().xWrite(data, offset)
        self._platter.unsynced.append((offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:
        with self._disk.lock:
            self._disk.before(Operation("truncate", self._name))
            super().xTruncate(newsize)
            self._platter.unsynced.append(newsize)

    def xSync(self, flags: int) -> None:
        del flags
        with self._disk.lock:
            try:
                self._disk.before(Operation("sync", self._name))
            except apsw.Error:
                self._platter.fail_to_sync(self._disk.rng)
                raise
            self._platter.sync()
            self._disk.sync_name(self._name, self._platter)


def injected(kind: type[apsw.Error], result: int, operation: Operation) -> apsw.Error:
    """The error of an operation that is to fail with an (extended) result code of SQLite."""
    error = kind(f"injected: {operation.kind} {operation.file}")
    error.extendedresult = result  # type: ignore[attr-defined]  # APSW reads it and its stubs do not tell
    return error


def restore(left: dict[str, bytes], folder: Path) -> None:
    """Put what a cut left into an empty folder."""
    for name, content in left.items():
        (folder / name).write_bytes(content)

"""Checks of what the store stands on: its disk, its file system, who may read it, the packages that open it."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from davsql.doctor.finding import Finding, failed, human_bytes, passed, warned
from davsql.maintenance.health import LEFT_WAL_BYTES_DEGRADED, WAL_BYTES_DEGRADED
from davsql.store.facts import library

DISK_FREE_MIN = 100 * 1024 * 1024
MOUNTS = Path("/proc/mounts")

# SQLite's locks and its shared memory do not work, or not always, where several machines see one file.
NETWORK_KINDS = frozenset(
    (
        "9p", "afs", "beegfs", "ceph", "cifs", "davfs", "drvfs", "fuse.ceph", "fuse.glusterfs", "fuse.rclone",
        "fuse.s3fs", "fuse.sshfs", "gfs2", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "ocfs2", "prl_fs", "smb3",
        "smbfs", "vboxsf",
    )
)  # fmt: skip
VOLATILE_KINDS = frozenset(("tmpfs", "ramfs"))


def check_host(file: Path, *, is_replicated: bool = False) -> Iterator[Finding]:
    """All of them; those of a file that is not there are left out."""
    yield _sqlite_version()
    yield _distribution()
    if not file.exists():
        return
    real = file.resolve()
    yield _wal_size(real, LEFT_WAL_BYTES_DEGRADED if is_replicated else WAL_BYTES_DEGRADED)
    yield _disk_space(real)
    yield _file_mode(real)
    yield _folder_mode(real.parent)
    yield _file_system(real)


def _sqlite_version() -> Finding:
    lib = library()
    if lib.is_new_enough:
        return passed("SQLite version", lib.sqlite_version)
    found = f"{lib.sqlite_version}; before {lib.min_sqlite_version} a WAL could be lost"
    return failed("SQLite version", found, "pip install -U apsw-sqlite3mc")


def _distribution() -> Finding:
    lib = library()
    if not lib.can_encrypt:
        found = f"apsw {lib.apsw_version} is not apsw-sqlite3mc: it cannot encrypt"
        return failed("apsw", found, "pip uninstall apsw apsw-sqlite3mc; pip install apsw-sqlite3mc")
    if _is_installed("apsw"):
        found = "apsw and apsw-sqlite3mc are both installed: which one is used is chance"
        return warned("apsw", found, "pip uninstall apsw apsw-sqlite3mc; pip install apsw-sqlite3mc")
    return passed("apsw", f"apsw-sqlite3mc {lib.apsw_version}")


def _is_installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def _wal_size(file: Path, limit: int) -> Finding:
    wal = file.with_name(file.name + "-wal")
    size = wal.stat().st_size if wal.exists() else 0
    if size <= limit:
        return passed("WAL size", human_bytes(size))
    remedy = "look in the log of davsql serve for checkpoints that fail, and for other programs that read the file"
    return warned("WAL size", f"{human_bytes(size)}: checkpoints do not keep up", remedy)


def _disk_space(file: Path) -> Finding:
    free = shutil.disk_usage(file.parent).free
    size = file.stat().st_size
    found = f"{human_bytes(free)} free, the store has {human_bytes(size)}"
    if free < DISK_FREE_MIN:
        return failed("disk space", found, "make room: without it nothing can be written, nor deleted")
    if free < size:
        return warned(
            "disk space", f"{found}: no room for a VACUUM or a backup beside it", "make room, or move the store"
        )
    return passed("disk space", found)


def _file_mode(file: Path) -> Finding:
    if os.name == "nt":
        return passed("file mode", "not looked at on Windows")
    files = [file, *(file.with_name(file.name + end) for end in ("-wal", "-shm"))]
    modes = {each: stat.S_IMODE(each.stat().st_mode) for each in files if each.exists()}
    open_to_others = [f"{each.name} has {mode:04o}" for each, mode in modes.items() if mode & 0o077]
    if not open_to_others:
        return passed("file mode", f"{modes[file]:04o}: its owner only")
    remedy = f"chmod 600 {file}*"
    if any(mode & 0o022 for mode in modes.values()):
        return failed("file mode", f"{', '.join(open_to_others)}: other users can change the store", remedy)
    return warned("file mode", f"{', '.join(open_to_others)}: other users can read the store", remedy)


def _folder_mode(folder: Path) -> Finding:
    if os.name == "nt":
        return passed("folder mode", "not looked at on Windows")
    mode = stat.S_IMODE(folder.stat().st_mode)
    if not mode & stat.S_IWOTH:
        return passed("folder mode", f"{mode:04o}")
    remedy = f"chmod o-w {folder}, or a folder of its own for the store"
    if mode & stat.S_ISVTX:
        return warned("folder mode", f"{mode:04o}: everybody can put files beside the store", remedy)
    return failed("folder mode", f"{mode:04o}: everybody can replace the store", remedy)


def _file_system(file: Path) -> Finding:
    kind = file_system_of(file)
    if kind is None:
        return passed("file system", "not known here")
    if kind in NETWORK_KINDS:
        found = f"{kind}: SQLite's locks do not hold where several machines see one file"
        return warned("file system", found, "put the store on a disk of this machine")
    if kind in VOLATILE_KINDS:
        return warned("file system", f"{kind}: gone when the machine restarts", "put the store on a disk")
    return passed("file system", kind)


def file_system_of(file: Path) -> str | None:
    """The kind of file system that a path lies on; None where the system does not tell."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    found: tuple[int, str | None] = (-1, None)
    for line in lines:
        _, place, kind = line.split(" ")[:3]
        point = Path(_unescaped(place))
        if file.is_relative_to(point) and len(point.parts) >= found[0]:  # the later of two at one place hides the other
            found = (len(point.parts), kind)
    return found[1]


def _unescaped(text: str) -> str:
    """A path of /proc/mounts: blanks and the like are octal there (fstab(5))."""
    for escaped, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(escaped, char)
    return text

"""davfs2 mounts: made in a folder of their own under /tmp, used by child processes only, and gone afterwards.

Nothing in the test's own process may touch the mounted folder: the server lives in this process, and a system call that
waits for the kernel while it holds the interpreter's lock would wait for ever.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients.programs import Program, cannot_run, find_program

FUSE = Path("/dev/fuse")
CAP_SYS_ADMIN = 1 << 21
GROUP = "davfs2"  # mount.davfs gives up root for it
PID_FOLDER = Path("/run/mount.davfs")
MOUNT_TIMEOUT_S = 20.0
UNMOUNT_TIMEOUT_S = 30.0  # umount waits for uploads, and looks every 3 s

CONFIGURATION = """\
ask_auth 0
buf_size 64
cache_dir {cache}
delay_upload {delay_upload_s}
file_refresh 0
use_locks {use_locks}
"""


def require_mounting() -> None:
    """End the test where no davfs2 file system can be mounted."""
    if os.geteuid() != 0:
        pytest.skip("mounting davfs2 needs root")
    if not FUSE.exists():
        pytest.skip(f"{FUSE} is missing (modprobe fuse; in a container: --device {FUSE})")
    if not _has_capability(CAP_SYS_ADMIN):
        cannot_run("mounting needs the capability CAP_SYS_ADMIN (in a container: --cap-add SYS_ADMIN)")
    try:
        os.close(os.open(FUSE, os.O_RDWR))
    except OSError as error:
        cannot_run(f"{FUSE} cannot be opened: {error.strerror}")


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted drive."""

    point: Path

    def unmount(self) -> None:
        """Unmount as a user does; davfs2 uploads what it still has."""
        subprocess.run(["umount", self.point], check=True, timeout=UNMOUNT_TIMEOUT_S, capture_output=True)
        assert not self.is_mounted

    @property
    def is_mounted(self) -> bool:
        mounts = Path("/proc/self/mounts").read_text().splitlines()
        return any(line.split()[1] == str(self.point) for line in mounts)

    def force_unmount(self) -> None:
        """Unmount whatever happens; what was not uploaded is lost."""
        try:
            self.unmount()
        except (subprocess.SubprocessError, OSError, AssertionError):
            pid_file = PID_FOLDER / f"{str(self.point)[1:].replace('/', '-')}.pid"
            if pid_file.exists():
                os.kill(int(pid_file.read_text()), signal.SIGKILL)
                pid_file.unlink()
            subprocess.run(["umount", "-i", "-l", self.point], check=False, timeout=UNMOUNT_TIMEOUT_S)


@contextmanager
def mounted(url: str, *, use_locks: bool, delay_upload_s: int = 0) -> Iterator[Mount]:
    """Mount `url` until the block ends or unmounts it.

    The folder cannot be pytest's: davfs2 runs as a user of its own, to whom that one is closed.
    """
    require_mounting()
    home = Path(tempfile.mkdtemp(prefix="davsql-davfs2-"))
    mount = Mount(home / "drive")
    try:
        mount_davfs = find_program("mount.davfs", home)
        home.chmod(0o755)
        cache = home / "cache"
        for folder in (mount.point, cache):
            folder.mkdir()
        shutil.chown(cache, group=GROUP)
        cache.chmod(0o1775)
        configuration = home / "davfs2.conf"
        configuration.write_text(
            CONFIGURATION.format(cache=cache, delay_upload_s=delay_upload_s, use_locks=int(use_locks))
        )
        mount_davfs.succeed("-o", f"conf={configuration}", url, mount.point, timeout_s=MOUNT_TIMEOUT_S)
        yield mount
    finally:
        if mount.is_mounted:
            mount.force_unmount()
        if not mount.is_mounted:  # or the drive would be emptied, too
            shutil.rmtree(home)


def shell(folder: Path, **variables: str | Path) -> Program:
    """`/bin/sh` for scripts that work in `folder`."""
    return Program("/bin/sh", folder, {name: str(value) for name, value in variables.items()})


def _has_capability(bit: int) -> bool:
    status = Path("/proc/self/status").read_text()
    return any(bool(int(line.split()[1], 16) & bit) for line in status.splitlines() if line.startswith("CapEff:"))

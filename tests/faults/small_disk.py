"""Small file systems that really fill up, or turn read-only. Only root can mount them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

MIB = 1024 * 1024

only_root_mounts = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="only root can mount a file system, on Linux"
)


@contextmanager
def tmpfs(folder: Path, size_mb: int) -> Iterator[Path]:
    """A file system in memory, mounted at the empty `folder`."""
    _run("mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "davsql-test", str(folder))
    try:
        yield folder
    finally:
        _run("umount", str(folder))


@contextmanager
def ext4(image: Path, folder: Path, size_mb: int) -> Iterator[Path]:
    """A file system with a journal in the new file `image`."""
    with image.open("xb") as file:
        file.truncate(size_mb * MIB)
    _run("mkfs.ext4", "-q", "-F", str(image))
    _run("mount", "-o", "loop", str(image), str(folder))
    try:
        yield folder
    finally:
        _run("umount", str(folder))


def turn_read_only(folder: Path) -> None:
    """What ext4 does to itself when it meets an error, with files open for writing."""
    _run("mount", "-o", "remount,abort", str(folder))


def mount_again(image: Path, folder: Path) -> None:
    """As after a restart."""
    _run("umount", str(folder))
    _run("mount", "-o", "loop", str(image), str(folder))


def free_bytes(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def fill_up(file: Path) -> None:
    """Take every byte that is left on the file system, as another program might."""
    with suppress(OSError), file.open("ab", buffering=0) as ballast:
        for size in (MIB, 4096, 1):
            with suppress(OSError):
                while ballast.write(bytes(size)) == size:
                    pass


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"

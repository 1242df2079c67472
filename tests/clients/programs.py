"""Clients of other makers as child processes: found or skipped, run with a deadline, without the user's settings."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import pytest

TIMEOUT_S = 60.0

# program -> Debian package
PACKAGES = {
    "litmus": "litmus",
    "node": "nodejs",
    "npm": "npm",
    "curl": "curl",
    "cadaver": "cadaver",
    "rclone": "rclone",
    "mount.davfs": "davfs2",
    "dbus-run-session": "dbus-daemon",
    "gio": "libglib2.0-bin",
    "gvfsd-dav": "gvfs-backends",
    "kioclient": "kde-cli-tools",
    "restic": "restic",
    "vim.tiny": "vim-tiny",
    "wget": "wget",
}
BESIDE_PATH = "/usr/sbin:/sbin:/usr/libexec"


def is_ci() -> bool:
    """True where every client must be there."""
    return os.environ.get("CI") == "true"


def cannot_run(why: str) -> NoReturn:
    """End the test: nothing may be skipped in silence where all clients must be there."""
    if is_ci():
        pytest.fail(why)
    pytest.skip(why)


@dataclass(frozen=True, slots=True)
class Finished:
    """What a program left behind."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Program:
    """A program that runs in one folder, which is its home as well."""

    path: str
    folder: Path
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """All the variables it sees."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            **self.settings,
        }

    def run(self, *arguments: str | Path, stdin: bytes = b"", timeout_s: float = TIMEOUT_S) -> Finished:
        """Run to the end, whatever that is.

        Raises:
            subprocess.TimeoutExpired: the program was killed.
        """
        # Files, because daemons that a program leaves behind would keep pipes open.
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            done = subprocess.run(
                [self.path, *map(str, arguments)],
                cwd=self.folder,
                env=self.environment,
                input=stdin,
                stdout=out,
                stderr=err,
                timeout=timeout_s,
                check=False,
            )
            out.seek(0)
            err.seek(0)
            return Finished(done.returncode, out.read().decode(), err.read().decode())

    @contextmanager
    def running(self, *arguments: str | Path) -> Iterator[subprocess.Popen[bytes]]:
        """Run beside the block, which writes to its standard input; killed if it does not end soon after the block."""
        command = [self.path, *map(str, arguments)]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, cwd=self.folder, env=self.environment, stdin=pipe, stdout=pipe) as process:
            try:
                yield process
                process.communicate(timeout=TIMEOUT_S)
            finally:
                process.kill()

    def succeed(self, *arguments: str | Path, stdin: bytes = b"", timeout_s: float = TIMEOUT_S) -> Finished:
        """Run; the exit status must be 0."""
        finished = self.run(*arguments, stdin=stdin, timeout_s=timeout_s)
        assert finished.code == 0, f"{self.path} {arguments}: exit status {finished.code}\n{finished.out}{finished.err}"
        return finished


def wait_until(is_so: Callable[[], bool]) -> None:
    """Come back when something that a client does has happened; fail when it does not happen at all."""
    deadline = time.monotonic() + TIMEOUT_S
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def find_program(name: str, folder: Path, settings: Mapping[str, str] | None = None) -> Program:
    """The client `name` of the system, to be run in `folder`; ends the test where it is not installed."""
    ours = sysconfig.get_path("scripts")  # a program that a Python package brought may bear the same name
    folders = [each for each in os.environ["PATH"].split(os.pathsep) if each != ours]
    path = shutil.which(name, path=os.pathsep.join([*folders, BESIDE_PATH]))
    if path is None:
        cannot_run(f"{name} is missing: apt-get install {PACKAGES[name]}")
    return Program(path, folder, settings or {})


def find_packaged(name: str, folder: Path, settings: Mapping[str, str] | None = None) -> Program:
    """The client `name` that a Python package of the environment brought, to be run in `folder`."""
    path = shutil.which(name, path=sysconfig.get_path("scripts"))
    assert path is not None, f"{name} is missing in {sysconfig.get_path('scripts')}"
    return Program(path, folder, settings or {})

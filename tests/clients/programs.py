"""Clients of other makers as child processes: found or skipped, run with a deadline, without the user's settings."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import pytest

TIMEOUT_S = 60.0

# program -> Debian package
PACKAGES = {
    "litmus": "litmus",
    "curl": "curl",
    "cadaver": "cadaver",
    "rclone": "rclone",
    "mount.davfs": "davfs2",
}


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

    def run(self, *arguments: str | Path, stdin: bytes = b"", timeout_s: float = TIMEOUT_S) -> Finished:
        """Run to the end, whatever that is.

        Raises:
            subprocess.TimeoutExpired: the program was killed.
        """
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
            **self.settings,
        }
        done = subprocess.run(
            [self.path, *map(str, arguments)],
            cwd=self.folder,
            env=environment,
            input=stdin,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
        return Finished(done.returncode, done.stdout.decode(), done.stderr.decode())

    def succeed(self, *arguments: str | Path, stdin: bytes = b"", timeout_s: float = TIMEOUT_S) -> Finished:
        """Run; the exit status must be 0."""
        finished = self.run(*arguments, stdin=stdin, timeout_s=timeout_s)
        assert finished.code == 0, f"{self.path} {arguments}: exit status {finished.code}\n{finished.out}{finished.err}"
        return finished


def find_program(name: str, folder: Path, settings: Mapping[str, str] | None = None) -> Program:
    """The client `name`, to be run in `folder`; ends the test where it is not installed."""
    path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if path is None:
        cannot_run(f"{name} is missing: apt-get install {PACKAGES[name]}")
    return Program(path, folder, settings or {})

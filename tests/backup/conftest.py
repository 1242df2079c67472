"""Fixtures of the tests of backups."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from davsql.store.store import Store
from tests.store_steps import put

DATA = Path(__file__).resolve().parents[1] / "data"
SMALL_DISK_BYTES = 4 * 1024 * 1024

StartPython = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A closed store with one file."""
    file = tmp_path / "store.db"
    with Store.open(file, create=True) as store:
        put(store, "/f", b"content")
    return file


@pytest.fixture
def old_file(tmp_path: Path) -> Path:
    """A closed store of schema version 1."""
    return Path(shutil.copyfile(DATA / "store-v1.db", tmp_path / "old.db"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for 4 MiB."""
    is_possible = sys.platform == "linux" and os.geteuid() == 0
    if not is_possible:
        pytest.skip("mounting a file system takes root on Linux")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_BYTES}", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        if os.environ.get("CI") == "true":
            pytest.fail(f"root cannot mount a tmpfs: {mounted.stderr!r}")
        pytest.skip("root cannot mount a tmpfs here")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
def start_python() -> Iterator[StartPython]:
    """Start a Python program with arguments; it is killed at the end of the test."""
    started: list[subprocess.Popen[str]] = []

    def start(program: str, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", program, *map(str, arguments)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()

"""Commands that only read leave a file, and everything beside it, as it is: whatever state it is in."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from davsql.errors import StoreReadOnly, StoreVersionError
from davsql.store.backup import back_up
from davsql.store.options import StoreOptions
from davsql.store.store import Store
from tests.cli.conftest import RunDavsql
from tests.store_steps import put, read, tree

OLD = Path(__file__).parent.parent / "data" / "store-v1.db"
READ_ONLY = StoreOptions(read_only=True)
KILLED = """\
import os, sys
from pathlib import Path
from davsql.paths import DavPath
from davsql.store.store import Store
Store.open(Path(sys.argv[1])).make_collection(DavPath.from_text("/c"))
os._exit(1)
"""
COMMANDS = [("ls", "-R"), ("stats",), ("check",), ("check", "--deep"), ("doctor",)]


def closed(folder: Path) -> Path:
    with Store.open(folder / "a.db", create=True) as store:
        put(store, "/f", b"content")
    return folder / "a.db"


def backup(folder: Path) -> Path:
    made = back_up(closed(folder), folder / "b.davsql", StoreOptions()).file
    (folder / "a.db").unlink()
    return made


def killed(folder: Path) -> Path:
    subprocess.run([sys.executable, "-c", KILLED, closed(folder)], check=False)
    return folder / "a.db"


def replicated(folder: Path) -> Path:
    with Store.open(closed(folder), StoreOptions(leaves_checkpoints=True)) as store:
        put(store, "/g", b"in the WAL")
    return folder / "a.db"


def old(folder: Path) -> Path:
    shutil.copyfile(OLD, folder / "old.db")
    (folder / "old.db").chmod(0o600)
    return folder / "old.db"


def state(folder: Path) -> dict[str, str]:
    """The digests of all files but the SHM, which is no content."""
    return {
        each.name: "" if each.name.endswith("-shm") else hashlib.sha256(each.read_bytes()).hexdigest()
        for each in folder.iterdir()
        if each.is_file()
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    (tmp_path / "out").mkdir()
    return tmp_path / "store"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("make", [closed, backup, killed, replicated])
def test_command__changes_no_byte_and_leaves_nothing(
    davsql: RunDavsql, folder: Path, make: Callable[[Path], Path], command: tuple[str, ...]
) -> None:
    file = make(folder)
    before = state(folder)
    outcome = davsql(*command, "--db", file)
    assert outcome.err == ""
    assert outcome.code == 0 or (make is backup and command == ("doctor",))  # which is not fit to be served as it is
    assert state(folder) == before


@pytest.mark.parametrize("command", [*COMMANDS[:4], ("export", "/", "out")], ids=" ".join)
def test_command__of_an_older_store_names_the_remedy(davsql: RunDavsql, folder: Path, command: tuple[str, ...]) -> None:
    file = old(folder)
    before = state(folder)
    outcome = davsql(*command, "--db", file)
    assert outcome.code == 1
    assert f"{file} has schema version 1" in outcome.err
    assert f"`davsql migrate --db {file}`" in outcome.err
    assert f"`davsql restore {file} --db NEW`" in outcome.err
    assert state(folder) == before


def test_doctor__of_an_older_store_changes_nothing(davsql: RunDavsql, folder: Path) -> None:
    file = old(folder)
    before = state(folder)
    assert davsql("doctor", "--db", file).code == 0
    assert state(folder) == before


def test_read_only_store__reads_every_state_and_changes_none(folder: Path) -> None:
    for number, make in enumerate((closed, backup, killed, replicated)):
        own = folder / str(number)
        own.mkdir()
        file = make(own)
        before = state(own)
        with Store.open(file, READ_ONLY) as store:
            assert read(store, "/f") == b"content"
            with pytest.raises(StoreReadOnly):
                put(store, "/h", b"no")
            with pytest.raises(StoreReadOnly):
                store.checkpoint(truncate=True)
        assert state(own) == before, make


def test_read_only_store__is_not_migrated(folder: Path) -> None:
    file = old(folder)
    before = state(folder)
    with pytest.raises(StoreVersionError, match="davsql migrate"):
        Store.open(file, READ_ONLY)
    assert state(folder) == before


def test_read_only_store__follows_what_another_process_writes(folder: Path) -> None:
    with Store.open(closed(folder)) as writing, Store.open(writing.file, READ_ONLY) as reading:
        put(writing, "/f", b"newer")
        assert read(reading, "/f") == b"newer"
        writing.checkpoint()
        assert tree(reading) == {"/f": b"newer"}

"""Migration of stores that people use: never without a backup, old or new whatever happens."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path

import apsw
import pytest

from davsql.errors import StoreBusy, StoreFull, StoreUnavailable
from davsql.store import migrate, upgrade
from davsql.store.backup import back_up
from davsql.store.check import check
from davsql.store.connection import Role, open_connection
from davsql.store.options import StoreOptions
from davsql.store.store import Store
from tests.backup.backup_steps import OPTIONS, names_in, tree_in, version_of
from tests.backup.conftest import DATA, StartPython
from tests.data.make_store import CONTENTS
from tests.store_steps import tree


def backups_of(file: Path) -> list[Path]:
    return sorted(file.parent.glob(f"{file.name}.before-v*"))


def test_store_open__keeps_an_older_store_as_it_was(old_file: Path) -> None:
    with Store.open(old_file) as store:
        assert tree(store) == CONTENTS
        assert check(store) == []
        kept = store.migration_backup
    assert kept is not None
    assert backups_of(old_file) == [kept]
    assert kept.name.startswith("old.db.before-v1-20")
    assert (version_of(old_file), version_of(kept)) == (migrate.SCHEMA_VERSION, 1)
    assert names_in(old_file.parent) == ["old.db", kept.name]
    assert tree_in(kept) == CONTENTS


def test_store_open__of_a_present_store_makes_no_backup(file: Path) -> None:
    with Store.open(file) as store:
        assert store.migration_backup is None
    assert names_in(file.parent) == ["store.db"]


def test_store_open__without_room_for_the_backup_does_not_migrate(
    old_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(old_file.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))
    with pytest.raises(StoreFull, match="--backup-to"):
        Store.open(old_file)
    assert version_of(old_file) == 1
    assert backups_of(old_file) == []


def test_store_open__whose_migration_fails_leaves_store_and_folder_as_they_were(
    old_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "pending_migrations", lambda _: ["CREATE TABLE half (a)", "nonsense"])
    before = old_file.read_bytes()
    with pytest.raises(StoreUnavailable, match="nonsense"):
        Store.open(old_file)
    assert backups_of(old_file) == []
    assert version_of(old_file) == 1
    assert old_file.read_bytes() == before


def test_upgrade__puts_the_backup_where_it_is_told(old_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    connection = open_connection(old_file, Role.WRITER, OPTIONS)
    kept = upgrade.upgrade(connection, old_file, OPTIONS, folder)
    connection.close()
    assert kept is not None
    assert kept.parent == folder
    assert version_of(kept) == 1


def test_upgrade__lets_nobody_write_between_backup_and_migration(
    old_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = []

    def back_up_while_another_writes(*arguments: object) -> object:
        other = apsw.Connection(str(old_file))
        try:
            other.execute("BEGIN IMMEDIATE")
        except apsw.BusyError as error:
            refused.append(error)
        other.close()
        return back_up(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(upgrade, "back_up", back_up_while_another_writes)
    with Store.open(old_file):
        assert len(refused) == 1


def test_store_open__while_another_process_migrates_waits_or_says_so(old_file: Path) -> None:
    other = apsw.Connection(str(old_file))
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusy):
        Store.open(old_file, StoreOptions(busy_timeout_s=0))
    assert backups_of(old_file) == []
    other.execute("ROLLBACK")
    other.close()


MIGRATION = """
import sys
from pathlib import Path
from davsql.store.store import Store
print("ready", flush=True)
Store.open(Path(sys.argv[1])).close()
print("done", flush=True)
"""


def test_store_open__by_two_processes_migrates_once(old_file: Path, start_python: StartPython) -> None:
    processes = [start_python(MIGRATION, old_file) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert len(backups_of(old_file)) == 1
    assert tree_in(old_file) == CONTENTS


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_store_open__killed_while_it_migrates_leaves_old_or_new(tmp_path: Path, start_python: StartPython) -> None:
    rng = random.Random(11)  # noqa: S311
    versions = set()
    for number in range(14):
        folder = tmp_path / str(number)
        folder.mkdir()
        file = Path(shutil.copyfile(DATA / "store-v1.db", folder / "store.db"))
        process = start_python(MIGRATION, file)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0, 0.06))
        process.send_signal(signal.SIGKILL)
        process.wait()
        versions.add(version_of(file))
        for kept in backups_of(file):  # who has the name is whole, and is from before
            assert version_of(kept) == 1
        with Store.open(file, OPTIONS) as store:
            assert tree(store) == CONTENTS
            assert check(store) == []
        assert all(tree_in(kept) == CONTENTS for kept in backups_of(file))
    assert versions <= {1, migrate.SCHEMA_VERSION}

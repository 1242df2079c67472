"""Backups that become stores again: checked before, and nothing that was there is lost."""

from __future__ import annotations

import os
import random
import shutil
import signal
from pathlib import Path

import apsw
import pytest

from davsql.errors import (
    AlreadyExists,
    Cancelled,
    NotAStore,
    NotFound,
    StoreBusy,
    StoreDamaged,
    StoreFull,
    StoreVersionError,
)
from davsql.store import migrate
from davsql.store.backup import CopyOptions, back_up
from davsql.store.check import check
from davsql.store.exclusion import require_unused
from davsql.store.records import finish_task, task_records
from davsql.store.replication import leave_checkpoints, leaves_checkpoints
from davsql.store.restore import restore
from davsql.store.store import Store
from tests.backup.backup_steps import OPTIONS, REPLACING, backup_of, names_in, tree_in, version_of
from tests.backup.conftest import StartPython
from tests.data.make_store import CONTENTS
from tests.store_steps import leave_mark, put, tree

# --- what comes back -----------------------------------------------------------------------------------------------


def test_restore__brings_everything_back(file: Path, tmp_path: Path) -> None:
    backup = backup_of(file)
    restored = restore(backup, tmp_path / "again.db", OPTIONS)
    assert restored.replaced is None
    assert tree_in(restored.file) == {"/f": b"content"}
    with Store.open(restored.file) as store:
        assert check(store, deep=True) == []
    assert names_in(tmp_path) == ["again.db", "backup.davsql", "store.db"]


def test_restore__leaves_the_backup_as_it_is(file: Path, tmp_path: Path) -> None:
    backup = backup_of(file)
    before = (backup.read_bytes(), backup.stat().st_mtime_ns)
    restore(backup, tmp_path / "again.db", OPTIONS)
    assert (backup.read_bytes(), backup.stat().st_mtime_ns) == before


def test_restore__migrates_an_older_backup(old_file: Path, tmp_path: Path) -> None:
    backup = back_up(old_file, tmp_path / "b", OPTIONS).file
    restored = restore(backup, tmp_path / "again.db", OPTIONS)
    assert (restored.snapshot.schema_version, version_of(restored.file)) == (1, migrate.SCHEMA_VERSION)
    assert tree_in(restored.file) == CONTENTS
    assert version_of(backup) == 1
    assert names_in(tmp_path) == ["again.db", "b", "old.db"]


def test_restore__takes_any_copy_of_a_store(store: Store, tmp_path: Path) -> None:
    put(store, "/f", b"in the WAL")
    assert tree_in(restore(store.file, tmp_path / "of-a-live-one.db", OPTIONS).file) == tree(store)
    for suffix in ("", "-wal"):  # the copy of a store whose process was killed
        shutil.copyfile(f"{store.file}{suffix}", tmp_path / f"cold.db{suffix}")
    wal = (tmp_path / "cold.db-wal").read_bytes()
    assert tree_in(restore(tmp_path / "cold.db", tmp_path / "again.db", OPTIONS).file) == tree(store)
    assert (tmp_path / "cold.db-wal").read_bytes() == wal


def test_restore__makes_a_store_that_checkpoints_by_itself(file: Path, tmp_path: Path) -> None:
    """The mark says what Litestream has seen of one file; of this one it has seen nothing."""
    with Store.open(file) as store:
        store.write(leave_checkpoints)
    backup = backup_of(file)
    restored = restore(backup, tmp_path / "again.db", OPTIONS).file
    assert "again.db-wal" not in names_in(tmp_path)
    with Store.open(restored) as store, store.read() as tx:
        assert not leaves_checkpoints(tx)


# --- what was there ------------------------------------------------------------------------------------------------


def test_restore__without_force_replaces_nothing(file: Path, tmp_path: Path) -> None:
    backup = backup_of(file)
    before = file.read_bytes()
    with pytest.raises(AlreadyExists, match="--force"):
        restore(backup, file, OPTIONS)
    assert file.read_bytes() == before
    assert names_in(tmp_path) == ["backup.davsql", "store.db"]


def test_restore__keeps_what_it_replaces(file: Path, tmp_path: Path) -> None:
    backup = backup_of(file)
    with Store.open(file) as store:
        put(store, "/later", b"not in the backup")
    kept = []
    for _ in range(3):  # within one second
        restored = restore(backup, file, OPTIONS, REPLACING)
        assert tree_in(file) == {"/f": b"content"}
        assert restored.replaced is not None
        kept.append(restored.replaced)
    assert kept[0].name.startswith("store.db.replaced-20")
    assert len(set(kept)) == 3
    assert tree_in(kept[0]) == {"/f": b"content", "/later": b"not in the backup"}
    assert names_in(tmp_path) == sorted(["backup.davsql", "store.db", *(each.name for each in kept)])


KILLED_WRITER = """
import os, signal, sys
from pathlib import Path
from davsql.store.store import Store
from tests.store_steps import put
store = Store.open(Path(sys.argv[1]))
put(store, "/late", b"acknowledged")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_restore__keeps_what_a_killed_process_left_in_the_wal(
    file: Path, start_python: StartPython, tmp_path: Path
) -> None:
    backup = backup_of(file)
    assert start_python(KILLED_WRITER, file).wait() == -signal.SIGKILL
    assert file.with_name("store.db-wal").stat().st_size > 0
    restored = restore(backup, file, OPTIONS, REPLACING)
    assert tree_in(file) == {"/f": b"content"}
    assert restored.replaced is not None
    assert tree_in(restored.replaced) == {"/f": b"content", "/late": b"acknowledged"}
    assert names_in(tmp_path) == ["backup.davsql", "store.db", restored.replaced.name]


def test_restore__keeps_a_damaged_store_with_its_wal(file: Path) -> None:
    backup = backup_of(file)
    file.write_bytes(b"the disk died" * 1000)
    file.with_name("store.db-wal").write_bytes(b"and the WAL")
    restored = restore(backup, file, OPTIONS, REPLACING)
    assert tree_in(file) == {"/f": b"content"}
    assert restored.replaced is not None
    assert restored.replaced.read_bytes() == b"the disk died" * 1000
    assert restored.replaced.with_name(restored.replaced.name + "-wal").read_bytes() == b"and the WAL"


def test_restore__moves_the_wal_of_a_lost_store_out_of_the_way(file: Path, tmp_path: Path) -> None:
    """SQLite would take it for the WAL of the restored store."""
    backup = backup_of(file)
    with Store.open(file) as store:
        put(store, "/late", b"1")
        shutil.copyfile(f"{file}-wal", tmp_path / "lost.db-wal")
    restored = restore(backup, tmp_path / "lost.db", OPTIONS)
    assert tree_in(tmp_path / "lost.db") == {"/f": b"content"}
    assert restored.replaced is not None
    assert restored.replaced.with_name(restored.replaced.name + "-wal").stat().st_size > 0


def test_restore__follows_the_link_that_leads_to_the_store(file: Path, tmp_path: Path) -> None:
    backup = backup_of(file)
    (tmp_path / "elsewhere").mkdir()
    real = file.rename(tmp_path / "elsewhere" / "real.db")
    file.symlink_to(real)
    restored = restore(backup, file, OPTIONS, REPLACING)
    assert file.is_symlink()
    assert restored.file == real
    assert tree_in(real) == {"/f": b"content"}


def test_restore__without_hard_links_is_renamed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    backup = backup_of(file)
    monkeypatch.setattr(Path, "hardlink_to", refuse)
    restored = restore(backup, file, OPTIONS, REPLACING)
    assert restored.replaced is not None
    assert tree_in(restored.replaced) == tree_in(file) == {"/f": b"content"}


# --- refusals ------------------------------------------------------------------------------------------------------


def test_restore__refuses_a_store_that_is_in_use(store: Store, tmp_path: Path) -> None:
    put(store, "/f", b"precious")
    backup = back_up(store.file, tmp_path / "b", store.options).file
    put(store, "/g", b"more")
    with pytest.raises(StoreBusy, match="in use"):
        restore(backup, store.file, OPTIONS, REPLACING)
    assert names_in(tmp_path) == ["b", "store.db", "store.db-shm", "store.db-turn", "store.db-wal"]
    assert tree(store) == {"/f": b"precious", "/g": b"more"}
    put(store, "/h", b"goes on")


IDLE_STORE = """
import sys
from pathlib import Path
from davsql.store.store import Store
with Store.open(Path(sys.argv[1])):
    print("open", flush=True)
    sys.stdin.readline()
"""


def test_require_unused__sees_an_idle_connection_of_another_process(file: Path, start_python: StartPython) -> None:
    process = start_python(IDLE_STORE, file)
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "open\n"
    with pytest.raises(StoreBusy, match="in use"):
        require_unused(file)
    process.stdin.write("\n")
    process.stdin.flush()
    process.wait()
    require_unused(file)


def test_restore__whose_target_comes_into_use_meanwhile_is_refused(file: Path, tmp_path: Path) -> None:
    backup = backup_of(file)
    opened: list[Store] = []

    def open_target(_done_bytes: int, _total_bytes: int) -> None:
        if not opened:
            opened.append(Store.open(file))

    with pytest.raises(StoreBusy):
        restore(backup, file, OPTIONS, CopyOptions(may_replace=True, progress=open_target))
    opened[0].close()
    assert names_in(tmp_path) == ["backup.davsql", "store.db"]


def test_restore__of_the_store_itself_is_refused(file: Path) -> None:
    with pytest.raises(AlreadyExists, match="the store itself"):
        restore(file, file, OPTIONS, REPLACING)


def make_missing(backup: Path) -> None:
    backup.unlink()


def make_folder(backup: Path) -> None:
    backup.unlink()
    backup.mkdir()


def make_text(backup: Path) -> None:
    backup.write_bytes(b"text" * 1000)


def make_other_database(backup: Path) -> None:
    backup.unlink()
    connection = apsw.Connection(str(backup))
    connection.execute("CREATE TABLE t (a)")
    connection.close()


def make_newer(backup: Path) -> None:
    connection = apsw.Connection(str(backup))
    connection.execute(migrate.SET_META, ("schema_version", "99"))
    connection.close()


def make_truncated(backup: Path) -> None:
    os.truncate(backup, backup.stat().st_size // 2)


def make_inconsistent(backup: Path) -> None:
    connection = apsw.Connection(str(backup))
    connection.execute("UPDATE blobs SET refcount = refcount + 1")
    connection.close()


def make_holes(backup: Path) -> None:
    with backup.open("r+b") as opened:
        opened.seek(2 * 8192)
        opened.write(bytes(3 * 8192))


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (make_missing, NotFound),
        (make_folder, NotAStore),
        (make_text, NotAStore),
        (make_other_database, NotAStore),
        (make_newer, StoreVersionError),
        (make_truncated, StoreDamaged),
        (make_inconsistent, StoreDamaged),
        (make_holes, StoreDamaged),
    ],
)
def test_restore__of_what_is_no_good_backup_changes_nothing(
    file: Path, tmp_path: Path, make: object, error: type[Exception]
) -> None:
    backup = backup_of(file)
    assert callable(make)
    make(backup)
    before = file.read_bytes()
    names = names_in(tmp_path)
    for target, how in ((file, REPLACING), (tmp_path / "new.db", CopyOptions())):
        with pytest.raises(error):
            restore(backup, target, OPTIONS, how)
    assert file.read_bytes() == before
    assert names_in(tmp_path) == names


def test_restore__onto_what_is_no_file_is_refused(file: Path, tmp_path: Path) -> None:
    backup = backup_of(file)
    (tmp_path / "folder").mkdir()
    with pytest.raises(AlreadyExists, match="no regular file"):
        restore(backup, tmp_path / "folder", OPTIONS, REPLACING)
    with pytest.raises(NotFound, match="make it first"):
        restore(backup, tmp_path / "missing" / "store.db", OPTIONS)


def test_restore__cancelled_changes_nothing(file: Path, tmp_path: Path) -> None:
    backup = backup_of(file)
    with pytest.raises(Cancelled):
        restore(backup, file, OPTIONS, CopyOptions(may_replace=True, is_cancelled=lambda: True))
    assert names_in(tmp_path) == ["backup.davsql", "store.db"]


def test_restore__without_room_changes_nothing(file: Path, small_disk: Path) -> None:
    with Store.open(file) as store:
        put(store, "/large", random.Random(1).randbytes(6_000_000))  # noqa: S311
    with pytest.raises(StoreFull):
        restore(backup_of(file), small_disk / "store.db", OPTIONS)
    assert names_in(small_disk) == []


# --- deep ----------------------------------------------------------------------------------------------------------


def damage(file: Path) -> None:
    connection = apsw.Connection(str(file))
    connection.execute("UPDATE chunk_data SET data = zeroblob(length(data))")
    connection.close()


def test_restore__deep_refuses_what_rotted_and_names_the_file(file: Path, tmp_path: Path) -> None:
    backup = backup_of(file)
    damage(backup)
    with pytest.raises(StoreDamaged, match=r"rule 15: chunk 1: .* used by /f"):
        restore(backup, tmp_path / "again.db", OPTIONS, CopyOptions(is_deep=True))
    assert not (tmp_path / "again.db").exists()
    restore(backup, tmp_path / "again.db", OPTIONS)  # what there is, on demand


def test_restore__deep_tells_how_far_it_is(file: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    how = CopyOptions(is_deep=True, progress=lambda done, total: seen.append((done, total)))
    restore(backup_of(file), tmp_path / "again.db", OPTIONS, how)
    assert seen[-1] == (len(b"content"), len(b"content"))


@pytest.mark.parametrize("is_deep", [False, True])
def test_restore__forgets_damage_that_the_copy_has_not(file: Path, tmp_path: Path, is_deep: bool) -> None:
    with Store.open(file) as store:
        for task in ("integrity_check", "scrub"):
            store.write(lambda tx, task=task: finish_task(tx, task, "failed", "rot"))  # type: ignore[misc]
        leave_mark(store)
    restored = restore(backup_of(file), tmp_path / "again.db", OPTIONS, CopyOptions(is_deep=is_deep)).file
    with Store.open(restored) as store:
        assert store.was_clean
        with store.read() as tx:
            failed = {name for name, record in task_records(tx).items() if record.outcome == "failed"}
    assert failed == (set() if is_deep else {"scrub"})


def test_back_up__deep_finds_what_rotted_in_the_store(file: Path, tmp_path: Path) -> None:
    deep = CopyOptions(is_deep=True)
    assert tree_in(back_up(file, tmp_path / "good", OPTIONS, deep).file) == {"/f": b"content"}
    damage(file)
    with pytest.raises(StoreDamaged, match="used by /f"):
        back_up(file, tmp_path / "bad", OPTIONS, deep)
    assert not (tmp_path / "bad").exists()
    back_up(file, tmp_path / "bad", OPTIONS)


def test_back_up__deep_of_an_older_store(old_file: Path, tmp_path: Path) -> None:
    assert back_up(old_file, tmp_path / "b", OPTIONS, CopyOptions(is_deep=True)).snapshot.schema_version == 1

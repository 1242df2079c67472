"""The task of the maintenance thread: when it runs, what it leaves in the folder, what it never touches."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from davsql.errors import Cancelled, NotFound, StoreError, StoreUnavailable
from davsql.maintenance import backup as backup_task
from davsql.maintenance import thread
from davsql.maintenance.backup import BackupOptions, ScheduledBackup, backup_name, backups_in
from davsql.maintenance.tasks import run_task
from davsql.maintenance.thread import Maintenance
from davsql.store import backup
from davsql.store.records import TaskRecord, task_records
from davsql.store.store import Store
from tests.backup.backup_steps import names_in, tree_in
from tests.store_steps import put

NOW = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
FOREIGN = (
    "notes.txt",
    "store-20260101T000000Z.davsql.gz",
    "other-20260101T000000Z.davsql",
    "store-2-20260101T000000Z.davsql",
    "store-20261399T000000Z.davsql",
    "store-20260101.davsql",
    "STORE-20260101T000000Z.davsql",
)


def never() -> bool:
    return False


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "backups"
    folder.mkdir()
    return folder


def task_for(folder: Path, **options: object) -> ScheduledBackup:
    return ScheduledBackup(folder, BackupOptions(folder=folder, **options))  # type: ignore[arg-type]


def record(started: datetime, *, outcome: str | None = "ok", is_finished: bool = True) -> TaskRecord:
    started_ns = int(started.timestamp() * 1e9)
    return TaskRecord("backup", started_ns, started_ns if is_finished else None, outcome, "")  # type: ignore[arg-type]


def test_run__leaves_a_verified_backup_named_after_store_and_time(store: Store, folder: Path) -> None:
    put(store, "/f", b"content")
    detail = run_task(task_for(folder), store, never)
    (name,) = names_in(folder)
    ((made_at, file),) = backups_in(folder, store.file).items()
    assert abs(datetime.now(UTC) - made_at) < timedelta(minutes=1)
    assert detail.startswith(f"{folder / name}: 0.")
    assert detail.endswith("verified")
    with store.read() as tx:
        last = task_records(tx)["backup"]
    assert (last.outcome, last.detail) == ("ok", detail)
    assert tree_in(file) == {"/f": b"content"}


def test_run__begins_with_an_empty_wal(store: Store, folder: Path, tmp_path: Path) -> None:
    put(store, "/f", bytes(100_000))
    assert store.wal_bytes > 0
    task_for(folder).run(store, never)
    assert store.wal_bytes == 0
    (tmp_path / "more").mkdir()
    with store.read() as tx:  # somebody keeps it: the backup is made all the same
        tx.rows("SELECT * FROM nodes")
        put(store, "/g", b"x")
        task_for(tmp_path / "more").run(store, never)
    assert store.wal_bytes > 0
    (file,) = backups_in(tmp_path / "more", store.file).values()
    assert tree_in(file).keys() == {"/f", "/g"}


def test_run__removes_what_the_rule_does_not_keep_and_nothing_else(store: Store, folder: Path) -> None:
    for name in FOREIGN:
        (folder / name).write_bytes(b"not ours")
    old = [folder / backup_name(store.file, datetime.now(UTC) - timedelta(days=days)) for days in range(1, 401)]
    for file in old:
        file.write_bytes(b"an old backup")
    (folder / "store-20200101T000000Z.davsql").symlink_to(folder / "notes.txt")
    (folder / "store-20200102T000000Z.davsql").mkdir()
    detail = task_for(folder, keep_hourly=1, keep_daily=3, keep_weekly=0, keep_monthly=0).run(store, never)
    assert detail.endswith("; 398 old removed")
    left = set(names_in(folder)) - set(FOREIGN)
    assert {"store-20200101T000000Z.davsql", "store-20200102T000000Z.davsql"} < left
    assert old[0].name in left
    assert old[1].name in left
    assert len(left) == 5


def test_run__never_removes_the_backup_that_it_just_made(store: Store, folder: Path) -> None:
    """The clock was ahead for a while: others claim to be newer."""
    for hours in range(3):
        (folder / backup_name(store.file, datetime.now(UTC) + timedelta(days=9, hours=hours))).touch()
    task_for(folder, keep_hourly=1, keep_daily=0, keep_weekly=0, keep_monthly=0).run(store, never)
    assert len(names_in(folder)) == 2
    assert any(tree_in(folder / name) == {} for name in names_in(folder) if (folder / name).stat().st_size)


def test_run__that_fails_removes_nothing(store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = [folder / backup_name(store.file, NOW - timedelta(days=days)) for days in range(9)]
    for file in old:
        file.touch()

    def fail(*_: object) -> None:
        raise StoreUnavailable("the copy is not good")

    monkeypatch.setattr(backup, "verify_copy", fail)
    with pytest.raises(StoreUnavailable):
        run_task(task_for(folder, keep_hourly=0, keep_daily=1, keep_weekly=0, keep_monthly=0), store, never)
    assert names_in(folder) == sorted(file.name for file in old)
    with store.read() as tx:
        assert task_records(tx)["backup"].outcome == "failed"


def test_run__cancelled_leaves_nothing(store: Store, folder: Path) -> None:
    with pytest.raises(Cancelled):
        run_task(task_for(folder), store, lambda: True)
    assert names_in(folder) == []


def test_run__does_not_make_the_folder(store: Store, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="mount its disk"):
        task_for(tmp_path / "not mounted").run(store, never)
    assert not (tmp_path / "not mounted").exists()


def test_run__whose_old_backups_cannot_be_removed_says_so(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(backup_task, "backups_in", fail)
    with pytest.raises(StoreError, match="was made, but old backups cannot be removed"):
        task_for(folder).run(store, never)


@pytest.mark.parametrize(
    ("last", "is_due"),
    [
        (None, True),
        (record(NOW - timedelta(minutes=5)), False),
        (record(NOW - timedelta(minutes=31)), True),
        (record(NOW - timedelta(minutes=5), outcome=None, is_finished=False), True),
        (record(NOW - timedelta(minutes=5), outcome="failed"), False),
        (record(NOW - timedelta(minutes=16), outcome="failed"), True),
        (record(NOW + timedelta(days=3)), True),
    ],
)
def test_is_due__on_schedule_and_soon_after_a_failure(folder: Path, last: TaskRecord | None, is_due: bool) -> None:
    assert task_for(folder, schedule="hourly").is_due_at(NOW, last) is is_due


def test_make_tasks__without_a_folder_there_are_none(folder: Path) -> None:
    assert BackupOptions().make_tasks() == ()
    (task,) = BackupOptions(folder=folder).make_tasks()
    assert task.name == "backup"


def test_maintenance__makes_the_first_backup_by_itself(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thread, "TASKS_POLL_S", 0.05)
    put(store, "/f", b"content")
    maintenance = Maintenance(store, more_tasks=BackupOptions(folder=folder).make_tasks())
    maintenance.start()
    deadline = time.monotonic() + 20
    while not backups_in(folder, store.file) and time.monotonic() < deadline:
        time.sleep(0.05)
    maintenance.stop()
    (file,) = backups_in(folder, store.file).values()
    assert tree_in(file) == {"/f": b"content"}

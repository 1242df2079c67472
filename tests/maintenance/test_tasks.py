"""The tasks of maintenance: when they are due, what they do, what they remember."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest

from davsql.errors import StoreDamaged, StoreFull, StoreUnavailable
from davsql.maintenance import tasks, thread
from davsql.maintenance.gc import collect_garbage
from davsql.maintenance.health import Status, look_at
from davsql.maintenance.tasks import Task, run_task
from davsql.store import space
from davsql.store.blobs import CHUNK_BYTES
from davsql.store.records import Outcome, TaskRecord, finish_task, task_records
from davsql.store.store import Store
from davsql.store.transaction import WriteTx
from tests.store_steps import at, leave_mark, put

DAY_S = tasks.DAY_S
FAST = 1e12


def never() -> bool:
    return False


def record_of(store: Store, name: str) -> TaskRecord | None:
    with store.read() as tx:
        return task_records(tx).get(name)


def different_chunks(count: int) -> bytes:
    return b"".join(bytes([index + 1]) * CHUNK_BYTES for index in range(count))


def damage(store: Store, position: int) -> int:
    """Overwrite the bytes of a chunk, as rot would, and return its id."""
    chunk_id: int = store.write(
        lambda tx: tx.value("SELECT chunk_id FROM chunks ORDER BY chunk_id LIMIT 1 OFFSET ?", (position,))
    )
    store.write(
        lambda tx: tx.change("UPDATE chunk_data SET data = zeroblob(length(data)) WHERE chunk_id = ?", (chunk_id,))
    )
    return chunk_id


def heal(store: Store, content: bytes) -> None:
    put(store, "/healed", content)


class Failing(Task):
    name = "failing"

    def is_due(self, store: Store, last: TaskRecord | None) -> bool:
        del store, last
        return True

    def run(self, store: Store, is_cancelled: tasks.IsCancelled) -> str:
        del store, is_cancelled
        raise StoreFull("no room")


def test_run_task__remembers_success_and_failure(store: Store) -> None:
    run_task(tasks.Optimize(), store, never)
    done = record_of(store, "optimize")
    assert done is not None
    assert done.outcome == "ok"
    with pytest.raises(StoreFull):
        run_task(Failing(), store, never)
    failed = record_of(store, "failing")
    assert failed is not None
    assert (failed.outcome, failed.detail) == ("failed", "no room")


def test_optimize__is_for_stores_with_many_nodes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not tasks.Optimize().is_due(store, None)
    run_task(tasks.Optimize(), store, never)
    with store.read() as tx:
        assert tx.value("SELECT count(*) FROM sqlite_schema WHERE name = 'sqlite_stat1'") == 0
    monkeypatch.setattr(tasks, "OPTIMIZE_FROM_INODES", 1)
    assert tasks.Optimize().is_due(store, None)
    put(store, "/f", b"x")
    run_task(tasks.Optimize(), store, never)
    with store.read() as tx:
        assert tx.value("SELECT count(*) FROM sqlite_stat1") > 0


def test_run_task__cancelled_counts_as_interrupted(store: Store) -> None:
    with pytest.raises(StoreFull):
        run_task(Failing(), store, lambda: True)
    record = record_of(store, "failing")
    assert record is not None
    assert record.finished_at is None
    assert tasks.is_older(record, DAY_S)


@pytest.mark.parametrize(
    ("age_s", "is_due"), [(10, False), (6.9 * DAY_S, False), (7.1 * DAY_S, True), (-10 * DAY_S, True)]
)
def test_is_older__is_true_also_when_the_clock_was_set_back(age_s: float, is_due: bool) -> None:
    began = time.time_ns() - int(age_s * tasks.NS_PER_S)
    assert tasks.is_older(TaskRecord("x", began, began, "ok", ""), 7 * DAY_S) is is_due
    assert tasks.is_older(None, 7 * DAY_S)


@pytest.mark.parametrize(
    ("window", "inside", "outside"),
    [("03:00-05:00", ("03:00", "04:59"), ("02:59", "05:00")), ("23:00-01:00", ("23:30", "00:59"), ("01:00", "22:59"))],
)
def test_is_within__spans_midnight(window: str, inside: tuple[str, ...], outside: tuple[str, ...]) -> None:
    for text, expected in [(each, True) for each in inside] + [(each, False) for each in outside]:
        assert tasks.is_within(window, datetime.fromisoformat(f"2026-11-23T{text}")) is expected


def test_quick_check__is_due_after_an_unclean_stop_only(store: Store) -> None:
    task = tasks.QuickCheck()
    assert store.was_clean
    assert not task.is_due(store, None)
    leave_mark(store)
    store.close()
    for _ in range(2):  # as long as none was made
        with Store.open(store.file) as second:
            assert task.is_due(second, None)
    with Store.open(store.file) as second:
        assert run_task(task, second, never) == "after an unclean stop"
        assert not task.is_due(second, record_of(second, "quick_check"))
    with Store.open(store.file) as third:
        assert not tasks.QuickCheck().is_due(third, None)
        assert run_task(tasks.QuickCheck(), third, never) == ""


def test_integrity_check__passes_on_a_sound_store(store: Store) -> None:
    put(store, "/f", different_chunks(3))
    assert run_task(tasks.IntegrityCheck(DAY_S), store, never) == ""


def test_integrity_check__that_is_clean_ends_what_quick_check_found(store: Store) -> None:
    store.write(lambda tx: finish_task(tx, "quick_check", "failed", "page 7"))
    assert look_at(store).status is Status.UNHEALTHY
    run_task(tasks.IntegrityCheck(DAY_S), store, never)
    assert look_at(store).complaints == ()


@pytest.mark.parametrize("make", [tasks.IntegrityCheck, lambda interval_s: tasks.Scrub(interval_s, FAST)])
@pytest.mark.parametrize(
    ("outcome", "age_days", "is_due"), [("ok", 2, False), ("failed", 2, True), ("failed", 0, False)]
)
def test_check__that_found_damage_is_due_every_day(
    store: Store, make: Callable[[float], Task], outcome: Outcome, age_days: float, is_due: bool
) -> None:
    """What was found may have been repaired, by sending the same bytes again."""
    at_ns = time.time_ns() - int(age_days * DAY_S * tasks.NS_PER_S)
    task = make(7 * DAY_S)
    assert task.is_due(store, TaskRecord(task.name, at_ns, at_ns, outcome, "")) is is_due


def test_integrity_check__is_cancelled_within_a_step(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("davsql.store.integrity.PROGRESS_STEPS", 1)
    put(store, "/f", different_chunks(3))
    with pytest.raises(StoreUnavailable):
        run_task(tasks.IntegrityCheck(DAY_S), store, lambda: True)
    record = record_of(store, "integrity_check")
    assert record is not None
    assert record.finished_at is None


def test_scrub__finds_a_damaged_chunk_and_names_the_files(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    content = different_chunks(40)
    put(store, "/d.bin", content)
    store.make_collection(at("/c"))
    store.copy(at("/d.bin"), at("/c/copy.bin"))
    assert "rehashed" in run_task(tasks.Scrub(DAY_S, FAST), store, never)
    chunk_id = damage(store, 20)
    with caplog.at_level(logging.ERROR), pytest.raises(StoreDamaged, match=str(chunk_id)):
        run_task(tasks.Scrub(DAY_S, FAST), store, never)
    assert "/d.bin" in caplog.text
    assert "/c/copy.bin" in caplog.text
    heal(store, content)  # the same bytes, sent again, mend the chunk
    assert "rehashed" in run_task(tasks.Scrub(DAY_S, FAST), store, never)


def test_scrub__goes_on_where_it_was_interrupted(store: Store) -> None:
    content = different_chunks(64)
    put(store, "/d.bin", content)
    damage(store, 1)
    looks = iter([False, False, True])
    with pytest.raises(StoreUnavailable):
        run_task(tasks.Scrub(DAY_S, FAST), store, lambda: next(looks, True))
    record = record_of(store, "scrub")
    assert record is not None
    assert '"position": 32' in record.detail
    with pytest.raises(StoreDamaged):  # what was found before the interruption is not forgotten
        run_task(tasks.Scrub(DAY_S, FAST), store, never)
    heal(store, content)


def test_scrub__keeps_to_its_rate(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    put(store, "/d.bin", different_chunks(32))  # 8 MiB
    run_task(tasks.Scrub(DAY_S, 1024 * 1024), store, never)
    assert sum(slept) >= 1.5  # at most a second a batch, so that a stop is not kept waiting


def test_incremental_vacuum__gives_free_pages_back_and_keeps_some(store: Store) -> None:
    free_chunks(store, 80)
    keep_bytes = 2 * 1024 * 1024
    task = tasks.IncrementalVacuum(keep_bytes)
    assert task.is_due(store, None)
    run_task(task, store, never)
    with store.read() as tx:
        found = space.pages(tx)
    assert keep_bytes - found.page_size <= found.free_bytes <= keep_bytes
    assert not task.is_due(store, None)


def free_chunks(store: Store, number: int) -> None:
    put(store, "/big", different_chunks(number))
    store.delete(at("/big"))
    collect_garbage(store, grace_s=-1, upload_expiry_s=0)


def test_incremental_vacuum__works_in_short_steps_and_stops_between_them(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    free_chunks(store, 80)
    asked: list[int] = []

    def free(tx: WriteTx, limit: int) -> int:
        asked.append(limit)
        return free_pages(tx, limit)

    free_pages = space.free_pages
    monkeypatch.setattr(space, "free_pages", free)
    tasks.IncrementalVacuum(0, pause=0.0).run(store, lambda: len(asked) == 3)
    assert len(asked) == 3
    assert asked[0] == max(asked) == tasks.VACUUM_STEP_PAGES
    tasks.IncrementalVacuum(0, pause=0.0).run(store, never)
    with store.read() as tx:
        assert space.pages(tx).free_count == 0


def test_incremental_vacuum__leaves_the_writer_to_others_most_of_the_time(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    free_chunks(store, 4)
    pauses: list[float] = []
    seconds = itertools.count(0.0, 0.01)  # each look at the clock takes that long, so a step does
    clock = SimpleNamespace(monotonic=lambda: next(seconds), sleep=pauses.append, time_ns=time.time_ns)
    monkeypatch.setattr(tasks, "time", clock)
    tasks.IncrementalVacuum(0).run(store, never)
    assert pauses
    assert min(pauses) == pytest.approx(0.19)


def test_incremental_vacuum__lets_other_tasks_run(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    free_chunks(store, 4)
    seconds = itertools.count(0.0, 10.0)
    monkeypatch.setattr(thread, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    monkeypatch.setattr(tasks, "VACUUM_STEP_PAGES", 1)
    thread.Maintenance(store)._run_if_due(tasks.IncrementalVacuum(0))  # noqa: SLF001  # one round, without threads
    with store.read() as tx:
        assert space.pages(tx).free_count > 0


def test_full_vacuum__is_due_in_its_window_when_a_quarter_is_free(store: Store) -> None:
    now = datetime.now().astimezone()
    window = f"{now - timedelta(minutes=5):%H:%M}-{now + timedelta(minutes=5):%H:%M}"
    other = f"{now + timedelta(hours=2):%H:%M}-{now + timedelta(hours=3):%H:%M}"
    put(store, "/keep", different_chunks(4))
    assert not tasks.FullVacuum(window).is_due(store, None)
    put(store, "/big", different_chunks(30)[4 * CHUNK_BYTES :])
    store.delete(at("/big"))
    collect_garbage(store, grace_s=-1, upload_expiry_s=0)
    assert tasks.FullVacuum(window).is_due(store, None)
    assert not tasks.FullVacuum(other).is_due(store, None)
    assert not tasks.FullVacuum("").is_due(store, None)
    run_task(tasks.FullVacuum(window), store, never)
    with store.read() as tx:
        assert space.pages(tx).free_count == 0


def test_full_vacuum__refuses_when_the_disk_has_no_room(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    class Disk:
        free = 1000

    monkeypatch.setattr("davsql.store.space.shutil.disk_usage", lambda _path: Disk)
    with pytest.raises(StoreFull, match="make room"):
        run_task(tasks.FullVacuum(""), store, never)


def test_full_vacuum__can_be_cancelled_and_leaves_the_store_whole(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space, "PROGRESS_STEPS", 1)
    put(store, "/big", different_chunks(20))
    with pytest.raises(StoreUnavailable):
        run_task(tasks.FullVacuum(""), store, lambda: True)
    put(store, "/f", b"the writer goes on")


def test_maintenance__a_long_scrub_lets_other_tasks_run(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    content = different_chunks(100)
    put(store, "/d.bin", content)
    monkeypatch.setattr(thread, "TASKS_POLL_S", 0.01)
    monkeypatch.setattr(tasks, "SCRUB_BATCH_CHUNKS", 1)
    monkeypatch.setattr(tasks.Scrub, "slice_s", 0.0)
    runs: list[TaskRecord | None] = []

    class Other(Failing):
        name = "other"

        def run(self, store: Store, is_cancelled: tasks.IsCancelled) -> str:
            del is_cancelled
            runs.append(record_of(store, "scrub"))
            return ""

    maintenance = thread.Maintenance(store, thread.MaintenanceOptions(scrub_mb_per_s=FAST), [Other()])
    maintenance.start()
    deadline = time.monotonic() + 10
    while not any(record is not None and record.finished_at is None for record in runs):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    maintenance.stop()

"""The writer: answers after COMMIT only, groups commits, and tells each caller the truth about its own command."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import apsw
import pytest

from davsql.errors import NotFound, StoreBusy, StoreError, StoreFull, StoreReadOnly, StoreUnavailable
from davsql.store import connection as connection_module
from davsql.store import migrate, wal
from davsql.store import writer as writer_module
from davsql.store.checkpointer import Checkpointer
from davsql.store.connection import Role, create_file, open_connection
from davsql.store.options import StoreOptions
from davsql.store.pending import Pending
from davsql.store.transaction import WriteTx
from davsql.store.writer import Writer
from tests.faults.disk import Disk

INSERT = "INSERT INTO meta (key, value) VALUES (?, '')"
TIMEOUT_S = 10


class Rig:
    """A writer whose connection is at hand, and a second look at its file."""

    def __init__(self, file: Path, options: StoreOptions) -> None:
        with_schema = create_file(file, options)
        migrate.create_schema(with_schema)
        with_schema.close()
        self.file = file
        self.connection = open_connection(file, Role.WRITER, options)
        self.commits = 0
        self.connection.set_commit_hook(self._count)
        self.on_commit: Callable[[], bool] = lambda: False  # True rolls back
        self.checkpointer = Checkpointer(file, options)
        self.writer = Writer(self.connection, options, self.checkpointer)

    def _count(self) -> bool:
        if self.on_commit():
            return True
        self.commits += 1
        return False

    def committed(self) -> set[str]:
        """What another connection sees."""
        other = apsw.Connection(str(self.file), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            found = {str(key) for (key,) in other.execute("SELECT key FROM meta")}
        finally:
            other.close()
        marks = {key for key in found if key.startswith("writing ")}
        return found - marks - {"schema_version", "store_id", "created_at"}

    def hold(self) -> threading.Event:
        """Keep the writer busy until the event is set; what is submitted meanwhile becomes one batch."""
        taken, release = threading.Event(), threading.Event()

        def wait(_tx: WriteTx) -> None:
            taken.set()
            assert release.wait(TIMEOUT_S)

        self.writer.submit(wait)
        assert taken.wait(TIMEOUT_S)
        return release


MakeRig = Callable[[StoreOptions], Rig]


@pytest.fixture
def make_rig(tmp_path: Path) -> Iterator[MakeRig]:
    made: list[Rig] = []

    def make(options: StoreOptions) -> Rig:
        made.append(Rig(tmp_path / f"store-{len(made)}.db", options))
        return made[-1]

    yield make
    for rig in made:
        rig.checkpointer.close()
        rig.writer.close()


@pytest.fixture
def rig(make_rig: MakeRig) -> Rig:
    return make_rig(StoreOptions())


def insert(key: str) -> Callable[[WriteTx], str]:
    """A command that stores a key and returns it."""

    def command(tx: WriteTx) -> str:
        tx.change(INSERT, (key,))
        return key

    return command


def failing(error: BaseException, key: str = "failing") -> Callable[[WriteTx], str]:
    """A command that changes something and raises."""

    def command(tx: WriteTx) -> str:
        tx.change(INSERT, (key,))
        raise error

    return command


def rolling_back(tx: WriteTx) -> str:
    """A command that takes its whole transaction down, as an I/O error does."""
    tx.change("INSERT OR ROLLBACK INTO meta (key, value) VALUES ('schema_version', '')")
    return "never"


def outcome(pending: Pending[str]) -> str | BaseException:
    try:
        return pending.wait()
    except Exception as error:  # noqa: BLE001
        return error


# --- answers ----------------------------------------------------------------------------------------------------------


def test_run__answers_with_the_result_once_it_is_committed(rig: Rig) -> None:
    for number in range(20):
        assert rig.writer.run(insert(f"k{number}")) == f"k{number}"
        assert f"k{number}" in rig.committed()


def test_run__from_many_threads_answers_after_each_commit(rig: Rig) -> None:
    missing: list[str] = []

    def work(thread: int) -> None:
        for number in range(20):
            key = rig.writer.run(insert(f"{thread}-{number}"))
            if key not in rig.committed():
                missing.append(key)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert missing == []
    assert len(rig.committed()) == 160


def test_submit__is_not_answered_before_commit(rig: Rig) -> None:
    reached, release = threading.Event(), threading.Event()

    def wait() -> bool:
        reached.set()
        assert release.wait(TIMEOUT_S)
        return False

    rig.on_commit = wait
    pending = rig.writer.submit(insert("k"))
    assert reached.wait(TIMEOUT_S)
    time.sleep(0.02)
    assert not pending.is_answered
    assert rig.committed() == set()
    release.set()
    assert pending.wait() == "k"
    assert rig.committed() == {"k"}


def test_submit__groups_what_waits_into_one_commit(rig: Rig) -> None:
    release = rig.hold()
    pendings = [rig.writer.submit(insert(f"k{number}")) for number in range(50)]
    assert rig.writer.queue_depth == 50
    release.set()
    assert [pending.wait() for pending in pendings] == [f"k{number}" for number in range(50)]
    assert rig.commits == 2  # the one that held the writer, and all the others
    assert len(rig.committed()) == 50
    assert rig.writer.queue_depth == 0


def test_submit__groups_no_more_than_a_batch(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "BATCH_COMMANDS", 10)
    monkeypatch.setattr(writer_module, "BATCH_BYTES", 1000)
    release = rig.hold()
    pendings = [rig.writer.submit(insert(f"k{number}")) for number in range(25)]
    pendings += [rig.writer.submit(insert(f"large{number}"), 1000) for number in range(3)]
    release.set()
    for pending in pendings:
        pending.wait()
    assert rig.commits == 1 + 3 + 2  # 10, 10, 5 and a large one, and the other two
    assert len(rig.committed()) == 28


@pytest.fixture
def syncs() -> Iterator[tuple[str, list[str]]]:
    """The name of a VFS, and the names of the files that SQLite syncs through it."""
    disk = Disk("syncs-of-the-writer")
    synced: list[str] = []
    disk.before = lambda operation: synced.append(operation.file) if operation.kind == "sync" else None
    yield disk.vfs_name, synced
    disk.unregister()


def test_commit__at_full_waits_for_the_disk_once_a_batch(syncs: tuple[str, list[str]], make_rig: MakeRig) -> None:
    vfs, synced = syncs
    rig = make_rig(StoreOptions(vfs=vfs))
    wal_file = f"{rig.file.name}-wal"
    rig.writer.run(insert("first"))  # with it the WAL's header
    synced.clear()
    rig.writer.run(insert("second"))
    assert synced == [wal_file]

    release = rig.hold()  # which writes nothing
    batch = [rig.writer.submit(insert(f"batch {number}")) for number in range(3)]
    release.set()
    for pending in batch:
        pending.wait()
    assert synced == [wal_file] * 2


def test_commit__at_normal_never_waits_for_the_disk(syncs: tuple[str, list[str]], make_rig: MakeRig) -> None:
    vfs, synced = syncs
    rig = make_rig(StoreOptions(vfs=vfs, durability="normal"))
    rig.writer.run(insert("first"))
    synced.clear()
    rig.writer.run(insert("second"))
    assert synced == []


def test_commands__run_in_the_order_in_which_they_came(rig: Rig) -> None:
    seen: list[int] = []
    release = rig.hold()
    pendings = [rig.writer.submit(lambda _tx, number=number: seen.append(number)) for number in range(100)]  # type: ignore[misc]
    release.set()
    for pending in pendings:
        pending.wait()
    assert seen == list(range(100))


def test_commands__see_what_those_before_them_did(rig: Rig) -> None:
    release = rig.hold()
    first = rig.writer.submit(insert("k"))
    second = rig.writer.submit(lambda tx: int(tx.value("SELECT count(*) FROM meta WHERE key = 'k'")))
    release.set()
    assert (first.wait(), second.wait()) == ("k", 1)


# --- callers who serve ------------------------------------------------------------------------------------------------


def elsewhere(call: Callable[[], object]) -> Future[object]:
    """Make a call in another thread than the main one, where callers may serve themselves."""
    made: Future[object] = Future()

    def work() -> None:
        try:
            made.set_result(call())
        except BaseException as error:  # noqa: BLE001
            made.set_exception(error)

    threading.Thread(target=work).start()
    return made


def test_run__of_an_idle_writer_is_done_by_the_caller(rig: Rig) -> None:
    def call() -> bool:
        return rig.writer.run(lambda _tx: threading.get_ident()) == threading.get_ident()

    for _ in range(3):
        assert elsewhere(call).result(TIMEOUT_S)


def test_run__where_many_come_is_left_to_the_thread(rig: Rig) -> None:
    release = rig.hold()
    pendings = [rig.writer.submit(insert(key)) for key in "ab"]
    release.set()
    for pending in pendings:
        pending.wait()

    def call() -> str:
        return rig.writer.run(lambda _tx: threading.current_thread().name)

    assert elsewhere(call).result(TIMEOUT_S) == "davsql-writer"
    rig.writer.submit(insert("the last one alone")).wait()
    deadline = time.monotonic() + TIMEOUT_S
    while elsewhere(call).result(TIMEOUT_S) == "davsql-writer":  # the thread lets go a moment after its answer
        assert time.monotonic() < deadline


def test_run__in_the_main_thread_cannot_be_interrupted_halfway(rig: Rig) -> None:
    assert threading.current_thread() is threading.main_thread()
    assert rig.writer.run(lambda _tx: threading.current_thread().name) == "davsql-writer"


def test_run__by_a_caller_serves_one_batch_and_leaves_the_rest_to_the_thread(rig: Rig) -> None:
    taken, release, held = threading.Event(), threading.Event(), threading.Event()

    def first(_tx: WriteTx) -> str:
        taken.set()
        assert release.wait(TIMEOUT_S)
        return threading.current_thread().name

    def second(_tx: WriteTx) -> str:
        assert held.wait(TIMEOUT_S)
        return threading.current_thread().name

    caller = elsewhere(lambda: rig.writer.run(first))
    assert taken.wait(TIMEOUT_S)
    others = [elsewhere(rig.writer.submit(second).wait)]
    others += [elsewhere(lambda: rig.writer.run(second)) for _ in range(3)]
    others += [elsewhere(rig.writer.submit(insert("k")).wait)]
    while rig.writer.queue_depth < len(others):
        time.sleep(0.001)
    assert not caller.done()
    release.set()
    assert caller.result(TIMEOUT_S) != "davsql-writer"  # answered though the others are not
    held.set()
    answers = [each.result(TIMEOUT_S) for each in others]
    assert answers == ["davsql-writer"] * 4 + ["k"]
    assert rig.committed() == {"k"}


def test_run__by_callers_and_in_the_thread_by_turns_loses_nothing(rig: Rig) -> None:
    def work(thread: int) -> list[str]:
        keys = []
        for number in range(40):
            key = f"{thread}-{number}"
            pending = rig.writer.submit(insert(f"s{key}")) if number % 3 == 0 else None
            keys.append(rig.writer.run(insert(key)))
            if pending is not None:
                keys.append(pending.wait())
        return keys

    done = [elsewhere(lambda number=number: work(number)) for number in range(6)]  # type: ignore[misc]
    keys = [key for each in done for key in each.result(60)]  # type: ignore[attr-defined]
    assert rig.committed() == set(keys)
    assert len(keys) == 6 * (40 + 14)


def test_run__that_kills_the_writer_in_a_callers_thread_answers_everybody(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    taken, release = threading.Event(), threading.Event()

    def kill(tx: WriteTx) -> None:
        tx.change(INSERT, ("killed",))
        taken.set()
        assert release.wait(TIMEOUT_S)
        raise SystemExit

    caller = elsewhere(lambda: rig.writer.run(kill))
    assert taken.wait(TIMEOUT_S)
    waiting = rig.writer.submit(insert("waiting"))
    release.set()
    with pytest.raises(StoreUnavailable):
        caller.result(TIMEOUT_S)
    assert isinstance(outcome(waiting), StoreUnavailable)
    with pytest.raises(StoreUnavailable):
        rig.writer.run(insert("later"))
    rig.writer.close()
    assert not rig.writer.is_alive
    assert rig.committed() == set()
    assert "the writer stopped" in caplog.text


def test_close__waits_for_a_caller_who_serves(rig: Rig) -> None:
    taken, release = threading.Event(), threading.Event()

    def command(tx: WriteTx) -> str:
        taken.set()
        assert release.wait(TIMEOUT_S)
        return insert("k")(tx)

    caller = elsewhere(lambda: rig.writer.run(command))
    assert taken.wait(TIMEOUT_S)
    queued = rig.writer.submit(insert("queued"))
    closing = elsewhere(rig.writer.close)
    time.sleep(0.02)
    assert not closing.done()
    release.set()
    closing.result(TIMEOUT_S)
    assert (caller.result(TIMEOUT_S), queued.wait()) == ("k", "queued")
    assert rig.committed() == {"k", "queued"}


# --- failures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [NotFound("nothing"), TypeError("a bug"), ValueError(), MemoryError()])
def test_run__raises_what_the_command_raised(rig: Rig, error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        rig.writer.run(failing(error))
    assert raised.value is error
    assert rig.committed() == set()
    assert rig.writer.run(insert("after")) == "after"


def test_run__raises_errors_of_sqlite_in_our_words(rig: Rig) -> None:
    with pytest.raises(StoreUnavailable) as raised:
        rig.writer.run(lambda tx: tx.change("INSERT INTO meta (key, value) VALUES ('k', NULL)"))
    assert isinstance(raised.value.__cause__, apsw.ConstraintError)
    with pytest.raises(StoreUnavailable, match="SQLError"):
        rig.writer.run(lambda tx: tx.change("not SQL"))


def test_batch__of_which_some_fail_keeps_the_others(rig: Rig) -> None:
    bug, refusal = TypeError("a bug"), NotFound("nothing")
    release = rig.hold()
    pendings = [
        rig.writer.submit(command)
        for command in (
            insert("a"),
            failing(refusal, "b"),
            insert("c"),
            failing(bug, "d"),
            insert("c"),  # a constraint fails
            insert("d"),  # what failed left no trace
            insert("e"),
        )
    ]
    release.set()
    outcomes = [outcome(pending) for pending in pendings]
    assert outcomes[:4] == ["a", refusal, "c", bug]
    assert isinstance(outcomes[4], StoreUnavailable)
    assert outcomes[5:] == ["d", "e"]
    assert rig.committed() == {"a", "c", "d", "e"}
    assert rig.commits == 2


def test_batch__of_which_some_are_refused_is_run_once(rig: Rig) -> None:
    runs = 0

    def refused(tx: WriteTx) -> str:
        nonlocal runs
        runs += 1
        assert tx.value("SELECT count(*) FROM meta")
        raise NotFound("nothing")

    release = rig.hold()
    pendings = [rig.writer.submit(command) for command in (insert("a"), refused, insert("b"), refused)]
    release.set()
    assert [outcome(pending) for pending in pendings][::2] == ["a", "b"]
    assert (runs, rig.commits, rig.committed()) == (2, 2, {"a", "b"})


def test_batch__whose_transaction_dies_is_run_one_by_one(rig: Rig) -> None:
    release = rig.hold()
    pendings = [rig.writer.submit(command) for command in (insert("a"), insert("b"), rolling_back, insert("c"))]
    release.set()
    outcomes = [outcome(pending) for pending in pendings]
    assert outcomes[:2] == ["a", "b"]
    assert isinstance(outcomes[2], StoreError)
    assert outcomes[3] == "c"
    assert rig.committed() == {"a", "b", "c"}


def test_run__of_what_kills_its_own_transaction_is_answered(rig: Rig) -> None:
    with pytest.raises(StoreError):
        rig.writer.run(rolling_back)
    assert rig.writer.run(insert("after")) == "after"


def test_batch__that_cannot_be_committed_is_run_one_by_one(rig: Rig) -> None:
    release = rig.hold()
    pendings = [rig.writer.submit(insert(key)) for key in "abc"]
    failures = iter([False, True])  # the holding command commits, the batch does not
    rig.on_commit = lambda: next(failures, False)
    release.set()
    assert [outcome(pending) for pending in pendings] == ["a", "b", "c"]
    assert rig.committed() == {"a", "b", "c"}


def test_batch__of_which_one_cannot_be_committed_answers_that_one(rig: Rig) -> None:
    release = rig.hold()
    pendings = [rig.writer.submit(insert(key)) for key in "abc"]
    failures = iter([False, True, False, True, False])  # hold; batch; a; b; c
    rig.on_commit = lambda: next(failures, False)
    release.set()
    outcomes = [outcome(pending) for pending in pendings]
    assert (outcomes[0], outcomes[2]) == ("a", "c")
    assert isinstance(outcomes[1], StoreError)
    assert rig.committed() == {"a", "c"}


def test_batch__on_a_full_disk_answers_each_truthfully(rig: Rig) -> None:
    def large(key: str) -> Callable[[WriteTx], str]:
        def command(tx: WriteTx) -> str:
            tx.change("INSERT INTO meta (key, value) VALUES (?, hex(zeroblob(100000)))", (key,))
            return key

        return command

    release = rig.hold()
    commands = {
        "a": insert("a"),
        "large1": large("large1"),
        "b": insert("b"),
        "large2": large("large2"),
        "c": insert("c"),
    }
    rig.connection.pragma("max_page_count", rig.connection.pragma("page_count") + 4)  # the writer waits for us
    pendings = {key: rig.writer.submit(command) for key, command in commands.items()}
    release.set()
    outcomes = {key: outcome(pending) for key, pending in pendings.items()}
    assert isinstance(outcomes.pop("large1"), StoreFull)
    assert isinstance(outcomes.pop("large2"), StoreFull)
    assert outcomes == {"a": "a", "b": "b", "c": "c"}
    assert rig.committed() == {"a", "b", "c"}
    with pytest.raises(StoreFull):
        rig.writer.run(large("large3"))
    rig.writer.run(lambda tx: tx.row("PRAGMA max_page_count = 1000000"))
    assert rig.writer.run(large("large4")) == "large4"


def test_writer__that_is_killed_answers_everybody(
    rig: Rig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = rig.hold()
    before = rig.writer.submit(insert("before"))
    killing = rig.writer.submit(failing(SystemExit()))
    monkeypatch.setattr(writer_module, "BATCH_COMMANDS", 2)
    after = rig.writer.submit(insert("after"))
    release.set()
    for pending in (before, killing, after):
        assert isinstance(outcome(pending), StoreUnavailable)
    with pytest.raises(StoreUnavailable):
        rig.writer.run(insert("later"))
    assert rig.committed() == set()
    assert "the writer stopped" in caplog.text


def test_pending__keeps_its_first_answer(rig: Rig) -> None:
    pending = rig.writer.submit(insert("k"))
    assert pending.wait() == "k"
    assert pending.is_answered


# --- other processes ------------------------------------------------------------------------------------------------


def test_run__waits_for_another_process(make_rig: MakeRig) -> None:
    rig = make_rig(StoreOptions(busy_timeout_s=TIMEOUT_S))
    other = apsw.Connection(str(rig.file))
    other.execute("BEGIN IMMEDIATE")
    pending = rig.writer.submit(insert("k"))
    time.sleep(0.05)
    assert not pending.is_answered
    other.execute("INSERT INTO meta (key, value) VALUES ('other', '')")
    other.execute("COMMIT")
    other.close()
    assert pending.wait() == "k"
    assert rig.committed() == {"k", "other"}


def test_batch__that_never_gets_the_lock_waits_once(make_rig: MakeRig) -> None:
    rig = make_rig(StoreOptions(busy_timeout_s=1))
    other = apsw.Connection(str(rig.file))
    other.execute("BEGIN IMMEDIATE")
    begun = time.monotonic()
    blocked = rig.writer.submit(insert("alone"))
    time.sleep(0.05)
    pendings = [rig.writer.submit(insert(f"l{number}")) for number in range(10)]
    outcomes = [outcome(pending) for pending in [blocked, *pendings]]
    assert time.monotonic() - begun < 4  # one wait for the first, one for all the others
    assert {type(each) for each in outcomes} == {StoreBusy}
    assert len({id(each) for each in outcomes}) == len(outcomes)  # no two threads raise one object
    other.execute("ROLLBACK")
    other.close()
    assert rig.writer.run(insert("after")) == "after"
    assert rig.committed() == {"after"}


# --- the queue ------------------------------------------------------------------------------------------------------


def test_submit__to_a_full_queue_is_refused_and_forgotten(make_rig: MakeRig) -> None:
    rig = make_rig(StoreOptions(queue_size=2, queue_timeout_s=0.05))
    release = rig.hold()
    pendings = [rig.writer.submit(insert(key)) for key in "ab"]
    begun = time.monotonic()
    with pytest.raises(StoreBusy):
        rig.writer.submit(insert("c"))
    assert time.monotonic() - begun >= 0.05
    release.set()
    assert [pending.wait() for pending in pendings] == ["a", "b"]
    assert rig.committed() == {"a", "b"}
    assert rig.writer.run(insert("d")) == "d"


def test_submit__to_a_full_queue_gets_the_next_place(make_rig: MakeRig) -> None:
    rig = make_rig(StoreOptions(queue_size=1, queue_timeout_s=TIMEOUT_S))
    release = rig.hold()
    rig.writer.submit(insert("first"))
    waiting = [threading.Thread(target=rig.writer.run, args=(insert(f"k{number}"),)) for number in range(5)]
    for thread in waiting:
        thread.start()
    time.sleep(0.05)
    assert rig.writer.queue_depth == 1
    release.set()
    for thread in waiting:
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()
    assert len(rig.committed()) == 6


def test_close__finishes_what_is_queued(rig: Rig) -> None:
    release = rig.hold()
    pendings = [rig.writer.submit(insert(f"k{number}")) for number in range(20)]
    closing = threading.Thread(target=rig.writer.close)
    closing.start()
    time.sleep(0.02)
    with pytest.raises(StoreUnavailable):
        rig.writer.submit(insert("late"))
    release.set()
    closing.join(TIMEOUT_S)
    assert not closing.is_alive()
    assert [pending.wait() for pending in pendings] == [f"k{number}" for number in range(20)]
    assert len(rig.committed()) == 20


def test_close__frees_those_who_wait_for_a_place(make_rig: MakeRig) -> None:
    rig = make_rig(StoreOptions(queue_size=1, queue_timeout_s=TIMEOUT_S))
    release = rig.hold()
    rig.writer.submit(insert("queued"))
    outcomes: list[BaseException] = []

    def late() -> None:
        try:
            rig.writer.submit(insert("late"))
        except StoreError as error:
            outcomes.append(error)

    waiting = threading.Thread(target=late)
    waiting.start()
    time.sleep(0.05)
    closing = threading.Thread(target=rig.writer.close)
    closing.start()
    waiting.join(TIMEOUT_S)
    release.set()
    closing.join(TIMEOUT_S)
    assert [type(each) for each in outcomes] == [StoreUnavailable]
    assert rig.committed() == {"queued"}


def test_close__may_be_called_again_and_then_refuses(rig: Rig) -> None:
    rig.writer.close()
    rig.writer.close()
    with pytest.raises(StoreUnavailable):
        rig.writer.run(insert("k"))


def test_submit__to_a_read_only_store_is_refused(make_rig: MakeRig) -> None:
    rig = make_rig(StoreOptions(read_only=True))
    with pytest.raises(StoreReadOnly):
        rig.writer.submit(insert("k"))


# --- the WAL --------------------------------------------------------------------------------------------------------


def test_wal__is_never_checkpointed_by_a_commit(rig: Rig) -> None:
    for number in range(20):
        rig.writer.run(lambda tx, number=number: tx.change(INSERT, ("k" * 100_000 + str(number),)))  # type: ignore[misc]
    assert rig.writer.wal.bytes > 2_000_000  # SQLite's own limit is 1,000 pages


def test_wal__beyond_its_limit_starts_over(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wal, "BYTES_LIMIT", 100_000)
    seen = []
    for number in range(20):
        rig.writer.run(lambda tx, number=number: tx.change(INSERT, ("k" * 50_000 + str(number),)))  # type: ignore[misc]
        seen.append(rig.writer.wal.bytes)
    assert max(seen) < 300_000


def test_wal__is_copied_beside_the_writer_each_time_it_has_grown(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wal, "CHECKPOINT_BYTES", 100_000)
    began, run = threading.Semaphore(0), rig.checkpointer.run

    def counted() -> tuple[int, int]:
        result = run()
        began.release()
        return result

    monkeypatch.setattr(rig.checkpointer, "run", counted)
    for number in range(3):
        rig.writer.run(insert("k" * 150_000 + str(number)))
        assert began.acquire(timeout=TIMEOUT_S)
    assert rig.writer.wal.bytes < 400_000  # it started over
    rig.writer.run(insert("l"))
    assert not began.acquire(blocking=False)


def test_wal__that_another_process_has_copied_is_not_copied_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.writer.run(insert("k" * 150_000))
    runs: list[None] = []
    monkeypatch.setattr(rig.checkpointer, "run", lambda: runs.append(None))
    for left, expected in ((True, 1), (False, 1)):
        if not left:
            other = apsw.Connection(str(rig.file))
            other.execute("SELECT * FROM meta").fetchall()  # without it SQLite does not look
            assert other.wal_checkpoint() > (0, 0)
        rig.checkpointer.run_beside(100_000)
        assert rig.checkpointer._beside.acquire(timeout=TIMEOUT_S)  # noqa: SLF001  # the thread has ended
        rig.checkpointer._beside.release()  # noqa: SLF001
        assert len(runs) == expected


def test_wal__grows_on_when_no_thread_can_be_had(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wal, "CHECKPOINT_BYTES", 100_000)

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        rig.writer.run(insert("k" * 150_000))
        rig.writer.run(insert("l" * 150_000))
        rig.writer.run(lambda _: None)  # what follows the commit before is over
    assert rig.writer.wal.bytes > 300_000
    began = threading.Event()
    monkeypatch.setattr(rig.checkpointer, "run", began.set)
    rig.writer.run(insert("m" * 150_000))
    assert began.wait(TIMEOUT_S)


def test_wal__at_its_limit_waits_for_a_checkpoint_of_this_process(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wal, "BYTES_LIMIT", 100_000)
    with rig.checkpointer._lock:  # noqa: SLF001  # one is at it
        rig.writer.run(insert("k" * 150_000))
        pending = rig.writer.submit(insert("l"))
        time.sleep(0.05)
        assert not pending.is_answered
    pending.wait()
    assert rig.writer.wal.bytes < 100_000


def test_wal__at_its_limit_grows_on_when_another_process_checkpoints_for_long(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wal, "BYTES_LIMIT", 100_000)
    monkeypatch.setattr(wal, "CHECKPOINT_WAIT_S", 0.02)

    def busy() -> tuple[int, int]:
        raise StoreBusy("another process is at it")

    monkeypatch.setattr(rig.checkpointer, "run", busy)
    for number in range(3):
        rig.writer.run(insert("k" * 150_000 + str(number)))
    assert rig.writer.wal.bytes > 400_000


def test_wal__that_a_reader_holds_grows_on(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wal, "BYTES_LIMIT", 100_000)
    reader = apsw.Connection(str(rig.file), flags=apsw.SQLITE_OPEN_READONLY)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM meta").fetchall()
    for number in range(10):
        rig.writer.run(lambda tx, number=number: tx.change(INSERT, ("k" * 50_000 + str(number),)))  # type: ignore[misc]
    assert rig.writer.wal.bytes > 500_000
    reader.close()
    rig.writer.run(insert("k"))
    rig.writer.run(insert("l"))
    assert rig.writer.wal.bytes < 100_000


def test_wal__gives_room_back_when_it_starts_over(make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wal, "BYTES_LIMIT", 100_000)
    monkeypatch.setattr(connection_module, "KEPT_WAL_BYTES", 200_000)
    rig = make_rig(StoreOptions())
    file = rig.file.with_name(f"{rig.file.name}-wal")
    reader = apsw.Connection(str(rig.file), flags=apsw.SQLITE_OPEN_READONLY)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM meta").fetchall()
    for number in range(10):
        rig.writer.run(insert("k" * 50_000 + str(number)))
    assert file.stat().st_size > 500_000
    reader.close()
    rig.writer.run(insert("k"))
    rig.writer.run(insert("l"))
    assert file.stat().st_size <= 200_000


# --- statements that run alone ----------------------------------------------------------------------------------------


def test_run_alone__runs_between_two_commits(rig: Rig) -> None:
    release = rig.hold()
    before = rig.writer.submit(insert("before"))
    found: list[set[str]] = []

    def vacuum(connection: apsw.Connection) -> str:
        found.append(rig.committed())
        assert not connection.in_transaction
        connection.execute("VACUUM")
        return "vacuumed"

    alone = threading.Thread(target=lambda: found.append({rig.writer.run_alone(vacuum)}))
    alone.start()
    while rig.writer.queue_depth < 2:
        time.sleep(0.001)
    after = rig.writer.submit(insert("after"))
    release.set()
    alone.join(TIMEOUT_S)
    assert (before.wait(), after.wait()) == ("before", "after")
    assert found == [{"before"}, {"vacuumed"}]


@pytest.mark.parametrize("error", [TypeError("a bug"), NotFound("nothing"), apsw.IOError("a disk")])
def test_run_alone__that_fails_hurts_nobody_else(rig: Rig, error: Exception) -> None:
    def fail(connection: apsw.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(INSERT, ("half",))
        raise error

    with pytest.raises(StoreUnavailable if isinstance(error, apsw.Error) else type(error)):
        rig.writer.run_alone(fail)
    assert rig.writer.run(insert("after")) == "after"
    assert rig.committed() == {"after"}


def test_run_alone__as_the_last_before_close_is_done(rig: Rig) -> None:
    release = rig.hold()
    rig.writer.submit(insert("first"))
    results: list[int] = []
    alone = threading.Thread(target=lambda: results.append(rig.writer.run_alone(lambda _connection: 7)))
    alone.start()
    while rig.writer.queue_depth < 2:
        time.sleep(0.001)
    closing = threading.Thread(target=rig.writer.close)
    closing.start()
    release.set()
    closing.join(TIMEOUT_S)
    alone.join(TIMEOUT_S)
    assert results == [7]
    assert rig.committed() == {"first"}

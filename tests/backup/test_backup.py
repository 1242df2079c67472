"""Copies of a store that is in use: consistent, whole, one file; or nothing at all."""

from __future__ import annotations

import os
import random
import shutil
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable
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
    StoreError,
    StoreFull,
    StoreUnavailable,
    StoreVersionError,
)
from davsql.keys.envelope import new_data_key
from davsql.keys.secret import GivenKey, new_key_text
from davsql.store import backup, migrate, rewrite
from davsql.store.backup import CopyOptions, back_up, part_copy
from davsql.store.check import check
from davsql.store.connection import open_copy
from davsql.store.convert import convert
from davsql.store.options import StoreOptions
from davsql.store.replication import leave_checkpoints
from davsql.store.store import Store
from tests.backup.backup_steps import OPTIONS, REPLACING, backup_of, names_in, tree_in
from tests.backup.conftest import SMALL_DISK_BYTES, StartPython
from tests.backup.drill import back_up_and_compare, run_drill, writing
from tests.store_steps import put, tree

MIB = 1024 * 1024


def test_back_up__gets_its_name_when_it_is_on_the_disk(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, list[str]]] = []

    def note(name: str) -> None:
        original = getattr(backup, name)

        def noted(*arguments: object, **options: object) -> object:
            result = original(*arguments, **options)
            done.append((name, [each for each in names_in(tmp_path) if each == "b"]))
            return result

        monkeypatch.setattr(backup, name, noted)

    for name in ("sync_file", "verify_copy", "sync_folder"):
        note(name)
    back_up(file, tmp_path / "b", OPTIONS)
    assert done == [("sync_file", []), ("verify_copy", []), ("sync_folder", ["b"])]


# --- what a backup is ----------------------------------------------------------------------------------------------


def test_back_up__holds_what_the_store_holds(store: Store, tmp_path: Path) -> None:
    put(store, "/a", b"in the WAL only")
    made = back_up(store.file, tmp_path / "b.davsql", store.options)
    put(store, "/later", b"after the backup")
    assert tree_in(made.file) == {"/a": b"in the WAL only"}
    with Store.open(made.file) as copy:
        assert check(copy, deep=True) == []


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
def test_back_up__is_one_private_file_that_is_not_in_wal_mode(tmp_path: Path, page_size: int) -> None:
    with Store.open(tmp_path / "s.db", StoreOptions(page_size=page_size), create=True) as store:
        put(store, "/a", random.Random(1).randbytes(3 * MIB))  # noqa: S311
        made = back_up(store.file, tmp_path / "b.davsql", store.options)
        assert made.snapshot.page_size == page_size
    assert names_in(tmp_path) == ["b.davsql", "s.db"]
    assert stat.S_IMODE(made.file.stat().st_mode) == 0o600
    assert made.file.stat().st_size == made.snapshot.size_bytes
    connection = apsw.Connection(str(made.file), flags=apsw.SQLITE_OPEN_READONLY)
    assert connection.pragma("journal_mode") == "delete"
    assert connection.pragma("auto_vacuum") == 2
    assert connection.pragma("page_size") == page_size
    connection.close()
    assert names_in(tmp_path) == ["b.davsql", "s.db"]


def test_back_up__of_a_closed_store_leaves_it_as_it_was(file: Path) -> None:
    before = file.read_bytes()
    backup_of(file)
    assert names_in(file.parent) == ["backup.davsql", "store.db"]
    assert file.read_bytes() == before


def test_back_up__counts_what_it_has(store: Store, tmp_path: Path) -> None:
    put(store, "/a", b"1")
    put(store, "/b", b"1")
    snapshot = back_up(store.file, tmp_path / "b.davsql", store.options).snapshot
    assert (snapshot.schema_version, snapshot.nodes, snapshot.blobs, snapshot.chunks) == (
        migrate.SCHEMA_VERSION,
        3,
        1,
        1,
    )


def test_back_up__tells_how_far_it_is(store: Store, tmp_path: Path) -> None:
    put(store, "/a", random.Random(1).randbytes(10 * MIB))  # noqa: S311
    told: list[tuple[int, int]] = []
    made = back_up(store.file, tmp_path / "b", store.options, CopyOptions(progress=lambda *each: told.append(each)))
    assert len(told) >= 3
    assert told == sorted(told)
    assert told[-1] == (made.snapshot.size_bytes, made.snapshot.size_bytes)


def test_back_up__of_an_older_store_does_not_migrate(old_file: Path) -> None:
    before = old_file.read_bytes()
    assert back_up(old_file, old_file.with_name("b"), OPTIONS).snapshot.schema_version == 1
    assert old_file.read_bytes() == before


def test_back_up__leaves_the_wal_to_litestream_where_the_store_says_so(file: Path) -> None:
    with Store.open(file) as store:
        store.write(leave_checkpoints)
    before = file.read_bytes()
    with Store.open(file) as store:
        put(store, "/g", b"in the WAL")
    wal = file.with_name("store.db-wal")
    assert wal.stat().st_size > 0
    assert tree_in(backup_of(file)) == {"/f": b"content", "/g": b"in the WAL"}
    assert wal.stat().st_size > 0
    assert file.read_bytes() == before


# --- under writes --------------------------------------------------------------------------------------------------


def test_back_up__under_writes_is_a_snapshot_and_stops_nobody(store: Store, tmp_path: Path) -> None:
    put(store, "/ballast", random.Random(1).randbytes(24 * MIB))  # noqa: S311
    with writing(store, 4) as writers:
        while min(writer.done for writer in writers) < 20:
            time.sleep(0.01)
        outcomes = [back_up_and_compare(store, writers, tmp_path) for _ in range(5)]
    assert sum(outcome.steps for outcome in outcomes) > 5


def test_back_up__holds_one_snapshot_however_long_it_takes(store: Store, tmp_path: Path) -> None:
    """In steps without a read transaction it would start anew with each commit, and never end."""
    put(store, "/ballast", random.Random(1).randbytes(10 * MIB))  # noqa: S311
    steps = 0

    def write_between_steps(_done_bytes: int, _total_bytes: int) -> None:
        nonlocal steps
        steps += 1
        put(store, "/f", b"%d" % steps)

    made = back_up(store.file, tmp_path / "b", store.options, CopyOptions(rest=0.5, progress=write_between_steps))
    assert steps == -(-made.snapshot.pages // (backup.STEP_BYTES // made.snapshot.page_size))
    assert "/f" not in tree_in(made.file)
    assert tree(store)["/f"] == b"%d" % steps


def test_drill__short(tmp_path: Path) -> None:
    report = run_drill(tmp_path, 3, ballast=8)
    assert report.startswith("3 backups ")
    assert names_in(tmp_path) == ["store.db"]


# --- nothing is left behind ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("after_asked", range(8))
def test_back_up__cancelled_leaves_nothing(
    store: Store, tmp_path: Path, after_asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "_PROGRESS_STEPS", 1)
    put(store, "/a", random.Random(1).randbytes(5 * MIB))  # noqa: S311
    asked = 0

    def is_cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked > after_asked

    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(Cancelled):
        back_up(store.file, folder / "b", store.options, CopyOptions(is_cancelled=is_cancelled))
    assert names_in(folder) == []
    put(store, "/b", b"no reader is left that keeps the WAL")
    pages, done = store.checkpoint()
    assert pages == done


SLOW_BACKUP = """
import sys, time
from pathlib import Path
from davsql.store.backup import CopyOptions, back_up
from davsql.store.options import StoreOptions
print("ready", flush=True)
slow = CopyOptions(progress=lambda *_: time.sleep(0.01))
back_up(Path(sys.argv[1]), Path(sys.argv[2]), StoreOptions(), slow)
print("done", flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_back_up__killed_leaves_no_destination(file: Path, start_python: StartPython) -> None:
    with Store.open(file) as store:
        put(store, "/a", random.Random(1).randbytes(20 * MIB))  # noqa: S311
    rng = random.Random(7)  # noqa: S311
    were_there = 0
    for _ in range(8):
        process = start_python(SLOW_BACKUP, file, file.with_name("b"))
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0, 0.25))
        process.send_signal(signal.SIGKILL)
        process.wait()
        destination = file.with_name("b")
        if destination.exists():  # then it was complete
            were_there += 1
            assert tree_in(destination).keys() == {"/f", "/a"}
            destination.unlink()
    assert were_there < 8
    with Store.open(file) as store:
        assert check(store) == []


def test_back_up__takes_stale_parts_away_and_leaves_the_rest(file: Path) -> None:
    names = {
        ".b.davsql.0123456789abcdef.davsql-part": True,
        ".b.davsql.0123456789abcdef.davsql-part-wal": True,
        ".b.davsql.davsql-part": False,
        "b.0123456789abcdef.davsql-part": False,
        ".b.0123456789abcdef.part": False,
    }
    recent = file.with_name(".b.davsql.fedcba9876543210.davsql-part")
    recent.touch()
    long_ago = time.time() - backup.STALE_PART_S - 60
    for name in names:
        file.with_name(name).touch()
        os.utime(file.with_name(name), (long_ago, long_ago))
    backup_of(file)
    assert {name: not file.with_name(name).exists() for name in names} == names
    assert recent.exists()


def test_back_up__to_a_full_disk_says_so_and_leaves_nothing(
    store: Store, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "/a", random.Random(1).randbytes(SMALL_DISK_BYTES + MIB))  # noqa: S311
    with pytest.raises(StoreFull, match="bytes free"):
        back_up(store.file, small_disk / "b", store.options)
    assert names_in(small_disk) == []
    monkeypatch.setattr(backup, "require_space", lambda *_: None)  # somebody else takes it meanwhile
    with pytest.raises(StoreFull, match="no room for"):
        back_up(store.file, small_disk / "b", store.options)
    assert names_in(small_disk) == []
    put(store, "/b", b"the store goes on")


def test_convert__on_a_full_disk_leaves_the_store_as_it_was(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, options = small_disk / "s.db", StoreOptions(reserve_mb=0)
    for name in ("/a", "/b"):  # not at once, because of the WAL
        with Store.open(file, options, create=not file.exists()) as store:
            put(store, name, random.Random(name).randbytes(SMALL_DISK_BYTES // 4))  # noqa: S311
            expected = tree(store)
    key = new_data_key(8192, [("key", GivenKey(new_key_text()))])
    for message in ("bytes free", "no space is left"):
        with pytest.raises(StoreFull, match=message):
            convert(file, options, key)
        assert names_in(small_disk) == ["s.db"]
        with Store.open(file, options) as store:
            assert tree(store) == expected
        monkeypatch.setattr(rewrite, "require_space", lambda *_: None)  # somebody else takes it meanwhile


def test_back_up__to_a_disk_without_room_does_not_begin(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=4096))
    with pytest.raises(StoreFull, match="4,096 bytes free"):
        back_up(store.file, tmp_path / "b", store.options)
    assert "b" not in names_in(tmp_path)


def test_back_up__to_a_read_only_disk_is_an_error(store: Store, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(StoreError, match="cannot be created: Read-only file system"):
        back_up(store.file, small_disk / "b", store.options)


# --- verification --------------------------------------------------------------------------------------------------


def overwritten(part: Path) -> None:
    """Zeros in the middle: pages of b-trees among them."""
    with part.open("r+b") as opened:
        opened.seek(8192)
        opened.write(bytes(8 * 8192))


def one_node_less(part: Path) -> None:
    connection = apsw.Connection(str(part))
    connection.execute("DELETE FROM nodes WHERE inode > 1")
    connection.close()


def longer(part: Path) -> None:
    with part.open("ab") as opened:
        opened.write(b"x")


def in_wal_mode(part: Path) -> None:
    connection = apsw.Connection(str(part))
    connection.pragma("journal_mode", "wal")
    connection.close()


@pytest.mark.parametrize("damage", [overwritten, one_node_less, longer, in_wal_mode])
def test_back_up__that_is_not_good_is_refused_and_taken_away(
    store: Store, tmp_path: Path, damage: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "/f", b"content")
    monkeypatch.setattr(backup, "sync_file", damage)
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreDamaged):
        back_up(store.file, tmp_path / "folder" / "b", store.options)
    assert names_in(tmp_path / "folder") == []


# --- where it may go -----------------------------------------------------------------------------------------------


def test_back_up__never_replaces_what_is_there_unless_told(store: Store, tmp_path: Path) -> None:
    destination = tmp_path / "b"
    destination.write_bytes(b"precious")
    with pytest.raises(AlreadyExists, match="--force"):
        back_up(store.file, destination, store.options)
    assert destination.read_bytes() == b"precious"
    put(store, "/f", b"x")
    back_up(store.file, destination, store.options, REPLACING)
    assert tree_in(destination) == {"/f": b"x"}


def test_back_up__does_not_replace_what_came_meanwhile(store: Store, tmp_path: Path) -> None:
    destination = tmp_path / "b"

    def take_the_name(_done_bytes: int, _total_bytes: int) -> None:
        destination.write_bytes(b"precious")

    with pytest.raises(AlreadyExists):
        back_up(store.file, destination, store.options, CopyOptions(progress=take_the_name))
    assert destination.read_bytes() == b"precious"
    assert "b" in names_in(tmp_path)
    assert not [name for name in names_in(tmp_path) if "part" in name]


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal"])
def test_back_up__never_goes_onto_the_store(store: Store, suffix: str) -> None:
    put(store, "/f", b"content")
    with pytest.raises(AlreadyExists, match="belongs to the store itself"):
        back_up(store.file, store.file.with_name(store.file.name + suffix), store.options, REPLACING)
    (store.file.with_name("link")).symlink_to(store.file.parent)
    with pytest.raises(AlreadyExists, match="belongs to the store itself"):
        back_up(store.file, store.file.parent / "link" / (store.file.name + suffix), store.options, REPLACING)
    assert tree(store) == {"/f": b"content"}


def test_back_up__never_replaces_a_store_that_is_in_use(store: Store, tmp_path: Path) -> None:
    with Store.open(tmp_path / "other.db", create=True) as other:
        put(other, "/f", b"precious")
        with pytest.raises(StoreBusy, match="in use"):
            back_up(store.file, other.file, store.options, REPLACING)
        assert tree(other) == {"/f": b"precious"}


def test_back_up__refuses_a_name_beside_which_a_wal_lies(store: Store, tmp_path: Path) -> None:
    (tmp_path / "b-wal").write_bytes(b"of another database")
    with pytest.raises(AlreadyExists, match="b-wal"):
        back_up(store.file, tmp_path / "b", store.options, REPLACING)


def test_back_up__replaces_a_link_and_not_what_it_leads_to(store: Store, tmp_path: Path) -> None:
    precious, link = tmp_path / "precious", tmp_path / "b"
    precious.write_bytes(b"precious")
    link.symlink_to(precious)
    with pytest.raises(AlreadyExists):
        back_up(store.file, link, store.options)
    back_up(store.file, link, store.options, REPLACING)
    assert precious.read_bytes() == b"precious"
    assert not link.is_symlink()


def test_back_up__to_a_missing_folder_names_it(store: Store, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="make it first"):
        back_up(store.file, tmp_path / "missing" / "b", store.options)


def test_back_up__onto_a_folder_is_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(AlreadyExists):
        back_up(store.file, tmp_path / "folder", store.options, REPLACING)


def test_back_up__without_hard_links_is_renamed(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    back_up(store.file, tmp_path / "b", store.options)
    assert names_in(tmp_path) == ["b", "store.db", "store.db-shm", "store.db-wal"]


# --- what is no source ---------------------------------------------------------------------------------------------


def test_back_up__of_what_is_no_store_leaves_nothing(tmp_path: Path, file: Path) -> None:
    with pytest.raises(NotFound):
        back_up(tmp_path / "missing.db", tmp_path / "b", OPTIONS)
    (tmp_path / "text").write_bytes(b"text" * 1000)
    with pytest.raises(NotAStore):
        back_up(tmp_path / "text", tmp_path / "b", OPTIONS)
    connection = apsw.Connection(str(file))
    connection.execute(migrate.SET_META, ("schema_version", "99"))
    connection.close()
    with pytest.raises(StoreVersionError):
        back_up(file, tmp_path / "b", OPTIONS)
    assert names_in(tmp_path) == ["store.db", "text"]


def test_back_up__several_at_a_time_do_not_disturb_each_other(store: Store, tmp_path: Path) -> None:
    put(store, "/a", random.Random(1).randbytes(10 * MIB))  # noqa: S311
    errors: list[Exception] = []

    def run(number: int) -> None:
        try:
            back_up(store.file, tmp_path / f"b{number}", store.options)
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert {tree_in(tmp_path / f"b{number}")["/a"] for number in range(4)} == {tree(store)["/a"]}


def test_part_copy__that_starts_anew_is_an_error(store: Store, tmp_path: Path) -> None:
    """What rule 1 prevents, made to happen: the source's transaction ends in the middle."""
    put(store, "/a", random.Random(1).randbytes(20 * MIB))  # noqa: S311
    opened: list[apsw.Connection] = []

    def open_source() -> apsw.Connection:
        opened.append(backup.live_source(store.file, store.options)())
        return opened[0]

    def interfere(_done_bytes: int, _total_bytes: int) -> None:
        if opened[0].in_transaction:
            opened[0].execute("COMMIT")
        put(store, "/f", b"changed")

    copy = part_copy(open_source, tmp_path / "b", store.options, CopyOptions(progress=interfere))
    with pytest.raises(StoreUnavailable, match="started anew"), copy:
        pass


def test_open_copy__reads_a_cold_copy_on_a_read_only_disk(file: Path, small_disk: Path) -> None:
    shutil.copyfile(file, small_disk / "cold.db")  # its header says WAL
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    connection = open_copy(small_disk / "cold.db", OPTIONS)
    assert connection.execute("SELECT count(*) FROM nodes").fetchall() == [(2,)]
    connection.close()
    with Store.open(small_disk / "cold.db", StoreOptions(read_only=True)) as store:
        assert tree(store) == {"/f": b"content"}
    assert names_in(small_disk) == ["cold.db"]

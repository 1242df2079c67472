"""Side files: private, whole or not there, one transaction a change."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from davsql.errors import InsecureFile, NotAStore, NotFound, StoreError, StoreUnavailable, StoreVersionError
from davsql.store.sidefile import Kind, SideFile

KIND = Kind("test file", 0x74657374, 3, "CREATE TABLE t (n INTEGER NOT NULL) STRICT; INSERT INTO t VALUES (1);")
posix = pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    SideFile.create(tmp_path / "side.db", KIND)
    return tmp_path / "side.db"


@pytest.fixture
def side(file: Path) -> Iterator[SideFile]:
    opened = SideFile(file, KIND)
    yield opened
    opened.close()


def numbers(side: SideFile) -> list[int]:
    with side.snapshot() as tx:
        return [row[0] for row in tx.rows("SELECT n FROM t ORDER BY n")]


def test_create__is_private_whole_and_alone(file: Path) -> None:
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 or os.name == "nt"
    assert [each.name for each in file.parent.iterdir()] == ["side.db"]
    with pytest.raises(StoreUnavailable, match="exists already"):
        SideFile.create(file, KIND)


def test_create__leaves_nothing_behind_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        SideFile.create(tmp_path / "side.db", KIND._replace(schema="CREATE TABLE t (n INTEGER); nonsense"))
    assert list(tmp_path.iterdir()) == []


def test_open__takes_wal_away_when_it_is_closed(file: Path) -> None:
    side = SideFile(file, KIND)
    with side.write() as tx:
        tx.change("INSERT INTO t VALUES (2)")
    assert numbers(side) == [1, 2]
    side.close()
    assert [each.name for each in file.parent.iterdir()] == ["side.db"]


def test_every_use__is_refused_when_another_file_has_the_name(file: Path, side: SideFile) -> None:
    """As after `mv backup.db side.db`: what is changed from then on would never be seen."""
    assert numbers(side) == [1]
    SideFile.create(file.with_name("other.db"), KIND)
    file.with_name("other.db").replace(file)
    for use in (
        lambda: numbers(side),
        lambda: side.row("SELECT n FROM t"),
        lambda: side.write().__enter__(),
        side.sync,
    ):
        with pytest.raises(StoreUnavailable, match="restart davsql"):
            use()
    file.unlink()
    with pytest.raises(StoreUnavailable, match="No such file"):
        numbers(side)


def test_write__all_or_nothing(side: SideFile) -> None:
    with pytest.raises(ValueError, match="no"), side.write() as tx:
        tx.change("INSERT INTO t VALUES (2)")
        raise ValueError("no")
    with pytest.raises(StoreError), side.write() as tx:
        tx.change("INSERT INTO t VALUES (3)")
        tx.change("INSERT INTO t VALUES (NULL)")
    assert numbers(side) == [1]
    with side.write() as tx:
        tx.change("INSERT INTO t VALUES (4)")
    assert side.row("SELECT max(n) FROM t") == (4,)


def test_write__by_many_threads_and_two_openers_loses_nothing(file: Path, side: SideFile) -> None:
    other = SideFile(file, KIND)

    def count(opened: SideFile) -> None:
        for _ in range(20):
            with opened.write() as tx:
                tx.change("UPDATE t SET n = ?", (int(tx.value("SELECT n FROM t")) + 1,))

    threads = [threading.Thread(target=count, args=(each,)) for each in (side, other, side, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert numbers(side) == [81]


def test_snapshot__cannot_write(side: SideFile) -> None:
    with pytest.raises(StoreError), side.snapshot() as tx:
        tx.rows("INSERT INTO t VALUES (5)")
    assert numbers(side) == [1]


@posix
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602])
def test_open__refuses_a_file_that_others_can_use(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(InsecureFile, match=f"chmod 600 {file}"):
        SideFile(file, KIND)


@posix
@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_open__refuses_a_folder_that_others_can_write_to(file: Path, mode: int) -> None:
    file.parent.chmod(mode)
    with pytest.raises(InsecureFile, match="chmod go-w"):
        SideFile(file, KIND)
    with pytest.raises(InsecureFile, match="chmod go-w"):
        SideFile.create(file.with_name("other.db"), KIND)
    file.parent.chmod(0o1777)  # as /tmp is: others cannot exchange the file
    SideFile(file, KIND).close()


@posix
def test_open__refuses_links_and_what_is_no_file(file: Path) -> None:
    link = file.with_name("link.db")
    link.symlink_to(file)
    for each in (link, file.parent):
        with pytest.raises(InsecureFile, match="is not a regular file"):
            SideFile(each, KIND)
    with pytest.raises(NotFound):
        SideFile(file.with_name("missing.db"), KIND)


def test_open__refuses_other_databases(file: Path) -> None:
    with pytest.raises(NotAStore, match="is no other file of davsql"):
        SideFile(file, KIND._replace(noun="other file", application_id=7))
    plain = file.with_name("plain.db")
    plain.write_bytes(b"not a database, but long enough to be taken for one" * 20)
    plain.chmod(0o600)
    with pytest.raises(NotAStore):
        SideFile(plain, KIND)


def test_open__refuses_a_newer_version(file: Path) -> None:
    connection = apsw.Connection(str(file))
    connection.pragma("user_version", 4)
    connection.close()
    with pytest.raises(StoreVersionError, match="newer davsql"):
        SideFile(file, KIND)

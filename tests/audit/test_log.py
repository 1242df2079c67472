"""The audit log: what is appended stays and is found; what is tampered with is found too."""

from __future__ import annotations

import gzip
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from davsql.audit import rotation
from davsql.audit.file import archives_of
from davsql.audit.key import Head, KeyFile
from davsql.audit.verify import glance, read
from davsql.errors import InsecureFile, NotFound, StoreDamaged, StoreUnavailable
from tests.audit.audit_steps import entry, faults, file_in, opened, tamper, write_rows

posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX")


def paths(folder: Path) -> list[str]:
    return [each.entry.path for each in read(file_in(folder))]


def test_append__is_read_back_and_verified(tmp_path: Path) -> None:
    write_rows(tmp_path, 3)
    write_rows(tmp_path, 2)
    assert [each.seq for each in read(file_in(tmp_path))] == [1, 2, 3, 4, 5]
    assert next(iter(read(file_in(tmp_path)))).entry == entry(0)
    assert faults(tmp_path) == ()


@posix
def test_files__are_private(tmp_path: Path) -> None:
    write_rows(tmp_path, 1)
    for name in ("audit.db", "audit.key", "audit.key.head"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    (tmp_path / "audit.key").chmod(0o644)
    with pytest.raises(InsecureFile, match=r"audit\.key"), opened(tmp_path):
        pass


def test_triggers__refuse_to_change_and_to_delete(tmp_path: Path) -> None:
    write_rows(tmp_path, 2)
    with closing(apsw.Connection(str(file_in(tmp_path)))) as connection:
        for statement in ("DELETE FROM entries", "UPDATE entries SET user = 'bob'"):
            with pytest.raises(apsw.ConstraintError, match="append-only"):
                connection.execute(statement)


@pytest.mark.parametrize(
    ("statements", "found"),
    [
        (["UPDATE entries SET user = 'bob' WHERE seq = 4"], "row 4 was changed"),
        (["UPDATE entries SET mac = zeroblob(32) WHERE seq = 4"], "row 4 was changed"),
        (["DELETE FROM entries WHERE seq = 4"], "row 4 is missing"),
        (["DELETE FROM entries WHERE seq = 4", "UPDATE entries SET seq = seq - 1 WHERE seq > 4"], "row 4 was changed"),
        (["DELETE FROM entries WHERE seq > 7"], "rows 8 to 9 are missing at the end"),
        (["DELETE FROM entries"], "rows 1 to 9 are missing at the end"),
        (["DELETE FROM entries WHERE seq < 3"], "rows 1 to 2 are missing"),
        (["DELETE FROM entries WHERE seq < 3", "UPDATE state SET start_seq = 2"], "rows 1 to 2 are missing"),
        (
            ["UPDATE entries SET seq = -4 WHERE seq = 4", "UPDATE entries SET seq = 4 WHERE seq = 5",
             "UPDATE entries SET seq = 5 WHERE seq = -4"],
            "row 4 was changed, or stands in the place of another",
        ),
        (
            ["CREATE TABLE one AS SELECT * FROM entries WHERE seq = 9", "UPDATE one SET seq = 10",
             "INSERT INTO entries SELECT * FROM one"],
            "row 10 was changed",
        ),
    ],
)  # fmt: skip
def test_verify__finds_what_was_done_to_rows(tmp_path: Path, statements: list[str], found: str) -> None:
    write_rows(tmp_path, 9)
    assert faults(tmp_path) == ()
    tamper(tmp_path, *statements)
    assert found in "\n".join(faults(tmp_path))


def test_verify__finds_an_end_that_was_cut_off_even_after_more_rows(tmp_path: Path) -> None:
    write_rows(tmp_path, 9)
    tamper(tmp_path, "DELETE FROM entries WHERE seq > 5")
    key = KeyFile(tmp_path / "audit.key")
    assert glance(file_in(tmp_path), key) == "rows 6 to 9 are missing at the end"
    write_rows(tmp_path, 20)
    assert faults(tmp_path) == ("row 9 is not the one that the head beside the key names",)
    assert glance(file_in(tmp_path), key) == "row 9 is missing or not what was written"


def test_verify__finds_a_log_that_was_exchanged_or_taken_away(tmp_path: Path) -> None:
    write_rows(tmp_path, 4)
    for name in ("audit.db", "audit.db-wal", "audit.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    write_rows(tmp_path, 3)
    assert faults(tmp_path) == ("rows 1 to 4 are missing",)


def test_verify__finds_a_head_that_was_made_up(tmp_path: Path) -> None:
    write_rows(tmp_path, 4)
    head = tmp_path / "audit.key.head"
    head.write_text(head.read_text(encoding="ascii").replace('"seq": 4', '"seq": 3'), encoding="ascii")
    with pytest.raises(StoreDamaged, match="was not written by davsql"):
        faults(tmp_path)
    head.unlink()
    assert "nobody can tell whether the end is missing" in faults(tmp_path)[0]


def test_open__refuses_another_key(tmp_path: Path) -> None:
    write_rows(tmp_path, 2)
    key = tmp_path / "audit.key"
    right = key.read_text(encoding="ascii")
    key.write_text("0" * 64, encoding="ascii")
    (tmp_path / "audit.key.head").unlink()
    with pytest.raises(StoreDamaged, match="was not written with the key"), opened(tmp_path):
        pass
    key.unlink()
    with pytest.raises(NotFound, match="bring it back"), opened(tmp_path):
        pass
    key.write_text(right, encoding="ascii")
    key.chmod(0o600)
    write_rows(tmp_path, 1)


def test_rotation__goes_on_in_compressed_files(tmp_path: Path) -> None:
    for _ in range(3):
        with opened(tmp_path, rotate_mb=1) as log:
            for number in range(400):
                log.note(entry(number, "/" + "x" * 4000))
    archives = archives_of(file_in(tmp_path))
    assert [(each.first, each.last) for each in archives] == [(1, 400), (401, 800), (801, 1200)]
    assert [each.seq for each in read(file_in(tmp_path))] == list(range(1, 1201))
    assert faults(tmp_path) == ()
    write_rows(tmp_path, 1)
    assert faults(tmp_path) == ()

    with gzip.open(archives[1].file, "rt") as lines:
        kept = list(lines)
    for changed, found in [
        ([*kept[:7], kept[7].replace("ann", "bob"), *kept[8:]], "row 407 was changed"),
        ([*kept[:7], kept[8], kept[7], *kept[9:]], "row 407 stands behind row 408"),
        (kept[:-3], "rows 798 to 800 are missing"),
        (["nonsense\n"], "cannot be read"),
    ]:
        with gzip.open(archives[1].file, "wt") as out:
            out.writelines(changed)
        assert found in "\n".join(faults(tmp_path))
    archives[1].file.write_bytes(b"no gzip")
    assert "cannot be read" in faults(tmp_path)[0]
    archives[1].file.unlink()
    assert faults(tmp_path) == ("rows 401 to 800 are missing",)


def test_rotation__that_was_killed_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise OSError("killed")

    with opened(tmp_path, rotate_mb=1) as log:
        for number in range(400):
            log.note(entry(number, "/" + "x" * 4000))
        with monkeypatch.context() as patch:
            patch.setattr(rotation, "begin_behind", killed)
            log.tend()
        assert [(each.first, each.last) for each in archives_of(file_in(tmp_path))] == [(1, 400)]
        log.append(entry(401))
        log.tend()
        assert faults(tmp_path) == ()
        assert len(paths(tmp_path)) == 401
        monkeypatch.setattr(rotation, "CLAIM_S", -1)
        log.tend()
    assert [(each.first, each.last) for each in archives_of(file_in(tmp_path))] == [(1, 401)]
    assert faults(tmp_path) == ()
    assert len(paths(tmp_path)) == 401


def test_rotation__keeps_so_many_files(tmp_path: Path) -> None:
    for _ in range(3):
        with opened(tmp_path, rotate_mb=1, keep=1) as log:
            for number in range(400):
                log.note(entry(number, "/" + "x" * 4000))
    [archive] = archives_of(file_in(tmp_path))
    assert (archive.first, archive.last) == (801, 1200)
    write_rows(tmp_path, 1)
    assert faults(tmp_path) == ()
    archive.file.unlink()
    assert faults(tmp_path) == ("rows 801 to 1200 are missing",)


def test_append__from_threads_and_several_logs_is_one_chain(tmp_path: Path) -> None:
    with opened(tmp_path) as first, opened(tmp_path) as second:

        def work(number: int) -> None:
            for _ in range(25):
                (first, second)[number % 2].append(entry(number))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        first.tend()
        second.tend()
        assert len(paths(tmp_path)) == 200
        assert faults(tmp_path) == ()


@posix
def test_append__survives_a_kill(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        with opened(tmp_path) as log:
            while True:
                log.append(entry(1))
                os.write(writer, b".")
    os.close(writer)
    confirmed = 0
    while confirmed < 50:
        confirmed += len(os.read(reader, 100))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    confirmed += len(os.read(reader, 100_000))
    os.close(reader)
    write_rows(tmp_path, 1)
    assert len(paths(tmp_path)) >= confirmed + 1
    assert faults(tmp_path) == ()


WAL_CKPT_LOCK = """
import fcntl, sys
with open(sys.argv[1], "r+b") as shm:
    fcntl.lockf(shm, fcntl.LOCK_EX, 1, 121)  # https://www.sqlite.org/walformat.html 2.3.1
    print("locked", flush=True)
    sys.stdin.read()
"""


@posix
def test_tend__while_another_process_makes_a_checkpoint_waits_for_the_next_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(tmp_path) as log:
        log.append(entry(1))
        command = [sys.executable, "-c", WAL_CKPT_LOCK, str(tmp_path / "audit.db-shm")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            other.stdout.readline()
            log.tend()
            assert KeyFile(tmp_path / "audit.key").head() == Head()
            other.communicate()
        log.tend()
        head = KeyFile(tmp_path / "audit.key").head()
        assert head is not None
        assert head.seq == 1
    assert caplog.records == []


def test_append__that_fails_is_kept_and_refuses_changes_until_it_is_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(tmp_path, tmp_path / "copy")
    with opened(tmp_path) as log:
        with closing(apsw.Connection(str(file_in(tmp_path)))) as connection:
            connection.execute("CREATE TRIGGER full BEFORE INSERT ON entries BEGIN SELECT raise(ABORT, 'no room'); END")
            log.append(entry(1))
            log.append(entry(2))
            with pytest.raises(StoreUnavailable, match="nothing is changed until it can"):
                log.require()
            connection.execute("DROP TRIGGER full")
        log.tend()
        log.require()
        assert len(paths(tmp_path)) == 2
    assert faults(tmp_path) == ()
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]

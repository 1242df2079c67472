"""Turns of writers in several processes: one at a time, in order, and nobody waits for the dead."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from davsql.store import wal
from davsql.store.options import StoreOptions
from davsql.store.store import Store
from davsql.store.turn import Turn
from tests.store_steps import mkcol, put

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no turns on Windows")

TIMEOUT_S = 20
HOLD = """
import sys
from pathlib import Path
from davsql.store.turn import Turn
print(Turn(Path(sys.argv[1])).take(0), flush=True)
sys.stdin.read()
"""


@contextmanager
def somebody_elses(file: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process whose turn it is."""
    command = [sys.executable, "-c", HOLD, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        yield process
        process.kill()


def test_take__waits_for_another_process_until_it_dies(tmp_path: Path) -> None:
    turn = Turn(tmp_path / "s.db")
    with somebody_elses(tmp_path / "s.db") as process:
        assert not turn.take(0.05)
        process.kill()
        assert turn.take(TIMEOUT_S)
    turn.give()
    with somebody_elses(tmp_path / "s.db"):
        assert not turn.take(0)
    turn.close()
    assert list(tmp_path.iterdir()) == []


def test_write__does_not_fail_because_somebody_keeps_the_turn(tmp_path: Path) -> None:
    file = tmp_path / "s.db"
    with Store.open(file, StoreOptions(busy_timeout_s=0), create=True) as store, somebody_elses(file):
        mkcol(store, "/c")  # nobody has SQLite's lock
    assert [each.name for each in tmp_path.iterdir()] == ["s.db"]


def test_write__others_wait_until_a_long_wal_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, could_write = tmp_path / "s.db", []
    with Store.open(file, create=True) as store:
        copy = store._checkpointer.run  # noqa: SLF001

        def look_and_copy() -> tuple[int, int]:
            look = subprocess.run([sys.executable, "-c", HOLD, str(file)], input=b"", capture_output=True, check=True)
            could_write.append(look.stdout.strip() == b"True")
            return copy()

        monkeypatch.setattr(store._checkpointer, "run", look_and_copy)  # noqa: SLF001
        monkeypatch.setattr(wal, "BYTES_LIMIT", 100_000)
        put(store, "/f", b"f" * 200_000)
        mkcol(store, "/c")  # comes after it
        assert could_write == [False]
        with somebody_elses(file):
            assert store._writer.wal.bytes < 100_000  # noqa: SLF001  # it started over


def test_write__works_where_there_can_be_no_turns(tmp_path: Path) -> None:
    (tmp_path / "s.db-turn").mkdir()
    with Store.open(tmp_path / "s.db", create=True) as store:
        put(store, "/f", b"x")


def test_close__leaves_the_turns_of_others_alone(tmp_path: Path) -> None:
    file = tmp_path / "s.db"
    with Store.open(file, create=True) as store:
        mkcol(store, "/a")
        with Store.open(file) as other:
            mkcol(other, "/b")
        assert file.with_name("s.db-turn").exists()
    assert not file.with_name("s.db-turn").exists()

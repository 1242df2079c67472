"""Turns of writers in several processes: one at a time, in order, and nobody waits for the dead."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from davsql.store import turn as turn_module
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
turn = Turn(Path(sys.argv[1]))
print(turn.take(0), flush=True)
sys.stdin.readline()
turn._rings_until = float("inf")
turn.give()
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


def give(process: subprocess.Popen[str]) -> None:
    """Have another process give its turn."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.mark.skipif(not turn_module.CAN_RING, reason="there it looks again after a pause")
def test_take__hears_when_the_turn_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn_module, "LISTEN_S", 10 * TIMEOUT_S)
    turn = Turn(tmp_path / "s.db")
    with somebody_elses(tmp_path / "s.db") as process:
        assert not turn.take(0.05)
        later = threading.Timer(0.2, give, [process])
        later.start()
        begun = time.monotonic()
        assert turn.take(4 * TIMEOUT_S)
        assert time.monotonic() - begun < 3 * TIMEOUT_S
        later.join()
    turn.close()


@pytest.mark.skipif(not turn_module.CAN_RING, reason="nothing rings")
def test_take__is_not_deceived_by_who_rings(tmp_path: Path) -> None:
    turn = Turn(tmp_path / "s.db")
    is_over = threading.Event()
    with somebody_elses(tmp_path / "s.db"):

        def ring() -> None:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as other:
                while not is_over.wait(0.001):
                    with suppress(OSError):
                        other.sendto(b"come", bell_of(tmp_path / "s.db-turn"))

        ringing = threading.Thread(target=ring)
        ringing.start()
        assert not turn.take(0.2)
        is_over.set()
        ringing.join()
    turn.close()


@pytest.mark.skipif(not turn_module.CAN_RING, reason="nothing rings")
def test_take__looks_again_where_somebody_else_has_the_bell(tmp_path: Path) -> None:
    turn = Turn(tmp_path / "s.db")
    with somebody_elses(tmp_path / "s.db") as process, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(bell_of(tmp_path / "s.db-turn"))
        assert not turn.take(0.05)
        give(process)
        assert turn.take(TIMEOUT_S)
    turn.close()


def bell_of(file: Path) -> str:
    """The name under which the next one listens."""
    status = file.stat()
    return f"\0davsql-{status.st_dev}-{status.st_ino}-{turn_module.TURN}"


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

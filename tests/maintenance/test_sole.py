"""One process looks after a store."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

from davsql.maintenance import sole
from davsql.maintenance.sole import sole_keeper

pytestmark = pytest.mark.skipif(os.name == "nt", reason="there is no such lock on Windows")

TIMEOUT_S = 10


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sole, "POLL_S", 0.005)


def test_sole_keeper__next_one_begins_when_the_first_has_ended(tmp_path: Path) -> None:
    file, stopping, keeps = tmp_path / "s.db", threading.Event(), threading.Event()

    def keep() -> None:
        with sole_keeper(file, stopping) as is_sole:
            assert is_sole
            keeps.set()
            stopping.wait(TIMEOUT_S)

    with sole_keeper(file, stopping) as is_sole:
        assert is_sole
        next_one = threading.Thread(target=keep)
        next_one.start()
        assert not keeps.wait(0.05)
    assert keeps.wait(TIMEOUT_S)
    stopping.set()
    next_one.join()
    assert list(tmp_path.iterdir()) == []


def test_sole_keeper__told_to_stop_while_it_waits_keeps_nothing(tmp_path: Path) -> None:
    stopping = threading.Event()
    with sole_keeper(tmp_path / "s.db", threading.Event()):
        stopping.set()
        with sole_keeper(tmp_path / "s.db", stopping) as is_sole:
            assert not is_sole


def test_sole_keeper__file_that_a_kill_has_left_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / "s.db-keeper").touch()
    with sole_keeper(tmp_path / "s.db", threading.Event()) as is_sole:
        assert is_sole


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_sole_keeper__follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "s.db-keeper").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="keeper"), sole_keeper(tmp_path / "s.db", threading.Event()):
        pass
    assert not (tmp_path / "elsewhere").exists()

"""kill -9 and SIGTERM while clients write, in short; scripts/torture is the long form."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from davsql.store.check import check
from davsql.store.store import Store
from tests.lost_data.torture.process import ServerProcess

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 300

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")


def torture(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.lost_data.torture", "--db", str(folder), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


@pytest.mark.parametrize(
    ("workers", "kills", "more"),
    [(1, 10, []), (4, 6, []), (2, 4, ["--encrypted"])],
    ids=["one worker", "four workers", "encrypted"],
)
def test_kill__no_acknowledged_write_is_lost(tmp_path: Path, workers: int, kills: int, more: list[str]) -> None:
    wanted = ["--workers", str(workers), "--kills", str(kills), *more]
    done = torture(tmp_path, *wanted, "--terms", "0", "--check-every", "4")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert f"{kills} kills" in done.stdout
    assert {"vacuum", "backup"} <= set(re.findall(r"\b([a-z-]+) [1-9]", done.stdout)), done.stdout
    assert "Traceback" not in (tmp_path / "server.log").read_text(encoding="utf-8")


def test_sigterm__uploads_are_whole_or_absent_and_the_store_is_closed(tmp_path: Path) -> None:
    """Exit code 0, and no -wal is left."""
    done = torture(tmp_path, "--kills", "0", "--terms", "4", "--durability", "normal")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "5 SIGTERM" in done.stdout
    assert "Traceback" not in (tmp_path / "server.log").read_text(encoding="utf-8")


@pytest.mark.parametrize("delay_s", [0.0, 0.001, 0.003, 0.006, 0.012])
def test_kill_while_a_store_is_made__the_next_start_makes_it(tmp_path: Path, delay_s: float) -> None:
    server = ServerProcess(tmp_path, "full")
    deadline = time.monotonic() + TIMEOUT_S
    try:
        server.start()
        while not list(tmp_path.glob("*.db*")):  # under whatever name it is made
            assert server.is_running, server.log.read_text(encoding="utf-8")
            assert time.monotonic() < deadline
        time.sleep(delay_s)
        server.kill()
        server.start()
        server.wait_until_it_answers()
        assert server.terminate() == 0
    finally:
        server.kill()
    with Store.open(server.store) as store:
        assert check(store, deep=True) == []

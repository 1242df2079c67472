"""Memory goes back to the system."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import apsw
import pytest

from davsql.server.memory import releasing_memory, trim_heap
from davsql.store.caches import release_caches
from davsql.store.store import Store
from tests.store_steps import put

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what is resident, and has glibc")
ALLOCATE_IN_THREADS = """
import ctypes, threading
from davsql.server.memory import share_one_heap
share_one_heap()
barrier = threading.Barrier(4)
def allocate():
    barrier.wait()
    pieces = [bytearray(16384) for _ in range(100)]
    barrier.wait()
threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
ctypes.CDLL(None).malloc_stats()
"""
PIECES, PIECE_BYTES = 2000, 16384
TIMEOUT_S = 20.0


def test_releasing_memory__releases_again_and_again(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store.db", create=True) as store, releasing_memory(release_caches, every_s=0.01):
        for name in ("/a", "/b"):
            before = apsw.memory_used()
            put(store, name, bytes(range(256)) * 8192)
            deadline = time.monotonic() + TIMEOUT_S
            while apsw.memory_used() > before + 500_000 and time.monotonic() < deadline:
                time.sleep(0.01)
            assert apsw.memory_used() <= before + 500_000


@linux_only
def test_share_one_heap__of_all_threads() -> None:
    told = subprocess.run([sys.executable, "-c", ALLOCATE_IN_THREADS], capture_output=True, text=True, check=True)
    assert told.stderr.count("Arena ") == 1


@linux_only
def test_trim_heap__takes_holes_out_of_the_heap() -> None:
    pieces = [bytearray(PIECE_BYTES) for _ in range(PIECES)]
    kept = pieces[:: PIECES // 10]  # the C library itself gives back only what lies behind the last one
    kept.append(bytearray(PIECE_BYTES))
    del pieces
    before = _resident_bytes()
    trim_heap()
    assert before - _resident_bytes() > PIECES * PIECE_BYTES // 2
    assert all(not any(each) for each in kept)


def _resident_bytes() -> int:
    with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS:"))

"""Random operations against a dict model; DAVSQL_RANDOM_STEPS and DAVSQL_RANDOM_SEED change how many and which."""

from __future__ import annotations

import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from davsql.maintenance.gc import collect_garbage
from davsql.paths import DavPath
from davsql.store.check import check
from davsql.store.store import Store
from tests.store.random_walk import OPTIONS, Walk

STEPS = int(os.environ.get("DAVSQL_RANDOM_STEPS", "2400"))
SEED = int(os.environ.get("DAVSQL_RANDOM_SEED", "0")) or random.SystemRandom().randrange(1, 2**31)
THREADS = 4

DONE = {"put", "mkcol", "delete", "copy", "move", "proppatch", "lock", "unlock", "refresh", "read"}
REFUSED = {
    "put Locked",
    "put ParentMissing",
    "put IsCollection",
    "mkcol AlreadyExists",
    "delete NotFound",
    "copy ForbiddenTarget",
    "copy OverwriteRefused",
    "move Locked",
    "lock LockConflict",
    "unlock LockTokenMismatch",
}


def run_walk(file: Path, seed: int, steps: int) -> Walk:
    """One walk on a new store; at the end GC must leave what the model has and nothing else."""
    with Store.open(file, OPTIONS, create=True) as store:
        walk = Walk(store, seed)
        walk.run(steps)
        collect_garbage(store, grace_s=0, upload_expiry_s=0)
        walk.compare()
        assert check(store, deep=True) == []
        stats = store.stats()
        assert stats.files + stats.collections == len(walk.model.nodes) + 1
        assert stats.blobs == len({entry.content for entry in walk.model.nodes.values()} - {None})
        assert (stats.uploads, stats.orphaned_blobs, stats.detached_nodes) == (0, 0, 0)
    return walk


@pytest.mark.parametrize("number", range(2))
def test_store__does_what_the_model_says(tmp_path: Path, number: int) -> None:
    walk = run_walk(tmp_path / "store.db", SEED + number, STEPS // 2)
    if STEPS >= 2000:  # the walk went everywhere
        assert not {f"{name} done" for name in DONE} - set(walk.outcomes), walk.outcomes
    if STEPS >= 10_000:
        assert not REFUSED - set(walk.outcomes), walk.outcomes


def test_store__does_what_the_models_say_beside_gc(tmp_path: Path) -> None:
    """Four threads in subtrees of their own share contents; GC without grace takes away what it can."""
    stopping = threading.Event()
    with Store.open(tmp_path / "store.db", OPTIONS, create=True) as store:

        def sweep() -> None:
            while not stopping.is_set():
                collect_garbage(store, grace_s=0, upload_expiry_s=3600)

        walks = []
        for number in range(THREADS):
            store.make_collection(DavPath([f"t{number}"]))
            walks.append(Walk(store, SEED + 100 + number % 2, (f"t{number}",)))  # two and two use the same bytes
        with ThreadPoolExecutor(THREADS + 1) as threads:
            sweeper = threads.submit(sweep)
            done = [threads.submit(walk.run, STEPS // 2 // THREADS) for walk in walks]
            wait(done)
            stopping.set()
        for future in (sweeper, *done):
            future.result()
        collect_garbage(store, grace_s=0, upload_expiry_s=0)
        for walk in walks:
            walk.compare()
        assert check(store, deep=True) == []
    inodes = [inode for walk in walks for inode in walk.model.inodes_ever if inode != 1]
    assert len(inodes) == len(set(inodes))

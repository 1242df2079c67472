"""Page caches: bounded all together, and given back."""

from __future__ import annotations

import os
from pathlib import Path

import apsw
import pytest

from davsql.store.caches import release_caches
from davsql.store.options import StoreOptions
from davsql.store.store import Store
from tests.store_steps import put

MB = 1_000_000


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A store with 8 MB of small files, closed."""
    file = tmp_path / "store.db"
    with Store.open(file, StoreOptions(durability="normal"), create=True) as store:
        for number in range(2000):
            put(store, f"/{number}", os.urandom(4096))
    return file


def read_everything(store: Store, times_at_once: int) -> None:
    """With so many readers, each of which reads all pages that hold something."""
    if times_at_once:
        with store.read() as tx:
            tx.rows("SELECT length(data), substr(data, 9, 1) FROM chunk_data")
            read_everything(store, times_at_once - 1)


def test_release_caches__gives_back_what_readers_and_writer_keep(filled: Path) -> None:
    with Store.open(filled) as store:
        before = apsw.memory_used()
        read_everything(store, 2)
        assert apsw.memory_used() - before > 12 * MB
        release_caches()
        assert apsw.memory_used() - before < MB


def test_release_caches__leaves_a_view_as_it_is(filled: Path) -> None:
    with Store.open(filled) as store, store.read() as tx:
        first = tx.rows("SELECT * FROM chunk_data LIMIT 100")
        store.write(lambda tx: tx.change("UPDATE meta SET value = value"))
        release_caches()
        assert tx.rows("SELECT * FROM chunk_data LIMIT 100") == first


def test_limit_caches__bounds_all_connections_together(filled: Path) -> None:
    with Store.open(filled, StoreOptions(readers=6, cache_mb=10)) as store:
        before = apsw.memory_used()
        read_everything(store, 6)
        assert apsw.memory_used() - before < 11 * MB

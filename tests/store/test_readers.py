"""The pool of readers: bounded, one snapshot a loan, nothing unknown comes back into it."""

from __future__ import annotations

import threading
from pathlib import Path

import apsw
import pytest

from davsql.errors import StoreBusy, StoreError, StoreUnavailable
from davsql.store.options import StoreOptions
from davsql.store.readers import Readers
from davsql.store.store import Store
from tests.store.conftest import MakeStore
from tests.store_steps import at, put


@pytest.fixture
def pool(tmp_path: Path) -> Readers:
    """Two readers, a tenth of a second's patience."""
    Store.open(tmp_path / "store.db", create=True).close()
    return Readers(tmp_path / "store.db", StoreOptions(readers=2, queue_timeout_s=0.1))


def test_snapshot__is_one_view_while_others_write(store: Store) -> None:
    put(store, "/a", b"1")
    with store.snapshot() as view:
        assert view.node(at("/a")) is not None
        store.delete(at("/a"))
        put(store, "/b", b"2")
        assert view.node(at("/a")) is not None
        assert view.node(at("/b")) is None
    with store.snapshot() as view:
        assert view.node(at("/a")) is None
        assert view.node(at("/b")) is not None


def test_snapshot__beyond_the_pool_is_busy(pool: Readers) -> None:
    with pool.snapshot(), pool.snapshot(), pytest.raises(StoreBusy), pool.snapshot():
        pass
    with pool.snapshot(), pool.snapshot():
        pass
    pool.close()


def test_snapshot__waits_for_one_that_comes_back(tmp_path: Path) -> None:
    Store.open(tmp_path / "store.db", create=True).close()
    pool = Readers(tmp_path / "store.db", StoreOptions(readers=1, queue_timeout_s=10))
    got = threading.Event()

    def borrow() -> None:
        with pool.snapshot() as tx:
            assert tx.value("SELECT 1") == 1
            got.set()

    with pool.snapshot():
        thread = threading.Thread(target=borrow)
        thread.start()
        assert not got.wait(0.05)
    thread.join(10)
    assert got.is_set()
    pool.close()


def test_snapshot__many_threads_share_few_readers(tmp_path: Path) -> None:
    Store.open(tmp_path / "store.db", create=True).close()
    pool = Readers(tmp_path / "store.db", StoreOptions(readers=2, queue_timeout_s=60))
    out: list[int] = []
    most: list[int] = []

    def borrow() -> None:
        for _ in range(50):
            with pool.snapshot() as tx:
                out.append(1)
                most.append(len(out))
                assert tx.value("SELECT 1") == 1
                out.pop()

    threads = [threading.Thread(target=borrow) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (len(most), out) == (16 * 50, [])
    assert max(most) <= 2
    assert pool.tallies.total().taken == pool.tallies.total().returned == 16 * 50
    pool.close()


def test_close__ends_those_who_wait(tmp_path: Path) -> None:
    Store.open(tmp_path / "store.db", create=True).close()
    pool = Readers(tmp_path / "store.db", StoreOptions(readers=1, queue_timeout_s=60))
    refused = threading.Event()

    def borrow() -> None:
        with pytest.raises(StoreUnavailable), pool.snapshot():
            pass
        refused.set()

    with pool.snapshot():
        thread = threading.Thread(target=borrow)
        thread.start()
        assert not refused.wait(0.05)
        pool.close()
    thread.join(10)
    assert refused.is_set()


def test_snapshot__after_an_error_in_it_is_whole_again(pool: Readers) -> None:
    for error in (ValueError, KeyError):
        for _ in range(3):
            with pytest.raises(error), pool.snapshot() as tx:
                tx.value("SELECT 1")
                raise error
    with pool.snapshot() as first, pool.snapshot() as second:
        assert first.value("SELECT 1") == second.value("SELECT 1") == 1
    pool.close()


def test_snapshot__translates_errors_of_sqlite(pool: Readers) -> None:
    with pytest.raises(StoreError, match="no such table"), pool.snapshot() as tx:
        tx.rows("SELECT * FROM nowhere")
    with pool.snapshot() as tx:
        assert tx.value("SELECT 1") == 1
        assert tx.row("SELECT 1 WHERE 0") is None
        assert tx.value("SELECT 1 WHERE 0") is None
        assert tx.rows("SELECT 1 WHERE 0") == []
    pool.close()


def test_row__leaves_no_transaction_open(pool: Readers) -> None:
    for _ in range(3):
        assert pool.row("SELECT inode FROM nodes UNION ALL SELECT 2") == (1,)
        assert pool.row("SELECT 1 WHERE 0") is None
        assert pool.rows("SELECT inode FROM nodes UNION ALL SELECT 2") == [(1,), (2,)]
        with pytest.raises(StoreError, match="no such table"):
            pool.row("SELECT * FROM nowhere")
    with pool.snapshot() as tx:  # BEGIN would be refused
        assert tx.value("SELECT 1") == 1
    assert pool.tallies.total().taken == pool.tallies.total().returned == 13
    pool.close()


def test_row__leaves_the_wal_free(store: Store) -> None:
    put(store, "/a", b"1")
    store.node(at("/a"))
    put(store, "/b", b"1")
    pages, done = store.checkpoint(truncate=True)
    assert pages == done


def test_snapshot__cannot_write(pool: Readers) -> None:
    with pytest.raises(StoreError), pool.snapshot() as tx:
        tx.rows("DELETE FROM nodes")
    pool.close()


def test_snapshot__leaves_the_wal_free(store: Store) -> None:
    put(store, "/a", b"1")
    for _ in range(3):
        with store.snapshot() as view:
            view.node(at("/a"))
    put(store, "/b", b"1")
    pages, done = store.checkpoint()
    assert pages == done


def test_close__refuses_and_takes_back_what_is_out(pool: Readers) -> None:
    with pool.snapshot() as tx:
        pool.close()
        assert tx.value("SELECT 1") == 1
    with pytest.raises(StoreUnavailable), pool.snapshot():
        pass
    with pytest.raises(StoreUnavailable), pool.snapshot():
        pass  # the place came back


def test_snapshot__of_a_reader_that_broke_is_replaced(pool: Readers) -> None:
    with pytest.raises(StoreError), pool.snapshot() as tx:
        tx.rows("SELECT 1; ROLLBACK")
        tx.rows("SELECT * FROM nowhere")
    with pool.snapshot() as tx:
        assert tx.value("SELECT 1") == 1
    pool.close()


def test_snapshot__opens_no_more_connections_than_needed(make_store: MakeStore) -> None:
    store = make_store(StoreOptions(readers=8))
    put(store, "/a", b"1")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(50):
        store.node(at("/a"))
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_reader__of_a_file_that_is_gone_is_unavailable(tmp_path: Path) -> None:
    Store.open(tmp_path / "store.db", create=True).close()
    pool = Readers(tmp_path / "store.db", StoreOptions(readers=2))
    with pool.snapshot():
        (tmp_path / "store.db").rename(tmp_path / "moved.db")
        with pytest.raises(StoreUnavailable), pool.snapshot():
            pass
    pool.close()


def test_translated__covers_what_apsw_raises() -> None:
    """Every error of apsw is an apsw.Error, so that store_error sees it."""
    errors = [each for each in vars(apsw).values() if isinstance(each, type) and issubclass(each, Exception)]
    assert len(errors) > 20
    assert all(issubclass(each, apsw.Error) for each in errors)

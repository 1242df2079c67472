"""Download: the bytes as they were when it was opened, or an error; never other bytes."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from davsql.errors import IsCollection, NotFound, StoreDamaged, StoreUnavailable
from davsql.maintenance.gc import collect_garbage
from davsql.store.blobs import CHUNK_BYTES
from davsql.store.download import SEGMENT_BYTES
from davsql.store.options import StoreOptions
from davsql.store.store import Store
from tests.store.conftest import MakeStore
from tests.store.engine_steps import count, raw, refused
from tests.store_steps import at, mkcol, put, read

LARGE = random.Random(1).randbytes(4 * SEGMENT_BYTES + CHUNK_BYTES + 777)  # noqa: S311
SMALL = b"small content"


def sweep(store: Store) -> None:
    collect_garbage(store, grace_s=0, upload_expiry_s=0)


@pytest.mark.parametrize("size", [0, 1, 999, CHUNK_BYTES, CHUNK_BYTES + 1, len(LARGE)])
def test_chunks__of_a_range_are_the_slice(store: Store, size: int) -> None:
    data = LARGE[:size]
    put(store, "/f", data)
    edges = sorted(
        {0, 1, size // 2, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 5 * CHUNK_BYTES, size - 1, size}
        & set(range(size + 1))
    )
    with store.open_download(at("/f")) as download:
        for start in edges:
            for stop in edges:
                assert b"".join(download.chunks(start, stop)) == data[start:stop], (start, stop)
        assert b"".join(download.chunks()) == data
        assert b"".join(download.chunks(size // 2)) == data[size // 2 :]


def test_chunks__of_any_range_are_the_slice(store: Store) -> None:
    put(store, "/f", LARGE)

    @given(st.integers(0, len(LARGE)), st.integers(0, 3 * CHUNK_BYTES))
    @settings(max_examples=50, deadline=None)
    def any_range(start: int, length: int) -> None:
        stop = min(start + length, len(LARGE))
        with store.open_download(at("/f")) as download:
            assert b"".join(download.chunks(start, stop)) == LARGE[start:stop]

    any_range()


def test_open_download__knows_the_node(store: Store) -> None:
    node = put(store, "/f", SMALL).node
    with store.open_download(at("/f")) as download:
        assert download.node == node


@pytest.mark.parametrize(("size", "loans"), [(0, 1), (1, 1), (CHUNK_BYTES, 1), (CHUNK_BYTES + 1, 2)])
def test_download__of_a_small_file_is_one_query(store: Store, size: int, loans: int) -> None:
    put(store, "/f", LARGE[:size])
    before = store.vitals().reader.taken
    assert read(store, "/f") == LARGE[:size]
    assert store.vitals().reader.taken - before == loans


def test_open_download__of_what_has_no_content_is_refused(store: Store) -> None:
    mkcol(store, "/c")
    for path in ("/c", "/"):
        with refused(store, IsCollection):
            store.open_download(at(path))
    for path in ("/missing", "/c/missing"):
        with refused(store, NotFound):
            store.open_download(at(path))
    assert store.pins.current() == frozenset()


@pytest.mark.parametrize("data", [SMALL, LARGE[: CHUNK_BYTES + 1], LARGE])
@pytest.mark.parametrize("how", ["overwrite", "delete", "replace by move", "replace by copy"])
@pytest.mark.parametrize("is_begun", [True, False])
def test_download__reads_the_old_bytes_whole(store: Store, data: bytes, how: str, is_begun: bool) -> None:
    put(store, "/f", data)
    put(store, "/other", b"other")
    with store.open_download(at("/f")) as download:
        chunks = download.chunks()
        read_before = next(chunks) if is_begun else b""
        if how == "overwrite":
            put(store, "/f", b"new")
        elif how == "delete":
            store.delete(at("/f"))
        elif how == "replace by move":
            store.move(at("/other"), at("/f"))
        else:
            store.copy(at("/other"), at("/f"))
        sweep(store)
        sweep(store)
        assert read_before + b"".join(chunks) == data
        assert b"".join(download.chunks()) == data
    sweep(store)
    assert count(store, "chunks") == count(store, "blobs") == (2 if how == "overwrite" else 1)


def test_download__is_pinned_until_it_is_closed(store: Store) -> None:
    blob_id = put(store, "/f", LARGE).node.blob_id
    first, second = store.open_download(at("/f")), store.open_download(at("/f"))
    assert store.pins.current() == {blob_id}
    first.close()
    first.close()
    assert store.pins.current() == {blob_id}
    second.close()
    assert store.pins.current() == frozenset()


def test_download__holds_no_reader_between_segments(make_store: MakeStore) -> None:
    store = make_store(StoreOptions(readers=1, queue_timeout_s=0.1))
    put(store, "/f", LARGE)
    with store.open_download(at("/f")) as first, store.open_download(at("/f")) as second:
        pieces = [first.chunks(), second.chunks()]
        received = [b"", b""]
        for _ in range(4 * SEGMENT_BYTES // CHUNK_BYTES + 2):
            for which in (0, 1):
                received[which] += next(pieces[which])
                assert store.node(at("/f")).size == len(LARGE)
        assert received == [LARGE, LARGE]


def test_download__never_gives_the_content_of_a_blob_that_got_its_number(store: Store) -> None:
    """GC of another process knows no pins of ours; a blob's number is given again."""
    blob_id = put(store, "/f", LARGE).node.blob_id
    with Store.open(store.file) as other, store.open_download(at("/f")) as download:
        received = next(chunks := download.chunks())
        other.delete(at("/f"))
        sweep(other)
        node = put(other, "/secret", LARGE[::-1]).node
        assert node.blob_id == blob_id
        with pytest.raises(StoreUnavailable, match="removed"):
            for piece in chunks:
                received += piece
        assert LARGE.startswith(received)


def test_download__lets_the_wal_start_over(store: Store) -> None:
    """A download that stands still pins no page of the WAL."""
    put(store, "/f", LARGE)
    with store.open_download(at("/f")) as download:
        next(chunks := download.chunks())
        deadline = time.monotonic() + 10
        while store.vitals().readers_in_use and time.monotonic() < deadline:  # what is read ahead is not there yet
            time.sleep(0.001)
        put(store, "/g", b"x")
        while (counts := store.checkpoint())[0] != counts[1] and time.monotonic() < deadline:
            time.sleep(0.001)
        pages, done = counts
        assert pages == done > 0
        assert next(chunks)


def test_download__after_the_store_is_closed_fails(make_store: MakeStore) -> None:
    store = make_store(StoreOptions())
    put(store, "/f", LARGE)
    with store.open_download(at("/f")) as download:
        store.close()
        with pytest.raises(StoreUnavailable):
            list(download.chunks())


# --- damage ---------------------------------------------------------------------------------------------------------

Damage = Callable[[apsw.Connection], object]


def flip(connection: apsw.Connection, number: int) -> None:
    """Change the last byte of the chunk with this number, from 0."""
    row = connection.execute("SELECT chunk_id, data FROM chunk_data ORDER BY 1 LIMIT 1 OFFSET ?", (number,)).fetchone()
    assert row is not None
    chunk_id, data = row
    connection.execute(
        "UPDATE chunk_data SET data = ? WHERE chunk_id = ?", (data[:-1] + bytes([data[-1] ^ 1]), chunk_id)
    )


DAMAGES: dict[str, tuple[int, Damage]] = {
    # what is wrong -> how many chunks before it are right, and how to do it
    "first byte flipped": (0, lambda c: flip(c, 0)),
    "last chunk flipped": (9, lambda c: flip(c, 9)),
    "bytes of a chunk gone": (5, lambda c: c.execute("DELETE FROM chunk_data WHERE chunk_id = 6")),
    "chunk empty": (5, lambda c: c.execute("UPDATE chunk_data SET data = x'' WHERE chunk_id = 6")),
    "chunk shorter": (5, lambda c: c.execute("UPDATE chunk_data SET data = substr(data, 2) WHERE chunk_id = 6")),
    "chunk longer": (
        5,
        lambda c: c.execute("UPDATE chunk_data SET data = CAST(data || x'00' AS BLOB) WHERE chunk_id = 6"),
    ),
    "row of the chunk gone": (5, lambda c: c.execute("DELETE FROM chunks WHERE chunk_id = 6")),
    "size of the chunk too small": (5, lambda c: c.execute("UPDATE chunks SET size = 100 WHERE chunk_id = 6")),
    "size of the chunk too large": (5, lambda c: c.execute("UPDATE chunks SET size = size + 1 WHERE chunk_id = 6")),
    "digest of the chunk": (5, lambda c: c.execute("UPDATE chunks SET digest = zeroblob(32) WHERE chunk_id = 6")),
    "hole": (5, lambda c: c.execute("DELETE FROM blob_chunks WHERE chunk_id = 6")),
    "end gone": (5, lambda c: c.execute("DELETE FROM blob_chunks WHERE chunk_id >= 6")),
    "chunk too early": (5, lambda c: c.execute("UPDATE blob_chunks SET start = start - 10 WHERE chunk_id = 6")),
    "chunk too late": (5, lambda c: c.execute("UPDATE blob_chunks SET start = start + 10 WHERE chunk_id = 6")),
    "all chunks gone": (0, lambda c: c.execute("DELETE FROM blob_chunks")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_download__of_damaged_content_ends_before_a_wrong_byte(unchecked_store: Store, damage: str) -> None:
    store = unchecked_store
    put(store, "/f", LARGE)
    right_chunks, break_it = DAMAGES[damage]
    with raw(store) as connection:
        break_it(connection)
    received = b""
    with store.open_download(at("/f")) as download:
        with pytest.raises(StoreDamaged, match="davsql check"):
            for piece in download.chunks():
                received += piece
        assert LARGE.startswith(received)
        assert len(received) >= right_chunks * CHUNK_BYTES - 10
        with pytest.raises(StoreDamaged):
            list(download.chunks(right_chunks * CHUNK_BYTES))


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE chunk_data SET data = CAST(x'00' || substr(data, 2) AS BLOB)",
        "DELETE FROM chunk_data",
        "DELETE FROM blob_chunks",
        "UPDATE blob_chunks SET start = 1",
        "UPDATE blobs SET size = size + 1 WHERE blob_id = 1",
        "UPDATE blob_chunks SET chunk_id = 2 WHERE blob_id = 1",  # another chunk, itself undamaged, of the same size
    ],
)
def test_download__of_a_damaged_small_file_yields_nothing_wrong(unchecked_store: Store, sql: str) -> None:
    store = unchecked_store
    put(store, "/f", SMALL)
    put(store, "/g", SMALL[::-1])
    with raw(store) as connection:
        connection.execute(sql)
    received = b""
    with store.open_download(at("/f")) as download, pytest.raises(StoreDamaged):
        for piece in download.chunks():
            received += piece
    assert SMALL.startswith(received)


def test_download__of_undamaged_ranges_of_damaged_content_works(unchecked_store: Store) -> None:
    store = unchecked_store
    put(store, "/f", LARGE)
    with raw(store) as connection:
        flip(connection, 5)
    with store.open_download(at("/f")) as download:
        assert b"".join(download.chunks(0, 5 * CHUNK_BYTES)) == LARGE[: 5 * CHUNK_BYTES]
        assert b"".join(download.chunks(6 * CHUNK_BYTES)) == LARGE[6 * CHUNK_BYTES :]


def test_download__of_damage_that_a_good_copy_replaced_works_again(unchecked_store: Store) -> None:
    store = unchecked_store
    put(store, "/f", SMALL)
    with raw(store) as connection:
        flip(connection, 0)
    with pytest.raises(StoreDamaged):
        read(store, "/f")
    put(store, "/f", b"another")
    assert read(store, "/f") == b"another"


def test_pins__count_each_download(store: Store) -> None:
    pins = store.pins
    blob_id = next(iter([7]))
    pins.add(blob_id)  # type: ignore[arg-type]
    pins.add(blob_id)  # type: ignore[arg-type]
    pins.remove(blob_id)  # type: ignore[arg-type]
    assert pins.current() == {7}
    pins.remove(blob_id)  # type: ignore[arg-type]
    assert pins.current() == frozenset()

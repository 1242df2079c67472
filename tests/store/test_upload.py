"""Upload: what goes in is what is there afterwards, all of it or nothing."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from davsql.errors import PreconditionFailed, StoreBusy, StoreError, StoreReadOnly, StoreUnavailable
from davsql.maintenance.gc import collect_garbage
from davsql.model import ANYTHING, Guard, Preconditions
from davsql.store import blobs, gc
from davsql.store import upload as upload_module
from davsql.store.blobs import CHUNK_BYTES
from davsql.store.check import check
from davsql.store.options import StoreOptions
from davsql.store.store import Store
from davsql.store.upload import RECEIVED_BYTES, STAGE_BATCH_BYTES, STAGE_BATCH_LEAST_BYTES
from tests.store.conftest import MakeStore
from tests.store.engine_steps import count, raw, refused, rows_of
from tests.store_steps import at, put, read, tree

IF_ABSENT = Guard(Preconditions(if_none_match=ANYTHING))
CONTENT_TABLES = ("blobs", "chunks", "chunk_data", "blob_chunks", "uploads")


def bytes_of(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)  # noqa: S311


def sweep(store: Store) -> None:
    collect_garbage(store, grace_s=0, upload_expiry_s=0)


def leftovers(store: Store) -> dict[str, int]:
    """Rows of content that are there."""
    return {table: rows for table in CONTENT_TABLES if (rows := count(store, table))}


@pytest.mark.parametrize(
    "size",
    [
        0,
        1,
        CHUNK_BYTES - 1,
        CHUNK_BYTES,
        CHUNK_BYTES + 1,
        2 * CHUNK_BYTES,
        STAGE_BATCH_BYTES - 1,
        STAGE_BATCH_BYTES,
        STAGE_BATCH_BYTES + 1,
        3 * STAGE_BATCH_BYTES + 12_345,
    ],
)
def test_upload__of_any_size_comes_back(store: Store, size: int) -> None:
    data = bytes_of(size)
    node = put(store, "/f", data).node
    assert (node.size, node.digest) == (size, hashlib.sha256(data).digest())
    assert read(store, "/f") == data
    assert count(store, "chunks") == -(-size // CHUNK_BYTES)
    assert count(store, "uploads") == 0
    assert check(store, deep=True) == []


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 64 bytes, three of them a batch: every path of the code in a few hundred bytes."""
    monkeypatch.setattr(upload_module, "CHUNK_BYTES", 64)
    monkeypatch.setattr(upload_module, "STAGE_BATCH_BYTES", 192)
    monkeypatch.setattr(blobs, "CHUNK_BYTES", 64)


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One store for all examples of a property test."""
    file: Path = tmp_path_factory.mktemp("upload") / "store.db"
    with Store.open(file, StoreOptions(durability="normal"), create=True) as store:
        yield store
        assert check(store, deep=True) == []


@pytest.mark.usefixtures("small_chunks")
def test_upload__of_any_split_is_the_same_content(shared_store: Store) -> None:
    @given(st.lists(st.integers(0, 200), max_size=12), st.randoms(use_true_random=False), st.booleans())
    @settings(max_examples=150, deadline=None)
    def any_split(sizes: list[int], source: random.Random, as_views: bool) -> None:
        parts = [source.randbytes(size) for size in sizes]
        whole = b"".join(parts)
        with shared_store.upload() as upload:
            for part in parts:
                block = bytearray(part)
                upload.write(memoryview(block) if as_views else part)
                block[:] = bytes(len(block))  # a caller may use its buffer again
            node = upload.commit(at("/split")).node
        assert node.size == len(whole)
        assert node.digest == hashlib.sha256(whole).digest()
        assert read(shared_store, "/split") == whole

    any_split()


def test_upload__of_equal_content_is_stored_once(store: Store) -> None:
    data = bytes_of(2 * CHUNK_BYTES + 10)
    first = put(store, "/a", data).node
    second = put(store, "/b", data).node
    assert first.blob_id == second.blob_id
    sweep(store)
    assert leftovers(store) == {"blobs": 1, "chunks": 3, "chunk_data": 3, "blob_chunks": 3}


def test_upload__shares_equal_chunks(store: Store) -> None:
    one, two = bytes_of(CHUNK_BYTES, 1), bytes_of(CHUNK_BYTES, 2)
    put(store, "/a", one + two + one + b"a")
    put(store, "/b", two + one + b"b")
    assert count(store, "chunks") == 4
    assert read(store, "/a") == one + two + one + b"a"
    assert read(store, "/b") == two + one + b"b"


def test_upload__of_a_large_file_of_zeros_stores_one_chunk(store: Store) -> None:
    size = 2 * STAGE_BATCH_BYTES
    put(store, "/zeros", bytes(size))
    assert count(store, "chunks") == 1
    assert read(store, "/zeros") == bytes(size)


@pytest.mark.parametrize("size", [10, CHUNK_BYTES, STAGE_BATCH_BYTES + 1, 2 * STAGE_BATCH_BYTES + 1])
@pytest.mark.parametrize("how", ["abort", "leave", "raise"])
def test_upload__that_is_not_committed_leaves_nothing(store: Store, size: int, how: str) -> None:
    put(store, "/f", b"old")
    upload = store.upload()
    if how == "raise":
        with pytest.raises(ZeroDivisionError), upload:
            upload.write(bytes_of(size))
            raise ZeroDivisionError
    else:
        with upload:
            upload.write(bytes_of(size))
            if how == "abort":
                upload.abort()
    assert tree(store) == {"/f": b"old"}
    assert count(store, "uploads") == 0
    sweep(store)
    assert leftovers(store) == {"blobs": 1, "chunks": 1, "chunk_data": 1, "blob_chunks": 1}


@pytest.mark.parametrize("size", [10, STAGE_BATCH_BYTES + 1])
def test_upload__refused_at_the_end_leaves_the_old_content(store: Store, size: int) -> None:
    put(store, "/f", b"old")
    nodes_before = rows_of(store)["nodes"]
    with pytest.raises(PreconditionFailed), store.upload() as upload:
        upload.write(bytes_of(size))
        upload.commit(at("/f"), guard=IF_ABSENT)
    assert rows_of(store)["nodes"] == nodes_before
    assert read(store, "/f") == b"old"
    sweep(store)
    assert count(store, "blobs") == 1


@pytest.mark.parametrize("size", [10, CHUNK_BYTES, STAGE_BATCH_BYTES + 1])
def test_upload__may_be_committed_elsewhere_after_a_refusal(store: Store, size: int) -> None:
    data = bytes_of(size)
    put(store, "/f", b"old")
    with store.upload() as upload:
        upload.write(data)
        with pytest.raises(PreconditionFailed):
            upload.commit(at("/f"), guard=IF_ABSENT)
        upload.commit(at("/g"))
    assert tree(store) == {"/f": b"old", "/g": data}


def test_upload__is_seen_by_nobody_before_its_commit(store: Store) -> None:
    put(store, "/f", b"old")
    with store.upload() as upload:
        upload.write(bytes_of(3 * STAGE_BATCH_BYTES))
        assert count(store, "uploads") == 1
        assert read(store, "/f") == b"old"
        assert store.node(at("/f")).size == 3
        assert check(store, deep=True) == []
        upload.commit(at("/f"))
    assert store.node(at("/f")).size == 3 * STAGE_BATCH_BYTES


def test_upload__that_gc_gave_up_is_refused(store: Store) -> None:
    with pytest.raises(StoreError, match="took too long"), store.upload() as upload:
        upload.write(bytes_of(STAGE_BATCH_BYTES + 1))
        upload.write(bytes_of(STAGE_BATCH_BYTES))  # the first batch is committed now
        sweep(store)
        upload.commit(at("/f"))
    assert tree(store) == {}
    sweep(store)
    assert leftovers(store) == {}


def test_upload__that_gc_gave_up_between_batches_is_refused(store: Store) -> None:
    with pytest.raises(StoreError, match="took too long"), store.upload() as upload:
        for seed in range(1, 5):
            upload.write(bytes_of(STAGE_BATCH_BYTES, seed))
            if seed == 1:
                sweep(store)
        upload.commit(at("/f"))
    sweep(store)
    assert leftovers(store) == {}


def test_upload__of_a_lost_batch_can_never_be_committed(make_store: MakeStore) -> None:
    """A batch that was refused is a hole; going on, or trying again, must not seal a blob with a hole."""
    store = make_store(StoreOptions(queue_size=2, queue_timeout_s=0.05, busy_timeout_s=0))
    with store.upload() as upload:
        upload.write(bytes_of(STAGE_BATCH_BYTES, 1))
        with raw(store) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreBusy):
                for seed in (2, 3, 4):
                    upload.write(bytes_of(STAGE_BATCH_BYTES, seed))
            other.execute("ROLLBACK")
        for seed in (5, 6):
            with pytest.raises(StoreError):
                upload.write(bytes_of(STAGE_BATCH_BYTES, seed))
                upload.commit(at("/f"))
        with pytest.raises(StoreError):
            upload.commit(at("/f"))
    assert tree(store) == {}
    assert check(store, deep=True) == []
    sweep(store)
    assert leftovers(store) == {}


def test_upload__whose_last_batch_is_lost_can_never_be_committed(make_store: MakeStore) -> None:
    store = make_store(StoreOptions(busy_timeout_s=0))
    with store.upload() as upload:
        upload.write(bytes_of(2 * STAGE_BATCH_BYTES, 1))
        upload.write(bytes_of(10, 2))
        with raw(store) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreBusy):
                upload.commit(at("/f"))
            other.execute("ROLLBACK")
        with pytest.raises(StoreError):
            upload.commit(at("/f"))
    assert tree(store) == {}
    sweep(store)
    assert leftovers(store) == {}


def test_upload__abort_after_a_lost_batch_ends_the_upload(make_store: MakeStore) -> None:
    store = make_store(StoreOptions(busy_timeout_s=0))
    with store.upload() as upload:
        upload.write(bytes_of(2 * STAGE_BATCH_BYTES, 1))
        store.write(lambda _tx: None)  # what was staged is committed
        with raw(store) as other:
            other.execute("BEGIN IMMEDIATE")
            upload.write(bytes_of(STAGE_BATCH_BYTES, 2))
            with pytest.raises(StoreBusy):
                upload.write(bytes_of(STAGE_BATCH_BYTES, 3))
            other.execute("ROLLBACK")
    assert count(store, "uploads") == 0


def test_stage_chunks__refuses_a_blob_that_does_not_end_at_start(store: Store) -> None:
    upload_id, blob_id = store.write(blobs.begin_upload)
    chunk = blobs.NewChunk(hashlib.sha256(b"x").digest(), b"x")
    for start in (1, 5):
        with refused(store, StoreError):
            store.write(lambda tx, start=start: blobs.stage_chunks(tx, upload_id, blob_id, start, [chunk]))  # type: ignore[misc]
    store.write(lambda tx: blobs.stage_chunks(tx, upload_id, blob_id, 0, [chunk]))
    with refused(store, StoreError):
        store.write(lambda tx: blobs.stage_chunks(tx, upload_id, blob_id, 0, [chunk]))


def test_seal_upload__refuses_what_gc_has_begun_to_take_apart(store: Store) -> None:
    """The upload is stale and gone, its blob has lost its end: it must not become a file."""
    parts = [bytes_of(CHUNK_BYTES, seed) for seed in range(3)]
    chunks = [blobs.NewChunk(hashlib.sha256(part).digest(), part) for part in parts]
    upload_id, blob_id = store.write(blobs.begin_upload)
    store.write(lambda tx: blobs.stage_chunks(tx, upload_id, blob_id, 0, chunks))
    store.write(lambda tx: gc.end_stale_uploads(tx, tx.now, 10))
    store.write(lambda tx: gc.remove_orphaned_blobs(tx, tx.now, frozenset(), 1))
    whole = hashlib.sha256(b"".join(parts)).digest()
    with refused(store, StoreError):
        store.write(lambda tx: blobs.seal_upload(tx, upload_id, blob_id, whole, 3 * CHUNK_BYTES))
    sweep(store)
    assert leftovers(store) == {}


def test_seal_upload__refuses_another_size(store: Store) -> None:
    upload_id, blob_id = store.write(blobs.begin_upload)
    with refused(store, StoreError):
        store.write(lambda tx: blobs.seal_upload(tx, upload_id, blob_id, bytes(32), 1))


def test_upload__survives_the_store_being_closed_under_it(make_store: MakeStore) -> None:
    store = make_store(StoreOptions())
    with pytest.raises(StoreUnavailable), store.upload() as upload:
        upload.write(bytes_of(STAGE_BATCH_BYTES))
        store.close()
        upload.commit(at("/f"))


def test_upload__to_a_read_only_store_is_refused(store: Store) -> None:
    put(store, "/f", b"x")
    with Store.open(store.file, StoreOptions(read_only=True)) as read_only:
        with pytest.raises(StoreReadOnly):
            put(read_only, "/g", b"x")
        with pytest.raises(StoreReadOnly):
            put(read_only, "/g", bytes(2 * STAGE_BATCH_BYTES))
        assert read(read_only, "/f") == b"x"


@pytest.mark.parametrize("size", [1000, CHUNK_BYTES, 2 * CHUNK_BYTES + 5])
@pytest.mark.parametrize("damage", ["flip", "cut", "lose"])
def test_upload__of_what_is_stored_damaged_heals_it(store: Store, size: int, damage: str) -> None:
    """Content is found by its digest; bytes that rotted meanwhile must not swallow a good copy."""
    data = bytes_of(size)
    put(store, "/f", data)
    with raw(store) as connection:
        if damage == "flip":
            connection.execute("UPDATE chunk_data SET data = zeroblob(length(data))")
        elif damage == "cut":
            connection.execute("UPDATE chunk_data SET data = substr(data, 2)")
        else:
            connection.execute("DELETE FROM chunk_data")
    put(store, "/g", data)
    assert read(store, "/g") == data
    assert read(store, "/f") == data
    sweep(store)
    assert check(store, deep=True) == []


def test_put_content__does_not_read_what_it_need_not(store: Store) -> None:
    """Two equal empty files: no chunk is looked for."""
    put(store, "/a", b"")
    put(store, "/b", b"")
    assert leftovers(store) == {"blobs": 1}


def test_upload__keeps_the_wal_of_a_foreign_writer_out(store: Store) -> None:
    """A second process's writer and ours take turns."""
    with raw(store) as other:
        for step in range(5):
            put(store, f"/f{step}", b"x")
            other.execute("BEGIN IMMEDIATE")
            other.execute("INSERT INTO meta (key, value) VALUES (?, '')", (f"k{step}",))
            other.execute("COMMIT")
    assert len(tree(store)) == 5


def test_upload__commit_is_in_the_file_when_it_returns(store: Store) -> None:
    put(store, "/f", bytes_of(STAGE_BATCH_BYTES + 1))
    connection = apsw.Connection(str(store.file), flags=apsw.SQLITE_OPEN_READONLY)
    assert connection.execute("SELECT size FROM entries WHERE name = 'f'").fetchall() == [(STAGE_BATCH_BYTES + 1,)]
    connection.close()


@pytest.mark.parametrize(
    ("uploads", "batch_bytes"), [(1, STAGE_BATCH_BYTES), (8, RECEIVED_BYTES // 8), (40, STAGE_BATCH_LEAST_BYTES)]
)
def test_upload__of_many_at_once_hands_over_smaller_batches(store: Store, uploads: int, batch_bytes: int) -> None:
    with ExitStack() as stack:
        last = [stack.enter_context(store.upload()) for _ in range(uploads)][-1]
        content = bytes_of(batch_bytes)
        last.write(content[:-1])
        assert count(store, "uploads") == 0
        last.write(content[-1:])
        assert count(store, "uploads") == 1
        last.commit(at("/a"))
    assert read(store, "/a") == content

"""GC's commands: what may go goes, in bounded steps; what is wanted again meanwhile stays."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable

import pytest

from davsql.errors import StoreError
from davsql.model import BlobId, Inode, PropertyUpdate
from davsql.store import blobs, gc
from davsql.store.blobs import CHUNK_BYTES
from davsql.store.check import check
from davsql.store.store import Store
from davsql.store.transaction import WriteTx
from tests.store.engine_steps import Clock, count, inode_of, lock, refused
from tests.store_steps import at, mkcol, put, read, tree

LARGE = random.Random(1).randbytes(10 * CHUNK_BYTES + 5)  # noqa: S311
NO_PINS: frozenset[BlobId] = frozenset()


def remove_blobs(store: Store, *, pinned: frozenset[BlobId] = NO_PINS, limit: int = 1000, grace_s: float = 0) -> int:
    before_ns = int(grace_s * 1e9)
    return store.write(lambda tx: gc.remove_orphaned_blobs(tx, tx.now - before_ns, pinned, limit))


def remove_chunks(store: Store, limit: int = 1000) -> int:
    return store.write(lambda tx: gc.remove_orphaned_chunks(tx, limit))


def remove_detached(store: Store, limit: int = 1000) -> int:
    return store.write(lambda tx: gc.remove_detached(tx, limit))


def exhaust(store: Store, step: Callable[[Store], int]) -> int:
    """Repeat a step until it finds nothing; the number of steps that found something."""
    steps = 0
    while step(store):
        steps += 1
        assert check(store) == []
        assert steps < 10_000
    return steps


# --- detached trees -------------------------------------------------------------------------------------------------


def test_remove_detached__leaves_the_tree_alone(store: Store) -> None:
    mkcol(store, "/c")
    put(store, "/c/f", b"x")
    assert remove_detached(store) == 0
    assert tree(store) == {"/c": None, "/c/f": b"x"}


@pytest.mark.parametrize("limit", [1, 2, 7, 1000])
def test_remove_detached__takes_trees_of_depth_and_breadth_apart(store: Store, limit: int) -> None:
    path = "/top"
    mkcol(store, path)
    for depth in range(6):
        for name in range(4):
            put(store, f"{path}/f{name}", b"%d" % name)
        mkcol(store, f"{path}/empty")
        path += f"/{depth}"
        mkcol(store, path)
    put(store, "/single", b"x")
    put(store, "/kept", b"0")
    rows = count(store, "nodes")
    store.delete(at("/top"))
    store.delete(at("/single"))
    steps = exhaust(store, lambda store: remove_detached(store, limit))
    assert count(store, "nodes") == 2
    assert steps >= (rows - 2) / limit
    assert tree(store) == {"/kept": b"0"}


def test_remove_detached__changes_no_more_rows_than_its_limit(store: Store) -> None:
    mkcol(store, "/c")
    for number in range(30):
        put(store, f"/c/f{number}")
        mkcol(store, f"/c/c{number}")
        put(store, f"/c/c{number}/f")
    store.delete(at("/c"))
    rows = count(store, "nodes")
    while removed := remove_detached(store, 10):
        assert removed <= 10
        now = count(store, "nodes")
        assert rows - now <= 10
        rows = now
    assert rows == 1


def test_remove_detached__takes_properties_and_locks_along(store: Store, clock: Clock) -> None:
    put(store, "/f")
    store.set_properties(at("/f"), [PropertyUpdate("n:", "p", "<p/>")])
    lock(store, "/f", timeout_s=1)
    clock.advance(1)
    store.delete(at("/f"))
    assert count(store, "properties") == 1
    remove_detached(store)
    assert count(store, "properties") == count(store, "locks") == 0


def test_remove_detached__many_single_files_in_few_steps(store: Store) -> None:
    def make_and_delete(tx: WriteTx) -> None:
        for number in range(300):
            tx.change(
                "INSERT INTO nodes (name, node_type, created_at, modified_at) VALUES (?, 1, 0, 0)", (f"n{number}",)
            )

    store.write(make_and_delete)
    assert exhaust(store, lambda store: remove_detached(store, 100)) == 3


# --- blobs and chunks -----------------------------------------------------------------------------------------------


def test_remove_orphaned_blobs__leaves_what_is_referred_to(store: Store) -> None:
    put(store, "/f", LARGE)
    put(store, "/g", b"")
    assert remove_blobs(store) == remove_chunks(store) == 0
    assert read(store, "/f") == LARGE


def test_remove_orphaned_blobs__waits_for_the_grace_to_end(store: Store) -> None:
    put(store, "/f", b"x")
    put(store, "/f", b"y")
    assert remove_blobs(store, grace_s=60) == 0
    assert count(store, "blobs") == 2
    assert remove_blobs(store, grace_s=0) == 2  # the blob and its one chunk
    assert count(store, "blobs") == 1


def test_remove_orphaned_blobs__leaves_pinned_ones(store: Store) -> None:
    first = put(store, "/f", b"x").node.blob_id
    second = put(store, "/f", b"y").node.blob_id
    assert first is not None
    assert second is not None
    put(store, "/f", b"z")
    assert remove_blobs(store, pinned=frozenset({first})) == 2
    assert remove_blobs(store, pinned=frozenset({first, second})) == 0
    assert count(store, "blobs") == 2
    assert remove_blobs(store) == 2


@pytest.mark.parametrize("limit", [1, 3, 10, 11, 12, 1000])
def test_remove_orphaned_blobs__takes_a_long_one_from_its_end(store: Store, limit: int) -> None:
    put(store, "/f", LARGE)
    store.delete(at("/f"))
    exhaust(store, remove_detached)
    lengths = [count(store, "blob_chunks")]
    while removed := remove_blobs(store, limit=limit):
        assert removed <= limit
        assert check(store) == []
        lengths.append(count(store, "blob_chunks"))
        assert lengths[-2] - lengths[-1] <= limit
        with store.read() as tx:  # what is left begins at 0
            assert tx.value("SELECT min(start) FROM blob_chunks") in (0, None)
    assert count(store, "blobs") == count(store, "blob_chunks") == 0
    exhaust(store, lambda store: remove_chunks(store, 4))
    assert count(store, "chunks") == count(store, "chunk_data") == 0


def test_remove_orphaned_chunks__is_bounded_and_leaves_shared_ones(store: Store) -> None:
    put(store, "/f", LARGE)
    put(store, "/g", LARGE[:CHUNK_BYTES] + b"other")
    store.delete(at("/f"))
    exhaust(store, remove_detached)
    exhaust(store, remove_blobs)
    assert remove_chunks(store, 4) == 4
    assert remove_chunks(store, 4) == 4
    assert remove_chunks(store, 4) == 2
    assert remove_chunks(store, 4) == 0
    assert read(store, "/g") == LARGE[:CHUNK_BYTES] + b"other"
    assert check(store, deep=True) == []


@pytest.mark.parametrize("data", [b"", b"small", LARGE])
@pytest.mark.parametrize("when", ["deleted", "detached gone", "begun", "blob gone", "chunks begun", "chunks gone"])
def test_put__of_the_same_bytes_revives_them_at_any_moment(store: Store, data: bytes, when: str) -> None:
    put(store, "/f", data)
    store.delete(at("/f"))
    steps: dict[str, Callable[[], object]] = {
        "deleted": lambda: None,
        "detached gone": lambda: remove_detached(store),
        "begun": lambda: remove_blobs(store, limit=1),
        "blob gone": lambda: remove_blobs(store),
        "chunks begun": lambda: remove_chunks(store, 1),
        "chunks gone": lambda: remove_chunks(store),
    }
    for name, step in steps.items():
        step()
        if name == when:
            break
    put(store, "/g", data)
    assert check(store) == []
    assert read(store, "/g") == data
    for _ in range(3):
        remove_detached(store)
        remove_blobs(store)
        remove_chunks(store)
    assert read(store, "/g") == data
    assert check(store, deep=True) == []
    assert count(store, "blobs") == 1


@pytest.mark.parametrize("when", ["before", "between", "after"])
def test_put__of_a_large_file_while_gc_takes_its_twin_apart(store: Store, when: str) -> None:
    put(store, "/f", LARGE)
    store.delete(at("/f"))
    remove_detached(store)
    with store.upload() as upload:
        if when == "before":
            remove_blobs(store, limit=3)
        upload.write(LARGE)
        if when == "between":
            remove_blobs(store, limit=3)
            remove_chunks(store)
        upload.commit(at("/g"))
    if when == "after":
        remove_blobs(store, limit=3)
    for _ in range(10):
        remove_blobs(store, limit=3)
        remove_chunks(store)
    assert read(store, "/g") == LARGE
    assert check(store, deep=True) == []


def test_copy__of_what_is_deleted_in_the_same_moment(store: Store) -> None:
    put(store, "/f", LARGE)
    store.copy(at("/f"), at("/g"))
    store.delete(at("/f"))
    for _ in range(3):
        remove_detached(store)
        remove_blobs(store)
        remove_chunks(store)
    assert read(store, "/g") == LARGE


def test_overwrite__of_a_copy_leaves_the_original(store: Store) -> None:
    put(store, "/f", LARGE)
    store.copy(at("/f"), at("/g"))
    put(store, "/g", b"other")
    assert remove_blobs(store) == 0
    assert read(store, "/f") == LARGE


def test_orphaned_at__is_set_by_the_last_reference_only(store: Store) -> None:
    put(store, "/a", b"x")
    store.copy(at("/a"), at("/b"))
    for path, orphans in (("/a", 0), ("/b", 1)):
        put(store, path, b"y")
        assert store.stats().orphaned_blobs == orphans
    store.copy(at("/a"), at("/c"))
    put(store, "/d", b"x")
    assert store.stats().orphaned_blobs == 0


# --- uploads and locks ----------------------------------------------------------------------------------------------


def stage(store: Store) -> tuple[blobs.UploadId, BlobId]:
    upload_id, blob_id = store.write(blobs.begin_upload)
    chunk = blobs.NewChunk(hashlib.sha256(b"x").digest(), b"x")
    store.write(lambda tx: blobs.stage_chunks(tx, upload_id, blob_id, 0, [chunk]))
    return upload_id, blob_id


def test_end_stale_uploads__leaves_those_that_got_bytes(store: Store, clock: Clock) -> None:
    old, _ = stage(store)
    clock.advance(10)
    young, _ = stage(store)
    before = clock.now_ns - 5_000_000_000
    assert store.write(lambda tx: gc.end_stale_uploads(tx, before, 10)) == 1
    with store.read() as tx:
        assert tx.rows("SELECT upload_id FROM uploads") == [(young,)]
    assert old != young
    store.write(lambda tx: blobs.end_upload(tx, young))


def test_end_stale_uploads__is_bounded(store: Store, clock: Clock) -> None:
    for _ in range(5):
        stage(store)
    clock.advance(1)
    for expected in (2, 2, 1, 0):
        assert store.write(lambda tx: gc.end_stale_uploads(tx, tx.now, 2)) == expected
    assert remove_blobs(store) == 10


def test_uploads__hold_their_blob_and_chunks(store: Store) -> None:
    upload_id, blob_id = stage(store)
    assert remove_blobs(store) == remove_chunks(store) == 0
    store.write(lambda tx: blobs.seal_upload(tx, upload_id, blob_id, hashlib.sha256(b"x").digest(), 1))
    assert remove_blobs(store) == 2


def test_upload_ids__are_never_used_again(store: Store) -> None:
    """A stale upload must not come to mean another one: its blob's number may."""
    old, old_blob = stage(store)
    store.write(lambda tx: blobs.end_upload(tx, old))
    remove_blobs(store)
    new, new_blob = stage(store)
    assert new != old
    with refused(store, StoreError):
        store.write(lambda tx: blobs.seal_upload(tx, old, old_blob, hashlib.sha256(b"x").digest(), 1))
    with refused(store, StoreError):
        store.write(lambda tx: blobs.stage_chunks(tx, old, old_blob, 1, []))
    store.write(lambda tx: blobs.end_upload(tx, new))
    assert new_blob


def test_remove_expired_locks__is_bounded_and_exact(store: Store, clock: Clock) -> None:
    for number in range(5):
        put(store, f"/f{number}")
        lock(store, f"/f{number}", timeout_s=10)
    put(store, "/long")
    lock(store, "/long", timeout_s=11)
    assert store.write(lambda tx: gc.remove_expired_locks(tx, 100)) == 0
    clock.advance(10)
    for expected in (3, 2, 0):
        assert store.write(lambda tx: gc.remove_expired_locks(tx, 3)) == expected
    assert count(store, "locks") == 1


@pytest.mark.parametrize("days", [-10, 10])
def test_remove_expired_locks__after_a_jump_of_the_clock_none_lasts_longer_than_granted(
    store: Store, clock: Clock, days: int
) -> None:
    etag = put(store, "/f", b"x").node.etag
    lock(store, "/f", timeout_s=60)
    clock.advance(days * 86_400)
    store.write(lambda tx: gc.remove_expired_locks(tx, 100))
    assert store.write(lambda tx: gc.remove_expired_locks(tx, 100)) == 0
    assert store.node(at("/f")).etag == etag
    clock.advance(61)
    store.write(lambda tx: gc.remove_expired_locks(tx, 100))
    assert count(store, "locks") == 0
    assert put(store, "/f", b"y").node.etag != etag


def test_gc__never_touches_the_root(store: Store) -> None:
    assert remove_detached(store) == 0
    with store.snapshot() as view:
        assert not view.members(Inode(1))
    assert inode_of(store, "/") == 1

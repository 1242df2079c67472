"""The public face: snapshots, listings, numbers, checkpoints, and closing."""

from __future__ import annotations

import shutil
import threading

import pytest

from davsql.errors import NotFound, StoreBusy, StoreUnavailable
from davsql.model import NO_NODES, ROOT_INODE, Inode
from davsql.paths import ROOT, DavPath
from davsql.store.options import StoreOptions
from davsql.store.store import Store
from tests.store.conftest import MakeStore
from tests.store.engine_steps import inode_of, lock
from tests.store_steps import at, mkcol, put, read, tree


def test_new_store__has_a_root(store: Store) -> None:
    root = store.node(ROOT)
    assert (root.inode, root.parent_inode, root.name) == (ROOT_INODE, None, "")
    assert root.is_collection
    assert tree(store) == {}


def test_node__of_nothing_is_not_found(store: Store) -> None:
    put(store, "/f")
    for path in ("/missing", "/f/x", "/missing/x"):
        with pytest.raises(NotFound, match=path):
            store.node(at(path))


def test_members__come_in_order_and_in_pages(store: Store) -> None:
    mkcol(store, "/c")
    names = ["B", "a", "b", "é", "10", "9", "\U0001f4c4"]
    for name in names:
        store.make_collection(DavPath(["c", name]))
    put(store, "/c/b/deeper")
    put(store, "/beside")
    parent = Inode(inode_of(store, "/c"))
    with store.snapshot() as view:
        found = view.members(parent)
        assert [node.name for node in found] == sorted(names, key=str.encode)
        assert {node.parent_inode for node in found} == {parent}
        paged: list[str] = []
        while page := view.members(parent, after=paged[-1] if paged else "", limit=2):
            paged += [node.name for node in page]
        assert paged == [node.name for node in found]
        assert view.members(Inode(inode_of(store, "/beside"))) == NO_NODES
        assert [node.name for node in view.members(ROOT_INODE)] == ["beside", "c"]


def test_members__follow_lookup_keys_and_show_names_as_sent(store: Store) -> None:
    put(store, "/cafe\u0301")
    put(store, "/cafez")
    with store.snapshot() as view:
        assert [node.name for node in view.members(ROOT_INODE)] == ["cafez", "cafe\u0301"]  # the key is "caf\u00e9"
        assert [node.name for node in view.members(ROOT_INODE, after="caf\u00e9")] == []


def test_members_and_descendants__are_the_nodes_that_paths_lead_to(store: Store) -> None:
    names = [
        "plain.txt",
        "é",
        "e\u0301\u0302",
        'q"\\',
        "\u2028",
        "\U0001f4c4",
        "a & <b> 'c' %2F",
        "-9.5e300",
        "null",
        "[]",
    ]
    mkcol(store, "/c")
    for name in names:
        put(store, f"/c/{name}", name.encode())
    mkcol(store, "/c/d")
    for number, modified_at in enumerate((0, -1, 2**63 - 1, -(2**63))):
        store.set_modified_at(at(f"/c/{names[number]}"), modified_at)
    with store.snapshot() as view:
        expected = {name: view.node(at(f"/c/{name}")) for name in (*names, "d")}
        for found in (view.members(Inode(inode_of(store, "/c"))), view.descendants(Inode(inode_of(store, "/c")), 20)):
            assert found is not None
            assert {node.name: node for node in found} == expected


def test_descendants__come_after_their_parents_and_are_bounded(store: Store) -> None:
    for path in ("/a", "/a/b", "/a/b/c", "/d"):
        mkcol(store, path)
    put(store, "/a/f")
    put(store, "/a/b/c/g")
    with store.snapshot() as view:
        found = view.descendants(ROOT_INODE, 6)
        assert found is not None
        seen: set[int] = {ROOT_INODE}
        for node in found:
            assert node.parent_inode in seen
            seen.add(node.inode)
        assert len(found) == 6
        assert view.descendants(ROOT_INODE, 5) is None
        inner = view.descendants(Inode(inode_of(store, "/a/b")), 10)
        assert inner is not None
        assert [node.name for node in inner] == ["c", "g"]
        assert view.descendants(Inode(inode_of(store, "/d")), 0) == NO_NODES


def test_path_of__is_the_way_from_the_root(store: Store) -> None:
    mkcol(store, "/a")
    store.make_collection(DavPath(["a", "cafe\u0301"]))
    put(store, "/a/caf\u00e9/f")
    with store.snapshot() as view:
        assert view.path_of(Inode(inode_of(store, "/a/caf\u00e9/f"))).names == ("a", "cafe\u0301", "f")
        assert view.path_of(ROOT_INODE) == ROOT


def test_snapshot__node_of_an_unmapped_url_is_none(store: Store) -> None:
    with store.snapshot() as view:
        assert view.node(at("/missing")) is None
        assert view.node(ROOT) is not None


def test_locks_on__are_those_rooted_there(store: Store) -> None:
    mkcol(store, "/c")
    put(store, "/c/f")
    deep = lock(store, "/c", infinity=True)
    inodes = [Inode(inode_of(store, path)) for path in ("/c", "/c/f")]
    with store.snapshot() as view:
        assert view.locks_on(inodes) == {inodes[0]: [deep]}
        assert view.locks_covering(at("/c/f")) == [deep]
        assert view.locks_covering(at("/c/unmapped/deep")) == [deep]
        assert view.locks_covering(ROOT) == []


def test_set_modified_at__takes_any_time(store: Store) -> None:
    put(store, "/f", b"x")
    for modified_at in (0, -5, 4_000_000_000_000_000_000):
        store.set_modified_at(at("/f"), modified_at)
        assert store.node(at("/f")).modified_at == modified_at
    with pytest.raises(NotFound):
        store.set_modified_at(at("/missing"), 0)


def test_space__counts_the_file_and_what_the_disk_has(store: Store) -> None:
    before = store.space()
    put(store, "/f", b"".join(bytes([number]) * 300_000 for number in range(10)))
    after = store.space()
    assert 3_000_000 <= after.used_bytes - before.used_bytes < 4_000_000
    assert 0 < after.available_bytes <= shutil.disk_usage(store.file.parent).total


def test_stats__count_what_is_there(store: Store) -> None:
    mkcol(store, "/c")
    put(store, "/c/a", b"12345")
    put(store, "/c/b", b"12345")
    put(store, "/gone", b"678")
    store.delete(at("/gone"))
    lock(store, "/c")
    stats = store.stats()
    assert (stats.collections, stats.files) == (2, 3)
    assert stats.detached_nodes == 1
    assert (stats.blobs, stats.orphaned_blobs, stats.chunks) == (2, 0, 2)
    assert (stats.logical_bytes, stats.stored_bytes) == (13, 8)
    assert (stats.locks, stats.properties, stats.uploads) == (1, 0, 0)
    assert stats.file_bytes >= 0
    assert stats.page_size == store.options.page_size
    assert stats.queue_depth == 0


def test_checkpoint__moves_the_wal_into_the_file(store: Store) -> None:
    put(store, "/f", b"x" * 100_000)
    before = store.wal_bytes
    assert before > 100_000
    pages, done = store.checkpoint()
    assert pages == done > 0
    put(store, "/g", b"x")
    assert store.wal_bytes < before


def test_checkpoint__runs_beside_writes_and_reads(store: Store) -> None:
    errors: list[BaseException] = []
    stopping = threading.Event()

    def work() -> None:
        while not stopping.is_set():
            try:
                store.checkpoint()
            except StoreBusy:  # said at once instead of waiting: the next round does it
                pass
            except BaseException as error:  # noqa: BLE001
                errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    for number in range(50):
        put(store, "/f", b"%d" % number * 1000)
        assert read(store, "/f") == b"%d" % number * 1000
    stopping.set()
    thread.join()
    assert errors == []


def test_close__refuses_everything_afterwards(make_store: MakeStore) -> None:
    store = make_store(StoreOptions())
    put(store, "/f", b"x")
    store.close()
    store.close()
    with pytest.raises(StoreUnavailable):
        put(store, "/g", b"x")
    with pytest.raises(StoreUnavailable):
        store.node(at("/f"))
    with pytest.raises(StoreUnavailable):
        store.checkpoint()


def test_store__keeps_everything_over_a_restart(store: Store) -> None:
    mkcol(store, "/c")
    put(store, "/c/f", b"content" * 100_000)
    held = lock(store, "/c", infinity=True)
    store.close()
    with Store.open(store.file) as again:
        assert tree(again) == {"/c": None, "/c/f": b"content" * 100_000}
        with again.snapshot() as view:
            assert view.locks_covering(at("/c/f")) == [held]


def test_store__opened_twice_is_one_store(store: Store) -> None:
    with Store.open(store.file) as second:
        put(store, "/a", b"1")
        assert read(second, "/a") == b"1"
        put(second, "/a", b"2")
        assert read(store, "/a") == b"2"
        second.delete(at("/a"))
        assert tree(store) == {}

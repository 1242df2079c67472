"""delete: files, trees, and what may not go."""

from __future__ import annotations

import pytest

from davsql.errors import ForbiddenTarget, NotFound, PreconditionFailed
from davsql.maintenance.gc import collect_garbage
from davsql.model import PropertyUpdate
from davsql.store.store import Store
from tests.store.engine_steps import count, if_match, inode_of, refused
from tests.store_steps import at, mkcol, put, read, tree


def test_delete__takes_a_file(store: Store) -> None:
    put(store, "/a", b"x")
    put(store, "/b", b"x")
    store.delete(at("/a"))
    assert tree(store) == {"/b": b"x"}
    with refused(store, NotFound):
        store.node(at("/a"))
    with refused(store, NotFound):
        store.open_download(at("/a"))


def test_delete__takes_a_tree_by_changing_one_row(store: Store) -> None:
    mkcol(store, "/c")
    mkcol(store, "/c/d")
    put(store, "/c/d/f", b"x")
    rows = count(store, "nodes")
    store.delete(at("/c"))
    assert tree(store) == {}
    for path in ("/c", "/c/d", "/c/d/f"):
        with refused(store, NotFound):
            store.node(at(path))
    assert count(store, "nodes") == rows
    assert store.stats().detached_nodes == 1


def test_delete__frees_the_name(store: Store) -> None:
    old = put(store, "/a", b"x").node
    store.set_properties(at("/a"), [PropertyUpdate("n:", "p", "<p/>")])
    store.delete(at("/a"))
    new = mkcol(store, "/a")
    assert new.inode != old.inode
    with store.snapshot() as view:
        assert view.dead_properties([new.inode]) == {}


def test_delete__touches_the_collection(store: Store) -> None:
    mkcol(store, "/c")
    put(store, "/c/a", b"")
    store.set_modified_at(at("/c"), 1)
    store.delete(at("/c/a"))
    assert store.node(at("/c")).modified_at > 1


@pytest.mark.parametrize("path", ["/a", "/c/a", "/file/a", "/missing/a"])
def test_delete__of_nothing_is_not_found(store: Store, path: str) -> None:
    mkcol(store, "/c")
    put(store, "/file", b"")
    with refused(store, NotFound):
        store.delete(at(path))


def test_delete__of_the_root_is_forbidden(store: Store) -> None:
    with refused(store, ForbiddenTarget):
        store.delete(at("/"))


def test_delete__with_the_wrong_etag_is_refused(store: Store) -> None:
    put(store, "/a", b"x")
    with refused(store, PreconditionFailed):
        store.delete(at("/a"), if_match('"other"'))
    store.delete(at("/a"), if_match(put(store, "/a", b"y").node.etag))


def test_inodes__are_never_used_again(store: Store) -> None:
    seen: set[int] = {1}
    for step in range(5):
        mkcol(store, "/c")
        put(store, "/c/f", b"%d" % step)
        store.copy(at("/c"), at("/d"))
        new = {inode_of(store, path) for path in ("/c", "/c/f", "/d", "/d/f")}
        assert len(new) == 4
        assert not new & seen
        seen |= new
        store.delete(at("/c"))
        store.delete(at("/d"))
        collect_garbage(store, grace_s=0, upload_expiry_s=0)
        assert count(store, "nodes") == 1


def test_delete__of_one_of_two_files_keeps_the_shared_content(store: Store) -> None:
    put(store, "/a", b"shared")
    store.copy(at("/a"), at("/b"))
    store.delete(at("/a"))
    collect_garbage(store, grace_s=0, upload_expiry_s=0)
    assert read(store, "/b") == b"shared"

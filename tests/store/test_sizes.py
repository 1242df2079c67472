"""The bytes of a tree, as far as somebody may read it."""

from __future__ import annotations

import random

import pytest

from davsql.access import FULL_ACCESS, Access, Right
from davsql.model import ROOT_INODE, Inode
from davsql.paths import DavPath
from davsql.store import sizes
from davsql.store.store import Store
from tests.store_steps import at, mkcol, put

NAMES = ("a", "b", "c")
RULES = Access(
    {
        (): Right.NONE,
        ("a",): Right.READ,
        ("a", "b"): Right.NONE,
        ("a", "b", "c"): Right.READ,
        ("b", "a"): Right.ALL,
        ("missing",): Right.READ,
    }
)


def tree_sizes(store: Store, access: Access, *paths: str) -> list[int | None]:
    with store.snapshot() as view:
        tops = [node.inode for path in paths if (node := view.node(at(path)))]
    with store.snapshot(access) as view:
        found = view.tree_sizes(tops)
    return [found.get(top) for top in tops]


@pytest.fixture
def tree(store: Store) -> list[DavPath]:
    """Collections of every name in every other, three deep, with a file in each; the paths of all collections."""
    rng = random.Random(1)  # noqa: S311
    found = [DavPath()]
    for path in found:
        put(store, str(path.child("file")), rng.randbytes(rng.randrange(100)))
        if len(path.names) < 3:
            for name in NAMES:
                mkcol(store, str(path.child(name)))
                found.append(path.child(name))
    return found


@pytest.mark.parametrize("access", [FULL_ACCESS, RULES], ids=["all", "some"])
def test_tree_sizes__are_those_of_all_files_that_may_be_read(store: Store, tree: list[DavPath], access: Access) -> None:
    files = {path.child("file"): store.node(path.child("file")).size for path in tree}
    expected = [
        sum(size for file, size in files.items() if file.is_within(path) and access.may(Right.READ, file))
        for path in tree
    ]
    assert tree_sizes(store, access, *map(str, tree)) == expected
    for path, size in zip(tree, expected, strict=True):
        assert tree_sizes(store, access, str(path)) == [size]


def test_tree_sizes__of_a_file_that_alone_may_be_read(store: Store) -> None:
    put(store, "/secret", b"12345")
    put(store, "/told", b"123")
    assert tree_sizes(store, Access({(): Right.NONE, ("told",): Right.READ}), "/") == [3]
    assert tree_sizes(store, Access({(): Right.READ, ("told",): Right.NONE}), "/") == [5]


@pytest.mark.usefixtures("tree")
def test_tree_sizes__leave_out_what_is_too_much_to_count(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tree_sizes(store, FULL_ACCESS, "/a/a", "/a", "/b/a/c", "/")
    nodes = {"/a/a": 8, "/a": 26, "/b/a/c": 2, "/": 80}
    for limit in range(1, sum(nodes.values()) + 2):
        monkeypatch.setattr(sizes, "COUNTED_NODES", limit)
        found, room = tree_sizes(store, FULL_ACCESS, *nodes), limit
        for number, count in enumerate(nodes.values()):
            room -= count
            assert found[number] == (whole[number] if room >= 0 else None)


def test_tree_sizes__of_nothing_deleted(store: Store) -> None:
    mkcol(store, "/c")
    put(store, "/c/a", b"12345")
    with store.snapshot() as view:
        gone = view.node(at("/c"))
    assert gone is not None
    store.delete(at("/c"))
    with store.snapshot(RULES) as view:
        assert view.tree_sizes([Inode(ROOT_INODE), gone.inode]) == {ROOT_INODE: 0, gone.inode: 0}

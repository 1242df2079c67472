"""put_file and make_collection: new members, replaced content, and everything that stands in the way."""

from __future__ import annotations

import hashlib
import time

import pytest

from davsql.errors import (
    AlreadyExists,
    IsCollection,
    ParentMissing,
    PathTooDeep,
    PreconditionFailed,
)
from davsql.model import ANYTHING, Guard, NodeType, Preconditions
from davsql.paths import DavPath
from davsql.store.blobs import EMPTY_DIGEST
from davsql.store.options import StoreOptions
from davsql.store.store import Store
from tests.store.conftest import MakeStore
from tests.store.engine_steps import count, if_match, refused
from tests.store_steps import at, mkcol, put, read, tree

NFC = "caf\u00e9"
NFD = "cafe\u0301"
IF_ABSENT = Guard(Preconditions(if_none_match=ANYTHING))


def test_put__creates_a_file(store: Store) -> None:
    before = time.time_ns()
    node, created = put(store, "/a.txt", b"hello")
    assert created
    assert node.name == "a.txt"
    assert node.node_type == NodeType.FILE
    assert node.size == 5
    assert node.digest == hashlib.sha256(b"hello").digest()
    assert before <= node.created_at == node.modified_at <= time.time_ns()
    assert store.node(at("/a.txt")) == node
    assert read(store, "/a.txt") == b"hello"


def test_put__replaces_content_and_keeps_the_node(store: Store) -> None:
    first = put(store, "/a", b"old").node
    second, created = put(store, "/a", b"new!")
    assert not created
    assert second.inode == first.inode
    assert second.created_at == first.created_at
    assert second.modified_at > first.modified_at
    assert second.etag != first.etag
    assert store.node(at("/a")) == second
    assert tree(store) == {"/a": b"new!"}


def test_put__of_the_same_bytes_keeps_etag_and_blob(store: Store) -> None:
    first = put(store, "/a", b"same").node
    second = put(store, "/a", b"same").node
    assert second.etag == first.etag
    assert second.blob_id == first.blob_id
    assert count(store, "blobs") == count(store, "chunks") == 1


def test_put__stores_equal_content_once(store: Store) -> None:
    first = put(store, "/a", b"same").node
    second = put(store, "/b", b"same").node
    assert first.blob_id == second.blob_id
    assert count(store, "blobs") == count(store, "chunks") == 1


def test_put__keeps_content_type_and_time_as_given(store: Store) -> None:
    for modified_at in (0, 1, 1_600_000_000_123_456_789):
        for path in ("/a", "/b"):  # replaced and created
            with store.upload() as upload:
                upload.write(b"x")
                node = upload.commit(at(path), content_type="text/html; charset=utf-8", modified_at=modified_at).node
            assert node.modified_at == modified_at
            assert node.content_type == "text/html; charset=utf-8"
            assert store.node(at(path)) == node
        store.delete(at("/b"))
    assert put(store, "/a", b"y").node.content_type is None


def test_put__touches_the_collection_for_a_new_member_only(store: Store) -> None:
    mkcol(store, "/c")
    store.set_modified_at(at("/c"), 1)
    put(store, "/c/a", b"1")
    assert store.node(at("/c")).modified_at > 1
    store.set_modified_at(at("/c"), 1)
    put(store, "/c/a", b"2")
    assert store.node(at("/c")).modified_at == 1


@pytest.mark.parametrize("path", ["/missing/a", "/file/a", "/file/a/b", "/c/missing/a"])
def test_put__without_a_collection_to_hold_it_is_refused(store: Store, path: str) -> None:
    put(store, "/file", b"x")
    mkcol(store, "/c")
    with refused(store, ParentMissing):
        put(store, path, b"new")
    with refused(store, ParentMissing):
        store.check_put(at(path), Guard())


@pytest.mark.parametrize("path", ["/", "/c"])
def test_put__onto_a_collection_is_refused(store: Store, path: str) -> None:
    mkcol(store, "/c")
    with refused(store, IsCollection):
        put(store, path, b"new")
    with refused(store, IsCollection):
        store.check_put(at(path), Guard())


def test_put__deeper_than_max_depth_is_refused(make_store: MakeStore) -> None:
    store = make_store(StoreOptions(max_depth=2))
    mkcol(store, "/a")
    mkcol(store, "/a/b")
    put(store, "/a/f", b"x")
    with refused(store, PathTooDeep):
        put(store, "/a/b/f", b"x")
    with refused(store, PathTooDeep):
        mkcol(store, "/a/b/c")


def test_put__failed_precondition_keeps_old_content(store: Store) -> None:
    put(store, "/a.txt", b"old")
    with refused(store, PreconditionFailed):
        put(store, "/a.txt", b"new", guard=IF_ABSENT)
    with refused(store, PreconditionFailed):
        put(store, "/b.txt", b"new", guard=Guard(Preconditions(if_match=ANYTHING)))
    assert read(store, "/a.txt") == b"old"


def test_put__with_the_etag_of_what_is_there_replaces_it_once(store: Store) -> None:
    etag = put(store, "/a", b"old").node.etag
    put(store, "/a", b"new", guard=if_match(etag))
    with refused(store, PreconditionFailed):
        put(store, "/a", b"newer", guard=if_match(etag))
    assert read(store, "/a") == b"new"


def test_check_put__passes_where_put_would(store: Store) -> None:
    store.check_put(at("/new"), IF_ABSENT)
    put(store, "/a", b"x")
    store.check_put(at("/a"), Guard())
    with refused(store, PreconditionFailed):
        store.check_put(at("/a"), IF_ABSENT)


def test_names__are_found_in_nfc_and_nfd(store: Store) -> None:
    put(store, f"/{NFD}", b"mac")
    assert read(store, f"/{NFC}") == read(store, f"/{NFD}") == b"mac"
    assert store.node(at(f"/{NFC}")).name == NFD  # as it was sent
    node, created = put(store, f"/{NFC}", b"linux")
    assert not created
    assert node.name == NFD  # a PUT is no rename
    assert tree(store) == {f"/{NFD}": b"linux"}
    with refused(store, AlreadyExists):
        mkcol(store, f"/{NFC}")


def test_names__differ_by_case(store: Store) -> None:
    put(store, "/a", b"1")
    put(store, "/A", b"2")
    assert tree(store) == {"/a": b"1", "/A": b"2"}


@pytest.mark.parametrize(
    "name", ["1", "01", "1e3", "null", "true", "'", '"', "\\", "%", "_", "a;b", "[0]", "$.a", "\U0001f4c4"]
)
def test_names__mean_nothing_to_sql_or_json(store: Store, name: str) -> None:
    path = DavPath([name])
    store.make_collection(path)
    with store.upload() as upload:
        upload.write(b"x")
        upload.commit(path.child(name))
    node = store.node(path.child(name))
    assert node.name == name
    assert node.size == 1
    with store.snapshot() as view:
        assert view.path_of(node.inode) == path.child(name)


def test_make_collection__makes_an_empty_one(store: Store) -> None:
    node = store.make_collection(at("/c"), modified_at=5)
    assert node.is_collection
    assert node.size == 0
    assert node.etag is None
    assert node.modified_at == 5
    assert store.node(at("/c")) == node
    assert tree(store) == {"/c": None}


@pytest.mark.parametrize("path", ["/", "/c", "/file"])
def test_make_collection__where_something_is_is_refused(store: Store, path: str) -> None:
    mkcol(store, "/c")
    put(store, "/file", b"x")
    with refused(store, AlreadyExists):
        mkcol(store, path)


@pytest.mark.parametrize("path", ["/missing/c", "/file/c"])
def test_make_collection__without_a_parent_is_refused(store: Store, path: str) -> None:
    put(store, "/file", b"x")
    with refused(store, ParentMissing):
        mkcol(store, path)


def test_make_collection__failed_precondition_makes_nothing(store: Store) -> None:
    with refused(store, PreconditionFailed):
        store.make_collection(at("/c"), Guard(Preconditions(if_match=ANYTHING)))


def test_empty_digest__is_that_of_no_bytes() -> None:
    assert hashlib.sha256(b"").digest() == EMPTY_DIGEST

"""copy and move: what goes where, what is shared, and what may not happen."""

from __future__ import annotations

import pytest

from davsql.errors import (
    ForbiddenTarget,
    NotFound,
    OverwriteRefused,
    ParentMissing,
    PathTooDeep,
    PreconditionFailed,
)
from davsql.maintenance.gc import collect_garbage
from davsql.model import DeadProperty, PropertyUpdate
from davsql.paths import DavPath
from davsql.store.blobs import CHUNK_BYTES
from davsql.store.options import StoreOptions
from davsql.store.store import Store
from tests.store.conftest import MakeStore
from tests.store.engine_steps import Rows, count, if_match, inode_of, refused, rows_of
from tests.store_steps import at, mkcol, put, read, tree

NFC = "caf\u00e9"
NFD = "cafe\u0301"
PROPERTY = PropertyUpdate("urn:x", "colour", '<colour xmlns="urn:x">red</colour>')


@pytest.fixture
def filled(store: Store) -> Store:
    """/c with a file, an inner collection and a file in it; /file; /old with a member; /empty."""
    for path in ("/c", "/c/d", "/old", "/empty"):
        mkcol(store, path)
    put(store, "/c/f", b"f")
    put(store, "/c/d/g", b"g")
    put(store, "/old/member", b"old member")
    put(store, "/file", b"file")
    return store


def properties_at(store: Store, path: str) -> list[DeadProperty]:
    with store.snapshot() as view:
        inode = store.node(at(path)).inode
        return view.dead_properties([inode]).get(inode, [])


# --- copy -----------------------------------------------------------------------------------------------------------


def test_copy__of_a_file_shares_its_content(filled: Store) -> None:
    before = count(filled, "chunks")
    assert filled.copy(at("/file"), at("/copy")) is True
    assert read(filled, "/copy") == b"file"
    assert filled.node(at("/copy")).blob_id == filled.node(at("/file")).blob_id
    assert filled.node(at("/copy")).etag == filled.node(at("/file")).etag
    assert inode_of(filled, "/copy") != inode_of(filled, "/file")
    assert count(filled, "chunks") == before


def test_copy__of_a_tree_moves_no_byte(filled: Store) -> None:
    put(filled, "/c/large", b"l" * (2 * CHUNK_BYTES + 1))
    before = rows_of(filled)
    assert filled.copy(at("/c"), at("/copy")) is True
    after = rows_of(filled)
    for table in ("chunks", "blob_chunks"):
        assert after[table] == before[table]
    assert len(after["blobs"]) == len(before["blobs"])
    contents = tree(filled)
    copied = {path: data for path, data in contents.items() if path.startswith("/copy/")}
    assert copied == {
        "/copy/d": None,
        "/copy/d/g": b"g",
        "/copy/f": b"f",
        "/copy/large": b"l" * (2 * CHUNK_BYTES + 1),
    }
    assert {path: contents["/c" + path.removeprefix("/copy")] for path in copied} == copied


def test_copy__is_apart_from_its_source(filled: Store) -> None:
    filled.copy(at("/c"), at("/copy"))
    put(filled, "/c/f", b"changed")
    filled.delete(at("/c/d"))
    assert read(filled, "/copy/f") == b"f"
    assert read(filled, "/copy/d/g") == b"g"


def test_copy__takes_dead_properties_content_type_and_times(filled: Store) -> None:
    for path in ("/c", "/c/d/g"):
        filled.set_properties(at(path), [PROPERTY])
    filled.set_modified_at(at("/c/d/g"), 7)
    filled.copy(at("/c"), at("/copy"))
    for path in ("/copy", "/copy/d/g"):
        assert [each.xml for each in properties_at(filled, path)] == [PROPERTY.xml]
    assert properties_at(filled, "/copy/d") == []
    assert filled.node(at("/copy/d/g")).modified_at == 7
    assert filled.node(at("/copy/d/g")).created_at > filled.node(at("/c/d/g")).created_at


def test_copy__with_depth_0_takes_no_member(filled: Store) -> None:
    filled.set_properties(at("/c"), [PROPERTY])
    assert filled.copy(at("/c"), at("/copy"), depth_infinity=False) is True
    assert [path for path in tree(filled) if path.startswith("/copy")] == ["/copy"]
    assert len(properties_at(filled, "/copy")) == 1


def test_copy__with_depth_0_over_a_collection_leaves_no_old_member(filled: Store) -> None:
    assert filled.copy(at("/c"), at("/old"), depth_infinity=False) is False
    assert [path for path in tree(filled) if path.startswith("/old")] == ["/old"]


def test_copy__over_a_collection_replaces_it_whole(filled: Store) -> None:
    old = inode_of(filled, "/old")
    filled.set_properties(at("/old"), [PROPERTY])
    assert filled.copy(at("/c"), at("/old")) is False
    assert sorted(path for path in tree(filled) if path.startswith("/old")) == [
        "/old",
        "/old/d",
        "/old/d/g",
        "/old/f",
    ]
    assert properties_at(filled, "/old") == []
    assert inode_of(filled, "/old") != old


@pytest.mark.parametrize(("source", "destination"), [("/c", "/file"), ("/file", "/old"), ("/file", "/c/f")])
def test_copy__replaces_whatever_is_there(filled: Store, source: str, destination: str) -> None:
    source_tree = {path.removeprefix(source): data for path, data in tree(filled).items() if path.startswith(source)}
    assert filled.copy(at(source), at(destination)) is False
    contents = tree(filled)
    assert {
        p.removeprefix(destination): data for p, data in contents.items() if p.startswith(destination)
    } == source_tree


def test_copy__twice_in_a_row_plans_anew(filled: Store) -> None:
    filled.copy(at("/c"), at("/one"))
    filled.copy(at("/c"), at("/two"))
    filled.copy(at("/one"), at("/two/three"))
    assert read(filled, "/two/three/d/g") == b"g"


def test_copy__after_a_copy_that_failed_plans_anew(make_store: MakeStore) -> None:
    store = make_store(StoreOptions(max_depth=3))
    for path in ("/c", "/c/d", "/x", "/x/y"):
        mkcol(store, path)
    put(store, "/c/d/f", b"x")
    for destination in ("/x/c", "/x/y/c", "/x/y/c/deeper"):  # the file would be the fourth, or more
        with refused(store, PathTooDeep):
            store.copy(at("/c"), at(destination))
    store.copy(at("/c"), at("/y"))
    store.copy(at("/c"), at("/x/y/c"), depth_infinity=False)
    assert set(tree(store)) == {"/c", "/c/d", "/c/d/f", "/x", "/x/y", "/x/y/c", "/y", "/y/d", "/y/d/f"}


def test_copy__of_a_wide_and_deep_tree(store: Store) -> None:
    path = ""
    for depth in range(20):
        path += f"/{depth}"
        mkcol(store, path)
        for name in range(5):
            put(store, f"{path}/f{name}", b"%d" % name)
    store.copy(at("/0"), at("/copy"))
    contents = tree(store)
    assert {"/0" + path.removeprefix("/copy"): data for path, data in contents.items() if path.startswith("/copy")} == {
        path: data for path, data in contents.items() if path.startswith("/0")
    }


# --- move -----------------------------------------------------------------------------------------------------------


def changed_rows(before: Rows, after: Rows, table: str) -> int:
    return len(set(after[table]) - set(before[table]))


def test_move__of_a_tree_changes_one_row_and_the_times_of_two(filled: Store) -> None:
    before = rows_of(filled)
    assert filled.move(at("/c"), at("/empty/moved")) is True
    after = rows_of(filled)
    assert changed_rows(before, after, "nodes") == 3
    assert {table: after[table] for table in after if table != "nodes"} == {
        table: before[table] for table in before if table != "nodes"
    }
    assert read(filled, "/empty/moved/d/g") == b"g"
    with refused(filled, NotFound):
        filled.node(at("/c"))


def test_move__keeps_inode_properties_and_times(filled: Store) -> None:
    filled.set_properties(at("/file"), [PROPERTY])
    before = filled.node(at("/file"))
    filled.move(at("/file"), at("/c/renamed"))
    after = filled.node(at("/c/renamed"))
    assert after == before._replace(name="renamed", parent_inode=after.parent_inode)
    assert len(properties_at(filled, "/c/renamed")) == 1


def test_move__over_something_replaces_it_whole(filled: Store) -> None:
    assert filled.move(at("/c"), at("/old")) is False
    assert set(tree(filled)) == {"/old", "/old/d", "/old/d/g", "/old/f", "/file", "/empty"}


def test_move__touches_both_collections(filled: Store) -> None:
    for path in ("/c", "/old"):
        filled.set_modified_at(at(path), 1)
    filled.move(at("/c/f"), at("/old/f"))
    assert filled.node(at("/c")).modified_at > 1
    assert filled.node(at("/old")).modified_at > 1


@pytest.mark.parametrize(("sent_first", "sent_then"), [(NFC, NFD), (NFD, NFC)])
def test_move__renames_between_unicode_forms_of_one_name(store: Store, sent_first: str, sent_then: str) -> None:
    put(store, f"/{sent_first}", b"x")
    inode = inode_of(store, f"/{sent_first}")
    assert store.move(DavPath([sent_first]), DavPath([sent_then])) is False
    node = store.node(DavPath([NFC]))
    assert (node.name, node.inode) == (sent_then, inode)
    assert tree(store) == {f"/{sent_then}": b"x"}


def test_move__of_a_tree_into_another_unicode_form_keeps_its_members(store: Store) -> None:
    mkcol(store, f"/{NFC}")
    put(store, f"/{NFC}/{NFD}", b"x")
    store.move(DavPath([NFC]), DavPath([NFD]))
    assert tree(store) == {f"/{NFD}": None, f"/{NFD}/{NFD}": b"x"}


@pytest.mark.parametrize("name", ["a", NFC, NFD])
def test_move__onto_the_very_same_path_is_forbidden(store: Store, name: str) -> None:
    put(store, f"/{name}", b"x")
    with refused(store, ForbiddenTarget):
        store.move(DavPath([name]), DavPath([name]))


def test_move__of_a_deep_tree_to_a_deeper_place_is_measured(make_store: MakeStore) -> None:
    store = make_store(StoreOptions(max_depth=4))
    for path in ("/a", "/a/b", "/x", "/x/y"):
        mkcol(store, path)
    put(store, "/a/b/f", b"x")
    with refused(store, PathTooDeep):
        store.move(at("/a"), at("/x/y/a"))  # the file would be the fifth
    store.move(at("/a"), at("/x/a"))
    assert read(store, "/x/a/b/f") == b"x"
    store.move(at("/x/a"), at("/y"))
    assert read(store, "/y/b/f") == b"x"


# --- both -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", [Store.copy, Store.move])
class TestBoth:
    @pytest.mark.parametrize("source", ["/missing", "/file/x", "/missing/x"])
    def test_both__of_nothing_is_not_found(self, filled: Store, action: type, source: str) -> None:
        with refused(filled, NotFound):
            action(filled, at(source), at("/new"))

    @pytest.mark.parametrize(
        ("source", "destination"),
        [
            ("/c", "/c"),
            ("/file", "/file"),
            ("/c", "/c/d"),
            ("/c", "/c/new"),
            ("/c", "/c/d/new/x"),
            ("/c/d", "/c"),
            ("/c/d/g", "/c"),
            ("/c", "/"),
            ("/file", "/"),
            ("/", "/"),
            ("/", "/new"),
            ("/", "/c"),
        ],
    )
    def test_both__onto_ancestor_descendant_or_itself_is_forbidden(
        self, filled: Store, action: type, source: str, destination: str
    ) -> None:
        with refused(filled, ForbiddenTarget):
            action(filled, at(source), at(destination))

    def test_both__into_itself_in_another_unicode_form_is_forbidden(self, store: Store, action: type) -> None:
        mkcol(store, f"/{NFC}")
        with refused(store, ForbiddenTarget):
            action(store, DavPath([NFC]), DavPath([NFD, "x"]))

    @pytest.mark.parametrize("destination", ["/missing/x", "/file/x", "/c/f/x"])
    def test_both__without_a_parent_is_refused(self, filled: Store, action: type, destination: str) -> None:
        with refused(filled, ParentMissing):
            action(filled, at("/old"), at(destination))

    @pytest.mark.parametrize("destination", ["/old", "/c/f", "/empty"])
    def test_both__with_overwrite_f_is_refused_where_something_is(
        self, filled: Store, action: type, destination: str
    ) -> None:
        with refused(filled, OverwriteRefused):
            action(filled, at("/file"), at(destination), overwrite=False)
        assert action(filled, at("/file"), at("/new"), overwrite=False) is True

    def test_both__with_a_failed_precondition_changes_nothing(self, filled: Store, action: type) -> None:
        with refused(filled, PreconditionFailed):
            action(filled, at("/file"), at("/old"), guard=if_match('"other"'))
        action(filled, at("/file"), at("/old"), guard=if_match(filled.node(at("/file")).etag))
        assert read(filled, "/old") == b"file"

    def test_both__next_to_a_name_with_the_same_prefix(self, filled: Store, action: type) -> None:
        action(filled, at("/c"), at("/cc"))
        action(filled, at("/cc"), at("/c/cc") if action is Store.copy else at("/c"))
        assert read(filled, "/c/d/g") == b"g"

    def test_both__keep_the_name_as_the_destination_has_it(self, filled: Store, action: type) -> None:
        action(filled, at("/file"), DavPath([NFD]))
        assert filled.node(DavPath([NFC])).name == NFD
        action(filled, DavPath([NFD]), at("/plain"))
        assert filled.node(at("/plain")).name == "plain"

    def test_both__leave_nothing_for_gc_but_what_was_replaced(self, filled: Store, action: type) -> None:
        action(filled, at("/c"), at("/old"))
        expected = tree(filled)
        collect_garbage(filled, grace_s=0, upload_expiry_s=0)
        assert tree(filled) == expected
        assert filled.stats().detached_nodes == 0

"""Dead properties: kept as they came, all steps or none, within bounds."""

from __future__ import annotations

from davsql.errors import Locked, NotFound, PreconditionFailed, TooManyProperties
from davsql.model import DeadProperty, PropertyUpdate
from davsql.store.options import StoreOptions
from davsql.store.store import Store
from tests.store.conftest import MakeStore
from tests.store.engine_steps import if_match, inode_of, lock, refused
from tests.store_steps import at, mkcol, put


def update(name: str, xml: str | None, namespace: str = "urn:x") -> PropertyUpdate:
    return PropertyUpdate(namespace, name, xml)


def stored(store: Store, path: str) -> list[DeadProperty]:
    with store.snapshot() as view:
        inode = store.node(at(path)).inode
        return view.dead_properties([inode]).get(inode, [])


def test_set_properties__keeps_them_as_they_came(store: Store) -> None:
    put(store, "/f")
    xml = '<x:a xmlns:x="urn:x" xml:lang="de">ä &amp; <b/>\n</x:a>'
    store.set_properties(at("/f"), [update("a", xml), update("a", "<a/>", ""), update("a", "<a/>", "urn:y")])
    assert stored(store, "/f") == [
        DeadProperty("", "a", "<a/>"),
        DeadProperty("urn:x", "a", xml),
        DeadProperty("urn:y", "a", "<a/>"),
    ]


def test_set_properties__applies_steps_in_their_order(store: Store) -> None:
    put(store, "/f")
    store.set_properties(at("/f"), [update("a", "1"), update("a", None), update("b", "1"), update("b", "2")])
    assert stored(store, "/f") == [DeadProperty("urn:x", "b", "2")]
    store.set_properties(at("/f"), [update("b", None), update("b", "3"), update("nothing", None)])
    assert stored(store, "/f") == [DeadProperty("urn:x", "b", "3")]


def test_set_properties__on_collections_and_the_root(store: Store) -> None:
    mkcol(store, "/c")
    for path in ("/c", "/"):
        store.set_properties(at(path), [update("a", path)])
        assert stored(store, path) == [DeadProperty("urn:x", "a", path)]


def test_set_properties__leaves_times_and_content(store: Store) -> None:
    before = put(store, "/f", b"x").node
    store.set_properties(at("/f"), [update("a", "1")])
    assert store.node(at("/f")) == before


def test_dead_properties__of_several_nodes_at_once(store: Store) -> None:
    for path in ("/a", "/b", "/c"):
        put(store, path)
    store.set_properties(at("/a"), [update("p", "a")])
    store.set_properties(at("/c"), [update("p", "c")])
    inodes = [store.node(at(path)).inode for path in ("/a", "/b", "/c")]
    with store.snapshot() as view:
        assert view.dead_properties(inodes) == {
            inodes[0]: [DeadProperty("urn:x", "p", "a")],
            inodes[2]: [DeadProperty("urn:x", "p", "c")],
        }
        assert view.dead_properties([]) == {}


def test_set_properties__of_nothing_is_not_found(store: Store) -> None:
    with refused(store, NotFound):
        store.set_properties(at("/missing"), [update("a", "1")])


def test_set_properties__failed_condition_or_lock_changes_nothing(store: Store) -> None:
    put(store, "/f", b"x")
    with refused(store, PreconditionFailed):
        store.set_properties(at("/f"), [update("a", "1")], if_match('"other"'))
    lock(store, "/f")
    with refused(store, Locked):
        store.set_properties(at("/f"), [update("a", "1")])


def test_set_properties__beyond_the_number_changes_nothing(make_store: MakeStore) -> None:
    store = make_store(StoreOptions(max_properties=3))
    put(store, "/f")
    store.set_properties(at("/f"), [update(name, "1") for name in "abc"])
    with refused(store, TooManyProperties):
        store.set_properties(at("/f"), [update("a", "2"), update("d", "1")])
    store.set_properties(at("/f"), [update("d", "1"), update("a", None)])  # as many as before
    assert [each.name for each in stored(store, "/f")] == ["b", "c", "d"]


def test_set_properties__beyond_the_size_changes_nothing(make_store: MakeStore) -> None:
    store = make_store(StoreOptions(max_property_bytes=4))
    put(store, "/f")
    store.set_properties(at("/f"), [update("a", "éé")])
    with refused(store, TooManyProperties):
        store.set_properties(at("/f"), [update("b", "1"), update("c", "ééx")])


def test_properties__go_with_their_node(store: Store) -> None:
    put(store, "/f")
    store.set_properties(at("/f"), [update("a", "1")])
    inode = inode_of(store, "/f")
    store.move(at("/f"), at("/g"))
    assert inode_of(store, "/g") == inode
    assert stored(store, "/g") == [DeadProperty("urn:x", "a", "1")]
    store.delete(at("/g"))
    put(store, "/g")
    assert stored(store, "/g") == []

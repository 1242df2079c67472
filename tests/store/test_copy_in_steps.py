"""Copies of large trees: many commands, and still all of it or nothing, whatever happens between them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from davsql.errors import (
    DavsqlError,
    Locked,
    NotFound,
    OverwriteRefused,
    ParentMissing,
    PathTooDeep,
    StoreBusy,
    StoreUnavailable,
)
from davsql.maintenance.gc import collect_garbage
from davsql.model import PropertyUpdate
from davsql.store import pins, trees
from davsql.store.check import check
from davsql.store.options import StoreOptions
from davsql.store.store import Store
from tests.store.conftest import MakeStore
from tests.store.engine_steps import count, lock
from tests.store_steps import at, mkcol, put, read, tree

PROPERTY = PropertyUpdate("urn:x", "colour", "<colour/>")


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "STEP_NODES", 3)
    monkeypatch.setattr(trees, "AT_ONCE_NODES", 5)


@pytest.fixture
def filled(store: Store) -> Store:
    """/src with 4 collections of 4 files and one of 2 levels; /old with a member."""
    mkcol(store, "/src")
    for name in "abcd":
        mkcol(store, f"/src/{name}")
        for number in range(4):
            put(store, f"/src/{name}/f{number}", f"{name}{number}".encode())
            store.set_properties(at(f"/src/{name}/f{number}"), [PROPERTY._replace(xml=f"<{name}{number}/>")])
    mkcol(store, "/src/d/deeper")
    put(store, "/src/d/deeper/f", b"deep")
    put(store, "/src/z", b"last")
    mkcol(store, "/old")
    put(store, "/old/member", b"old")
    return store


def part(store: Store, top: str) -> dict[str, bytes | None]:
    """What lies below a path."""
    return {path.removeprefix(top): data for path, data in tree(store).items() if path.startswith(top + "/")}


def sweep(store: Store) -> None:
    collect_garbage(store, grace_s=0, upload_expiry_s=0)


def before_each_write(store: Store, monkeypatch: pytest.MonkeyPatch, act: Callable[[int], None]) -> None:
    """Let `act` see the number of each write of `store`, from 0, before it happens; its own writes do not count."""
    write = store.write
    number = 0
    is_inside = False

    def counted(command: Callable[..., object], **how: bool) -> object:
        nonlocal number, is_inside
        if not is_inside:
            is_inside = True
            try:
                act(number)
                number += 1
            finally:
                is_inside = False
        return write(command, **how)

    monkeypatch.setattr(store, "write", counted)


def test_copy__in_steps_copies_everything(filled: Store) -> None:
    assert filled.copy(at("/src"), at("/copy")) is True
    assert part(filled, "/copy") == part(filled, "/src")
    with filled.snapshot() as view:
        for name in "abcd":
            for number in range(4):
                node = view.node(at(f"/copy/{name}/f{number}"))
                assert node is not None
                assert [each.xml for each in view.dead_properties([node.inode])[node.inode]] == [f"<{name}{number}/>"]
    assert count(filled, "pins") == 0


def test_copy__in_steps_over_something_replaces_it_at_once(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = 0

    def look(_number: int) -> None:
        nonlocal seen
        seen += 1
        assert part(filled, "/old") == {"/member": b"old"}
        assert check(filled) == []

    before_each_write(filled, monkeypatch, look)
    assert filled.copy(at("/src"), at("/old")) is False
    assert seen > 8
    assert part(filled, "/old") == part(filled, "/src")


def test_copy__in_steps_is_safe_from_gc(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = part(filled, "/src")
    before_each_write(filled, monkeypatch, lambda _number: sweep(filled))
    filled.copy(at("/src"), at("/copy"))
    assert part(filled, "/copy") == expected
    collect_garbage(filled, grace_s=0, upload_expiry_s=0)
    assert part(filled, "/copy") == expected


def test_copy__in_steps_keeps_content_whose_source_is_deleted_meanwhile(
    filled: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act(number: int) -> None:
        if number == 6:
            filled.delete(at("/src/a"))
        sweep(filled)

    before_each_write(filled, monkeypatch, act)
    filled.copy(at("/src"), at("/copy"))
    copied = part(filled, "/copy")
    assert {data for path, data in copied.items() if path.startswith("/d")} >= {b"d0", b"d3", b"deep"}
    assert check(filled, deep=True) == []


def replace_source(store: Store) -> None:
    store.delete(at("/src"))
    mkcol(store, "/src")


INTERFERENCES: dict[str, tuple[type[DavsqlError], Callable[[Store], object]]] = {
    "source deleted": (NotFound, lambda store: store.delete(at("/src"))),
    "source moved": (NotFound, lambda store: store.move(at("/src"), at("/moved"))),
    "source replaced": (StoreBusy, replace_source),
    "destination made": (OverwriteRefused, lambda store: put(store, "/place/copy", b"mine")),
    "destination's parent deleted": (ParentMissing, lambda store: store.delete(at("/place"))),
    "destination locked": (Locked, lambda store: lock(store, "/place")),
    "pin ended": (StoreUnavailable, lambda store: store.write(lambda tx: pins.end_stale_pins(tx, tx.now, 10))),
}


@pytest.mark.parametrize("interference", INTERFERENCES)
@pytest.mark.parametrize("when", [1, 4])
def test_copy__in_steps_that_cannot_end_leaves_nothing(
    filled: Store, monkeypatch: pytest.MonkeyPatch, interference: str, when: int
) -> None:
    mkcol(filled, "/place")
    error, interfere = INTERFERENCES[interference]
    expected: dict[str, bytes | None] = {}

    def act(number: int) -> None:
        if number == when:
            interfere(filled)
            expected.update(tree(filled))
        collect_garbage(filled, grace_s=0, upload_expiry_s=0)

    with monkeypatch.context() as patch:
        before_each_write(filled, patch, act)
        with pytest.raises(DavsqlError) as raised:
            filled.copy(at("/src"), at("/place/copy"), overwrite=False)
    assert type(raised.value) is error, repr(raised.value)
    assert tree(filled) == expected
    assert count(filled, "pins") == 0
    collect_garbage(filled, grace_s=0, upload_expiry_s=0)
    assert count(filled, "nodes") == len(expected) + 1
    assert check(filled, deep=True) == []


def test_copy__in_steps_that_becomes_too_deep_leaves_nothing(make_store: MakeStore) -> None:
    store = make_store(StoreOptions(max_depth=4))
    for path in ("/a", "/a/b", "/a/b/c", "/x"):
        mkcol(store, path)
    for number in range(8):
        put(store, f"/a/f{number}", b"x")
    put(store, "/a/b/c/f", b"x")
    expected = tree(store)
    with pytest.raises(PathTooDeep):
        store.copy(at("/a"), at("/x/a"))
    assert tree(store) == expected
    assert count(store, "pins") == 0
    collect_garbage(store, grace_s=0, upload_expiry_s=0)
    assert count(store, "nodes") == len(expected) + 1


def test_copy__in_steps_whose_process_died_is_removed_when_its_pin_is_stale(
    filled: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def act(number: int) -> None:
        if number >= 4:  # nor does the command that lets go of the pin get through
            raise Killed

    with monkeypatch.context() as patch:
        before_each_write(filled, patch, act)
        with pytest.raises(Killed):
            filled.copy(at("/src"), at("/copy"))
    expected = tree(filled)
    assert "/copy" not in expected
    assert count(filled, "pins") == 1
    assert check(filled, deep=True) == []
    collect_garbage(filled, grace_s=0, upload_expiry_s=0)
    assert count(filled, "nodes") > len(expected) + 1
    filled.write(lambda tx: pins.end_stale_pins(tx, tx.now, 10))
    collect_garbage(filled, grace_s=0, upload_expiry_s=0)
    assert count(filled, "nodes") == len(expected) + 1


def test_copy__of_a_wide_collection_is_complete(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "STEP_NODES", 7)
    mkcol(store, "/src")
    for number in range(50):
        put(store, f"/src/{number}", b"%d" % number)
    store.copy(at("/src"), at("/copy"))
    assert part(store, "/copy") == part(store, "/src")
    assert read(store, "/copy/49") == b"49"


def test_copy__in_steps_into_a_sibling_of_a_similar_name(filled: Store) -> None:
    filled.copy(at("/src"), at("/src2"))
    filled.copy(at("/src"), at("/src2/inner"))
    assert part(filled, "/src2/inner") == part(filled, "/src")

"""Locks: what they cover, what they protect, who may end them, and when they end by themselves."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from davsql.errors import (
    LockConflict,
    Locked,
    LockNotOwned,
    LockTokenMismatch,
    NotFound,
    ParentMissing,
    PathTooDeep,
    PreconditionFailed,
    TooManyLocks,
)
from davsql.model import Guard, LockRequest, LockScope, PropertyUpdate
from davsql.paths import DavPath
from davsql.store.check import check
from davsql.store.options import StoreOptions
from davsql.store.store import Store
from tests.store.conftest import MakeStore
from tests.store.engine_steps import (
    LOCK_TIMEOUT_S,
    Clock,
    count,
    has_token,
    inode_of,
    lock,
    locks_at,
    refused,
    submitting,
    when,
)
from tests.store_steps import at, mkcol, put, read, tree

EXCLUSIVE, SHARED = LockScope.EXCLUSIVE, LockScope.SHARED
SET_COLOUR = [PropertyUpdate("urn:x", "colour", "<colour/>")]


@pytest.fixture
def filled(store: Store) -> Store:
    """/c/d/f and /other."""
    mkcol(store, "/c")
    mkcol(store, "/c/d")
    mkcol(store, "/other")
    put(store, "/c/d/f", b"old")
    return store


# --- making ---------------------------------------------------------------------------------------------------------


def test_lock__gives_what_was_asked_for(filled: Store, clock: Clock) -> None:
    request = LockRequest(EXCLUSIVE, is_depth_infinity=True, owner_xml="<owner>me</owner>", timeout_s=60)
    made, _, created = filled.lock(at("/c"), request, Guard(principal="ann"))
    assert not created
    assert made.token.startswith("urn:uuid:")
    assert made.inode == inode_of(filled, "/c")
    assert str(made.root) == "/c"
    assert (made.scope, made.is_depth_infinity, made.owner_xml) == (EXCLUSIVE, True, "<owner>me</owner>")
    assert (made.principal, made.timeout_s, made.expires_at) == ("ann", 60, clock.now_ns + 60_000_000_000)
    with filled.snapshot() as view:
        assert view.locks_covering(at("/c/d/f")) == [made]
        assert view.locks_on([made.inode]) == {made.inode: [made]}


def test_lock__of_an_unmapped_url_makes_an_empty_file(filled: Store) -> None:
    made, _, created = filled.lock(
        at("/c/new"), LockRequest(EXCLUSIVE, is_depth_infinity=False, owner_xml=None, timeout_s=60)
    )
    assert created
    assert read(filled, "/c/new") == b""
    assert made.inode == inode_of(filled, "/c/new")
    with refused(filled, Locked):
        put(filled, "/c/new", b"x")
    put(filled, "/c/new", b"x", guard=submitting(made.token))


@pytest.mark.parametrize("path", ["/missing/x", "/c/d/f/x"])
def test_lock__of_an_unmapped_url_without_a_collection_is_refused(filled: Store, path: str) -> None:
    with refused(filled, ParentMissing):
        lock(filled, path)


def test_lock__of_an_unmapped_url_too_deep_is_refused(make_store: MakeStore) -> None:
    store = make_store(StoreOptions(max_depth=1))
    mkcol(store, "/a")
    with refused(store, PathTooDeep):
        lock(store, "/a/b")


def test_lock__of_an_unmapped_url_in_a_locked_collection_makes_no_file(filled: Store) -> None:
    token = lock(filled, "/c/d").token
    with refused(filled, Locked):
        lock(filled, "/c/d/new")
    lock(filled, "/c/d/new", guard=submitting(token))


def test_lock__with_a_failed_condition_is_refused(filled: Store) -> None:
    with refused(filled, PreconditionFailed):
        lock(filled, "/c/d/f", guard=when(has_token("urn:uuid:none")))


def test_lock__with_a_timeout_of_no_seconds_is_over_at_once(filled: Store, clock: Clock) -> None:
    assert lock(filled, "/c/d/f", timeout_s=0).expires_at == clock.now_ns
    put(filled, "/c/d/f", b"x")


@pytest.mark.parametrize(
    ("held", "asked", "conflict"),
    [
        (EXCLUSIVE, EXCLUSIVE, True),
        (EXCLUSIVE, SHARED, True),
        (SHARED, EXCLUSIVE, True),
        (SHARED, SHARED, False),
    ],
)
class TestConflicts:
    """RFC 4918 6.2: on the same resource, from above by depth infinity, from below for depth infinity."""

    @pytest.mark.parametrize("path", ["/c/d/f", "/c", "/"])
    def test_lock__on_the_same_resource(
        self, filled: Store, held: LockScope, asked: LockScope, conflict: bool, path: str
    ) -> None:
        lock(filled, path, held, guard=Guard(principal="ann"))
        _expect(filled, path, conflict, lambda: lock(filled, path, asked, guard=Guard(principal="bob")))

    @pytest.mark.parametrize("root", ["/", "/c", "/c/d"])
    @pytest.mark.parametrize("infinity", [True, False])
    def test_lock__below_a_depth_infinity_one(
        self, filled: Store, held: LockScope, asked: LockScope, conflict: bool, root: str, infinity: bool
    ) -> None:
        lock(filled, root, held, infinity=True)
        _expect(filled, root, conflict, lambda: lock(filled, "/c/d/f", asked, infinity=infinity))

    def test_lock__of_an_unmapped_url_below_a_depth_infinity_one(
        self, filled: Store, held: LockScope, asked: LockScope, conflict: bool
    ) -> None:
        token = lock(filled, "/c", held, infinity=True).token
        _expect(filled, "/c", conflict, lambda: lock(filled, "/c/new", asked, guard=submitting(token)))

    def test_lock__with_depth_infinity_above_another(
        self, filled: Store, held: LockScope, asked: LockScope, conflict: bool
    ) -> None:
        lock(filled, "/c/d/f", held)
        _expect(filled, "/c/d/f", conflict, lambda: lock(filled, "/c", asked, infinity=True))


def _expect(store: Store, rival: str, conflict: bool, action: Callable[[], object]) -> None:
    if not conflict:
        action()
        return
    with refused(store, LockConflict) as raised:
        action()
    assert isinstance(raised.value, LockConflict)
    assert [lock.root for lock in raised.value.locks] == [at(rival)]


@pytest.mark.parametrize("held", LockScope)
@pytest.mark.parametrize("asked", LockScope)
def test_lock__with_depth_0_beside_others(filled: Store, held: LockScope, asked: LockScope) -> None:
    lock(filled, "/c", held)
    lock(filled, "/c/d/f", asked)
    lock(filled, "/c/d", asked)
    lock(filled, "/other", asked, infinity=True)


def test_lock__does_not_conflict_for_its_own_holder_only_if_shared(filled: Store) -> None:
    token = lock(filled, "/c").token
    with refused(filled, LockConflict):
        lock(filled, "/c", guard=submitting(token))


def test_lock__beyond_the_limit_of_a_principal_is_refused(make_store: MakeStore, clock: Clock) -> None:
    store = make_store(StoreOptions(max_locks=2))
    for name in "abcd":
        put(store, f"/{name}")
    ann = Guard(principal="ann")
    lock(store, "/a", guard=ann)
    lock(store, "/b", guard=ann, timeout_s=5)
    with refused(store, TooManyLocks):
        lock(store, "/c", guard=ann)
    with refused(store, TooManyLocks):
        lock(store, "/unmapped", guard=ann)
    lock(store, "/c", guard=Guard(principal="bob"))
    clock.advance(5)
    lock(store, "/d", guard=ann)


# --- protecting -----------------------------------------------------------------------------------------------------

CHANGES: dict[str, Callable[[Store, Guard], object]] = {
    "put": lambda store, guard: put(store, "/c/d/f", b"new", guard=guard),
    "proppatch": lambda store, guard: store.set_properties(at("/c/d/f"), SET_COLOUR, guard),
    "delete": lambda store, guard: store.delete(at("/c/d/f"), guard),
    "move away": lambda store, guard: store.move(at("/c/d/f"), at("/moved"), guard=guard),
    "copy over": lambda store, guard: store.copy(at("/other"), at("/c/d/f"), guard=guard),
    "move over": lambda store, guard: store.move(at("/other"), at("/c/d/f"), guard=guard),
    "put a member": lambda store, guard: put(store, "/c/d/new", b"new", guard=guard),
    "make a member": lambda store, guard: store.make_collection(at("/c/d/new"), guard),
    "copy in": lambda store, guard: store.copy(at("/other"), at("/c/d/new"), guard=guard),
    "move in": lambda store, guard: store.move(at("/other"), at("/c/d/new"), guard=guard),
    "delete the collection": lambda store, guard: store.delete(at("/c/d"), guard),
    "delete the grandparent": lambda store, guard: store.delete(at("/c"), guard),
    "move the collection": lambda store, guard: store.move(at("/c/d"), at("/moved"), guard=guard),
    "move the grandparent": lambda store, guard: store.move(at("/c"), at("/moved"), guard=guard),
    "copy over the collection": lambda store, guard: store.copy(at("/other"), at("/c/d"), guard=guard),
    "proppatch the collection": lambda store, guard: store.set_properties(at("/c/d"), SET_COLOUR, guard),
}
MEMBERSHIP = {
    "delete",
    "move away",
    "copy over",
    "move over",
    "put a member",
    "make a member",
    "copy in",
    "move in",
}
WHOLE_TREE = {
    "delete the collection",
    "delete the grandparent",
    "move the collection",
    "move the grandparent",
    "copy over the collection",
}
CONTENT = {"put", "proppatch", "delete", "move away", "copy over", "move over"}


@pytest.mark.parametrize("scope", [EXCLUSIVE, SHARED])
@pytest.mark.parametrize(
    ("root", "infinity", "protected"),
    [
        ("/c/d/f", False, CONTENT | WHOLE_TREE),
        ("/c/d", False, MEMBERSHIP | WHOLE_TREE | {"proppatch the collection"}),
        ("/c/d", True, set(CHANGES)),
        ("/c", True, set(CHANGES)),
        ("/", True, set(CHANGES)),
        (
            "/c",
            False,
            {
                "delete the collection",
                "move the collection",
                "copy over the collection",
                "delete the grandparent",
                "move the grandparent",
            },
        ),
        ("/", False, {"delete the grandparent", "move the grandparent", "move away", "move over", "move in"}),
    ],
)
@pytest.mark.parametrize("change", CHANGES)
def test_lock__protects(
    filled: Store, scope: LockScope, root: str, infinity: bool, protected: set[str], change: str
) -> None:
    token = lock(filled, root, scope, infinity=infinity, guard=Guard(principal="ann")).token
    act = CHANGES[change]
    if root == "/" and not infinity:  # "/moved" and "/other" are its members
        protected = protected | {"move the collection"}
    if change not in protected:
        act(filled, Guard(principal="bob"))
        return
    strangers = (
        Guard(principal="ann"),  # RFC 4918 6.4: the owner alone is not enough
        Guard(principal="bob"),
        submitting(token, principal="bob"),  # nor the token alone
        submitting("urn:uuid:00000000-0000-0000-0000-000000000000", principal="ann"),
    )
    for guard in strangers:
        with refused(filled, Locked) as raised:
            act(filled, guard)
        assert isinstance(raised.value, Locked)
        assert [lock.root for lock in raised.value.locks] == [at(root)]
    act(filled, submitting(token, principal="ann"))


def test_lock__lets_others_read_and_copy_away(filled: Store) -> None:
    lock(filled, "/c", infinity=True, guard=Guard(principal="ann"))
    assert read(filled, "/c/d/f") == b"old"
    filled.copy(at("/c"), at("/copy"))
    assert locks_at(filled, "/copy/d/f") == []  # RFC 4918 7.6: a lock is not copied
    put(filled, "/copy/d/f", b"new")


def test_lock__is_lost_by_move_and_not_taken_along(filled: Store) -> None:
    token = lock(filled, "/c/d/f").token
    filled.move(at("/c"), at("/moved"), guard=submitting(token))
    assert locks_at(filled, "/moved/d/f") == []
    assert count(filled, "locks") == 0
    put(filled, "/moved/d/f", b"new")


def test_lock__covers_what_is_moved_or_copied_in(filled: Store) -> None:
    token = lock(filled, "/other", infinity=True).token
    filled.move(at("/c/d"), at("/other/d"), guard=submitting(token))
    filled.copy(at("/other/d"), at("/other/copy"), guard=submitting(token))
    for path in ("/other/d/f", "/other/copy/f"):
        assert locks_at(filled, path) == [token]
        with refused(filled, Locked):
            put(filled, path, b"new")


def test_lock__ends_with_its_resource(filled: Store) -> None:
    token = lock(filled, "/c/d/f").token
    filled.delete(at("/c/d"), submitting(token))
    assert count(filled, "locks") == 0
    mkcol(filled, "/c/d")
    put(filled, "/c/d/f", b"new")


def test_lock__of_two_members_wants_both_tokens_to_delete_their_collection(filled: Store) -> None:
    put(filled, "/c/d/g")
    first, second = lock(filled, "/c/d/f").token, lock(filled, "/c/d/g").token
    with refused(filled, Locked) as raised:
        filled.delete(at("/c"), submitting(first))
    assert isinstance(raised.value, Locked)
    assert [lock.root for lock in raised.value.locks] == [at("/c/d/g")]
    with refused(filled, Locked) as raised:
        filled.delete(at("/c"))
    assert isinstance(raised.value, Locked)
    assert {lock.root for lock in raised.value.locks} == {at("/c/d/f"), at("/c/d/g")}
    filled.delete(at("/c"), submitting(first, second))


def test_lock__shared_by_two_is_satisfied_by_one_of_them(filled: Store) -> None:
    ann = lock(filled, "/c/d/f", SHARED, guard=Guard(principal="ann")).token
    bob = lock(filled, "/c/d/f", SHARED, guard=Guard(principal="bob")).token
    put(filled, "/c/d/f", b"ann", guard=submitting(ann, principal="ann"))
    put(filled, "/c/d/f", b"bob", guard=submitting(bob, principal="bob"))
    with refused(filled, Locked):
        put(filled, "/c/d/f", b"eve", guard=submitting(ann, bob, principal="eve"))
    with refused(filled, Locked):
        put(filled, "/c/d/f", b"ann", guard=submitting(bob, principal="ann"))


def test_lock__is_found_by_either_unicode_form(store: Store) -> None:
    store.make_collection(DavPath(["caf\u00e9"]))
    token = lock(store, "/caf\u00e9", infinity=True).token
    assert locks_at(store, "/cafe\u0301/x") == [token]
    with refused(store, Locked):
        put(store, "/cafe\u0301/x")


def test_lock__of_a_file_protects_no_neighbour_of_the_same_prefix(filled: Store) -> None:
    lock(filled, "/c", infinity=True)
    put(filled, "/c_evil", b"x")
    mkcol(filled, "/cc")
    assert set(tree(filled)) >= {"/c_evil", "/cc"}


# --- refreshing and ending ------------------------------------------------------------------------------------------


def test_refresh_lock__extends_it(filled: Store, clock: Clock) -> None:
    made = lock(filled, "/c", infinity=True, timeout_s=10)
    clock.advance(9)
    for path in ("/c", "/c/d/f"):  # RFC 4918 9.10.2: through a resource that it covers
        refreshed = filled.refresh_lock(at(path), 100, submitting(made.token)).lock
        assert refreshed == made._replace(timeout_s=100, expires_at=clock.now_ns + 100_000_000_000)
    clock.advance(99)
    assert locks_at(filled, "/c") == [made.token]


def test_refresh_lock__of_what_does_not_cover_the_resource_is_refused(filled: Store, clock: Clock) -> None:
    token = lock(filled, "/c", timeout_s=10).token
    for path in ("/c/d", "/other", "/missing"):
        with refused(filled, PreconditionFailed):
            filled.refresh_lock(at(path), 100, submitting(token))
    with refused(filled, PreconditionFailed):
        filled.refresh_lock(at("/c"), 100, submitting("urn:uuid:none"))
    with refused(filled, PreconditionFailed):
        filled.refresh_lock(at("/c"), 100, Guard())
    clock.advance(10)
    with refused(filled, PreconditionFailed):
        filled.refresh_lock(at("/c"), 100, submitting(token))


def test_refresh_lock__by_another_principal_is_refused(filled: Store) -> None:
    token = lock(filled, "/c", guard=Guard(principal="ann")).token
    with refused(filled, LockNotOwned):
        filled.refresh_lock(at("/c"), 100, submitting(token, principal="bob"))


def test_unlock__ends_a_lock(filled: Store) -> None:
    token = lock(filled, "/c/d/f").token
    filled.unlock(at("/c/d/f"), token)
    assert locks_at(filled, "/c/d/f") == []
    put(filled, "/c/d/f", b"new")
    with refused(filled, LockTokenMismatch):
        filled.unlock(at("/c/d/f"), token)


def test_unlock__through_a_member_of_a_depth_infinity_lock_ends_it(filled: Store) -> None:
    token = lock(filled, "/c", infinity=True).token
    filled.unlock(at("/c/d/f"), token)
    assert locks_at(filled, "/c") == []


def test_unlock__through_a_member_of_a_depth_0_lock_is_refused(filled: Store) -> None:
    token = lock(filled, "/c/d").token
    for path in ("/c/d/f", "/c", "/other"):
        with refused(filled, LockTokenMismatch):
            filled.unlock(at(path), token)


def test_unlock__by_another_principal_is_refused(filled: Store) -> None:
    token = lock(filled, "/c", guard=Guard(principal="ann")).token
    with refused(filled, LockNotOwned):
        filled.unlock(at("/c"), token, Guard(principal="bob"))
    with refused(filled, LockNotOwned):
        filled.unlock(at("/c"), token)
    filled.unlock(at("/c"), token, Guard(principal="ann"))


def test_unlock__of_nothing_is_not_found(filled: Store) -> None:
    token = lock(filled, "/c", infinity=True).token
    with refused(filled, NotFound):
        filled.unlock(at("/c/missing"), token)


# --- ending by themselves -------------------------------------------------------------------------------------------


def test_expiry__ends_a_lock_to_the_nanosecond(filled: Store, clock: Clock) -> None:
    made = lock(filled, "/c", infinity=True, timeout_s=10)
    clock.now_ns = made.expires_at - 1
    with refused(filled, Locked):
        put(filled, "/c/d/f", b"new")
    clock.now_ns = made.expires_at
    assert locks_at(filled, "/c") == []
    put(filled, "/c/d/f", b"new")
    with refused(filled, LockTokenMismatch):
        filled.unlock(at("/c"), made.token)
    lock(filled, "/c", infinity=True)


def test_expiry__frees_ancestors_and_members(filled: Store, clock: Clock) -> None:
    lock(filled, "/c/d/f", timeout_s=10)
    clock.advance(10)
    lock(filled, "/c", infinity=True, timeout_s=10)
    clock.advance(10)
    filled.move(at("/c"), at("/moved"))
    filled.delete(at("/moved"))


@pytest.mark.parametrize("action", ["delete", "move", "overwrite"])
def test_expiry__leaves_no_row_on_a_node_that_is_gone(filled: Store, clock: Clock, action: str) -> None:
    """The row of an expired lock waits for GC; invariant 12 wants it away with its node."""
    lock(filled, "/c/d/f", timeout_s=1)
    lock(filled, "/c/d", timeout_s=1)
    clock.advance(LOCK_TIMEOUT_S)
    if action == "delete":
        filled.delete(at("/c/d"))
    elif action == "move":
        filled.move(at("/c/d"), at("/moved"))
    else:
        filled.copy(at("/other"), at("/c/d"))
    assert check(filled) == []

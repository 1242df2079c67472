"""Preconditions: RFC 9110 13.1 and RFC 4918 10.4, evaluated where the change is made."""

from __future__ import annotations

import pytest

from davsql.errors import PreconditionFailed
from davsql.model import (
    ANYTHING,
    EntityTag,
    Guard,
    IfTarget,
    LockScope,
    Preconditions,
    StateCondition,
    StateList,
)
from davsql.paths import DavPath
from davsql.store.store import Store
from tests.store.engine_steps import NO_LOCK, has_etag, has_token, if_match, if_none_match, lock, refused, when
from tests.store_steps import at, mkcol, put

OTHER = '"other"'
SECOND = 1_000_000_000


@pytest.fixture
def etag(store: Store) -> str:
    """The entity tag of /a; /c is a collection, /missing is not there."""
    mkcol(store, "/c")
    etag = put(store, "/a", b"a").node.etag
    assert etag is not None
    return etag


def holds(store: Store, path: str, guard: Guard) -> bool:
    """Whether the conditions let a change of `path` through: a PUT without a body, or a touch of a collection."""
    with store.snapshot() as view:
        node = view.node(at(path))
    try:
        if node is not None and node.is_collection:
            store.set_properties(at(path), [], guard)
        else:
            store.check_put(at(path), guard)
    except PreconditionFailed:
        return False
    return True


# --- If-Match -------------------------------------------------------------------------------------------------------


def test_if_match__wants_one_equal_strong_tag(store: Store, etag: str) -> None:
    assert holds(store, "/a", if_match(etag))
    assert holds(store, "/a", if_match(OTHER, etag))
    assert not holds(store, "/a", if_match(OTHER))
    assert not holds(store, "/a", if_match())
    assert not holds(store, "/a", if_match(etag, is_weak=True))  # RFC 9110 13.1.1: strong comparison
    assert not holds(store, "/a", if_match(etag.strip('"')))
    assert not holds(store, "/a", if_match(etag.upper()))


def test_if_match__of_anything_wants_a_resource(store: Store, etag: str) -> None:
    anything = Guard(Preconditions(if_match=ANYTHING))
    assert holds(store, "/a", anything)
    assert holds(store, "/c", anything)
    assert not holds(store, "/missing", anything)
    assert not holds(store, "/missing", if_match(etag))
    assert not holds(store, "/c", if_match(etag))  # a collection has no entity tag
    assert not holds(store, "/c", if_match("None"))


def test_if_match__puts_if_unmodified_since_out_of_play(store: Store, etag: str) -> None:
    when = Preconditions(if_match=(EntityTag(etag, is_weak=False),), if_unmodified_since=0)
    assert holds(store, "/a", Guard(when))  # RFC 9110 13.2.2


# --- If-None-Match --------------------------------------------------------------------------------------------------


def test_if_none_match__wants_no_equal_tag(store: Store, etag: str) -> None:
    assert not holds(store, "/a", if_none_match(etag))
    assert not holds(store, "/a", if_none_match(OTHER, etag))
    assert not holds(store, "/a", if_none_match(etag, is_weak=True))  # RFC 9110 13.1.2: weak comparison
    assert holds(store, "/a", if_none_match(OTHER))
    assert holds(store, "/a", if_none_match("JoplinIgnore-1"))
    assert holds(store, "/missing", if_none_match(etag))


def test_if_none_match__of_anything_wants_no_resource(store: Store, etag: str) -> None:
    absent = Guard(Preconditions(if_none_match=ANYTHING))
    assert not holds(store, "/a", absent)
    assert not holds(store, "/c", absent)
    assert holds(store, "/missing", absent)


# --- If-Unmodified-Since --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("modified_at", "since", "expected"),
    [
        (10 * SECOND, 10, True),
        (10 * SECOND + SECOND - 1, 10, True),  # what the client was told: whole seconds
        (11 * SECOND, 10, False),
        (9 * SECOND, 10, True),
        (-SECOND, 0, True),
    ],
)
def test_if_unmodified_since__compares_whole_seconds(
    store: Store, etag: str, modified_at: int, since: int, expected: bool
) -> None:
    store.set_modified_at(at("/a"), modified_at)
    assert holds(store, "/a", Guard(Preconditions(if_unmodified_since=since))) is expected


def test_if_unmodified_since__fails_for_what_is_gone(store: Store, etag: str) -> None:
    assert not holds(store, "/missing", Guard(Preconditions(if_unmodified_since=2_000_000_000)))


def test_if_modified_since__means_nothing_to_a_change(store: Store, etag: str) -> None:
    assert holds(store, "/a", Guard(Preconditions(if_modified_since=2_000_000_000)))


# --- If -------------------------------------------------------------------------------------------------------------


def test_if__etag(store: Store, etag: str) -> None:
    assert holds(store, "/a", when(has_etag(etag)))
    assert not holds(store, "/a", when(has_etag(OTHER)))
    assert not holds(store, "/a", when(has_etag(etag, is_weak=True)))
    assert holds(store, "/a", when(has_etag(OTHER, negated=True)))
    assert not holds(store, "/a", when(has_etag(etag, negated=True)))
    assert not holds(store, "/missing", when(has_etag(etag)))
    assert holds(store, "/missing", when(has_etag(etag, negated=True)))


def test_if__token(store: Store, etag: str) -> None:
    token = lock(store, "/a").token
    assert holds(store, "/a", when(has_token(token)))
    assert not holds(store, "/a", when(has_token(token), has_etag(OTHER)))
    assert not holds(store, "/a", when(has_token(token, negated=True)))
    assert not holds(store, "/missing", when(has_token(token)))
    assert not holds(store, "/c", when(has_token(token)))


def test_if__token_of_a_lock_from_above(store: Store, etag: str) -> None:
    put(store, "/c/f")
    deep = lock(store, "/c", infinity=True).token
    for path in ("/c", "/c/f", "/c/unmapped"):
        assert holds(store, path, when(has_token(deep)))
    store.unlock(at("/c"), deep)
    assert not holds(store, "/c/f", when(has_token(deep)))
    flat = lock(store, "/c").token
    assert holds(store, "/c", when(has_token(flat)))
    assert not holds(store, "/c/f", when(has_token(flat)))


def test_if__no_lock_is_never_held(store: Store, etag: str) -> None:
    assert not holds(store, "/a", when(has_token(NO_LOCK)))
    assert holds(store, "/a", when(has_token(NO_LOCK, negated=True)))


def test_if__all_conditions_of_one_list_and_one_of_several(store: Store, etag: str) -> None:
    def lists(*several: tuple[StateCondition, ...]) -> Guard:
        return Guard(Preconditions(state_lists=tuple(StateList(IfTarget.REQUEST, each) for each in several)))

    good, bad = has_etag(etag), has_etag(OTHER)
    assert holds(store, "/a", lists((good, good)))
    assert not holds(store, "/a", lists((good, bad)))
    assert holds(store, "/a", lists((bad,), (good,)))
    assert not holds(store, "/a", lists((bad,), (good, bad)))
    assert not holds(store, "/a", lists())


def test_if__tagged_lists_are_about_other_resources(store: Store, etag: str) -> None:
    other = put(store, "/c/f", b"other").node.etag
    assert holds(store, "/a", when(has_etag(other), target="/c/f"))
    assert not holds(store, "/a", when(has_etag(etag), target="/c/f"))
    assert not holds(store, "/a", when(has_etag(etag), target="/missing"))
    assert holds(store, "/a", when(has_etag(etag, negated=True), target="/missing"))
    assert holds(store, "/c/new", when(has_etag(etag), target="/a"))


def test_if__elsewhere_is_nothing_we_know(store: Store, etag: str) -> None:
    assert not holds(store, "/a", when(has_etag(etag), target=IfTarget.ELSEWHERE))
    assert not holds(store, "/a", when(has_token("urn:uuid:x"), target=IfTarget.ELSEWHERE))
    assert holds(store, "/a", when(has_token("urn:uuid:x", negated=True), target=IfTarget.ELSEWHERE))


def test_if__destination_may_be_tagged(store: Store, etag: str) -> None:
    token = lock(store, "/c", LockScope.SHARED, infinity=True).token
    store.copy(at("/a"), at("/c/new"), guard=when(has_token(token), target="/c/new"))
    with refused(store, PreconditionFailed):
        store.copy(at("/a"), at("/c/newer"), guard=when(has_token("urn:uuid:x"), target=IfTarget.REQUEST))


def test_if__target_in_another_unicode_form(store: Store) -> None:
    etag = put(store, "/caf\u00e9", b"x").node.etag
    assert holds(store, "/new", when(has_etag(etag), target="/cafe\u0301"))


def test_conditions__must_all_hold(store: Store, etag: str) -> None:
    good, bad = EntityTag(etag, is_weak=False), EntityTag(OTHER, is_weak=False)
    if_bad = (StateList(DavPath(["a"]), (has_etag(OTHER),)),)
    assert holds(store, "/a", Guard(Preconditions(if_match=(good,), if_none_match=(bad,))))
    assert not holds(store, "/a", Guard(Preconditions(if_match=(good,), if_none_match=(good,))))
    assert not holds(store, "/a", Guard(Preconditions(if_match=(good,), state_lists=if_bad)))

"""Whether the conditions of a request hold, looked at in the same snapshot or transaction as everything else.

Source: RFC 9110 13.1, 13.2.2; RFC 4918 10.4.
"""

from __future__ import annotations

from collections.abc import Sequence

from davsql.access import Access
from davsql.errors import PreconditionFailed
from davsql.model import Anything, EntityTag, Guard, IfTarget, Node, StateCondition, StateList
from davsql.store import sync
from davsql.store.access import seen
from davsql.store.locks import NS_PER_S, locks_covering
from davsql.store.nodes import Chain, resolve
from davsql.store.sync_tokens import PREFIX
from davsql.store.transaction import ReadTx


def require(tx: ReadTx, chain: Chain, guard: Guard) -> None:
    """Raise PreconditionFailed unless the guard's conditions hold for the chain's target.

    For methods that change something: If-None-Match that matches is a failure, If-Modified-Since means nothing.
    """
    when = guard.preconditions
    known = seen(chain, guard.access)
    if when.if_match is not None:
        if not _matches(when.if_match, chain, known, weakly=False):
            raise PreconditionFailed("If-Match: the resource is not, or no longer, what the client thinks it is")
    elif when.if_unmodified_since is not None and (
        known is None or known.modified_at // NS_PER_S > when.if_unmodified_since
    ):
        raise PreconditionFailed("If-Unmodified-Since: the resource was modified")
    if when.if_none_match is not None and _matches(when.if_none_match, chain, known, weakly=True):
        raise PreconditionFailed("If-None-Match: the resource exists")
    if when.state_lists is not None and not state_holds(tx, chain, when.state_lists, guard.access):
        raise PreconditionFailed("If: none of its lists holds")


def state_holds(tx: ReadTx, chain: Chain, lists: Sequence[StateList], access: Access) -> bool:
    """Whether an If header holds: one of its lists does, all of it (RFC 4918 10.4.3).

    Nobody learns what he may not read: other resources than the request's own count as missing, of the request's own no
    entity tag matches.
    """
    return any(_holds(tx, chain, each, access) for each in lists)


def _matches(tags: tuple[EntityTag, ...] | Anything, chain: Chain, known: Node | None, *, weakly: bool) -> bool:
    """RFC 9110 8.8.3.2: strong comparison takes no weak tag for equal.

    Args:
        known: the chain's target if it may be read: who may only write must not find out its content by guessing.
    """
    if isinstance(tags, Anything):
        return chain.target is not None
    return known is not None and any(tag.opaque == known.etag and (weakly or not tag.is_weak) for tag in tags)


def _holds(tx: ReadTx, chain: Chain, states: StateList, access: Access) -> bool:
    if states.target is IfTarget.REQUEST:
        about: Chain | None = chain
    elif isinstance(states.target, IfTarget):
        about = None
    else:
        other = resolve(tx, states.target)
        about = other if other.target is None or seen(other, access) is not None else None
    return all(_is_true(tx, about, condition, access) is not condition.negated for condition in states.conditions)


def _is_true(tx: ReadTx, about: Chain | None, condition: StateCondition, access: Access) -> bool:
    if about is None:
        return False
    if condition.etag is not None:
        return _matches((condition.etag,), about, seen(about, access), weakly=False)
    if condition.token is not None and condition.token.startswith(PREFIX):
        return seen(about, access) is not None and sync.is_unchanged(tx, about, condition.token, access)
    return any(lock.token == condition.token for lock in locks_covering(tx, about))

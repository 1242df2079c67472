"""Quotas: how much a user, and a whole share, may hold.

One node is judged before anything changes. A copy measures before and after: what it changes need not be foretold. Who
is over a limit already may still do what makes it no worse. Source: RFC 4331.
"""

from __future__ import annotations

from typing import NamedTuple

from davsql.errors import QuotaExceeded
from davsql.model import NO_LIMITS, Guard, Node
from davsql.store.transaction import ReadTx


class Usage(NamedTuple):
    """How much somebody, or everybody together, holds."""

    nodes: int
    size_bytes: int


class Space(NamedTuple):
    """What a drive shows as used and free."""

    used_bytes: int
    available_bytes: int


NOTHING = Usage(0, 0)


class Holdings(NamedTuple):
    """What limits are about."""

    of_user: Usage
    of_share: Usage


USAGE_OF = "SELECT nodes, bytes FROM usage WHERE owner = ?"
USAGE_OF_ALL = "SELECT coalesce(sum(nodes), 0), coalesce(sum(bytes), 0) FROM usage"


def holdings(tx: ReadTx, guard: Guard) -> Holdings:
    """What counts against the guard's limits; what has no limit is not looked up."""
    user, share = guard.limits
    of_user = tx.row(USAGE_OF, (guard.principal,)) if user.is_limited else None
    of_share = tx.row(USAGE_OF_ALL) if share.is_limited else None
    return Holdings(
        NOTHING if of_user is None else Usage._make(of_user), NOTHING if of_share is None else Usage._make(of_share)
    )


def require(tx: ReadTx, guard: Guard, before: Holdings) -> None:
    """Raise QuotaExceeded if more is held than `before`, and more than the guard's limits allow."""
    if guard.limits is NO_LIMITS:
        return
    for limit, now, then in zip(guard.limits, holdings(tx, guard), before, strict=True):
        if limit.nodes is not None and now.nodes > max(limit.nodes, then.nodes):
            raise QuotaExceeded(f"more than {limit.nodes} files and folders")
        if limit.size_bytes is not None and now.size_bytes > max(limit.size_bytes, then.size_bytes):
            raise QuotaExceeded(f"more than {limit.size_bytes} bytes")


def within(guard: Guard, held: Holdings, space: Space) -> Space:
    """The `space` of a store as the guard's limits leave it; used is what counts against the user's, or the share's."""
    for limit, usage in zip(reversed(guard.limits), reversed(held), strict=True):
        if limit.size_bytes is not None:
            free = max(0, limit.size_bytes - usage.size_bytes)
            space = Space(usage.size_bytes, min(free, space.available_bytes))
    return space


OWNER_OF = "SELECT owner FROM nodes WHERE inode = ?"


def require_room(tx: ReadTx, guard: Guard, replaced: Node | None, size: int) -> int | None:
    """See that a node can be stored for the guard's principal, before anything changes.

    Args:
        replaced: the file in whose place it comes.
        size: its bytes.

    Returns:
        How many bytes it could have; None: any number.

    Raises:
        QuotaExceeded: it cannot.
    """
    if guard.limits is NO_LIMITS:
        return None
    is_own = replaced is not None and tx.value(OWNER_OF, (replaced.inode,)) == guard.principal
    rooms = []
    for limit, now, goes in zip(guard.limits, holdings(tx, guard), (is_own, replaced is not None), strict=True):
        if limit.nodes is not None and not goes and now.nodes >= limit.nodes:
            raise QuotaExceeded(f"more than {limit.nodes} files and folders")
        if limit.size_bytes is not None:
            gone = replaced.size if replaced is not None and goes else 0
            rooms.append(max(gone, limit.size_bytes - now.size_bytes + gone))
    largest = min(rooms, default=None)
    if largest is not None and size > largest:
        raise QuotaExceeded(f"{size} bytes, of which there is room for {largest}")
    return largest

"""Locks: which cover a resource, which protect it from a change, and making, refreshing and ending them.

A lock belongs to the node at its root. Expired ones count as gone at once; GC removes their rows.
Source: RFC 4918 6, 7, 9.10, 9.11.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from davsql.access import Right
from davsql.errors import LockConflict, Locked, LockNotOwned, LockTokenMismatch, PreconditionFailed, TooManyLocks
from davsql.model import Guard, Inode, Lock, LockRequest, LockResult, LockScope, Node, NodeType
from davsql.store import access
from davsql.store.nodes import Chain, path_of
from davsql.store.transaction import ReadTx, WriteTx

NS_PER_S = 1_000_000_000

LOCKS_ON = """
SELECT
  l.token, l.inode, l.scope, l.is_depth_infinity, l.owner_xml, l.principal, l.timeout_s, l.expires_at, n.node_type
FROM json_each(:inodes) AS wanted
CROSS JOIN locks AS l ON l.inode = wanted.value
CROSS JOIN nodes AS n ON n.inode = l.inode
WHERE l.expires_at > :now ORDER BY l.lock_id
"""


def locks_on(tx: ReadTx, inodes: Sequence[Inode]) -> dict[Inode, list[Lock]]:
    """The active locks rooted at nodes; nodes without any are left out."""
    found: dict[Inode, list[Lock]] = {}
    for row in tx.rows(LOCKS_ON, {"inodes": json.dumps(inodes), "now": tx.now}):
        found.setdefault(row[1], []).append(_lock(tx, row))
    return found


HAS_LOCKS = "SELECT EXISTS (SELECT 1 FROM locks)"


def has_locks(tx: ReadTx) -> bool:
    """Whether there is any lock at all: the common answer costs next to nothing."""
    return bool(tx.value(HAS_LOCKS))


def locks_covering(tx: ReadTx, chain: Chain) -> list[Lock]:
    """The active locks that cover the chain's path: on its node, and depth-infinity ones of its ancestors."""
    if not has_locks(tx):
        return []
    found = locks_on(tx, chain.inodes)
    target = chain.target
    return [
        lock
        for inode, locks in found.items()
        for lock in locks
        if lock.is_depth_infinity or (target is not None and inode == target.inode)
    ]


LOCKS_BELOW = """
WITH RECURSIVE up (lock_id, inode) AS (
  SELECT l.lock_id, n.parent_inode FROM locks AS l JOIN nodes AS n ON n.inode = l.inode WHERE l.expires_at > :now
  UNION  -- ends also where damage has made a node its own ancestor
  SELECT up.lock_id, n.parent_inode FROM up JOIN nodes AS n ON n.inode = up.inode
)
SELECT
  l.token, l.inode, l.scope, l.is_depth_infinity, l.owner_xml, l.principal, l.timeout_s, l.expires_at, n.node_type
FROM up
CROSS JOIN locks AS l ON l.lock_id = up.lock_id
CROSS JOIN nodes AS n ON n.inode = l.inode
WHERE up.inode = :top
"""


def locks_below(tx: ReadTx, top: Node) -> list[Lock]:
    """The active locks rooted at nodes below `top`, `top` itself not counted."""
    if not top.is_collection:
        return []
    return [_lock(tx, row) for row in tx.rows(LOCKS_BELOW, {"top": top.inode, "now": tx.now})]


def _lock(tx: ReadTx, row: Sequence[Any]) -> Lock:
    token, inode, scope, is_depth_infinity, owner_xml, principal, timeout_s, expires_at, node_type = row
    return Lock(
        token=token,
        inode=inode,
        root=path_of(tx, inode),
        is_collection=node_type == NodeType.COLLECTION,
        scope=LockScope(scope),
        is_depth_infinity=bool(is_depth_infinity),
        owner_xml=owner_xml,
        principal=principal,
        timeout_s=timeout_s,
        expires_at=expires_at,
    )


# --- enforcing ----------------------------------------------------------------------------------------------------


def require_writable(tx: ReadTx, chain: Chain, guard: Guard) -> None:
    """Content and properties of the target may change (RFC 4918 7.1)."""
    _require_token([locks_covering(tx, chain)], guard)


def require_member_change(tx: ReadTx, chain: Chain, guard: Guard) -> None:
    """The target may be added to, or taken out of, its collection; if it exists, with its whole tree.

    A lock of depth 0 on the collection protects its membership (RFC 4918 7.4); one anywhere in the tree its own node.
    """
    if not tx.value(HAS_LOCKS):
        return
    groups = [locks_covering(tx, chain)]
    if not chain.path.is_root:
        groups.append(locks_covering(tx, Chain(chain.path.parent, chain.nodes[: len(chain.path.names)])))
    target = chain.target
    if target is not None:
        by_root: dict[Inode, list[Lock]] = {}
        for lock in locks_below(tx, target):
            by_root.setdefault(lock.inode, []).append(lock)
        groups.extend(by_root.values())
    _require_token(groups, guard)


def _require_token(groups: Iterable[list[Lock]], guard: Guard) -> None:
    """Each group that holds locks needs one of them submitted by its owner (RFC 4918 6.2, 6.4)."""
    missing = [group[0] for group in groups if group and not any(_is_submitted(lock, guard) for lock in group)]
    if missing:
        raise Locked(missing)


def _is_submitted(lock: Lock, guard: Guard) -> bool:
    is_named = guard.has_own_tokens or lock.token in guard.preconditions.tokens
    return is_named and lock.principal == guard.principal


# --- changing -----------------------------------------------------------------------------------------------------

INSERT_LOCK = """
INSERT INTO locks
  (token, inode, scope, is_depth_infinity, owner_xml, principal, timeout_s, created_at, expires_at)
VALUES
  (:token, :inode, :scope, :is_depth_infinity, :owner_xml, :principal, :timeout_s, :now, :expires_at)
"""
COUNT_LOCKS = "SELECT count(*) FROM locks WHERE principal = :principal AND expires_at > :now"


def require_lockable(tx: ReadTx, chain: Chain, request: LockRequest) -> None:
    """Raise LockConflict when an active lock stands in the way of a new one (RFC 4918 6.2)."""
    rivals = locks_covering(tx, chain)
    if request.is_depth_infinity and chain.target is not None:
        rivals = rivals + locks_below(tx, chain.target)
    in_the_way = [lock for lock in rivals if LockScope.EXCLUSIVE in (lock.scope, request.scope)]
    if in_the_way:
        raise LockConflict(in_the_way)


def insert_lock(tx: WriteTx, node: Node, request: LockRequest, principal: str, max_locks: int) -> Lock:
    """Make a lock on a node; the caller has looked for conflicts.

    Raises:
        TooManyLocks: the principal holds `max_locks` already.
    """
    if tx.value(COUNT_LOCKS, {"principal": principal, "now": tx.now}) >= max_locks:
        raise TooManyLocks(f"{max_locks} locks are held already; unlock some first")
    made = Lock(
        token=f"urn:uuid:{uuid.uuid4()}",
        inode=node.inode,
        root=path_of(tx, node.inode),
        is_collection=node.is_collection,
        scope=request.scope,
        is_depth_infinity=request.is_depth_infinity,
        owner_xml=request.owner_xml,
        principal=principal,
        timeout_s=request.timeout_s,
        expires_at=tx.now + request.timeout_s * NS_PER_S,
    )
    tx.insert(INSERT_LOCK, {**made._asdict(), "scope": made.scope.value, "now": tx.now})
    return made


REFRESH_LOCK = "UPDATE locks SET timeout_s = :timeout_s, expires_at = :expires_at WHERE token = :token"


def refresh_lock(tx: WriteTx, chain: Chain, timeout_s: int, guard: Guard) -> LockResult:
    """Extend the lock whose token the guard submits (RFC 4918 9.10.2).

    Raises:
        PreconditionFailed: no lock that covers the resource has that token.
        LockNotOwned: it is somebody else's.
        NotAllowed: its root may not be changed.
    """
    covering = locks_covering(tx, chain)
    for lock in covering:
        if lock.token in guard.preconditions.tokens:
            _require_own(lock, guard)
            expires_at = tx.now + timeout_s * NS_PER_S
            tx.change(REFRESH_LOCK, {"timeout_s": timeout_s, "expires_at": expires_at, "token": lock.token})
            refreshed = lock._replace(timeout_s=timeout_s, expires_at=expires_at)
            return LockResult(refreshed, tuple(other for other in covering if other is not lock), created=False)
    raise PreconditionFailed(f"no lock on {chain.path} has the submitted token")


DELETE_LOCK = "DELETE FROM locks WHERE token = ?"


def delete_lock(tx: WriteTx, chain: Chain, token: str, guard: Guard) -> None:
    """End the lock `token`, which must cover the resource (RFC 4918 9.11).

    Raises:
        LockTokenMismatch: it does not.
        LockNotOwned: it is somebody else's.
        NotAllowed: its root may not be changed.
    """
    for lock in locks_covering(tx, chain):
        if lock.token == token:
            _require_own(lock, guard)
            tx.change(DELETE_LOCK, (token,))
            return
    raise LockTokenMismatch(f"no lock with this token covers {chain.path}")


def _require_own(lock: Lock, guard: Guard) -> None:
    """A token of the same user, limited to a part of what the lock covers, must not touch the lock."""
    if lock.principal != guard.principal:
        raise LockNotOwned(f"the lock on {lock.root} belongs to another user")
    access.require(lock.root, guard.access, Right.WRITE)


# Expired ones too: their rows must not outlive the place of their node.
DROP_LOCKS_OF_TREE = """
WITH RECURSIVE up (lock_id, inode) AS (
  SELECT lock_id, inode FROM locks
  UNION
  SELECT up.lock_id, n.parent_inode FROM up JOIN nodes AS n ON n.inode = up.inode
)
DELETE FROM locks WHERE lock_id IN (SELECT lock_id FROM up WHERE inode = :top)
"""


def drop_locks_of_tree(tx: WriteTx, top: Node) -> None:
    """End all locks rooted in a tree that is deleted or moved away (RFC 4918 7.6, 9.6, 9.9)."""
    if has_locks(tx):
        tx.change(DROP_LOCKS_OF_TREE, {"top": top.inode})

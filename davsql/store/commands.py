"""What changes the tree: one function, one transaction.

Each looks at the request's conditions and at locks first and inside its own transaction; after an error nothing has
changed. Destination collections, locks and names are checked here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from davsql.access import FULL_ACCESS, Right
from davsql.errors import (
    AlreadyExists,
    ContentChanged,
    ForbiddenTarget,
    IsCollection,
    NotFound,
    OverwriteRefused,
    StoreBusy,
    StoreUnavailable,
)
from davsql.model import Checksums, Guard, Inode, LockRequest, LockResult, Node, PropertyUpdate, PutResult
from davsql.paths import DavPath
from davsql.store import access, assembly, blobs, checksums, locks, nodes, pins, preconditions, properties, quota, trees
from davsql.store.assembly import Assembly
from davsql.store.nodes import Chain, Content, Stamp
from davsql.store.options import StoreOptions
from davsql.store.pins import PinId
from davsql.store.transaction import ReadTx, WriteTx


def require_put(tx: ReadTx, target: DavPath, guard: Guard, options: StoreOptions) -> Chain:
    """Everything that must hold for `put_file`; also asked before a body is read.

    Raises:
        NotAllowed, PreconditionFailed, ParentMissing, IsCollection, PathTooDeep, Locked.
    """
    access.require(target, guard.access, Right.WRITE)
    chain = nodes.resolve(tx, target)
    preconditions.require(tx, chain, guard)
    node = chain.target
    if node is not None:
        if node.is_collection:
            raise IsCollection(f"{target} is a collection")
        locks.require_writable(tx, chain, guard)
    else:
        _require_new_member(tx, chain, guard, options)
    return chain


ABSENT = b""


class Incoming(NamedTuple):
    """Content that is received, but not in the store yet, or not sealed."""

    size: int  # bytes
    store: Callable[[WriteTx], Content]  # stores the bytes, or seals the staged ones
    base: bytes | None = None  # digest of the content that it changes, ABSENT if there must be none; None: any
    made_of: Inode | None = None  # the collection of the parts that it is made of, which goes with it
    checksums: Checksums | None = None


def put_file(
    tx: WriteTx, target: DavPath, incoming: Incoming, guard: Guard, options: StoreOptions, *, modified_at: int | None
) -> PutResult:
    """Point `target` at content, creating the file if needed; the content is stored once all conditions hold.

    Raises:
        As `require_put`; QuotaExceeded; ContentChanged.
    Source: RFC 4918 9.7.1; RFC 9110 9.3.4.
    """
    chain = require_put(tx, target, guard, options)
    if incoming.base not in (None, ABSENT if chain.target is None else chain.target.digest):
        raise ContentChanged(f"{target} was changed, or removed, meanwhile")
    if incoming.made_of is not None:
        assembly.end(tx, incoming.made_of)  # first: the parts are not to count beside the whole
    quota.require_room(tx, guard, chain.target, incoming.size)
    content, stamp = incoming.store(tx), Stamp(guard.principal, modified_at)
    if incoming.checksums is not None:
        checksums.keep_checksums(tx, content.blob_id, content.digest, incoming.checksums)
    if chain.target is None:
        node = nodes.insert_node(tx, chain.parent.inode, target.name, content, stamp)
    else:
        node = nodes.replace_content(tx, chain.target, content, stamp)
    return PutResult(node, created=chain.target is None)


def put_part(upload: Assembly, name: str, incoming: Incoming, guard: Guard, tx: WriteTx) -> PutResult:
    """Store a part of a file that comes in parts.

    Raises:
        As `assembly.require_part`.
    """
    place = assembly.require_part(tx, upload, name, incoming.size, guard)
    node = assembly.put_part(tx, place, name, incoming.store(tx), guard.principal)
    return PutResult(node, created=place.known is None)


def make_collection(
    tx: WriteTx, target: DavPath, guard: Guard, options: StoreOptions, *, modified_at: int | None
) -> Node:
    """Make an empty collection (RFC 4918 9.3).

    Raises:
        NotAllowed, AlreadyExists, ParentMissing, PreconditionFailed, PathTooDeep, Locked, QuotaExceeded.
    """
    chain = nodes.resolve(tx, target)
    if access.seen(chain, guard.access) is None:  # clients make what is there already, to be sure
        access.require(target, guard.access, Right.WRITE)
    if chain.target is not None:
        raise AlreadyExists(f"{target} exists already")
    preconditions.require(tx, chain, guard)
    _require_new_member(tx, chain, guard, options)
    quota.require_room(tx, guard, None, 0)
    return nodes.insert_node(tx, chain.parent.inode, target.name, None, Stamp(guard.principal, modified_at))


def delete(tx: WriteTx, target: DavPath, guard: Guard) -> None:
    """Delete a file, or a collection with all it holds, or nothing (RFC 4918 9.6).

    Raises:
        NotFound, NotAllowed, ForbiddenTarget, PreconditionFailed, Locked.
    """
    chain = nodes.resolve(tx, target)
    node = access.require_seen(chain, guard.access)
    access.require_tree(tx, target, node, guard.access, Right.DELETE)
    preconditions.require(tx, chain, guard)
    if target.is_root:
        raise ForbiddenTarget("the root of a share cannot be deleted")
    locks.require_member_change(tx, chain, guard)
    _remove(tx, node)


class Transfer(NamedTuple):
    """What COPY and MOVE are asked for."""

    source: DavPath
    destination: DavPath
    overwrite: bool


def copy(tx: WriteTx, transfer: Transfer, guard: Guard, options: StoreOptions, *, depth_infinity: bool) -> bool:
    """Copy a file or a collection with its dead properties; with its members if `depth_infinity` (RFC 4918 9.8).

    Returns:
        True when the destination was unmapped, False when it was replaced.

    Raises:
        NotFound, NotAllowed, ForbiddenTarget, ParentMissing, OverwriteRefused, PreconditionFailed, PathTooDeep, Locked,
        QuotaExceeded.
    """
    node, to_chain = _require_copy(tx, transfer, guard, options, depth_infinity=depth_infinity)
    held = quota.holdings(tx, guard)
    _clear(tx, to_chain)
    top = trees.copy_top(tx, node, to_chain.parent.inode, transfer.destination.name, guard.principal)
    if depth_infinity and node.is_collection:
        trees.copy_all_members(tx, node.inode, top, len(transfer.destination.names), options.max_depth)
    nodes.touch(tx, to_chain.parent.inode)
    quota.require(tx, guard, held)
    return to_chain.target is None


def begin_copy(tx: WriteTx, transfer: Transfer, guard: Guard, options: StoreOptions) -> tuple[Inode, Inode, PinId]:
    """Begin the copy of a large collection: check everything, and make its top, detached and pinned.

    Returns:
        The inodes of the source and of the copy, and the pin.

    Raises:
        As `copy`.
    """
    node, _ = _require_copy(tx, transfer, guard, options, depth_infinity=True)
    top = trees.copy_top(tx, node, None, transfer.destination.name, guard.principal)
    return node.inode, top, pins.pin_tree(tx, top)


def finish_copy(
    tx: WriteTx, transfer: Transfer, guard: Guard, options: StoreOptions, made: tuple[Inode, Inode, PinId]
) -> bool:
    """Put a copy that is complete in its place, if everything still holds.

    Args:
        made: what `begin_copy` returned.

    Returns and raises: as `copy`.
    """
    node, to_chain = _require_copy(tx, transfer, guard, options, depth_infinity=True)
    source, top, pin_id = made
    # What was in the source for a while only counts as well.
    access.require_absent(tx, transfer.source, top, guard.access, Right.READ)
    access.require_absent(tx, transfer.destination, top, guard.access, Right.WRITE)
    if node.inode != source:  # half of the old tree would pass for a copy of the new one
        raise StoreBusy(f"{transfer.source} was replaced during the copy; try again")
    if not pins.unpin(tx, pin_id):
        raise StoreUnavailable("the copy took too long and was given up; try again")
    held = quota.holdings(tx, guard)
    _clear(tx, to_chain)
    nodes.attach(tx, top, to_chain.parent.inode, transfer.destination.name)
    quota.require(tx, guard, held)
    return to_chain.target is None


def _require_copy(
    tx: ReadTx, transfer: Transfer, guard: Guard, options: StoreOptions, *, depth_infinity: bool
) -> tuple[Node, Chain]:
    """The node to copy and where to, if the copy may be made."""
    source, destination, overwrite = transfer
    from_chain = nodes.resolve(tx, source)
    node = access.require_seen(from_chain, guard.access)
    with_members = node if depth_infinity else None
    access.require_tree(tx, source, with_members, guard.access, Right.READ)
    access.require_tree(tx, destination, with_members, guard.access, Right.WRITE)
    preconditions.require(tx, from_chain, guard)
    _require_apart(source, destination)
    nodes.require_depth(destination, options.max_depth)
    return node, _require_destination(tx, destination, guard, overwrite=overwrite)


def move(tx: WriteTx, transfer: Transfer, guard: Guard, options: StoreOptions) -> bool:
    """Give a file or a collection another place; what was there goes in the same step (RFC 4918 9.9).

    Returns and raises: as `copy`.
    """
    source, destination, overwrite = transfer
    from_chain = nodes.resolve(tx, source)
    node = access.require_seen(from_chain, guard.access)
    access.require_tree(tx, source, node, guard.access, Right.READ | Right.DELETE)
    access.require_tree(tx, destination, node, guard.access, Right.WRITE)
    preconditions.require(tx, from_chain, guard)
    if source.is_root:
        raise ForbiddenTarget("the root of a share cannot be moved")
    is_rename_in_place = source == destination and source.names != destination.names
    if not is_rename_in_place:
        _require_apart(source, destination)
    locks.require_member_change(tx, from_chain, guard)
    if len(destination.names) > len(source.names):
        nodes.require_depth(destination, options.max_depth, trees.height(tx, node, options.max_depth))
    if is_rename_in_place:  # another Unicode form of the same name
        to_chain = from_chain
    else:
        to_chain = _require_destination(tx, destination, guard, overwrite=overwrite)
        _clear(tx, to_chain)
    locks.drop_locks_of_tree(tx, node)
    nodes.move_node(tx, node, to_chain.parent.inode, destination.name)
    return to_chain.target is None


def set_properties(
    tx: WriteTx,
    target: DavPath,
    updates: Sequence[PropertyUpdate],
    guard: Guard,
    options: StoreOptions,
    *,
    modified_at: int | None = None,
) -> None:
    """Apply all steps of a PROPPATCH, or none (RFC 4918 9.2).

    Args:
        modified_at: what one of them says of the time of the last change.

    Raises:
        NotFound, NotAllowed, PreconditionFailed, Locked, TooManyProperties.
    """
    chain = nodes.resolve(tx, target)
    node = access.require_seen(chain, guard.access)
    access.require(target, guard.access, Right.WRITE)
    preconditions.require(tx, chain, guard)
    locks.require_writable(tx, chain, guard)
    properties.update_properties(tx, node.inode, updates, options)
    if modified_at is not None:
        nodes.touch(tx, node.inode, modified_at)


def set_modified_at(tx: WriteTx, target: DavPath, modified_at: int) -> None:
    """Set when a node was last modified.

    Raises:
        NotFound.
    """
    nodes.touch(tx, access.require_seen(nodes.resolve(tx, target), FULL_ACCESS).inode, modified_at)


def lock(tx: WriteTx, target: DavPath, request: LockRequest, guard: Guard, options: StoreOptions) -> LockResult:
    """Lock a resource; an unmapped URL becomes an empty file first (RFC 4918 7.3, 9.10).

    Raises:
        NotAllowed, PreconditionFailed, LockConflict, ParentMissing, PathTooDeep, Locked, TooManyLocks,
        QuotaExceeded.
    """
    chain = nodes.resolve(tx, target)
    covered = chain.target if request.is_depth_infinity else None
    access.require_tree(tx, target, covered, guard.access, Right.WRITE)
    preconditions.require(tx, chain, guard)
    locks.require_lockable(tx, chain, request)
    node = chain.target
    if node is None:
        _require_new_member(tx, chain, guard, options)
        quota.require_room(tx, guard, None, 0)
        content = Content(blobs.put_content(tx, blobs.EMPTY_DIGEST, b""), blobs.EMPTY_DIGEST, 0, None)
        node = nodes.insert_node(tx, chain.parent.inode, target.name, content, Stamp(guard.principal))
    others = tuple(locks.locks_covering(tx, chain))
    made = locks.insert_lock(tx, node, request, guard.principal, options.max_locks)
    return LockResult(made, others, created=chain.target is None)


def refresh_lock(tx: WriteTx, target: DavPath, timeout_s: int, guard: Guard) -> LockResult:
    """Extend a lock (RFC 4918 9.10.2).

    Raises:
        NotAllowed, PreconditionFailed, LockNotOwned.
    """
    access.require(target, guard.access, Right.WRITE)
    chain = nodes.resolve(tx, target)
    preconditions.require(tx, chain, guard)
    return locks.refresh_lock(tx, chain, timeout_s, guard)


def unlock(tx: WriteTx, target: DavPath, token: str, guard: Guard) -> None:
    """End a lock (RFC 4918 9.11).

    Raises:
        NotAllowed, NotFound, LockTokenMismatch, LockNotOwned.
    """
    access.require(target, guard.access, Right.WRITE)  # else a token that may only read could end its owner's locks
    chain = nodes.resolve(tx, target)
    if chain.target is None:
        raise NotFound(f"{target} does not exist")
    locks.delete_lock(tx, chain, token, guard)


def _require_new_member(tx: ReadTx, chain: Chain, guard: Guard, options: StoreOptions) -> None:
    _ = chain.parent  # ParentMissing
    nodes.require_depth(chain.path, options.max_depth)
    locks.require_member_change(tx, chain, guard)


def _require_apart(source: DavPath, destination: DavPath) -> None:
    """A copy or move into its own tree has no end; onto an ancestor it would delete what it is to keep."""
    if destination.is_within(source) or source.is_within(destination):
        raise ForbiddenTarget(f"{source} cannot be copied or moved onto or into itself, nor onto {destination}")


def _require_destination(tx: ReadTx, destination: DavPath, guard: Guard, *, overwrite: bool) -> Chain:
    """The destination's chain, if something may be put there (RFC 4918 9.8.4, 9.9.3)."""
    chain = nodes.resolve(tx, destination)
    if chain.target is None:
        _ = chain.parent  # ParentMissing
    elif not overwrite:
        raise OverwriteRefused(f"{destination} exists already")
    else:
        access.require_tree(tx, destination, chain.target, guard.access, Right.DELETE)
    locks.require_member_change(tx, chain, guard)
    return chain


def _clear(tx: WriteTx, chain: Chain) -> None:
    """Remove what stands at a destination."""
    if chain.target is not None:
        _remove(tx, chain.target)


def _remove(tx: WriteTx, node: Node) -> None:
    locks.drop_locks_of_tree(tx, node)
    nodes.detach(tx, node)

"""What a reader sees: the tree at one moment, as far as a principal may see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from davsql.access import Access
from davsql.model import BlobId, Checksums, DeadProperty, Inode, Lock, Node, Nodes, StateList
from davsql.paths import DavPath
from davsql.store import access as rights
from davsql.store import checksums, locks, lookup, nodes, preconditions, properties, sizes, sync
from davsql.store.sync import SyncAnswer, SyncRequest
from davsql.store.sync_tokens import Tokens
from davsql.store.transaction import ReadTx


class Snapshot:
    """One consistent view of the tree, as far as a principal may see it; valid inside the `with` block of
    `Store.snapshot` only."""

    def __init__(self, tx: ReadTx, access: Access) -> None:
        self._tx = tx
        self._access = access

    def node(self, path: DavPath) -> Node | None:
        """The node at `path`; None when the URL is unmapped."""
        return lookup.node_at(self._tx, path, self._access)

    def members(self, parent: Inode, *, after: str = "", limit: int = 10_000, details: bool = True) -> Nodes:
        """See nodes.members."""
        return rights.members_seen(self._tx, parent, self._access, after=after, limit=limit, details=details)

    def descendants(self, top: Inode, limit: int) -> Nodes | None:
        """All nodes below `top`, each after its parent; None when there are more than `limit`."""
        return rights.descendants_seen(self._tx, top, self._access, limit)

    def dead_properties(self, inodes: Sequence[Inode]) -> dict[Inode, list[DeadProperty]]:
        """The dead properties of these nodes; nodes without any are left out."""
        return properties.properties_of(self._tx, inodes)

    def checksums(self, blob_ids: Sequence[BlobId | None]) -> dict[BlobId, Checksums]:
        """The checksums of these blobs beside their SHA-256; blobs without any are left out."""
        return checksums.checksums_of(self._tx, blob_ids)

    def tree_sizes(self, tops: Sequence[Inode]) -> dict[Inode, int]:
        """See sizes.tree_sizes."""
        return sizes.tree_sizes(self._tx, tops, self._access) if tops else {}

    def has_locks(self) -> bool:
        """Whether there is any lock at all."""
        return locks.has_locks(self._tx)

    def locks_covering(self, path: DavPath) -> list[Lock]:
        """The active locks that cover `path`: its own, and depth-infinity ones of its ancestors."""
        return locks.locks_covering(self._tx, nodes.resolve(self._tx, path))

    def locks_on(self, inodes: Sequence[Inode]) -> dict[Inode, list[Lock]]:
        """The active locks rooted at these nodes; nodes without any are left out."""
        return locks.locks_on(self._tx, inodes)

    def state_holds(self, path: DavPath, lists: Sequence[StateList]) -> bool:
        """Whether an If header holds for a request to `path` (RFC 4918 10.4.3)."""
        return preconditions.state_holds(self._tx, nodes.resolve(self._tx, path), lists, self._access)

    def changes_since(self, path: DavPath, asked: SyncRequest) -> SyncAnswer:
        """See sync.changes_since; `path` is that of a collection of this snapshot."""
        return sync.changes_since(self._tx, nodes.resolve(self._tx, path), asked, self._access)

    def sync_tokens(self) -> Callable[[Inode], str]:
        """Gives the token of any collection as it is now."""
        return Tokens(self._tx, self._access).current

    def path_of(self, inode: Inode) -> DavPath:
        """The path of a node of this snapshot."""
        return nodes.path_of(self._tx, inode)

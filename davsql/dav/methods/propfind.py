"""PROPFIND (RFC 4918 9.1): one answer from a fixed number of queries per page of members."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from davsql.access import Right
from davsql.dav import multistatus
from davsql.dav.conditions import parse_depth
from davsql.dav.multistatus import escape
from davsql.dav.properties import QUOTA, Group, Plan, asks_for_quota, asks_for_sync, remembered_plan
from davsql.dav.request import Request
from davsql.dav.responses import HttpError, Response
from davsql.dav.xmlbody import PropfindRequest, parse_propfind, read_body
from davsql.errors import NotFound
from davsql.model import NO_NODES, BlobId, Checksums, DeadProperty, Inode, Lock, Node, Nodes, NodeType
from davsql.paths import DavPath, encoded_names, lookup_key

if TYPE_CHECKING:
    from davsql.store.snapshot import Snapshot

PAGE_MEMBERS = 10_000  # of one snapshot
BLOCK_MEMBERS = 500  # written as one piece
_COLLECTION = int(NodeType.COLLECTION)  # plain: compared for each member

# Finder of macOS 15.4 and later needs 90 s to mount a share that shows quota.
_AGENTS_WITHOUT_QUOTA = ("WebDAVFS", "WebDAVLib")
_ROOT_NAME = "davsql"  # display name of a share mounted at the root of the server


class _Page(NamedTuple):
    """Some members, or a tree, and what is known of them and of the top, from one snapshot.

    Attributes:
        locks: the content of lockdiscovery, of nodes that are covered by a lock.
        rights: what whoever asks may do with each, where that matters.
        checksums: of the content of those that have any.
        sizes: bytes in the trees of collections, as far as they were counted.
    """

    members: Nodes
    dead: Mapping[Inode, Sequence[DeadProperty]]
    locks: Mapping[Inode, str]
    rights: Mapping[Inode, Right]
    checksums: Mapping[BlobId, Checksums]
    sizes: Mapping[Inode, int]

    def group(self, nodes: Nodes, hrefs: Sequence[str]) -> Group:
        """Some of them, to be written."""
        return Group(nodes, hrefs, self.locks, self.rights, self.checksums, self.sizes)


def handle(request: Request) -> Response:
    """Properties of a resource, of it and its members, or of its whole tree.

    Raises:
        HttpError: 400; 403 with propfind-finite-depth; 412 when the If header does not hold; 413.
        NotFound.
    """
    depth = parse_depth(request, "infinity")
    asked = parse_propfind(read_body(request))
    plan = plan_for(request, asked)
    with request.store.snapshot(request.access) as view:
        listing = _Listing(request, plan, top_of(request, view), depth)
        if depth == "0" or not listing.top.is_collection:
            first = listing.page(view, NO_NODES)
        elif depth == "1":
            first = listing.page(view, listing.members(view))
        else:
            first = listing.page(view, _bounded_tree(request, view, listing.top))
    return multistatus.multistatus(listing.responses(first))


class _Listing:
    """Writes the responses of one PROPFIND.

    Attributes:
        top: the request's own resource.
    """

    def __init__(self, request: Request, plan: Plan, top: Node, depth: str) -> None:
        self.top = top
        self._depth = depth
        self._request = request
        self._plan = plan
        self._now = time.time_ns()
        self._href = escape(request.share.href(request.path, is_collection=top.is_collection))

    def members(self, view: Snapshot, after: str = "") -> Nodes:
        """A page of the top's members."""
        return view.members(self.top.inode, after=after, limit=PAGE_MEMBERS, details=self._plan.needs_details)

    def page(self, view: Snapshot, members: Nodes, *, is_first: bool = True) -> _Page:
        """Ask the store for what the plan needs about `top` and `members`, each of which follows its parent."""
        inodes = [self.top.inode, *members.inodes]
        rights: Mapping[Inode, Right] = {}
        if self._plan.needs_rights or (self._plan.needs_dead and not self._request.access.is_full):
            rights = self._rights(members)
            # Of what is there only because it leads further, nobody learns more than that.
            inodes = [inode for inode in inodes if Right.READ in rights[inode]]
        dead = view.dead_properties(inodes) if self._plan.needs_dead else {}
        locks = self._locks(view, members) if self._plan.needs_locks else {}
        blob_ids = [self.top.blob_id, *members.blob_ids]
        checksums = view.checksums(blob_ids) if self._plan.needs_checksums else {}
        sizes = self._sizes(view, members, is_first=is_first) if self._plan.needs_sizes else {}
        return _Page(members, dead, locks, rights, checksums, sizes)

    def _sizes(self, view: Snapshot, members: Nodes, *, is_first: bool) -> Mapping[Inode, int]:
        """Those of collections, the top among them on the first page."""
        kinds = zip(members.inodes, members.node_types, strict=True)
        collections = [inode for inode, kind in kinds if kind == _COLLECTION]
        sizes = view.tree_sizes(collections)
        if not is_first or not self.top.is_collection:
            return sizes
        if self._depth != "1" or len(members) == PAGE_MEMBERS:
            return {**sizes, **view.tree_sizes([self.top.inode])}
        if len(sizes) < len(collections):
            return sizes
        # All that it holds has been counted.
        return {**sizes, self.top.inode: sum(sizes.values()) + sum(members.sizes)}

    def responses(self, page: _Page) -> Iterator[str]:
        """All responses in blocks; where there are further pages, each is a snapshot of its own."""
        yield from self._plan.responses(page.group(Nodes.of(self.top), [self._href]), page.dead)
        yield from self._blocks(page)
        while self._depth == "1" and len(page.members) == PAGE_MEMBERS:
            after = lookup_key(page.members.names[-1])
            with self._request.store.snapshot(self._request.access) as view:
                page = self.page(view, self.members(view, after), is_first=False)
            yield from self._blocks(page)

    def _blocks(self, page: _Page) -> Iterator[str]:
        prefixes: dict[Inode | None, str] = {self.top.inode: self._href}
        for start in range(0, len(page.members), BLOCK_MEMBERS):
            nodes = page.members.picked(slice(start, start + BLOCK_MEMBERS))
            group = page.group(nodes, _hrefs(nodes, prefixes))
            yield "".join(self._plan.responses(group, page.dead))

    def _rights(self, members: Nodes) -> dict[Inode, Right]:
        """What whoever asks may do with the top and with each member."""
        access, only = self._request.access, Right.READ if self._request.store.options.read_only else Right.ALL

        def of_collection(path: DavPath) -> tuple[DavPath, Right, frozenset[str]]:
            return path, access.rights(path) & only, access.keys_apart(path)

        found = {self.top.inode: of_collection(self._request.path)}
        rights = {self.top.inode: found[self.top.inode][1]}
        columns = (members.inodes, members.parent_inodes, members.names, members.node_types)
        for inode, parent, name, kind in zip(*columns, strict=True):
            assert parent is not None
            path, right, apart = found[parent]
            if apart and lookup_key(name) in apart:
                right = access.rights(path.child(name)) & only
            rights[inode] = right
            if kind == _COLLECTION:
                found[inode] = of_collection(path.child(name))
        return rights

    def _locks(self, view: Snapshot, members: Nodes) -> dict[Inode, str]:
        """What lockdiscovery says: a node's own locks and those of depth infinity above it (RFC 4918 6.1, 15.8)."""
        if not view.has_locks():
            return {}
        covering = view.locks_covering(self._request.path)
        rooted = view.locks_on(members.inodes)
        if not covering and not rooted:
            return {}
        # A lock on a collection that is not the top covers the top, so it is a collection's.
        rooted[self.top.inode] = covering
        shown: dict[Inode, str] = {}
        inherited: dict[Inode | None, str] = {}
        nodes = chain([(self.top.inode, None)], zip(members.inodes, members.parent_inodes, strict=True))
        for inode, parent in nodes:
            above = inherited.get(parent, "")
            own = rooted.get(inode, ())
            written = [self._active_lock(lock) for lock in own]
            shown[inode] = above + "".join(written)
            inherited[inode] = above + "".join(
                xml for lock, xml in zip(own, written, strict=True) if lock.is_depth_infinity
            )
        return shown

    def _active_lock(self, lock: Lock) -> str:
        root_href = self._request.share.href(lock.root, is_collection=lock.is_collection)
        return multistatus.active_lock(lock, root_href, self._now, self._request.principal.name or "")


def _hrefs(nodes: Nodes, prefixes: dict[Inode | None, str]) -> list[str]:
    """The hrefs of nodes, each of which follows its parent; `prefixes` has those of collections, and gets new ones."""
    names = encoded_names(nodes.names)
    kinds = nodes.node_types
    if _COLLECTION in kinds:
        names = [name + "/" if kind == _COLLECTION else name for name, kind in zip(names, kinds, strict=True)]
        for inode, parent, name, kind in zip(nodes.inodes, nodes.parent_inodes, names, kinds, strict=True):
            if kind == _COLLECTION:
                prefixes[inode] = prefixes[parent] + name
    return [prefixes[parent] + name for parent, name in zip(nodes.parent_inodes, names, strict=True)]


def top_of(request: Request, view: Snapshot) -> Node:
    """The node of the request, whose If header holds.

    Raises:
        HttpError: 412.
        NotFound.
    """
    node = view.node(request.path)
    if node is None:
        raise NotFound(f"{request.path} does not exist")
    lists = request.preconditions.state_lists
    if lists is not None and not view.state_holds(request.path, lists):
        raise HttpError(412, "The If header does not hold.")
    return node._replace(name=request.share.name or _ROOT_NAME) if request.path.is_root else node


def _bounded_tree(request: Request, view: Snapshot, top: Node) -> Nodes:
    limit = request.share.options.propfind_infinity_limit
    tree = view.descendants(top.inode, limit) if limit else None
    if tree is None:
        message = f"Depth: infinity is answered for up to {limit} resources; ask with Depth: 1."
        raise HttpError(403, message, condition="propfind-finite-depth")  # RFC 4918 9.1, 16
    return tree


def plan_for(request: Request, asked: PropfindRequest) -> Plan:
    """How to answer whoever asks for these properties here."""
    agent = request.header("User-Agent") or ""
    is_slowed = not request.share.options.macos_quota and any(name in agent for name in _AGENTS_WITHOUT_QUOTA)
    has_quota = asks_for_quota(asked) and not is_slowed
    if not has_quota and not asks_for_sync(asked):
        return remembered_plan(asked)
    with request.store.snapshot(request.access) as view:  # before the listing: what comes in between is told again
        sync_token = view.sync_tokens()
    if not has_quota:
        return Plan(asked, None, sync_token)
    space = request.store.space(request.guard)
    return Plan(asked, dict(zip(QUOTA, (space.available_bytes, space.used_bytes), strict=True)), sync_token)

"""What changed in a collection since a client last asked (RFC 6578), from the journal.

An answer tells of a window of the journal, and says of every node in it what is true now: it was changed, or its old
place is free. What happened after the window comes with later windows, which say it again. So a client that goes on
until nothing is left has the tree as it is, whatever happens between its requests.

Rule 1: a token names an entry of the journal, the collection, and what may be read there. Of clients nothing is kept.
Rule 2: removals are told first; then single nodes, by inode; then trees, by name. So the last one that was told says
        where the next page goes on, and no page looks at what others have told.
Rule 3: a tree that arrived is told node by node, a tree that is gone by its top.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple

from davsql.access import Access, Right
from davsql.errors import SyncTokenInvalid
from davsql.model import NO_NODES, Inode, Nodes
from davsql.paths import DavPath
from davsql.store.journal import BEGINNING, Change, Entry, changes_between, entry, newest
from davsql.store.nodes import Chain, in_columns, resolve
from davsql.store.places import Places
from davsql.store.preorder import Step, below
from davsql.store.sync_tokens import Position, Tokens, Window
from davsql.store.transaction import ReadTx

PAGE_NODES = 10_000  # in one answer
SCANNED_CHANGES = 100_000  # looked at for one answer


class SyncRequest(NamedTuple):
    """What a client asks for."""

    token: str  # "": all there is
    is_deep: bool  # of the whole tree, not of the members alone
    limit: int | None = None  # results in one answer


class Removed(NamedTuple):
    """A place where there is nothing any more."""

    path: DavPath
    was_collection: bool


class SyncAnswer(NamedTuple):
    """What changed; with `token` one asks next time.

    Attributes:
        paths: one for each node.
        is_truncated: there is more, which the token leads to.
    """

    nodes: Nodes
    paths: list[DavPath]
    removed: list[Removed]
    token: str
    is_truncated: bool


class _Found:
    """What a window says of a collection."""

    def __init__(self) -> None:
        self.nodes: set[Inode] = set()  # that lie below it now
        self.trees: set[Inode] = set()  # those of them that arrived with all they hold
        self.removed: dict[tuple[str, ...], Removed] = {}  # by names as sent
        self.replaced: list[DavPath] = []  # places that a collection left to something else
        self.end = 0  # of the window

    def is_replaced(self, path: DavPath) -> bool:
        """Whether the next window tells of what lies there."""
        return any(path.is_within(place) for place in self.replaced)


# --- windows ------------------------------------------------------------------------------------------------------


def changes_since(tx: ReadTx, chain: Chain, asked: SyncRequest, access: Access) -> SyncAnswer:
    """What changed below the chain's target, a collection that the principal sees.

    Raises:
        SyncTokenInvalid: the client must begin again, without a token.
    Source: RFC 6578 3.
    """
    tokens, top = Tokens(tx, access), chain.inodes[-1]
    limit = min(asked.limit or PAGE_NODES, PAGE_NODES)
    now = tokens.newest
    window = tokens.read(tx, chain, asked.token) if asked.token else Window(BEGINNING, now, Position())
    places = Places(tx, top)
    if window.start == BEGINNING:
        assert window.end is not None
        found, end = _all(tx, chain, asked, access), window.end
    else:
        found = _scan(tx, places, asked, window, now, limit)
        end = window.end or entry(tx, found.end)
    removed = [] if window.after is not None else _shown(found, access)
    room, after = limit - len(removed), window.after or Position()
    chosen: list[Step] = []
    for position, step in _told(tx, places, found, asked, after, access):
        if len(chosen) == room:
            rest = Window(window.start, end, after)
            return _answer(tx, chosen, removed, tokens.written(top, rest), is_truncated=True)
        chosen.append(step)
        after = position
    return _answer(tx, chosen, removed, tokens.written(top, Window(end)), is_truncated=end.change_id < now.change_id)


def _all(tx: ReadTx, chain: Chain, asked: SyncRequest, access: Access) -> _Found:
    """The trees that hold everything a principal may know of; not what lies around them, which may be much."""
    found = _Found()
    if not asked.is_deep or Right.READ in access.rights(chain.path):
        found.trees.add(chain.inodes[-1])
        return found
    depth = len(chain.path.keys)
    for keys, right in access.by_path.items():
        if Right.READ in right and keys[:depth] == chain.path.keys:
            inner = resolve(tx, DavPath(keys))
            found.nodes.update(inner.inodes[depth + 1 :])
            if inner.target is not None:
                found.trees.add(inner.target.inode)
    return found


def is_unchanged(tx: ReadTx, chain: Chain, token: str, access: Access) -> bool:
    """Whether a token of the chain's target still says how all of it is (RFC 6578 5)."""
    if chain.target is None or not chain.target.is_collection:
        return False
    try:
        window = Tokens(tx, access).read(tx, chain, token)
    except SyncTokenInvalid:
        return False
    now = newest(tx)
    places = Places(tx, chain.target.inode)
    found = _scan(tx, places, SyncRequest(token, is_deep=True), window, now, 1)
    return window.end is None and found.end == now.change_id and not (found.nodes or found.removed)


def _scan(tx: ReadTx, places: Places, asked: SyncRequest, window: Window, now: Entry, limit: int) -> _Found:
    """Read a window; an end that is not known yet is after `limit` results, or where a tree was replaced."""
    found, start = _Found(), window.start.change_id
    found.end = start
    until = (window.end or now).change_id
    for changes in changes_between(tx, start, until, limit):
        places.load([each.inode for each in changes])
        places.load([each.old_parent for each in changes if each.old_parent is not None])
        for change in changes:
            _note(places, asked, change, found)
            found.end = change.change_id
            is_full = len(found.nodes) + len(found.removed) >= limit or found.replaced
            if window.end is None and (is_full or found.end - start >= SCANNED_CHANGES):
                return found
    return found


def _note(places: Places, asked: SyncRequest, change: Change, found: _Found) -> None:
    inode, top = change.inode, places.top
    if inode != top and (places.is_within(inode) if asked.is_deep else places.parent(inode) == top):
        found.nodes.add(inode)
        if asked.is_deep and change.has_arrived and change.is_collection:
            found.trees.add(inode)
    parent, name = change.old_parent, change.old_name
    if parent is None or name is None or not (places.is_within(parent) if asked.is_deep else parent == top):
        return
    above = places.path(parent)
    assert above is not None
    occupant, place = places.occupant(parent, name), above.child(name)
    is_replaced = asked.is_deep and change.is_collection and occupant is not None and occupant[0] != inode
    if is_replaced:
        # What the old tree held is not known any more. So all of it goes, and what is there now arrived later: the
        # next window tells of it.
        found.replaced.append(place)
    # A URL is another one in another Unicode form, and with a slash at its end.
    if is_replaced or occupant is None or occupant[1:] != (name, bool(change.is_collection)):
        found.removed[place.names] = Removed(place, bool(change.is_collection))


def _shown(found: _Found, access: Access) -> list[Removed]:
    return [each for each in found.removed.values() if access.shows(each.path, is_collection=each.was_collection)]


# --- nodes --------------------------------------------------------------------------------------------------------


def _told(
    tx: ReadTx, places: Places, found: _Found, asked: SyncRequest, after: Position, access: Access
) -> Iterator[tuple[Position, Step]]:
    """What is to be told of, in order, from above `after`."""

    def is_wanted(step: Step) -> bool:
        return access.shows(step.path, is_collection=step.is_collection) and not found.is_replaced(step.path)

    places.load(found.nodes | found.trees)
    if after.keys is None:
        for inode in sorted(found.nodes - found.trees):
            step = _step(places, inode) if inode > after.inode else None
            if step is not None and not places.is_below(inode, found.trees) and is_wanted(step):
                yield Position(inode), step
    for inode in sorted(found.trees):
        if after.keys is not None and inode < after.inode:
            continue
        step = _step(places, inode)
        if step is None or places.is_below(inode, found.trees) or not is_wanted(step):
            continue
        begun = after.keys if after.inode == inode else None
        if begun is None and inode != places.top:
            yield Position(inode, ()), step
        for each in below(tx, step, begun or (), is_wanted, is_deep=asked.is_deep) if step.is_collection else ():
            yield Position(inode, each.path.keys[len(step.path.keys) :]), each


def _step(places: Places, inode: Inode) -> Step | None:
    """A node that is the collection that was asked, or lies below it; None: it does not."""
    path = places.path(inode)
    if path is None or not places.is_within(inode):
        return None
    return Step(inode, path, places.is_collection(inode))


NODES = """
SELECT
  json_group_array(e.inode), json_group_array(e.parent_inode), json_group_array(e.name),
  json_group_array(e.node_type), json_group_array(e.blob_id), json_group_array(e.size),
  json_group_array(hex(e.digest)), json_group_array(e.content_type), json_group_array(e.created_at),
  json_group_array(e.modified_at)
FROM json_each(:inodes) AS wanted CROSS JOIN entries AS e ON e.inode = wanted.value
"""


def _answer(tx: ReadTx, chosen: list[Step], removed: list[Removed], token: str, *, is_truncated: bool) -> SyncAnswer:
    chosen = sorted(chosen, key=lambda each: each.path.names)  # collections before what they hold
    inodes = [each.inode for each in chosen]
    nodes = in_columns(tx, NODES, {"inodes": json.dumps(inodes)}) if inodes else NO_NODES
    return SyncAnswer(nodes, [each.path for each in chosen], removed, token, is_truncated)

"""What changed in a collection since a client last asked (RFC 6578), from the journal.

An answer tells of a window of the journal, and says of every node in it what is true now: it was changed, or its old
place is free. What happened after the window comes with later windows, which say it again. So a client that goes on
until nothing is left has the tree as it is, whatever happens between its requests.

Rule 1: a token names an entry of the journal, the collection, and what may be read there. Of clients nothing is kept.
Rule 2: removals are told first; then what changed, by inode, so that the next page knows where to go on.
Rule 3: a tree that arrived is told node by node, a tree that is gone by its top.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from typing import NamedTuple

from davsql.access import Access, Right
from davsql.errors import SyncTokenInvalid
from davsql.model import NO_NODES, Inode, Nodes
from davsql.paths import DavPath
from davsql.store.journal import BEGINNING, Change, Entry, changes_between, entry, have_arrived, is_known, newest
from davsql.store.migrate import GET_META
from davsql.store.nodes import Chain, in_columns, resolve
from davsql.store.places import Places
from davsql.store.transaction import ReadTx

PAGE_NODES = 10_000  # in one answer
SCANNED_CHANGES = 100_000  # looked at for one answer
PREFIX = "http://davsql/ns/sync/"

_TOKEN = re.compile(r"([0-9a-f-]{1,64})/(\d{1,19})/([0-9a-f]{16})/(\d+)-(\d+)(?:_(\d+)-(\d+)_(\d+))?", re.ASCII)
_INTEGER_MAX = 2**63 - 1


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


class _Window(NamedTuple):
    """A part of the journal.

    Attributes:
        start: the last entry before it; BEGINNING: all there is, is told.
        end: its last entry; None: still to be found.
        after: up to this inode it was told already; None: nothing was.
    """

    start: Entry
    end: Entry | None = None
    after: int | None = None

    def __str__(self) -> str:
        return str(self.start) if self.end is None else f"{self.start}_{self.end}_{self.after}"


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


# --- tokens -------------------------------------------------------------------------------------------------------


class Tokens:
    """The tokens of what one principal sees of a store."""

    def __init__(self, tx: ReadTx, access: Access) -> None:
        self._store_id = tx.value(GET_META, ("store_id",))
        # Where rights have changed, what is seen changed without an entry in the journal.
        readable = sorted((keys, Right.READ in rights) for keys, rights in access.by_path.items())
        self._view = hashlib.sha256(repr(readable).encode()).hexdigest()[:16]
        self.newest = newest(tx)

    def current(self, inode: Inode) -> str:
        """The token of a collection as it is now."""
        return self.written(inode, _Window(self.newest))

    def written(self, inode: Inode, window: _Window) -> str:
        """The token that leads to a window."""
        return f"{PREFIX}{self._store_id}/{inode}/{self._view}/{window}"

    def read(self, tx: ReadTx, chain: Chain, token: str) -> _Window:
        """The window that a token leads to.

        Raises:
            SyncTokenInvalid: it is too old, of another history of the store, of another collection, or no token.
        """
        found = _TOKEN.fullmatch(token.removeprefix(PREFIX)) if token.startswith(PREFIX) else None
        inodes = chain.inodes
        if found is None or (found[1], found[2], found[3]) != (self._store_id, str(inodes[-1]), self._view):
            raise SyncTokenInvalid("the sync-token is not of this collection, or the rights have changed")
        numbers = [int(each) for each in found.groups()[3:] if each is not None]
        window = _Window(Entry(*numbers[:2]))
        if len(numbers) > 2:
            window = _Window(window.start, Entry(*numbers[2:4]), numbers[4])
        known = [each for each in window[:2] if each not in (None, BEGINNING)]
        if not known or max(numbers) > _INTEGER_MAX or not all(is_known(tx, each) for each in known):
            raise SyncTokenInvalid("the sync-token is too old, or of another history of the store")
        # The journal does not say what was in a collection that was replaced, this one or one above it.
        if have_arrived(tx, json.dumps(inodes[1:]), known[0].change_id):
            raise SyncTokenInvalid("the collection was moved or replaced since the sync-token was given")
        return window


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
    window = tokens.read(tx, chain, asked.token) if asked.token else _Window(BEGINNING, now, 0)
    places = Places(tx, top)
    if window.start == BEGINNING:
        assert window.end is not None
        found, end = _all(tx, chain, asked, access), window.end
    else:
        found = _scan(tx, places, asked, window, now, limit)
        end = window.end or entry(tx, found.end)
        found.trees = {inode for inode in found.trees if _is_seen(places, inode, access)}
    removed = [] if window.after is not None else _shown(found, access)
    room, after = limit - len(removed), window.after or 0
    chosen: list[tuple[Inode, DavPath]] = []
    for inode, path in _members(tx, places, found, asked, after, access):
        if len(chosen) == room:
            rest = _Window(window.start, end, chosen[-1][0] if chosen else after)
            return _answer(tx, chosen, removed, tokens.written(top, rest), is_truncated=True)
        chosen.append((inode, path))
    return _answer(tx, chosen, removed, tokens.written(top, _Window(end)), is_truncated=end.change_id < now.change_id)


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


def _is_seen(places: Places, inode: Inode, access: Access) -> bool:
    path = places.path(inode)
    return path is not None and access.shows(path, is_collection=places.is_collection(inode))


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


def _scan(tx: ReadTx, places: Places, asked: SyncRequest, window: _Window, now: Entry, limit: int) -> _Found:
    """Read a window; an end that is not known yet is after `limit` results, or where a tree was replaced."""
    found, start = _Found(), window.start.change_id
    found.end = start
    until = (window.end or now).change_id
    for changes in changes_between(tx, start, until):
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

TREES = """
WITH RECURSIVE tree (inode) AS (
  SELECT value FROM json_each(:tops)
  UNION
  SELECT n.inode FROM tree AS t JOIN nodes AS n ON n.parent_inode = t.inode
)
SELECT inode FROM tree WHERE inode > :after ORDER BY inode LIMIT :limit
"""
INODES_OF_MEMBERS = """
SELECT inode FROM nodes WHERE parent_inode IN (SELECT value FROM json_each(:tops)) AND inode > :after
ORDER BY inode LIMIT :limit
"""


def _members(
    tx: ReadTx, places: Places, found: _Found, asked: SyncRequest, after: int, access: Access
) -> Iterator[tuple[Inode, DavPath]]:
    """What is to be told of, in the order of inodes from above `after`."""
    for inodes in _candidates(tx, found, TREES if asked.is_deep else INODES_OF_MEMBERS, after):
        places.load(inodes)
        for inode in inodes:
            if inode == places.top or not places.is_within(inode) or not _is_seen(places, inode, access):
                continue
            path = places.path(inode)
            if path is not None and not found.is_replaced(path):
                yield inode, path


def _candidates(tx: ReadTx, found: _Found, sql: str, after: int) -> Iterator[list[Inode]]:
    tops = json.dumps(sorted(found.trees))
    while True:
        rows = tx.rows(sql, {"tops": tops, "after": after, "limit": PAGE_NODES}) if found.trees else []
        last = rows[-1][0] if len(rows) == PAGE_NODES else _INTEGER_MAX
        yield sorted({row[0] for row in rows} | {inode for inode in found.nodes if after < inode <= last})
        if last == _INTEGER_MAX:
            return
        after = last


NODES = """
SELECT
  json_group_array(e.inode), json_group_array(e.parent_inode), json_group_array(e.name),
  json_group_array(e.node_type), json_group_array(e.blob_id), json_group_array(e.size),
  json_group_array(hex(e.digest)), json_group_array(e.content_type), json_group_array(e.created_at),
  json_group_array(e.modified_at)
FROM json_each(:inodes) AS wanted CROSS JOIN entries AS e ON e.inode = wanted.value
"""


def _answer(
    tx: ReadTx, chosen: list[tuple[Inode, DavPath]], removed: list[Removed], token: str, *, is_truncated: bool
) -> SyncAnswer:
    chosen = sorted(chosen, key=lambda each: each[1].names)  # collections before what they hold
    inodes = [inode for inode, _ in chosen]
    nodes = in_columns(tx, NODES, {"inodes": json.dumps(inodes)}) if inodes else NO_NODES
    return SyncAnswer(nodes, [path for _, path in chosen], removed, token, is_truncated)

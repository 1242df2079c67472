"""Files that come in parts: each is stored by itself, and the last step puts them together.

The parts are members of a collection that is detached, so that no path leads to it, and pinned, so that GC leaves it
alone; its name is one that no path can have. Parts count against quotas as files do. What gets no part for a day is
given up: the pin is touched ahead of time.
"""

from __future__ import annotations

from typing import NamedTuple

from davsql.access import Right
from davsql.errors import AlreadyExists, NotAllowed, NotFound, ParentMissing
from davsql.model import Guard, Inode, Node
from davsql.paths import lookup_key
from davsql.store import nodes, pins, quota
from davsql.store.nodes import Content, Stamp
from davsql.store.transaction import ReadTx, WriteTx

AHEAD_NS = 23 * 3600 * 10**9  # GC ends pins that nobody touched for an hour
PAGE_PARTS = 1000


class PartPlace(NamedTuple):
    """Where a part goes."""

    top: Inode  # the collection of the parts
    known: Node | None  # the part that is there already
    room: int | None  # how many bytes it may have; None: any number


class Assembly(NamedTuple):
    """A file that comes in parts, by the name that its client gave to it."""

    owner: str
    name: str

    @property
    def key(self) -> str:
        return f"uploads/{lookup_key(self.name)}"


FIND_ASSEMBLY = """
SELECT n.inode FROM nodes AS n INDEXED BY nodes_detached
WHERE n.parent_inode IS NULL AND n.name = :key AND n.owner = :owner
  AND n.inode IN (SELECT inode FROM pins WHERE inode IS NOT NULL)
"""


def find(tx: ReadTx, assembly: Assembly) -> Inode | None:
    """The collection of the parts; None when there is none, or none any more."""
    found = tx.value(FIND_ASSEMBLY, {"key": assembly.key, "owner": assembly.owner})
    return None if found is None else Inode(found)


def require(tx: ReadTx, assembly: Assembly) -> Inode:
    """As `find`; NotFound."""
    found = find(tx, assembly)
    if found is None:
        raise NotFound(f"there is no upload {assembly.name}")
    return found


INSERT_ASSEMBLY = """
INSERT INTO nodes (parent_inode, name, node_type, created_at, modified_at, owner)
VALUES (NULL, :key, 1, :now, :now, :owner)
"""
TOUCH_AHEAD = "UPDATE pins SET touched_at = :until WHERE inode = :inode"


def begin(tx: WriteTx, assembly: Assembly, guard: Guard) -> None:
    """Begin to take parts.

    Raises:
        AlreadyExists; NotAllowed: who asks may write nowhere.
    """
    _require_right(guard)
    if find(tx, assembly) is not None:
        raise AlreadyExists(f"there is an upload {assembly.name} already")
    top = Inode(tx.insert(INSERT_ASSEMBLY, {"key": assembly.key, "now": tx.now, "owner": assembly.owner}))
    pins.pin_tree(tx, top)
    tx.change(TOUCH_AHEAD, {"until": tx.now + AHEAD_NS, "inode": top})


FIND_PART = """
SELECT inode, parent_inode, name, node_type, blob_id, size, digest, content_type, created_at, modified_at
FROM entries WHERE parent_inode = :top AND key = :key
"""


def require_part(tx: ReadTx, assembly: Assembly, name: str, size: int, guard: Guard) -> PartPlace:
    """Everything that must hold for `put_part`; also asked before a body is read.

    Raises:
        NotAllowed, ParentMissing, QuotaExceeded.
    """
    _require_right(guard)
    top = find(tx, assembly)
    if top is None:
        raise ParentMissing(f"there is no upload {assembly.name}")
    row = tx.row(FIND_PART, {"top": top, "key": name})
    known = None if row is None else Node._make(row)
    return PartPlace(top, known, quota.require_room(tx, guard, known, size))


def put_part(tx: WriteTx, place: PartPlace, name: str, content: Content, owner: str) -> Node:
    """Store a part, in the place of one that came before it.

    Args:
        place: what `require_part` returned in this transaction.
    """
    top, known, _ = place
    tx.change(TOUCH_AHEAD, {"until": tx.now + AHEAD_NS, "inode": top})
    if known is not None:
        return nodes.replace_content(tx, known, content, Stamp(owner))
    return nodes.insert_node(tx, top, name, content, Stamp(owner))


def parts(tx: ReadTx, assembly: Assembly) -> tuple[Inode, list[Node]]:
    """The collection, and all parts that are there.

    Raises:
        NotFound.
    """
    top, found, after = require(tx, assembly), list[Node](), ""
    while len(page := nodes.members(tx, top, after=after, limit=PAGE_PARTS)):
        found += page
        after = lookup_key(page.names[-1])
    return top, found


UNPIN_ASSEMBLY = "DELETE FROM pins WHERE inode = ?"
DELETE_PARTS = "DELETE FROM nodes WHERE parent_inode = ?"
DELETE_ASSEMBLY = "DELETE FROM nodes WHERE inode = ?"


def end(tx: WriteTx, top: Inode) -> None:
    """Take the collection and its parts away; what they hold stays where other files share it.

    Raises:
        NotFound: somebody else did.
    """
    if not tx.change(UNPIN_ASSEMBLY, (top,)):
        raise NotFound("there is no such upload any more")
    tx.change(DELETE_PARTS, (top,))
    tx.change(DELETE_ASSEMBLY, (top,))


def drop(tx: WriteTx, assembly: Assembly, guard: Guard) -> None:
    """Give an upload up.

    Raises:
        NotAllowed, NotFound.
    """
    _require_right(guard)
    end(tx, require(tx, assembly))


def _require_right(guard: Guard) -> None:
    """An upload is its user's, whose tokens may be for less than he may do."""
    if not guard.access.may_anywhere(Right.WRITE):
        raise NotAllowed("nothing may be written here")

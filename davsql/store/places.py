"""Where many nodes lie, found together."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable

from davsql.errors import StoreDamaged
from davsql.model import ROOT_INODE, Inode, NodeType
from davsql.paths import DavPath, lookup_key
from davsql.store.nodes import REMEDY
from davsql.store.transaction import ReadTx

# UNION, not ALL: many have the same ancestors, and damage can make circles.
ANCESTORS = """
WITH RECURSIVE up (inode) AS (
  SELECT value FROM json_each(:inodes)
  UNION
  SELECT n.parent_inode FROM up AS u JOIN nodes AS n ON n.inode = u.inode WHERE n.parent_inode IS NOT NULL
)
SELECT
  json_group_array(n.inode), json_group_array(n.parent_inode), json_group_array(coalesce(n.sent_name, n.name)),
  json_group_array(n.node_type)
FROM up AS u CROSS JOIN nodes AS n ON n.inode = u.inode
"""
OCCUPANT = """
SELECT inode, coalesce(sent_name, name), node_type = 1 FROM nodes WHERE parent_inode = :parent AND name = :key
"""


class Places:
    """Paths of nodes of one snapshot that lie below a collection."""

    def __init__(self, tx: ReadTx, top: Inode) -> None:
        self._tx = tx
        self.top = top
        self._known: dict[Inode, tuple[Inode | None, str, int]] = {}
        self._paths: dict[Inode, DavPath | None] = {ROOT_INODE: DavPath()}
        self._below: dict[Inode, bool] = {ROOT_INODE: top == ROOT_INODE, top: True}

    def load(self, inodes: Iterable[Inode]) -> None:
        """Look these up, so that the others can be asked about them."""
        missing = [inode for inode in set(inodes) if inode not in self._known]
        row = self._tx.row(ANCESTORS, {"inodes": json.dumps(missing)}) if missing else None
        for inode, parent, name, kind in zip(*map(json.loads, row), strict=True) if row else ():  # see nodes.in_columns
            self._known[inode] = parent, name, kind

    def path(self, inode: Inode) -> DavPath | None:
        """The path of a node; None when it is deleted.

        Raises:
            StoreDamaged: it is its own ancestor, or has a name that is no text.
        """
        self._walk(inode)
        return self._paths[inode]

    def is_within(self, inode: Inode) -> bool:
        """Whether a node is the collection, or lies below it."""
        self._walk(inode)
        return self._below[inode]

    def is_below(self, inode: Inode, tops: Collection[Inode]) -> bool:
        """Whether a node, which has a path, lies below one of these."""
        at = self.parent(inode)
        while at is not None and at not in tops:
            at = self.parent(at)
        return at is not None

    def is_collection(self, inode: Inode) -> bool:
        """Of a node that there is."""
        return self._known[inode][2] == NodeType.COLLECTION

    def parent(self, inode: Inode) -> Inode | None:
        """None when it is deleted."""
        return self._known[inode][0] if inode in self._known else None

    def occupant(self, parent: Inode, name: str) -> tuple[Inode, str, bool] | None:
        """What lies at a place now: its name as sent, and whether it is a collection."""
        row = self._tx.row(OCCUPANT, {"parent": parent, "key": lookup_key(name)})
        return None if row is None else (row[0], row[1], bool(row[2]))

    def _walk(self, inode: Inode) -> None:
        way: list[Inode] = []
        at: Inode | None = inode
        while at is not None and at not in self._paths:
            way.append(at)
            if len(way) > len(self._known) + 1:
                raise StoreDamaged(f"node {inode} is its own ancestor; {REMEDY}")
            at = self._known[at][0] if at in self._known else None
        path = None if at is None else self._paths[at]
        is_below = at is not None and self._below[at]
        for each in reversed(way):
            if path is not None:
                name = self._known[each][1]
                if not isinstance(name, str):
                    raise StoreDamaged(f"node {each} has a name that is no text; {REMEDY}")
                path = path.child(name)
            is_below = path is not None and (is_below or each == self.top)
            self._paths[each], self._below[each] = path, is_below

"""Trees in the order of their names, each collection before what it holds, from where an earlier walk ended.

Of the earlier walk only its last path is known, by names. So a page costs what it tells, whatever was told before; and
what nobody has moved since is neither missed nor told twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import NamedTuple

from davsql.access import Keys
from davsql.errors import StoreDamaged
from davsql.model import Inode
from davsql.paths import DavPath
from davsql.store.nodes import REMEDY
from davsql.store.transaction import ReadTx

FETCHED_MEMBERS = 500  # at a time, of each collection on the way
LEVELS_MAX = 10_000  # damage can make circles


class Step(NamedTuple):
    """A node where the walk passes."""

    inode: Inode
    path: DavPath
    is_collection: bool


def below(
    tx: ReadTx, top: Step, after: Keys, is_wanted: Callable[[Step], bool], *, is_deep: bool = True
) -> Iterator[Step]:
    """What lies below a collection; with what is not wanted all below that is left out.

    Args:
        after: the path, relative to `top`, up to which it was walked before; () is the beginning.
        is_deep: the whole tree, not the members alone.

    Raises:
        StoreDamaged: an index leads back, a node is its own ancestor, or has a name that is no text.
    """
    way = _way_to(tx, top, after, is_deep=is_deep)
    while way:
        path, members = way[-1]
        if len(way) > LEVELS_MAX:
            raise StoreDamaged(f"node {top.inode} is its own ancestor; {REMEDY}")
        for inode, name, is_collection in members:
            if not isinstance(name, str):
                raise StoreDamaged(f"node {inode} has a name that is no text; {REMEDY}")
            step = Step(inode, path.child(name), bool(is_collection))
            if not is_wanted(step):
                continue
            yield step
            if is_collection and is_deep:
                way.append((step.path, _members(tx, inode, "")))
                break
        else:
            way.pop()


_Members = Iterator[tuple[Inode, str, int]]

MEMBER = (
    "SELECT inode, coalesce(sent_name, name), node_type = 1 FROM nodes WHERE parent_inode = :parent AND name = :key"
)


def _way_to(tx: ReadTx, top: Step, after: Keys, *, is_deep: bool) -> list[tuple[DavPath, _Members]]:
    """The collections along a path, as far as they are there, each with the members that follow on the path."""
    way: list[tuple[DavPath, _Members]] = []
    at: Step | None = top
    for key in after:
        if at is None:
            return way
        way.append((at.path, _members(tx, at.inode, key)))
        row = tx.row(MEMBER, {"parent": at.inode, "key": key})
        at = None if row is None else Step(row[0], at.path.child(row[1]), bool(row[2]))
    if at is not None and at.is_collection and (is_deep or not after):
        way.append((at.path, _members(tx, at.inode, "")))
    return way


NEXT_MEMBERS = """
SELECT json_group_array(inode), json_group_array(sent), json_group_array(is_collection), json_group_array(name)
FROM (
  SELECT inode, coalesce(sent_name, name) AS sent, node_type = 1 AS is_collection, name FROM nodes
  WHERE parent_inode = :parent AND name > :after ORDER BY name LIMIT :limit
)
"""


def _members(tx: ReadTx, parent: Inode, after: str) -> _Members:
    """Members whose lookup keys are above `after`, in the order of these; by columns, see `nodes.in_columns`."""
    is_last = False
    while not is_last:
        row = tx.row(NEXT_MEMBERS, {"parent": parent, "after": after, "limit": FETCHED_MEMBERS})
        assert row is not None
        inodes, names, kinds, keys = map(json.loads, row)
        if keys and not (isinstance(keys[-1], str) and keys[-1] > after):
            raise StoreDamaged(f"an index of the store is out of order; {REMEDY}")
        yield from zip(inodes, names, kinds, strict=True)
        is_last = len(inodes) < FETCHED_MEMBERS
        after = keys[-1] if keys else after

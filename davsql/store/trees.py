"""Whole trees: how high they are, and copies of them.

A copy shares content: rows are inserted and references counted, no byte moves. It is made in steps of bounded size,
each of them INSERT ... SELECT of members of one collection after another. A small tree is copied in one command. A
large one grows detached, where nobody sees it, command by command, and is attached by the last one: other writers go
on meanwhile, and readers see nothing or all of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from davsql.errors import PathTooDeep
from davsql.model import Inode, Node, NodeType
from davsql.store.nodes import name_columns
from davsql.store.transaction import ReadTx, WriteTx

STEP_NODES = 2000  # copied in one command: some 20 ms of the writer
AT_ONCE_NODES = 4000  # a tree up to this size is copied in one command

TREE_HEIGHT = """
WITH RECURSIVE tree (inode, depth) AS (
  SELECT :top, 0
  UNION ALL
  SELECT n.inode, t.depth + 1 FROM tree AS t JOIN nodes AS n ON n.parent_inode = t.inode
  WHERE n.node_type = 1 AND t.depth < :limit  -- damage can make circles
)
SELECT max(depth) FROM tree
"""


def height(tx: ReadTx, top: Node, limit: int) -> int:
    """Levels below `top` that nodes of its tree can occupy; above `limit` they are not counted any further.

    Only collections are walked: files lie at most one level below the deepest of them.
    """
    return tx.value(TREE_HEIGHT, {"top": top.inode, "limit": limit}) + 1 if top.is_collection else 0


COUNT_TREE = """
WITH RECURSIVE tree (inode) AS (
  SELECT :top
  UNION ALL
  SELECT n.inode FROM tree AS t JOIN nodes AS n ON n.parent_inode = t.inode
  LIMIT :limit
)
SELECT count(*) FROM tree
"""


def is_large(tx: ReadTx, top: Node) -> bool:
    """Whether the tree is to be copied in steps."""
    return bool(tx.value(COUNT_TREE, {"top": top.inode, "limit": AT_ONCE_NODES + 1}) > AT_ONCE_NODES)


NEXT_INODE = "SELECT seq + 1 FROM sqlite_sequence WHERE name = 'nodes'"
COPY_TOP = """
INSERT INTO nodes
  (inode, parent_inode, name, sent_name, node_type, blob_id, content_type, created_at, modified_at, owner)
SELECT :first, :parent, :name, :sent_name, node_type, blob_id, content_type, :now, modified_at, :owner
FROM nodes WHERE inode = :top
"""
COPY_TOP_PROPERTIES = """
INSERT INTO properties (inode, namespace, name, xml)
SELECT :first, namespace, name, xml FROM properties WHERE inode = :top
"""


def copy_top(tx: WriteTx, top: Node, parent: Inode | None, name: str, owner: str) -> Inode:
    """Copy a node with its dead properties, without members (RFC 4918 9.8.2); detached when `parent` is None."""
    first = Inode(tx.value(NEXT_INODE))
    columns = {"first": first, "parent": parent, **name_columns(name), "now": tx.now, "owner": owner}
    tx.change(COPY_TOP, {**columns, "top": top.inode})
    tx.change(COPY_TOP_PROPERTIES, {"first": first, "top": top.inode})
    return first


class Pending(NamedTuple):
    """A collection whose members are still to be copied, from the first name above `after`."""

    source: Inode
    target: Inode
    after: str
    depth: int  # names in the path that the target will have


COPY_MEMBERS = """
INSERT INTO nodes
  (inode, parent_inode, name, sent_name, node_type, blob_id, content_type, created_at, modified_at, owner)
SELECT
  :first + row_number() OVER (ORDER BY name) - 1,
  :target, name, sent_name, node_type, blob_id, content_type, :now, modified_at,
  (SELECT owner FROM nodes WHERE inode = :target)
FROM nodes WHERE parent_inode = :source AND name > :after ORDER BY name LIMIT :limit
"""
COPIED = """
SELECT o.inode, n.inode, n.node_type, n.name
FROM nodes AS n CROSS JOIN nodes AS o ON o.parent_inode = :source AND o.name = n.name
WHERE n.parent_inode = :target AND n.name > :after ORDER BY n.name
"""
COPY_PROPERTIES = """
INSERT INTO properties (inode, namespace, name, xml)
SELECT n.inode, d.namespace, d.name, d.xml
FROM nodes AS n
CROSS JOIN nodes AS o ON o.parent_inode = :source AND o.name = n.name
CROSS JOIN properties AS d ON d.inode = o.inode
WHERE n.parent_inode = :target AND n.name > :after
"""


def copy_members(tx: WriteTx, todo: Sequence[Pending], limit: int, max_depth: int) -> tuple[int, list[Pending]]:
    """Copy up to about `limit` nodes.

    Returns:
        How many entries at the front of `todo` are dealt with, and the entries that take their place.

    Raises:
        PathTooDeep: a member would have more than `max_depth` names.
    """
    done, found = 0, list[Pending]()
    while limit > 0 and done < len(todo):
        each = todo[done]
        bindings = {"source": each.source, "target": each.target, "after": each.after, "now": tx.now, "limit": limit}
        count = tx.change(COPY_MEMBERS, {**bindings, "first": tx.value(NEXT_INODE)})
        done += 1
        if not count:
            continue
        if each.depth >= max_depth:
            raise PathTooDeep(f"the copy would be more than {max_depth} levels deep")
        tx.change(COPY_PROPERTIES, bindings)
        copied = tx.rows(COPIED, bindings)
        found += [Pending(old, new, "", each.depth + 1) for old, new, kind, _ in copied if kind == NodeType.COLLECTION]
        if count == limit:
            found.append(each._replace(after=copied[-1][3]))
        limit -= count
    return done, found


def copy_all_members(tx: WriteTx, source: Inode, target: Inode, depth: int, max_depth: int) -> None:
    """Copy the whole tree below `source` in this transaction."""
    todo = deque([Pending(source, target, "", depth)])
    while todo:
        advance(todo, *copy_members(tx, [todo[0]], STEP_NODES, max_depth))


def advance(todo: deque[Pending], done: int, found: list[Pending]) -> None:
    """Apply what `copy_members` returned: depth first, so that `todo` stays short."""
    for _ in range(done):
        todo.popleft()
    todo.extendleft(reversed(found))

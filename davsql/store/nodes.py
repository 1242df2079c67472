"""The tree: finding, listing and changing rows of `nodes`.

A path is resolved by one statement; a tree is moved or deleted by changing one row. A deleted tree is detached: its top
loses its parent, so nobody finds it any more, and GC takes it apart in small steps.
"""

from __future__ import annotations

import json
from binascii import unhexlify
from collections.abc import Mapping
from typing import Any, NamedTuple

from davsql.errors import ParentMissing, PathTooDeep, StoreDamaged
from davsql.model import ROOT_INODE, BlobId, Inode, Node, Nodes, NodeType
from davsql.paths import DavPath, lookup_key
from davsql.store.transaction import Bindings, ReadTx, WriteTx

REMEDY = "run `davsql check` and restore a backup"

RESOLVE = """
WITH RECURSIVE walk (inode, depth) AS (
  SELECT 1, 0
  UNION ALL
  SELECT n.inode, w.depth + 1
  FROM walk AS w JOIN nodes AS n ON n.parent_inode = w.inode AND n.name = :keys ->> w.depth
)
SELECT
  e.inode, e.parent_inode, e.name, e.node_type, e.blob_id, e.size, e.digest, e.content_type, e.created_at, e.modified_at
FROM walk AS w CROSS JOIN entries AS e ON e.inode = w.inode
"""

_DIGESTS = Node._fields.index("digest")


class Content(NamedTuple):
    """What a file node points at."""

    blob_id: BlobId
    digest: bytes
    size: int
    content_type: str | None


class Stamp(NamedTuple):
    """What a node says of its making."""

    owner: str = ""
    modified_at: int | None = None  # None: now


class Chain:
    """The nodes along a path, from the root as far as they exist."""

    __slots__ = ("nodes", "path")

    def __init__(self, path: DavPath, nodes: list[Node]) -> None:
        self.path = path
        self.nodes = nodes

    @property
    def target(self) -> Node | None:
        """The node at the path; None when the URL is unmapped."""
        return self.nodes[-1] if len(self.nodes) == len(self.path.names) + 1 else None

    @property
    def parent(self) -> Node:
        """The collection that holds, or would hold, the target; the root's is the root.

        Raises:
            ParentMissing: there is none.
        """
        depth = max(len(self.path.names) - 1, 0)
        if len(self.nodes) <= depth or not self.nodes[depth].is_collection:
            raise ParentMissing(f"{self.path.parent} is not a collection")
        return self.nodes[depth]

    @property
    def inodes(self) -> list[Inode]:
        return [node.inode for node in self.nodes]


def resolve(tx: ReadTx, path: DavPath) -> Chain:
    """Find the nodes along `path`.

    Raises:
        StoreDamaged: the index of names and the nodes do not agree.
    """
    keys = json.dumps(path.keys)
    found = [Node._make(row) for row in tx.rows(RESOLVE, {"keys": keys})]
    # The index led here. A bit that rotted in it, or in the row, must not give one file under the name of another.
    for parent, node, key in zip(found, found[1:], path.keys, strict=False):
        if node.parent_inode != parent.inode or (node.name != key and not is_form_of(node.name, key)):
            raise StoreDamaged(f"{path}: an index of the store is damaged; {REMEDY}")
    return Chain(path, found)


def is_form_of(name: object, key: str) -> bool:
    """Whether a name that was stored is found under `key`."""
    return isinstance(name, str) and lookup_key(name) == key


MEMBERS = """
SELECT
  json_group_array(inode), json_group_array(parent_inode), json_group_array(name), json_group_array(node_type),
  json_group_array(blob_id) FILTER (WHERE :details), json_group_array(size),
  json_group_array(hex(digest)) FILTER (WHERE :details), json_group_array(content_type) FILTER (WHERE :details),
  json_group_array(created_at), json_group_array(modified_at)
FROM (SELECT * FROM entries WHERE parent_inode = :parent AND key > :after ORDER BY key LIMIT :limit)
"""


def members(tx: ReadTx, parent: Inode, *, after: str, limit: int, details: bool = True) -> Nodes:
    """Up to `limit` members of a collection in the order of their lookup keys, from the first key above `after`.

    Args:
        details: False: without blob_ids, digests and content_types, which cost a third of it all.

    Raises: as `page_of`.
    """
    return page_of(tx, MEMBERS, {"parent": parent, "limit": limit, "details": details}, after=after)


def page_of(tx: ReadTx, sql: str, bindings: Mapping[str, Any], *, after: str) -> Nodes:
    """Members by a query of theirs (see `in_columns`) that begins above the key `after`.

    Raises:
        StoreDamaged: the index of names leads back, which would be pages without end.
    """
    found = in_columns(tx, sql, {**bindings, "after": after})
    if len(found) and not lookup_key(found.names[-1]) > after:
        raise StoreDamaged(f"an index of the store is out of order; {REMEDY}")
    return found


DESCENDANTS = """
WITH RECURSIVE tree (inode, depth) AS (
  SELECT inode, 1 FROM nodes WHERE parent_inode = :top
  UNION ALL
  SELECT n.inode, t.depth + 1 FROM tree AS t JOIN nodes AS n ON n.parent_inode = t.inode
  ORDER BY 2 DESC
  LIMIT :limit
)
SELECT
  json_group_array(e.inode), json_group_array(e.parent_inode), json_group_array(e.name),
  json_group_array(e.node_type), json_group_array(e.blob_id), json_group_array(e.size),
  json_group_array(hex(e.digest)), json_group_array(e.content_type), json_group_array(e.created_at),
  json_group_array(e.modified_at)
FROM tree AS t CROSS JOIN entries AS e ON e.inode = t.inode
"""


def descendants(tx: ReadTx, top: Inode, limit: int) -> Nodes | None:
    """All nodes below `top`, each after its parent; None when there are more than `limit`."""
    found = in_columns(tx, DESCENDANTS, {"top": top, "limit": limit + 1})
    return None if len(found) > limit else found


def in_columns(tx: ReadTx, sql: str, bindings: Bindings) -> Nodes:
    """Nodes from a query whose one row has a JSON array for each column of Node; [] for one that nobody wants.

    Each row that Python fetches is a moment at which it can lose the GIL to another thread for 5 ms: a thousand rows
    took 80 ms beside one busy thread, one row with the same in it 7 ms.
    """
    row = tx.row(sql, bindings)
    assert row is not None
    columns = [json.loads(column) for column in row]
    columns = [column or [None] * len(columns[0]) for column in columns]
    columns[_DIGESTS] = [unhexlify(digest or "") or None for digest in columns[_DIGESTS]]
    return Nodes(*columns)


PATH_OF = """
WITH RECURSIVE up (inode, parent_inode, name, height) AS (
  SELECT inode, parent_inode, coalesce(sent_name, name), 0 FROM nodes WHERE inode = :inode
  UNION ALL
  SELECT n.inode, n.parent_inode, coalesce(n.sent_name, n.name), u.height + 1
  FROM up AS u JOIN nodes AS n ON n.inode = u.parent_inode WHERE u.height < 10000  -- damage can make circles
)
SELECT inode, name, parent_inode FROM up ORDER BY height DESC
"""


class Place(NamedTuple):
    """Where a node is.

    Attributes:
        is_detached: it is deleted, and the path begins at the top of what was deleted with it.
    """

    path: DavPath
    is_detached: bool


def place_of(tx: ReadTx, inode: Inode) -> Place:
    """The way to a node from the root, or from the top of a detached tree.

    Raises:
        StoreDamaged: it has no such way, or passes by names that are no text.
    """
    way = tx.rows(PATH_OF, {"inode": inode})
    if not way or way[0][2] is not None or not all(isinstance(name, str) for _, name, _ in way):
        raise StoreDamaged(f"node {inode} has no path; {REMEDY}")
    return Place(DavPath(name for _, name, _ in way[1:]), is_detached=way[0][0] != ROOT_INODE)


def path_of(tx: ReadTx, inode: Inode) -> DavPath:
    """See `place_of`."""
    return place_of(tx, inode).path


INSERT_NODE = """
INSERT INTO nodes (parent_inode, name, sent_name, node_type, blob_id, content_type, created_at, modified_at, owner)
VALUES
  (:parent, :name, :sent_name, :node_type, :blob_id, :content_type, :created_at, :modified_at, :owner)
"""


def insert_node(tx: WriteTx, parent: Inode, name: str, content: Content | None, stamp: Stamp) -> Node:
    """Make a member of `parent`: a file when `content` is given, else a collection."""
    columns: dict[str, Any] = {
        "parent": parent,
        **name_columns(name),
        "node_type": int(NodeType.COLLECTION if content is None else NodeType.FILE),
        "blob_id": content and content.blob_id,
        "content_type": content and content.content_type,
        "created_at": tx.now,
        "modified_at": tx.now if stamp.modified_at is None else stamp.modified_at,
        "owner": stamp.owner,
    }
    inode = Inode(tx.insert(INSERT_NODE, columns))
    touch(tx, parent)
    return Node(
        inode=inode,
        parent_inode=parent,
        name=name,
        node_type=columns["node_type"],
        blob_id=columns["blob_id"],
        size=0 if content is None else content.size,
        digest=None if content is None else content.digest,
        content_type=columns["content_type"],
        created_at=tx.now,
        modified_at=columns["modified_at"],
    )


REPLACE_CONTENT = """
UPDATE nodes
SET blob_id = :blob_id, content_type = :content_type, modified_at = :modified_at, owner = :owner
WHERE inode = :inode
"""


def replace_content(tx: WriteTx, node: Node, content: Content, stamp: Stamp) -> Node:
    """Point a file at other content."""
    columns: dict[str, Any] = {
        "blob_id": content.blob_id,
        "content_type": content.content_type,
        "modified_at": tx.now if stamp.modified_at is None else stamp.modified_at,
    }
    tx.change(REPLACE_CONTENT, {**columns, "owner": stamp.owner, "inode": node.inode})
    return node._replace(**columns, size=content.size, digest=content.digest)


# The second of two commands of one transaction finds the time set already.
SET_MODIFIED_AT = "UPDATE nodes SET modified_at = :modified_at WHERE inode = :inode AND modified_at <> :modified_at"


def touch(tx: WriteTx, inode: Inode, modified_at: int | None = None) -> None:
    """Set when a node was last modified: now, unless given."""
    tx.change(SET_MODIFIED_AT, {"modified_at": tx.now if modified_at is None else modified_at, "inode": inode})


MOVE_NODE = "UPDATE nodes SET parent_inode = :parent, name = :name, sent_name = :sent_name WHERE inode = :inode"


def move_node(tx: WriteTx, node: Node, parent: Inode, name: str) -> None:
    """Give a node, and with it its whole tree, another place."""
    tx.change(MOVE_NODE, {"parent": parent, **name_columns(name), "inode": node.inode})
    if node.parent_inode is not None and node.parent_inode != parent:
        touch(tx, node.parent_inode)
    touch(tx, parent)


def attach(tx: WriteTx, inode: Inode, parent: Inode, name: str) -> None:
    """Put a detached tree in its place."""
    tx.change(MOVE_NODE, {"parent": parent, **name_columns(name), "inode": inode})
    touch(tx, parent)


DETACH = "UPDATE nodes SET parent_inode = NULL WHERE inode = ?"


def detach(tx: WriteTx, node: Node) -> None:
    """Delete a tree for every reader; GC takes the rows away later."""
    assert node.inode != ROOT_INODE
    tx.change(DETACH, (node.inode,))
    if node.parent_inode is not None:
        touch(tx, node.parent_inode)


def require_depth(path: DavPath, max_depth: int, height: int = 0) -> None:
    """Raise PathTooDeep if `path`, or what is to lie `height` levels below it, has more than `max_depth` names."""
    if len(path.names) + height > max_depth:
        raise PathTooDeep(f"{path} would be more than {max_depth} levels deep")


def name_columns(name: str) -> dict[str, str | None]:
    """The columns that keep a name."""
    key = lookup_key(name)
    return {"name": key, "sent_name": None if key == name else name}

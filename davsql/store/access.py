"""Rights, looked at in the same snapshot or transaction as everything else.

What a path allows is decided by the path alone, before anything is said about what lies there. Of a tree, only the
paths below its top that have fewer rights are looked for; so its size does not matter.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from davsql.access import Access, Keys, Right
from davsql.errors import NotAllowed, NotFound
from davsql.model import NO_NODES, Inode, Node, Nodes
from davsql.paths import DavPath
from davsql.store.nodes import Chain, Stamp, descendants, insert_node, members, page_of, path_of, place_of, resolve
from davsql.store.transaction import ReadTx, WriteTx


def seen(chain: Chain, access: Access) -> Node | None:
    """The chain's target, if the principal may know of it."""
    node = chain.target
    return node if node is not None and access.shows(chain.path, is_collection=node.is_collection) else None


def require_seen(chain: Chain, access: Access) -> Node:
    """The chain's target.

    Raises:
        NotFound: there is none, or the principal may not know of it.
    """
    node = seen(chain, access)
    if node is None:
        raise NotFound(f"{chain.path} does not exist")
    return node


def require(path: DavPath, access: Access, right: Right) -> None:
    """Raise NotAllowed unless the principal has `right` at `path`, whatever lies there."""
    if not access.may(right, path):
        raise NotAllowed(f"this is not allowed at {path}")


def require_tree(tx: ReadTx, path: DavPath, top: Node | None, access: Access, right: Right) -> None:
    """Raise NotAllowed unless the principal has `right` at `path` and on everything in the tree of `top`, its node."""
    require(path, access, right)
    if top is not None and top.is_collection:
        require_absent(tx, path, top.inode, access, right)


def require_absent(tx: ReadTx, path: DavPath, top: Inode, access: Access, right: Right) -> None:
    """Raise NotAllowed if the tree of `top`, lying at `path`, has or would have something that lacks `right`.

    Args:
        top: of a tree that lies at `path`, or is to be put there.
    """
    if access.is_full:
        return
    for keys in access.exceptions(path, right):
        if _has(tx, top, keys):
            raise NotAllowed(f"this is not allowed for all of {path}")


HAS = """
WITH RECURSIVE walk (inode, depth) AS (
  SELECT :top, 0
  UNION ALL
  SELECT n.inode, w.depth + 1
  FROM walk AS w JOIN nodes AS n ON n.parent_inode = w.inode AND n.name = :keys ->> w.depth
)
SELECT EXISTS (SELECT 1 FROM walk WHERE depth = :length)
"""


def _has(tx: ReadTx, top: Inode, keys: Keys) -> bool:
    return bool(tx.value(HAS, {"top": top, "keys": json.dumps(keys), "length": len(keys)}))


def require_still_readable(tx: ReadTx, inodes: Iterable[Inode], access: Access) -> None:
    """Raise NotAllowed unless nodes found in an earlier transaction may be read where they lie now."""
    if not access.is_full:
        for inode in inodes:
            require(path_of(tx, inode), access, Right.READ)


# --- listing ------------------------------------------------------------------------------------------------------

MEMBERS_BUT = """
SELECT
  json_group_array(inode), json_group_array(parent_inode), json_group_array(name), json_group_array(node_type),
  json_group_array(blob_id) FILTER (WHERE :details), json_group_array(size),
  json_group_array(hex(digest)) FILTER (WHERE :details), json_group_array(content_type) FILTER (WHERE :details),
  json_group_array(created_at), json_group_array(modified_at)
FROM (
  SELECT * FROM entries
  WHERE parent_inode = :parent AND key > :after
    AND key NOT IN (SELECT value FROM json_each(:hidden))
    AND (node_type = 1 OR key NOT IN (SELECT value FROM json_each(:passages)))
  ORDER BY key LIMIT :limit
)
"""
MEMBERS_NAMED = """
SELECT
  json_group_array(inode), json_group_array(parent_inode), json_group_array(name), json_group_array(node_type),
  json_group_array(blob_id) FILTER (WHERE :details), json_group_array(size),
  json_group_array(hex(digest)) FILTER (WHERE :details), json_group_array(content_type) FILTER (WHERE :details),
  json_group_array(created_at), json_group_array(modified_at)
FROM (
  SELECT e.*
  FROM json_each(:seen) AS wanted CROSS JOIN entries AS e ON e.parent_inode = :parent AND e.key = wanted.value
  WHERE e.key > :after AND (e.node_type = 1 OR e.key NOT IN (SELECT value FROM json_each(:passages)))
  ORDER BY e.key LIMIT :limit
)
"""


def members_seen(
    tx: ReadTx, parent: Inode, access: Access, *, after: str = "", limit: int, details: bool = True
) -> Nodes:
    """As `nodes.members`, without what the principal may not know of."""
    if access.is_full:
        return members(tx, parent, after=after, limit=limit, details=details)
    path, is_detached = place_of(tx, parent)
    if is_detached:  # deleted between two pages: it has no path any more by which its members could be judged
        return NO_NODES
    keys = access.member_keys(path)
    bindings = {"parent": parent, "limit": limit, "details": details, "passages": _json(keys.passages)}
    if Right.READ in access.rights(path):
        return page_of(tx, MEMBERS_BUT, {**bindings, "hidden": _json(keys.hidden)}, after=after)
    # Few of many, perhaps: none of the others is looked at.
    return page_of(tx, MEMBERS_NAMED, {**bindings, "seen": _json(keys.readable | keys.passages)}, after=after)


def _json(keys: Iterable[str]) -> str:
    return json.dumps(sorted(keys))


DESCENDANTS_BUT = """
WITH RECURSIVE tree (inode, depth) AS (
  SELECT inode, 1 FROM nodes
  WHERE parent_inode = :top AND inode NOT IN (SELECT value FROM json_each(:apart))
  UNION ALL
  SELECT n.inode, t.depth + 1 FROM tree AS t JOIN nodes AS n ON n.parent_inode = t.inode
  WHERE n.inode NOT IN (SELECT value FROM json_each(:apart))
  ORDER BY 2 DESC
  LIMIT :limit
)
SELECT
  e.inode, e.parent_inode, e.name, e.node_type, e.blob_id, e.size, e.digest, e.content_type, e.created_at, e.modified_at
FROM tree AS t CROSS JOIN entries AS e ON e.inode = t.inode
"""


def descendants_seen(tx: ReadTx, top: Inode, access: Access, limit: int) -> Nodes | None:
    """As `nodes.descendants`, without what the principal may not know of."""
    if access.is_full:
        return descendants(tx, top, limit)
    found: list[Node] = []
    todo = [(path_of(tx, top), top)]
    while todo and len(found) <= limit:
        where, inode = todo.pop()
        room = limit + 1 - len(found)
        if Right.READ in access.rights(where):
            apart = [
                chain for keys in access.exceptions(where, Right.READ) if (chain := _chain(tx, where, keys)).target
            ]
            inodes = [chain.nodes[-1].inode for chain in apart]
            rows = tx.rows(DESCENDANTS_BUT, {"top": inode, "apart": json.dumps(inodes), "limit": room})
            found += map(Node._make, rows)
            below = [(chain.path, node) for chain in apart if (node := seen(chain, access)) is not None]
        else:
            below = [(where.child(node.name), node) for node in members_seen(tx, inode, access, limit=room)]
        found += [node for _, node in below]
        todo += [(child, node.inode) for child, node in below if node.is_collection]
    if len(found) > limit:
        return None
    return Nodes.of(*found) if found else NO_NODES


def _chain(tx: ReadTx, path: DavPath, keys: Keys) -> Chain:
    return resolve(tx, DavPath((*path.names, *keys)))


# --- homes --------------------------------------------------------------------------------------------------------


def has_home(tx: ReadTx, home: DavPath) -> bool:
    """Whether something is at `home`."""
    return resolve(tx, home).target is not None


def make_home(tx: WriteTx, home: DavPath, owner: str) -> None:
    """Make the collection `home` and those above it, as far as they are missing and no file is in the way."""
    chain = resolve(tx, home)
    parent = chain.nodes[-1]
    for name in home.names[len(chain.nodes) - 1 :]:
        if not parent.is_collection:
            return
        parent = insert_node(tx, parent.inode, name, None, Stamp(owner))

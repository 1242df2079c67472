"""How many bytes trees hold, as far as a principal may read them."""

from __future__ import annotations

import json
from collections.abc import Sequence

from davsql.access import Access, Keys, Right
from davsql.model import Inode
from davsql.paths import DavPath
from davsql.store.nodes import resolve
from davsql.store.places import Places
from davsql.store.transaction import ReadTx

COUNTED_NODES = 200_000  # for one answer: a fifth of a second

# One tree after the other, so that only the last one can have been cut short; with damage it may have circles.
TREE_SIZES = """
WITH RECURSIVE tree (place, inode) AS (
  SELECT value ->> 0, value ->> 1 FROM json_each(:pieces)
  UNION ALL
  SELECT t.place, n.inode FROM tree AS t JOIN nodes AS n ON n.parent_inode = t.inode
  WHERE n.inode NOT IN (SELECT value FROM json_each(:apart))
  ORDER BY 1
  LIMIT :limit
)
SELECT json_group_array(place), json_group_array(nodes), json_group_array(size)
FROM (
  SELECT t.place, count(*) AS nodes, coalesce(sum(b.size), 0) AS size
  FROM tree AS t CROSS JOIN nodes AS n ON n.inode = t.inode LEFT JOIN blobs AS b ON b.blob_id = n.blob_id
  GROUP BY t.place ORDER BY t.place
)
"""


def tree_sizes(tx: ReadTx, tops: Sequence[Inode], access: Access) -> dict[Inode, int]:
    """The bytes of all files in the trees of these collections; what the principal may not read is not counted.

    The trees are counted in this order, and those that would make it more than COUNTED_NODES are left out.
    """
    pieces, apart = _pieces(tx, tops, access)
    bindings = {"pieces": json.dumps(pieces), "apart": json.dumps(apart), "limit": COUNTED_NODES + 1}
    row = tx.row(TREE_SIZES, bindings)
    assert row is not None
    places, nodes, found = map(json.loads, row)
    counted = tops if sum(nodes) <= COUNTED_NODES else tops[: places[-1]]
    sizes = dict(zip(places, found, strict=True))
    return {top: sizes.get(place, 0) for place, top in enumerate(counted)}  # where nothing may be read, there is no row


def _pieces(tx: ReadTx, tops: Sequence[Inode], access: Access) -> tuple[list[tuple[int, Inode]], list[Inode]]:
    """The trees, each by its place and a top, that have all that may be read; and where they end."""
    if access.is_full:
        return list(enumerate(tops)), []
    apart: dict[Keys, Inode] = {}
    for keys in access.by_path:
        target = resolve(tx, DavPath(keys)).target
        if target is not None and keys:
            apart[keys] = target.inode
    places = Places(tx, tops[0])
    places.load(tops)
    pieces: list[tuple[int, Inode]] = []
    for place, top in enumerate(tops):
        path = places.path(top)
        if path is None:
            continue
        if Right.READ in access.rights(path):
            pieces.append((place, top))
        for keys, inode in apart.items():
            is_below = len(keys) > len(path.keys) and keys[: len(path.keys)] == path.keys
            if is_below and Right.READ in access.by_path[keys]:
                pieces.append((place, inode))
    return pieces, list(apart.values())

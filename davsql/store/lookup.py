"""What lies at a path, found by one query; of a small file its bytes as well.

A query is a snapshot by itself, so that `source` may be the pool of readers: no transaction is begun for it.
"""

from __future__ import annotations

import json

from davsql.access import Access
from davsql.errors import IsCollection, NotFound, StoreDamaged
from davsql.model import Node
from davsql.paths import DavPath
from davsql.store.blobs import CHUNK_BYTES, EMPTY_DIGEST, StoredChunk
from davsql.store.nodes import REMEDY, is_form_of
from davsql.store.transaction import Row, Source

# One wrong bit in an index or in a row must not give one file under the name of another, or the content of another: the
# row must say what the index of names says (is_sound), and the index of blobs what the row says (is_its_blob).
FIND = """
WITH RECURSIVE walk (inode, depth, is_sound) AS (
  SELECT 1, 0, TRUE
  UNION ALL
  SELECT i.inode, w.depth + 1, w.is_sound AND n.parent_inode IS w.inode AND n.name IS i.name
  FROM walk AS w
  CROSS JOIN nodes AS i ON i.parent_inode = w.inode AND i.name = :keys ->> w.depth
  LEFT JOIN nodes AS n ON n.inode = i.inode
)
SELECT
  e.inode, e.parent_inode, e.name, e.node_type, e.blob_id, e.size, e.digest, e.content_type, e.created_at,
  e.modified_at, w.is_sound,
  :small AND EXISTS (
    SELECT 1 FROM nodes AS i INDEXED BY nodes_blob WHERE i.blob_id = e.blob_id AND i.inode = e.inode
  ) AS is_its_blob,
  b.start, c.size, c.digest, CAST(d.data AS BLOB)
FROM walk AS w
CROSS JOIN entries AS e ON e.inode = w.inode
LEFT JOIN blob_chunks AS b ON b.blob_id = e.blob_id AND b.start = 0 AND e.size <= :small
LEFT JOIN chunks AS c
  ON c.chunk_id = b.chunk_id AND typeof(c.size) = 'integer' AND substr(c.digest, 1, 8) = b.digest_start
LEFT JOIN chunk_data AS d ON d.chunk_id = c.chunk_id
WHERE w.depth = :depth OR NOT w.is_sound  -- below what is damaged nothing is missing for certain
"""

_COLUMNS = len(Node._fields)


def node_at(source: Source, path: DavPath, access: Access) -> Node | None:
    """The node at `path`; None when there is none that the principal may know of.

    Raises:
        StoreDamaged: the index of names and the nodes do not agree.
    """
    found = _find(source, path, access, small=0)
    return None if found is None else found[0]


def require_node(source: Source, path: DavPath, access: Access) -> Node:
    """As `node_at`.

    Raises:
        NotFound: there is none.
    """
    node = node_at(source, path, access)
    if node is None:
        raise NotFound(f"{path} does not exist")
    return node


def file_at(source: Source, path: DavPath, access: Access) -> tuple[Node, list[StoredChunk]]:
    """The file at `path`, and its bytes where they are one chunk.

    Raises:
        NotFound, IsCollection.
        StoreDamaged: as `node_at`; or the row, the index and the blob of the file do not agree.
    """
    found = _find(source, path, access, small=CHUNK_BYTES)
    if found is None:
        raise NotFound(f"{path} does not exist")
    node, (is_its_blob, *first) = found
    if node.blob_id is None:
        raise IsCollection(f"{path} is a collection")
    if not is_its_blob or node.digest is None or node.size < 0 or (node.size == 0) != (node.digest == EMPTY_DIGEST):
        raise StoreDamaged(f"{node.name}: its content is missing or damaged; {REMEDY}")
    return node, [] if first[1] is None else [StoredChunk._make(first)]


def _find(source: Source, path: DavPath, access: Access, *, small: int) -> tuple[Node, Row] | None:
    keys = path.keys
    row = source.row(FIND, {"keys": json.dumps(keys), "depth": len(keys), "small": small})
    if row is None:
        return None
    node = Node._make(row[:_COLUMNS])
    if not row[_COLUMNS] or (keys and node.name != keys[-1] and not is_form_of(node.name, keys[-1])):
        raise StoreDamaged(f"{path}: an index of the store is damaged; {REMEDY}")
    return (node, row[_COLUMNS + 1 :]) if access.shows(path, is_collection=node.is_collection) else None

-- The whole schema of a davsql store, version 5. Times are nanoseconds since the Unix epoch.
--
-- Invariants (check.py has a query for each, under the same number):
--   1  The root is inode 1: a collection, without parent, with an empty name.
--   2  Every other node has a parent that is a collection, or is detached (parent_inode NULL): deleted, waiting for GC.
--   3  Nobody is its own ancestor: every node is reached from the root or from a detached node.
--   4  Names of siblings are unique in lookup form (NFC); sent_name is kept only where the client's form differs.
--   5  A file has a sealed blob, a collection has none.
--   6  blobs.refcount is the number of nodes, uploads and pins that refer to the blob.
--   7  blobs.orphaned_at is set exactly while refcount is 0.
--   8  chunks.refcount is the number of blob_chunks rows that refer to the chunk.
--   9  The chunks of a blob lie end to end from 0; together they have the blob's size (sealed blobs). Each place has the
--      first 8 bytes of its chunk's digest in digest_start.
--  10  Every chunk has its bytes, and they have the size that chunks.size says.
--  11  A sealed blob has a digest (SHA-256 of the content), an unsealed one belongs to an upload or is an orphan.
--  12  A lock, and a dead property, belongs to a node that exists; locks belong to nodes that are not detached.
--  13  Inodes are never used again: sqlite_sequence is at or above the highest one.
--  14  SQLite's own integrity_check and foreign_key_check find nothing.
--  15  (deep) The SHA-256 of every chunk's bytes, and of every blob's chunks together, is the digest on record.
--  16  The definitions in sqlite_schema are the ones below.
--  17  usage has, for each owner, how many nodes with a parent are his, and the sizes of their contents together. Tops of
--      deleted trees thus count no more, their members until GC reaches them.
--  18  The journal of changes is never empty and has no gaps, and knows of no inode that was never used.

-- Views come before tables: where the last of both is a view, PRAGMA integrity_check passes over the free list and over
-- lost pages (its list of roots then begins with 0, which means a part of the file; a test knows).

-- A node with the content it has now; `name` as sent, `key` as looked up. The columns are those of model.Node.
CREATE VIEW entries AS
  SELECT
    n.inode,
    n.parent_inode,
    coalesce(n.sent_name, n.name) AS name,
    n.node_type,
    n.blob_id,
    coalesce(b.size, 0) AS size,
    b.digest,
    n.content_type,
    n.created_at,
    n.modified_at,
    n.name AS key
  FROM nodes AS n LEFT JOIN blobs AS b ON b.blob_id = n.blob_id;

-- The tops of deleted trees, which GC may take apart.
CREATE VIEW detached AS
  SELECT inode FROM nodes INDEXED BY nodes_detached
  WHERE parent_inode IS NULL AND inode <> 1 AND inode NOT IN (SELECT inode FROM pins WHERE inode IS NOT NULL);

CREATE TABLE meta (
  key TEXT NOT NULL PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE nodes (
  inode INTEGER PRIMARY KEY AUTOINCREMENT,
  parent_inode INTEGER REFERENCES nodes (inode),
  name TEXT NOT NULL,       -- lookup form, NFC
  sent_name TEXT,           -- as the client sent it, when that differs
  node_type INTEGER NOT NULL CHECK (node_type IN (1, 2)),  -- 1 collection, 2 file
  blob_id INTEGER REFERENCES blobs (blob_id),
  content_type TEXT,        -- as sent with PUT
  created_at INTEGER NOT NULL,
  modified_at INTEGER NOT NULL,
  owner TEXT NOT NULL DEFAULT '',  -- who made it, or put the content there that it has; '' is nobody
  UNIQUE (parent_inode, name),
  CHECK ((node_type = 2) = (blob_id IS NOT NULL))
) STRICT;

CREATE INDEX nodes_blob ON nodes (blob_id) WHERE blob_id IS NOT NULL;
CREATE INDEX nodes_detached ON nodes (inode) WHERE parent_inode IS NULL;

-- How much everybody has. Written by triggers alone, as refcounts are. Without checks: a bit that rots here must not keep
-- anybody from deleting.
CREATE TABLE usage (
  owner TEXT NOT NULL PRIMARY KEY,
  nodes INTEGER NOT NULL,
  bytes INTEGER NOT NULL    -- as users see them: what is stored once counts for each file
) STRICT, WITHOUT ROWID;

CREATE TABLE blobs (
  blob_id INTEGER PRIMARY KEY,
  digest BLOB UNIQUE CHECK (length(digest) = 32),  -- SHA-256; NULL until the blob is sealed
  size INTEGER NOT NULL DEFAULT 0,
  refcount INTEGER NOT NULL DEFAULT 0 CHECK (refcount >= 0),
  orphaned_at INTEGER CHECK ((orphaned_at IS NOT NULL) = (refcount = 0))
) STRICT;

CREATE INDEX blobs_orphaned ON blobs (orphaned_at) WHERE orphaned_at IS NOT NULL;

CREATE TABLE chunks (
  chunk_id INTEGER PRIMARY KEY,
  digest BLOB NOT NULL CHECK (length(digest) = 32),
  size INTEGER NOT NULL CHECK (size > 0),
  refcount INTEGER NOT NULL DEFAULT 0 CHECK (refcount >= 0)
) STRICT;

-- Large files share equal chunks. Smaller ones are whole small files, which blobs.digest finds, or the ends of large
-- ones: not worth an entry in an index each.
CREATE UNIQUE INDEX chunks_digest ON chunks (digest) WHERE size >= 65536;
CREATE INDEX chunks_orphaned ON chunks (chunk_id) WHERE refcount = 0;

-- Apart from chunks: an UPDATE rewrites the whole row, and the refcount changes more often than the bytes (never).
CREATE TABLE chunk_data (
  chunk_id INTEGER PRIMARY KEY REFERENCES chunks (chunk_id),
  data BLOB NOT NULL
) STRICT;

CREATE TABLE blob_chunks (
  blob_id INTEGER NOT NULL REFERENCES blobs (blob_id),
  start INTEGER NOT NULL,   -- offset of the chunk's first byte in the blob
  chunk_id INTEGER NOT NULL REFERENCES chunks (chunk_id),
  digest_start BLOB NOT NULL DEFAULT x'0000000000000000',  -- or one wrong bit in chunk_id would give other content
  PRIMARY KEY (blob_id, start)
) STRICT, WITHOUT ROWID;

CREATE INDEX blob_chunks_chunk ON blob_chunks (chunk_id);

-- Of content that came from clients which compare these; its SHA-256 is enough for everything else.
CREATE TABLE checksums (
  blob_id INTEGER PRIMARY KEY REFERENCES blobs (blob_id) ON DELETE CASCADE,
  sha1 BLOB NOT NULL CHECK (length(sha1) = 20),
  md5 BLOB NOT NULL CHECK (length(md5) = 16)
) STRICT;

CREATE TABLE uploads (
  upload_id INTEGER PRIMARY KEY AUTOINCREMENT,
  blob_id INTEGER NOT NULL UNIQUE REFERENCES blobs (blob_id),
  started_at INTEGER NOT NULL,
  touched_at INTEGER NOT NULL
) STRICT;

CREATE INDEX uploads_touched ON uploads (touched_at);

-- What is in use though no node says so: a blob that a long download reads, a detached tree that a copy is building.
-- Whoever made a pin touches it now and then; GC ends those that nobody touched for long.
CREATE TABLE pins (
  pin_id INTEGER PRIMARY KEY AUTOINCREMENT,
  blob_id INTEGER REFERENCES blobs (blob_id),
  inode INTEGER REFERENCES nodes (inode),
  touched_at INTEGER NOT NULL,
  CHECK ((blob_id IS NULL) <> (inode IS NULL))
) STRICT;

CREATE INDEX pins_blob ON pins (blob_id) WHERE blob_id IS NOT NULL;
CREATE INDEX pins_inode ON pins (inode) WHERE inode IS NOT NULL;
CREATE INDEX pins_touched ON pins (touched_at);

-- The last run of each maintenance task.
CREATE TABLE tasks (
  name TEXT NOT NULL PRIMARY KEY,
  started_at INTEGER NOT NULL,
  finished_at INTEGER,      -- NULL: interrupted, or still running
  outcome TEXT CHECK (outcome IN ('ok', 'failed')),
  detail TEXT NOT NULL DEFAULT '',  -- for people; for a task that goes on where it stopped: where
  CHECK ((finished_at IS NULL) = (outcome IS NULL))
) STRICT, WITHOUT ROWID;

-- What happened to the tree, for clients that keep a copy of it (sync.py). Written by triggers alone; maintenance takes
-- away the oldest entries and never the newest, so no number is given twice. A token of a client names an entry by
-- change_id and changed_at: a store that was restored, or lost its last commits, has other entries under these numbers.
-- A tree that is moved or deleted is one entry, that of its top.
CREATE TABLE changes (
  change_id INTEGER PRIMARY KEY,
  changed_at INTEGER NOT NULL,  -- the digits below the millisecond are random
  inode INTEGER NOT NULL,
  node_type INTEGER NOT NULL,
  has_arrived INTEGER NOT NULL, -- 1: it was made, or put where it is
  old_parent INTEGER,           -- the place that it left; NULL: none
  old_name TEXT                 -- as sent
) STRICT;

CREATE TABLE properties (
  property_id INTEGER PRIMARY KEY,
  inode INTEGER NOT NULL REFERENCES nodes (inode) ON DELETE CASCADE,
  namespace TEXT NOT NULL,
  name TEXT NOT NULL,
  xml TEXT NOT NULL,        -- the whole element
  UNIQUE (inode, namespace, name)
) STRICT;

CREATE TABLE locks (
  lock_id INTEGER PRIMARY KEY,
  token TEXT NOT NULL UNIQUE,
  inode INTEGER NOT NULL REFERENCES nodes (inode) ON DELETE CASCADE,
  scope TEXT NOT NULL CHECK (scope IN ('exclusive', 'shared')),
  is_depth_infinity INTEGER NOT NULL CHECK (is_depth_infinity IN (0, 1)),
  owner_xml TEXT,
  principal TEXT NOT NULL,
  timeout_s INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL
) STRICT;

CREATE INDEX locks_inode ON locks (inode);
CREATE INDEX locks_expires ON locks (expires_at);

-- Nothing is looked up in these: they hold a second time what no digest, no refcount and no other index vouches for, so
-- that PRAGMA integrity_check finds a bit that rots in either.
CREATE INDEX nodes_mirror ON nodes (inode, sent_name, content_type, created_at, modified_at, owner);
CREATE INDEX checksums_mirror ON checksums (blob_id, sha1, md5);
CREATE INDEX properties_mirror ON properties (inode, namespace, name, xml);
CREATE INDEX locks_mirror ON locks (lock_id, scope, is_depth_infinity, owner_xml, principal, timeout_s, created_at);

-- Refcounts change here and nowhere else.

CREATE TRIGGER nodes_insert AFTER INSERT ON nodes WHEN new.blob_id IS NOT NULL BEGIN
  UPDATE blobs SET refcount = refcount + 1, orphaned_at = NULL WHERE blob_id = new.blob_id;
END;

CREATE TRIGGER nodes_delete AFTER DELETE ON nodes WHEN old.blob_id IS NOT NULL BEGIN
  UPDATE blobs
  SET refcount = refcount - 1,
      orphaned_at = CASE WHEN refcount = 1 THEN CAST(unixepoch('subsec') * 1000 AS INTEGER) * 1000000 END
  WHERE blob_id = old.blob_id;
END;

CREATE TRIGGER nodes_update AFTER UPDATE OF blob_id ON nodes WHEN old.blob_id IS NOT new.blob_id BEGIN
  UPDATE blobs SET refcount = refcount + 1, orphaned_at = NULL WHERE blob_id = new.blob_id;
  UPDATE blobs
  SET refcount = refcount - 1,
      orphaned_at = CASE WHEN refcount = 1 THEN CAST(unixepoch('subsec') * 1000 AS INTEGER) * 1000000 END
  WHERE blob_id = old.blob_id;
END;

CREATE TRIGGER uploads_insert AFTER INSERT ON uploads BEGIN
  UPDATE blobs SET refcount = refcount + 1, orphaned_at = NULL WHERE blob_id = new.blob_id;
END;

CREATE TRIGGER uploads_delete AFTER DELETE ON uploads BEGIN
  UPDATE blobs
  SET refcount = refcount - 1,
      orphaned_at = CASE WHEN refcount = 1 THEN CAST(unixepoch('subsec') * 1000 AS INTEGER) * 1000000 END
  WHERE blob_id = old.blob_id;
END;

CREATE TRIGGER pins_insert AFTER INSERT ON pins WHEN new.blob_id IS NOT NULL BEGIN
  UPDATE blobs SET refcount = refcount + 1, orphaned_at = NULL WHERE blob_id = new.blob_id;
END;

CREATE TRIGGER pins_delete AFTER DELETE ON pins WHEN old.blob_id IS NOT NULL BEGIN
  UPDATE blobs
  SET refcount = refcount - 1,
      orphaned_at = CASE WHEN refcount = 1 THEN CAST(unixepoch('subsec') * 1000 AS INTEGER) * 1000000 END
  WHERE blob_id = old.blob_id;
END;

CREATE TRIGGER blob_chunks_insert AFTER INSERT ON blob_chunks BEGIN
  UPDATE chunks SET refcount = refcount + 1 WHERE chunk_id = new.chunk_id;
END;

CREATE TRIGGER blob_chunks_delete AFTER DELETE ON blob_chunks BEGIN
  UPDATE chunks SET refcount = refcount - 1 WHERE chunk_id = old.chunk_id;
END;

-- Usage changes here and nowhere else.

CREATE TRIGGER usage_insert AFTER INSERT ON nodes WHEN new.parent_inode IS NOT NULL BEGIN
  INSERT INTO usage (owner, nodes, bytes)
  VALUES (new.owner, 1, coalesce((SELECT size FROM blobs WHERE blob_id = new.blob_id), 0))
  ON CONFLICT (owner) DO UPDATE SET nodes = nodes + 1, bytes = bytes + excluded.bytes;
END;

CREATE TRIGGER usage_delete AFTER DELETE ON nodes WHEN old.parent_inode IS NOT NULL BEGIN
  UPDATE usage
  SET nodes = nodes - 1, bytes = bytes - coalesce((SELECT size FROM blobs WHERE blob_id = old.blob_id), 0)
  WHERE owner = old.owner;
END;

CREATE TRIGGER usage_update AFTER UPDATE OF parent_inode, blob_id, owner ON nodes
WHEN (old.parent_inode IS NULL) <> (new.parent_inode IS NULL)
  OR old.blob_id IS NOT new.blob_id OR old.owner <> new.owner
BEGIN
  UPDATE usage
  SET nodes = nodes - 1, bytes = bytes - coalesce((SELECT size FROM blobs WHERE blob_id = old.blob_id), 0)
  WHERE owner = old.owner AND old.parent_inode IS NOT NULL;
  INSERT INTO usage (owner, nodes, bytes)
  SELECT new.owner, 1, coalesce((SELECT size FROM blobs WHERE blob_id = new.blob_id), 0)
  WHERE new.parent_inode IS NOT NULL
  ON CONFLICT (owner) DO UPDATE SET nodes = nodes + 1, bytes = bytes + excluded.bytes;
END;

-- Changes are noted here and nowhere else.

CREATE TRIGGER changes_insert AFTER INSERT ON nodes BEGIN
  INSERT INTO changes (changed_at, inode, node_type, has_arrived)
  VALUES (
    CAST(unixepoch('subsec') * 1000 AS INTEGER) * 1000000 + abs(random() % 1000000),
    new.inode, new.node_type, 1
  );
END;

-- Not for the members of a deleted tree, which GC detaches from its top.
CREATE TRIGGER changes_place AFTER UPDATE OF parent_inode, name, sent_name ON nodes
WHEN old.parent_inode IS NULL OR old.parent_inode = 1
  OR (SELECT parent_inode FROM nodes WHERE inode = old.parent_inode) IS NOT NULL
BEGIN
  INSERT INTO changes (changed_at, inode, node_type, has_arrived, old_parent, old_name)
  VALUES (
    CAST(unixepoch('subsec') * 1000 AS INTEGER) * 1000000 + abs(random() % 1000000),
    new.inode, new.node_type, new.parent_inode IS NOT NULL,
    old.parent_inode, CASE WHEN old.parent_inode IS NOT NULL THEN coalesce(old.sent_name, old.name) END
  );
END;

-- Not for the time of a collection, which every new member changes.
CREATE TRIGGER changes_content AFTER UPDATE OF blob_id, content_type, modified_at ON nodes
WHEN new.node_type = 2 AND (
  old.blob_id IS NOT new.blob_id OR old.content_type IS NOT new.content_type OR old.modified_at <> new.modified_at
)
BEGIN
  INSERT INTO changes (changed_at, inode, node_type, has_arrived)
  VALUES (
    CAST(unixepoch('subsec') * 1000 AS INTEGER) * 1000000 + abs(random() % 1000000),
    new.inode, new.node_type, 0
  );
END;

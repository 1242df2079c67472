-- Pins of long downloads and copies; the last run of each maintenance task.

-- First: see schema.sql about views. The tops of deleted trees, which GC may take apart.
CREATE VIEW detached AS
  SELECT inode FROM nodes INDEXED BY nodes_detached
  WHERE parent_inode IS NULL AND inode <> 1 AND inode NOT IN (SELECT inode FROM pins WHERE inode IS NOT NULL);

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

CREATE TABLE tasks (
  name TEXT NOT NULL PRIMARY KEY,
  started_at INTEGER NOT NULL,
  finished_at INTEGER,      -- NULL: interrupted, or still running
  outcome TEXT CHECK (outcome IN ('ok', 'failed')),
  detail TEXT NOT NULL DEFAULT '',  -- for people; for a task that goes on where it stopped: where
  CHECK ((finished_at IS NULL) = (outcome IS NULL))
) STRICT, WITHOUT ROWID;

CREATE TRIGGER pins_insert AFTER INSERT ON pins WHEN new.blob_id IS NOT NULL BEGIN
  UPDATE blobs SET refcount = refcount + 1, orphaned_at = NULL WHERE blob_id = new.blob_id;
END;

CREATE TRIGGER pins_delete AFTER DELETE ON pins WHEN old.blob_id IS NOT NULL BEGIN
  UPDATE blobs
  SET refcount = refcount - 1,
      orphaned_at = CASE WHEN refcount = 1 THEN CAST(unixepoch('subsec') * 1000 AS INTEGER) * 1000000 END
  WHERE blob_id = old.blob_id;
END;

-- Nothing is looked up in these: they hold a second time what no digest, no refcount and no other index vouches for, so
-- that PRAGMA integrity_check finds a bit that rots in either.
CREATE INDEX nodes_mirror ON nodes (inode, sent_name, content_type, created_at, modified_at);
CREATE INDEX properties_mirror ON properties (inode, namespace, name, xml);
CREATE INDEX locks_mirror ON locks (lock_id, scope, is_depth_infinity, owner_xml, principal, timeout_s, created_at);

-- The chunk that a place in a blob refers to is now vouched for.
ALTER TABLE blob_chunks ADD COLUMN digest_start BLOB NOT NULL DEFAULT x'0000000000000000';
UPDATE blob_chunks
SET digest_start = substr((SELECT c.digest FROM chunks AS c WHERE c.chunk_id = blob_chunks.chunk_id), 1, 8);

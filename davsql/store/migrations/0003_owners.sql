-- Whose a node is, and how much everybody has. What is there already is nobody's: there were no accounts.

ALTER TABLE nodes ADD COLUMN owner TEXT NOT NULL DEFAULT '';

DROP INDEX nodes_mirror;
CREATE INDEX nodes_mirror ON nodes (inode, sent_name, content_type, created_at, modified_at, owner);

CREATE TABLE usage (
  owner TEXT NOT NULL PRIMARY KEY,
  nodes INTEGER NOT NULL,
  bytes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO usage (owner, nodes, bytes)
SELECT n.owner, count(*), coalesce(sum(b.size), 0)
FROM nodes AS n LEFT JOIN blobs AS b ON b.blob_id = n.blob_id
WHERE n.parent_inode IS NOT NULL GROUP BY n.owner;

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

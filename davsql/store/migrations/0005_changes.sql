-- The journal of changes. It begins with an entry for the root, as in a new store.

CREATE TABLE changes (
  change_id INTEGER PRIMARY KEY,
  changed_at INTEGER NOT NULL,  -- the digits below the millisecond are random
  inode INTEGER NOT NULL,
  node_type INTEGER NOT NULL,
  has_arrived INTEGER NOT NULL, -- 1: it was made, or put where it is
  old_parent INTEGER,           -- the place that it left; NULL: none
  old_name TEXT                 -- as sent
) STRICT;

INSERT INTO changes (changed_at, inode, node_type, has_arrived)
VALUES (
  CAST(unixepoch('subsec') * 1000 AS INTEGER) * 1000000 + abs(random() % 1000000),
  1, 1, 1
);

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

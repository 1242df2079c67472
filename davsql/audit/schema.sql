-- The schema of an audit log, version 1, with entries.sql. Times are nanoseconds since the Unix epoch.
--
-- Rules:
--   1  Rows are added, never changed or taken away. Triggers refuse it to whoever uses SQL; chain.py finds it where
--      somebody went around them.
--   2  Row seq + 1 follows row seq, in this file and from the compressed files to this one.
--   3  mac is an HMAC of the row and of the mac of the row before it (chain.py). Its key is not in this file.
--   4  A rotation moves rows into a compressed file, which exists before they go.

CREATE TABLE state (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  start_seq INTEGER NOT NULL,          -- the last row that is not here any more; 0: none was before
  start_mac BLOB NOT NULL CHECK (length(start_mac) = 32),
  rotating_since INTEGER NOT NULL      -- one process at a time; a claim that is old was left by a kill
) STRICT;
INSERT INTO state (id, start_seq, start_mac, rotating_since) VALUES (1, 0, zeroblob(32), 0);

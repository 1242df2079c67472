-- The rows; a rotation drops this table and makes it anew.

CREATE TABLE entries (
  seq INTEGER PRIMARY KEY,
  at INTEGER NOT NULL,
  user TEXT,                           -- NULL: nobody had logged in
  address TEXT NOT NULL,               -- "local": somebody at this machine, who gave a command
  method TEXT NOT NULL,                -- of HTTP, LOGIN, or the command ("user add")
  path TEXT NOT NULL,                  -- decoded; of a command: what it was about
  destination TEXT,
  status INTEGER,                      -- of HTTP; NULL for commands, which are recorded when they are done
  bytes INTEGER,                       -- of the body that came, or was asked for; NULL: not known
  request_id TEXT NOT NULL,
  mac BLOB NOT NULL CHECK (length(mac) = 32)
) STRICT;

CREATE TRIGGER entries_stay AFTER DELETE ON entries BEGIN
  SELECT raise(ABORT, 'the audit log is append-only');
END;
CREATE TRIGGER entries_are_final AFTER UPDATE ON entries BEGIN
  SELECT raise(ABORT, 'the audit log is append-only');
END;

-- The whole schema of an account file, version 1. Times are nanoseconds since the Unix epoch.
--
-- Rules:
--   1  Nothing here opens a door by itself: of a password there is its Argon2id hash, of a token its SHA-256.
--   2  state.generation grows in the same transaction as anything that decides who may enter, and by triggers only, so
--      that nobody can forget it. Servers read it at each request and drop what they remember when it has grown.
--   3  Bookkeeping (last use, addresses, failures) does not change the generation.
--   4  Ids are never used again.

CREATE TABLE state (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  generation INTEGER NOT NULL
) STRICT;
INSERT INTO state (id, generation) VALUES (1, 1);

CREATE TABLE users (
  user_id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL,                 -- as it was made; rules and logs have this form
  key TEXT NOT NULL UNIQUE,           -- as it is looked up: NFC, without regard to case
  password_hash TEXT NOT NULL,        -- Argon2id in PHC string format, with its salt and parameters
  is_disabled INTEGER NOT NULL DEFAULT 0 CHECK (is_disabled IN (0, 1)),
  created_at INTEGER NOT NULL,
  last_login_at INTEGER               -- to the hour
) STRICT;

CREATE TABLE memberships (
  user_id INTEGER NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
  group_name TEXT NOT NULL,
  PRIMARY KEY (user_id, group_name)
) STRICT, WITHOUT ROWID;

CREATE TABLE tokens (
  token_id INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id INTEGER NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
  name TEXT NOT NULL,
  digest BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
  is_read_only INTEGER NOT NULL CHECK (is_read_only IN (0, 1)),
  share TEXT,                         -- the only one it opens
  path TEXT,                          -- the tree that it opens, as people write it
  created_at INTEGER NOT NULL,
  expires_at INTEGER,
  last_used_at INTEGER,               -- to the hour
  UNIQUE (user_id, name)
) STRICT;

-- Addresses from which somebody has logged in, so that an attack from elsewhere does not lock him out.
CREATE TABLE known_addresses (
  user_id INTEGER NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
  address TEXT NOT NULL,
  last_login_at INTEGER NOT NULL,     -- to the hour
  PRIMARY KEY (user_id, address)
) STRICT, WITHOUT ROWID;

-- Failed logins. The subject is a SHA-256: people type passwords where names belong.
CREATE TABLE failures (
  subject BLOB NOT NULL PRIMARY KEY,
  count INTEGER NOT NULL,
  last_failed_at INTEGER NOT NULL,
  blocked_until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX failures_by_age ON failures (last_failed_at);

CREATE TRIGGER users_added AFTER INSERT ON users BEGIN
  UPDATE state SET generation = generation + 1;
END;
CREATE TRIGGER users_changed AFTER UPDATE OF name, key, password_hash, is_disabled ON users BEGIN
  UPDATE state SET generation = generation + 1;
END;
CREATE TRIGGER users_removed AFTER DELETE ON users BEGIN
  UPDATE state SET generation = generation + 1;
END;
CREATE TRIGGER memberships_added AFTER INSERT ON memberships BEGIN
  UPDATE state SET generation = generation + 1;
END;
CREATE TRIGGER memberships_removed AFTER DELETE ON memberships BEGIN
  UPDATE state SET generation = generation + 1;
END;
CREATE TRIGGER tokens_added AFTER INSERT ON tokens BEGIN
  UPDATE state SET generation = generation + 1;
END;
CREATE TRIGGER tokens_changed AFTER UPDATE OF user_id, digest, is_read_only, share, path, expires_at ON tokens BEGIN
  UPDATE state SET generation = generation + 1;
END;
CREATE TRIGGER tokens_removed AFTER DELETE ON tokens BEGIN
  UPDATE state SET generation = generation + 1;
END;

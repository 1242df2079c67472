-- SHA-1 and MD5 of content that came from clients which compare them.

CREATE TABLE checksums (
  blob_id INTEGER PRIMARY KEY REFERENCES blobs (blob_id) ON DELETE CASCADE,
  sha1 BLOB NOT NULL CHECK (length(sha1) = 20),
  md5 BLOB NOT NULL CHECK (length(md5) = 16)
) STRICT;

CREATE INDEX checksums_mirror ON checksums (blob_id, sha1, md5);

"""Checksums of content beside its SHA-256, for clients that compare others."""

from __future__ import annotations

import json
from collections.abc import Sequence

from davsql.model import BlobId, Checksums
from davsql.store.transaction import ReadTx, WriteTx

KEEP_CHECKSUMS = """
INSERT OR IGNORE INTO checksums (blob_id, sha1, md5)
SELECT blob_id, :sha1, :md5 FROM blobs WHERE blob_id = :blob_id AND digest = :digest
"""


def keep_checksums(tx: WriteTx, blob_id: BlobId, digest: bytes, checksums: Checksums) -> None:
    """Keep the checksums of a blob, once: content never changes. If it has gone, nothing happens."""
    tx.change(KEEP_CHECKSUMS, {"blob_id": blob_id, "digest": digest, **checksums._asdict()})


CHECKSUMS_OF = """
SELECT c.blob_id, c.sha1, c.md5
FROM json_each(:blob_ids) AS wanted CROSS JOIN checksums AS c ON c.blob_id = wanted.value
"""


def checksums_of(tx: ReadTx, blob_ids: Sequence[BlobId | None]) -> dict[BlobId, Checksums]:
    """The checksums of blobs; those without any are left out."""
    rows = tx.rows(CHECKSUMS_OF, {"blob_ids": json.dumps([each for each in blob_ids if each is not None])})
    return {blob_id: Checksums(sha1, md5) for blob_id, sha1, md5 in rows}

"""Checksums of content beside its SHA-256, for clients that compare others."""

from __future__ import annotations

import json
from collections.abc import Sequence

from davsql.model import BlobId, Checksums
from davsql.store.transaction import ReadTx, WriteTx

KEEP_CHECKSUMS = "INSERT OR IGNORE INTO checksums (blob_id, sha1, md5) VALUES (:blob_id, :sha1, :md5)"


def keep_checksums(tx: WriteTx, blob_id: BlobId, checksums: Checksums) -> None:
    """Keep the checksums of a blob, once: content never changes."""
    tx.change(KEEP_CHECKSUMS, {"blob_id": blob_id, **checksums._asdict()})


CHECKSUMS_OF = """
SELECT c.blob_id, c.sha1, c.md5
FROM json_each(:blob_ids) AS wanted CROSS JOIN checksums AS c ON c.blob_id = wanted.value
"""


def checksums_of(tx: ReadTx, blob_ids: Sequence[BlobId | None]) -> dict[BlobId, Checksums]:
    """The checksums of blobs; those without any are left out."""
    rows = tx.rows(CHECKSUMS_OF, {"blob_ids": json.dumps([each for each in blob_ids if each is not None])})
    return {blob_id: Checksums(sha1, md5) for blob_id, sha1, md5 in rows}

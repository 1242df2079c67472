"""Make a small store of the schema of this davsql, for the tests of later ones: `python tests/data/make_store.py`.

The file is named after the version (`store-v1.db`). It is committed once a version is released and never made again;
tests/store/test_migrate.py opens every such file, migrates it and looks for what is put in here.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))  # run as a script, from anywhere

from davsql.model import Checksums, Guard, LockRequest, LockScope, PropertyUpdate  # noqa: E402
from davsql.paths import DavPath  # noqa: E402
from davsql.store.blobs import CHUNK_BYTES  # noqa: E402
from davsql.store.migrate import SCHEMA_VERSION  # noqa: E402
from davsql.store.options import StoreOptions  # noqa: E402
from davsql.store.store import Store  # noqa: E402
from davsql.store.upload import STAGE_BATCH_BYTES  # noqa: E402

MTIME_NS = 1_700_000_000_123_456_789
LARGE = bytes(20 * CHUNK_BYTES) + b"the end"  # 21 chunks, two of them different
DECOMPOSED = "cafe\u0301"
CONTENTS: dict[str, bytes | None] = {
    "/Photos": None,
    "/Photos/2026 summer": None,
    "/Photos/2026 summer/one.jpg": b"one",
    "/Photos/2026 summer/two.jpg": b"two",
    "/Copy": None,
    "/Copy/2026 summer": None,
    "/Copy/2026 summer/one.jpg": b"one",
    "/Copy/2026 summer/two.jpg": b"two",
    f"/{DECOMPOSED}": None,
    f"/{DECOMPOSED}/empty": b"",
    f"/{DECOMPOSED}/large.bin": LARGE,
}
PROPERTY = PropertyUpdate("urn:example", "colour", '<x:colour xmlns:x="urn:example" xml:lang="de">rot</x:colour>')
LOCK = LockRequest(
    LockScope.EXCLUSIVE,
    is_depth_infinity=True,
    owner_xml="<D:owner xmlns:D='DAV:'>ann</D:owner>",
    timeout_s=100 * 365 * 24 * 3600,
)
PRINCIPAL = "ann"


def fill(store: Store) -> None:
    """Put in one of each: a copied tree, shared chunks, a property, a lock, what is deleted and what is staged."""
    for path, data in CONTENTS.items():
        if path.startswith("/Copy"):
            continue
        if data is None:
            store.make_collection(DavPath.from_text(path), modified_at=MTIME_NS)
        else:
            put(store, path, data)
    store.set_properties(DavPath.from_text("/Photos/2026 summer/one.jpg"), [PROPERTY])
    store.copy(DavPath.from_text("/Photos"), DavPath.from_text("/Copy"))
    store.lock(DavPath.from_text("/Photos"), LOCK, Guard(principal=PRINCIPAL))
    put(store, "/deleted", b"deleted, not yet taken away")
    store.delete(DavPath.from_text("/deleted"))
    store.upload().write(b"s" * (STAGE_BATCH_BYTES + 1))  # staged, and never heard of again


def put(store: Store, path: str, data: bytes) -> None:
    with store.upload() as upload:
        upload.write(data)
        upload.checksums = Checksums(hashlib.sha1(data).digest(), hashlib.md5(data).digest())  # noqa: S324  # what clients compare
        upload.commit(DavPath.from_text(path), content_type="application/octet-stream", modified_at=MTIME_NS)


def main() -> None:
    file = Path(__file__).with_name(f"store-v{SCHEMA_VERSION}.db")
    file.unlink(missing_ok=True)
    with Store.open(file, StoreOptions(page_size=4096), create=True) as store:
        fill(store)
    sys.stdout.write(f"{file}: {file.stat().st_size:,} bytes\n")


if __name__ == "__main__":
    main()

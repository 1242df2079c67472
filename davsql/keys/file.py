"""The file `STORE.keys` beside a store: the envelopes of its data key.

It is of no use to whoever has no key, and without it nobody can open the store: every backup takes a copy along.

    {"format": "davsql keys", "version": 1, "check": SHA-256 of the envelopes,
     "envelopes": [{"store": ..., "cipher": "sqlcipher", "page_size": 8192, "created_at": ..., "keys": [...]}]}

While a store is exchanged for one with another data key the file holds both envelopes: the first 16 bytes of the store
say which one is its own.
Rule 1: it is written to a file of its own, synced, and renamed: there is the old one or the new one at any moment.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from secrets import token_hex
from typing import Any, BinaryIO

from davsql.errors import BadKey, KeyMissing
from davsql.keys.envelope import SALT_BYTES, Envelope, Stretching, WrappedKey

if os.name == "posix":
    import fcntl

FORMAT = "davsql keys"
VERSION = 1
CIPHERS = ("sqlcipher",)
MAX_FILE_BYTES = 1024 * 1024
MAX_MEMORY_KIB = 4 * 1024 * 1024  # a file from elsewhere must not take all memory
MAX_ITERATIONS = 64
MAX_LANES = 64
PAGE_SIZES = frozenset(1 << bits for bits in range(9, 17))


def keys_file(store: Path) -> Path:
    """Where the envelopes of a store lie."""
    return store.with_name(store.name + ".keys")


def read_envelopes(file: Path) -> list[Envelope]:
    """All envelopes of a file.

    Raises:
        KeyMissing: there is no such file.
        BadKey: it is damaged, cut, or of a newer davsql.
    """
    with _opened(file) as opened:
        try:
            content = opened.read(MAX_FILE_BYTES)
        except OSError as error:
            raise BadKey(f"{file} cannot be read: {error.strerror}") from error
    try:
        document = json.loads(content)
        if document["format"] == FORMAT and document["version"] != VERSION:
            raise BadKey(f"{file} was written by a newer davsql; install that")
        if document["format"] == FORMAT and document["check"] == check_sum(document["envelopes"]):
            return [_envelope(each) for each in document["envelopes"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise BadKey(f"{file} is damaged: put a copy of it in its place (each backup has one beside it)")


def write_envelopes(file: Path, envelopes: Sequence[Envelope], *, may_replace: bool = True) -> None:
    """Exchange the file's content (mode 0600), whole or not at all.

    Raises:
        BadKey: it cannot be written; it is as it was.
    """
    listed = [asdict(each) for each in envelopes]
    document = {"format": FORMAT, "version": VERSION, "check": check_sum(listed), "envelopes": listed}
    write_private(file, json.dumps(document, indent=1).encode() + b"\n", may_replace=may_replace)


def adopt(file: Path, envelope: Envelope) -> None:
    """Put an envelope into a file, which may be missing; others in it stay. A damaged file is kept as FILE.damaged-HEX.

    Raises:
        BadKey: it cannot be written; it is as it was.
    """
    found: list[Envelope] = []
    try:
        found = read_envelopes(file)
    except KeyMissing:
        pass
    except BadKey:
        file.rename(file.with_name(f"{file.name}.damaged-{token_hex(4)}"))
    write_envelopes(file, [*(each for each in found if each.store != envelope.store), envelope])


def change(file: Path, store: str, new: Callable[[Envelope], Envelope]) -> None:
    """Exchange the envelope of a store for what `new` makes of it; two who do so at one time come after each other.

    Raises:
        KeyMissing: there is no such file, or no envelope of this store in it.
        BadKey: it is damaged, or cannot be written; it is as it was.
    """
    with _locked(file):
        found = read_envelopes(file)
        if store not in (each.store for each in found):
            raise KeyMissing(f"{file} belongs to another store now: somebody has just exchanged it; try again")
        write_envelopes(file, [new(each) if each.store == store else each for each in found])


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Keep others from changing the file. Windows has no such lock."""
    if os.name != "posix":
        yield
        return
    while True:
        with _opened(file) as opened:
            fcntl.flock(opened, fcntl.LOCK_EX)
            # It may have been exchanged while we waited: then the lock is on a file that has no name any more.
            if file.exists() and os.path.samestat(os.fstat(opened.fileno()), file.stat()):
                yield
                return


def _opened(file: Path) -> BinaryIO:
    try:
        return file.open("rb")
    except FileNotFoundError:
        raise KeyMissing(
            f"{file} is missing: it holds the store's key, wrapped; put it back (each backup has a copy beside it)"
        ) from None
    except OSError as error:
        raise BadKey(f"{file} cannot be read: {error.strerror}") from error


def settle(file: Path, envelope: Envelope | None) -> None:
    """Leave one envelope in a file, or none at all: the store that the others opened is gone from there.

    Raises:
        BadKey: it cannot be written.
    """
    if envelope is not None:
        write_envelopes(file, [envelope])
        return
    with suppress(FileNotFoundError):
        file.unlink()
        _sync_folder(file.parent)


def write_private(file: Path, content: bytes, *, may_replace: bool) -> None:
    """Write a file that only its owner may read, whole or not at all, and safe against a power cut.

    Raises:
        BadKey: it is there already, or cannot be written.
    """
    part = file.with_name(f".{file.name[:200]}.{token_hex(8)}.davsql-part")
    try:
        descriptor = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with open(descriptor, "wb") as opened:  # noqa: PTH123  # a descriptor, no path
            opened.write(content)
            opened.flush()
            os.fsync(descriptor)
        if may_replace:
            if file.exists():
                own_as(part, file)
            part.replace(file)
        else:
            _name_first(part, file)
        _sync_folder(file.parent)
    except FileExistsError:
        raise BadKey(f"{file} exists already, and a key is never overwritten; choose another name") from None
    except OSError as error:
        raise BadKey(f"{file} cannot be written: {error.strerror}") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _name_first(part: Path, file: Path) -> None:
    """Give a file a name that nothing has; FileExistsError."""
    try:
        file.hardlink_to(part)  # unlike a rename, this never replaces anything
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links, as on many a stick
        if os.path.lexists(file):
            raise FileExistsError(file) from None
        part.rename(file)


def own_as(file: Path, model: Path) -> None:
    """Where root works on the store of another user: give a file to the owner of `model`, or he could not open it."""
    if os.name == "posix" and os.geteuid() == 0:
        found = model.stat()
        os.chown(file, found.st_uid, found.st_gid)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # which cannot
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_sum(envelopes: object) -> str:
    """Tells a damaged file from a wrong key; what protects it against people is in each wrapped key."""
    return hashlib.sha256(json.dumps(envelopes, sort_keys=True).encode()).hexdigest()


def _envelope(found: dict[str, Any]) -> Envelope:
    """Raise ValueError, KeyError or TypeError for what `write_envelopes` does not write."""
    envelope = Envelope(**{**found, "keys": tuple(_wrapped_key(each) for each in found["keys"])})
    if len(bytes.fromhex(envelope.store)) != SALT_BYTES or envelope.cipher not in CIPHERS:
        raise ValueError(envelope)
    if envelope.page_size not in PAGE_SIZES or not envelope.keys:
        raise ValueError(envelope)
    datetime.fromisoformat(envelope.created_at)
    return envelope


def _wrapped_key(found: dict[str, Any]) -> WrappedKey:
    stretching = None if found["stretching"] is None else _stretching(found["stretching"])
    key = WrappedKey(**{**found, "stretching": stretching})
    for text in (key.nonce, key.wrapped):
        bytes.fromhex(text)
    if key.kind != ("key" if stretching is None else "passphrase") or not isinstance(key.name, str):
        raise ValueError(key)
    return key


def _stretching(found: dict[str, Any]) -> Stretching:
    stretching = Stretching(**found)
    if len(bytes.fromhex(stretching.salt)) != SALT_BYTES:
        raise ValueError(stretching)
    lanes_max = min(MAX_LANES, stretching.memory_kib // 8)  # RFC 9106 3.1
    if stretching.memory_kib not in range(MAX_MEMORY_KIB + 1) or stretching.lanes not in range(1, lanes_max + 1):
        raise ValueError(stretching)
    if stretching.iterations not in range(1, MAX_ITERATIONS + 1):
        raise ValueError(stretching)
    return stretching

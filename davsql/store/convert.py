"""A store under another key: encrypted, decrypted, or encrypted anew.

Rule 1: the copy beside it is made, and every byte in it read and hashed, before it takes the store's name. Whatever
        ends this process, the old store or the new one is there, whole, and its wrapped key beside it.
Rule 2: nobody else uses the store while this runs.
Rule 3: a run that was killed, or stopped, leaves its part with the wrapped key of that part beside it, and the next one
        goes on with both (rewrite.py), or begins anew if the part proves bad. What an error has ended is taken away.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import replace
from glob import escape
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from davsql.errors import KeyFailed, StoreBusy, StoreDamaged, StoreError
from davsql.keys.envelope import DataKey, unlock
from davsql.keys.file import keys_file, own_as, read_envelopes
from davsql.keys.secret import GivenKey
from davsql.store.backup import (
    CACHE_MB,
    COUNT_ROWS,
    CopyOptions,
    Snapshot,
    place,
    require_header,
    sync_file,
    verify_copy,
)
from davsql.store.cipher import first_bytes
from davsql.store.connection import Role, open_connection, open_frozen, require_file
from davsql.store.exclusion import leftovers, sole_use
from davsql.store.keyfiles import forget_keys, keys_beside, only_keys
from davsql.store.options import StoreOptions
from davsql.store.restore import fold_wal
from davsql.store.rewrite import Rewritten, remove_part, rewrite
from davsql.store.transaction import ReadTx, translated


class Converted(NamedTuple):
    """A store that has another key."""

    file: Path
    size_bytes: int
    reused_bytes: int  # of content, which an earlier run had copied
    duration_s: float


def convert(file: Path, options: StoreOptions, key: DataKey | None, how: CopyOptions | None = None) -> Converted:
    """Give the store at `file` another key, or none; the old file is gone afterwards.

    Args:
        options: with the key that it has.
        key: a new one, or what `begun_key` has found.

    Raises:
        StoreBusy: somebody else has it open.
        StoreError: it cannot be read, or the copy not be made; the store is as it was.
    """
    require_file(file)
    file = Path(os.path.realpath(file))
    fold_wal(file, options)
    try:
        return _exchange(file, replace(options, cache_mb=CACHE_MB), key, how or CopyOptions())
    except BaseException:
        with suppress(StoreError):
            open_connection(file, Role.WRITER, options).close()  # in WAL mode again
        raise


def begun_key(file: Path, given: GivenKey) -> DataKey | None:
    """The key of the part that an earlier run has left beside a store, if there is one and `given` opens it."""
    part = part_of(Path(os.path.realpath(file)))
    with suppress(KeyFailed, FileNotFoundError, StoreError):
        for envelope in read_envelopes(keys_file(part)):
            if envelope.store == first_bytes(part).hex():
                return unlock(envelope, given)
    return None


def part_of(file: Path) -> Path:
    """Where a store under another key is made: always in the same place, which no other store's is."""
    return file.with_name(f".{file.name[:200]}.{sha256(os.fsencode(file.name)).hexdigest()[:16]}.davsql-part")


def _exchange(file: Path, options: StoreOptions, key: DataKey | None, how: CopyOptions) -> Converted:
    started, part = time.monotonic(), part_of(file)
    with sole_use(file):
        for each in leftovers(file):
            raise StoreBusy(
                f"{each} is there: the store was not closed, or is in use; run `davsql check` and try again"
            )
        _remove_others(file, part)
        try:
            only_keys(part, key)
            made = _copied(file, part, options, key, how)
            open_connection(part, Role.WRITER, replace(options, key=key)).close()  # in WAL mode, as stores are
            own_as(part, file)
            sync_file(part)
            with keys_beside(file, key):
                forget_keys(part)
                place(part, file, may_replace=True)
        except (StoreError, OSError):
            with suppress(StoreError, OSError):  # it must not hide what went wrong before
                remove_part(part)
                forget_keys(part)
            raise
    return Converted(file, made.snapshot.size_bytes, made.reused_bytes, time.monotonic() - started)


def _remove_others(file: Path, part: Path) -> None:
    """Take away what a killed restore or creation has left; a restore onto this store that runs now will fail."""
    for each in file.parent.glob(f".{escape(file.name[:200])}.{'[0-9a-f]' * 16}.davsql-part*"):
        if not each.name.startswith(part.name):
            each.unlink(missing_ok=True)


def _copied(file: Path, part: Path, options: StoreOptions, key: DataKey | None, how: CopyOptions) -> Rewritten:
    """The part, complete and verified; made anew where what an earlier run has left proves bad."""
    was_begun = part.exists()
    try:
        made = rewrite(file, part, options, key, how)
        _require_same(file, part, made.snapshot, options, key, how)
    except StoreDamaged:
        if not was_begun:
            raise
        remove_part(part)
        return _copied(file, part, options, key, how)
    return made


def _require_same(
    file: Path, part: Path, copied: Snapshot, options: StoreOptions, key: DataKey | None, how: CopyOptions
) -> None:
    """Read and hash the whole copy.

    Raises:
        StoreDamaged: it is not sound, or not the store.
    """
    sync_file(part)
    verify_copy(part, copied, replace(options, key=key), replace(how, is_deep=True))
    require_header(part, copied.size_bytes, key)
    source = open_frozen(file, options)
    try:
        with translated():
            counts = ReadTx(source).rows(COUNT_ROWS)[0]
    finally:
        source.close()
    if counts != (copied.nodes, copied.blobs, copied.chunks):
        raise StoreDamaged(f"{file} stays as it is: its copy does not hold the same; run `davsql check --deep`")

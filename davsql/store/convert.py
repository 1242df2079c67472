"""A store under another key: encrypted, decrypted, or encrypted anew.

Rule 1: the copy beside it is made, and every byte in it read and hashed, before it takes the store's name. Whatever
        ends this process, the old store or the new one is there, whole, and its wrapped key beside it.
Rule 2: nobody else uses the store from before the copy is begun until it has taken its place.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from glob import escape
from pathlib import Path

from davsql.errors import StoreBusy, StoreDamaged, StoreError
from davsql.keys.envelope import DataKey
from davsql.keys.file import own_as
from davsql.store.backup import CACHE_MB, COUNT_ROWS, Backup, CopyOptions, Rekey, part_copy, place, sync_file
from davsql.store.connection import Role, open_connection, open_frozen, require_file
from davsql.store.exclusion import leftovers, sole_use
from davsql.store.keyfiles import keys_beside
from davsql.store.options import StoreOptions
from davsql.store.restore import fold_wal
from davsql.store.transaction import ReadTx, translated


def convert(file: Path, options: StoreOptions, key: DataKey | None, how: CopyOptions | None = None) -> Backup:
    """Give the store at `file` another key, or none; the old file is gone afterwards.

    Args:
        options: with the key that it has.

    Raises:
        StoreBusy: somebody else has it open.
        StoreError: it cannot be read, or the copy not be made; the store is as it was.
    """
    how = replace(how or CopyOptions(), is_verified=True, is_deep=True, may_replace=True, rekey=Rekey(key))
    require_file(file)
    file = Path(os.path.realpath(file))
    fold_wal(file, options)
    try:
        return _exchange(file, replace(options, cache_mb=CACHE_MB), key, how)
    except BaseException:
        with suppress(StoreError):
            open_connection(file, Role.WRITER, options).close()  # in WAL mode again
        raise


def _exchange(file: Path, options: StoreOptions, key: DataKey | None, how: CopyOptions) -> Backup:
    with sole_use(file):
        for each in leftovers(file):
            raise StoreBusy(
                f"{each} is there: the store was not closed, or is in use; run `davsql check` and try again"
            )
        _remove_parts(file)
        with part_copy(lambda: open_frozen(file, options), file, options, how) as copy:
            _require_same(file, options, copy)
            open_connection(copy.file, Role.WRITER, replace(options, key=key)).close()  # in WAL mode, as stores are
            own_as(copy.file, file)
            sync_file(copy.file)
            with keys_beside(file, key):
                place(copy.file, file, may_replace=True)
    return copy._replace(file=file)


def _remove_parts(file: Path) -> None:
    """Take away what a killed conversion or restore has left; a restore onto this store that runs now will fail."""
    for each in file.parent.glob(f".{escape(file.name[:200])}.{'[0-9a-f]' * 16}.davsql-part*"):
        each.unlink(missing_ok=True)


def _require_same(file: Path, options: StoreOptions, copy: Backup) -> None:
    source = open_frozen(file, options)
    try:
        with translated():
            counts = ReadTx(source).rows(COUNT_ROWS)[0]
    finally:
        source.close()
    if counts != (copy.snapshot.nodes, copy.snapshot.blobs, copy.snapshot.chunks):
        raise StoreDamaged(f"{file} stays as it is: its copy does not hold the same; run `davsql check --deep`")

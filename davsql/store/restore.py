"""Putting a backup in the place of a store, without losing what was there.

Rule 1: the copy that is put in place was opened and checked before.
Rule 2: what was there is kept under another name, with its WAL; nothing is deleted.
Rule 3: the name is the old store or the new one at any moment, where the file system has hard links.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import apsw

from davsql.errors import AlreadyExists, NotAStore, NotFound, StoreBusy, StoreDamaged, StoreError
from davsql.store.backup import (
    CopyOptions,
    OpenSource,
    Snapshot,
    part_copy,
    place,
    real_path,
    sync_file,
    unused_name,
)
from davsql.store.connection import Role, open_connection, open_copy, sync_folder
from davsql.store.exclusion import leftovers, require_unused, sole_use
from davsql.store.keyfiles import keep_keys, keys_beside
from davsql.store.options import StoreOptions
from davsql.store.trial import try_out


class Restored(NamedTuple):
    """A backup that is a store again."""

    file: Path
    snapshot: Snapshot  # of the backup
    replaced: Path | None  # what was there before


def restore(backup: Path, target: Path, options: StoreOptions, how: CopyOptions | None = None) -> Restored:
    """Make `target` a store with what `backup` holds; `backup` itself is only read.

    A backup of an older schema version is migrated on the way.

    Raises:
        NotFound, NotAStore, StoreVersionError, StoreDamaged: the backup cannot be used; `target` is as before.
        AlreadyExists: there is a `target`, and `how.may_replace` is False.
        StoreBusy: `target` is in use.
        StoreFull, StoreError, Cancelled: it could not be copied; `target` is as before.
    """
    how = how or CopyOptions()
    target = real_path(Path(os.path.realpath(target)))  # the file, not a link to it
    _require_backup(backup, target)
    _require_replaceable(target, how)
    copying = replace(how, is_deep=False)  # which try_out does, after it migrated the copy
    with part_copy(copy_source(backup, options), target, options, copying) as copy:
        trial = try_out(copy.file, options, how)
        if trial.violations:
            first = trial.violations[0]
            raise StoreDamaged(
                f"{backup} is damaged and was not restored: {len(trial.violations)} violations of its invariants, the "
                f"first one of rule {first.rule}: {first.message}; take an older backup"
            )
        sync_file(copy.file)
        replaced = _swap(copy.file, target, options)
    return Restored(target, copy.snapshot, replaced)


def copy_source(backup: Path, options: StoreOptions) -> OpenSource:
    """Opens a backup, or any other store, as it is."""
    return lambda: open_copy(backup, replace(options, cache_mb=4, mmap_mb=0))


def _require_backup(backup: Path, target: Path) -> None:
    if not backup.exists():
        raise NotFound(f"there is no backup {backup}")
    if not backup.is_file():
        raise NotAStore(f"{backup} is not a regular file")
    if target.exists() and backup.samefile(target):
        raise AlreadyExists(f"{backup} is the store itself; choose another place with --db")


def _require_replaceable(target: Path, how: CopyOptions) -> None:
    if not target.exists():
        return
    if not target.is_file():
        raise AlreadyExists(f"{target} is no regular file; choose another place with --db")
    if not how.may_replace:
        raise AlreadyExists(
            f"{target} exists already; --force puts the backup in its place and keeps it as {target.name}.replaced-TIME"
        )
    require_unused(target)


def _swap(part: Path, target: Path, options: StoreOptions) -> Path | None:
    """Give the part the name of the target; return where the old one is now."""
    replaced = unused_name(target, "replaced")
    keep_keys(target, replaced)
    if not target.exists():
        # The WAL of a store that is gone would be taken for that of the new one.
        is_any = _move_leftovers(target, replaced)
        with keys_beside(target, options.key):
            place(part, target, may_replace=False)
        return replaced if is_any else None
    fold_wal(target, options)
    with sole_use(target):
        _move_leftovers(target, replaced)
        try:
            replaced.hardlink_to(target)
        except OSError:  # a file system without hard links: for a moment there is no store
            target.rename(replaced)
        with keys_beside(target, options.key):
            place(part, target, may_replace=True)
    return replaced


def _move_leftovers(target: Path, replaced: Path) -> bool:
    found = leftovers(target)
    for each in found:
        each.rename(replaced.with_name(replaced.name + each.name.removeprefix(target.name)))
    if found:
        sync_folder(target.parent)
    return bool(found)


def fold_wal(file: Path, options: StoreOptions) -> None:
    """Make a store one file, so that it can be kept under another name; a damaged one stays as it is."""
    at_once = replace(options, busy_timeout_s=0)
    try:
        open_copy(file, at_once).close()  # unlike a writer, this leaves the WAL of what is no store alone
        connection = open_connection(file, Role.WRITER, at_once)
    except StoreBusy:
        raise
    except StoreError:
        return
    try:
        with suppress(apsw.Error):  # in use, or damaged: `sole_use` tells
            connection.pragma("journal_mode", "delete")
    finally:
        connection.close()

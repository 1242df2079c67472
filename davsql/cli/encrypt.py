"""`davsql encrypt` and `davsql decrypt`: a store under a key, or without one any more."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import click

from davsql.cli.auditing import record_keys
from davsql.cli.copying import shown_copy
from davsql.cli.keeping import data_key, named, owners, recovery_option, tell_what_to_keep
from davsql.cli.printing import human_size, printable
from davsql.cli.target import Target, locked_target_option, target_option
from davsql.cli.unlocking import warn
from davsql.errors import BadKey, StoreReadOnly, StoreUnavailable, WrongKey
from davsql.keys.envelope import DataKey
from davsql.keys.file import keys_file
from davsql.store.backup import CopyOptions
from davsql.store.cipher import is_plain_file
from davsql.store.connection import open_copy, require_file
from davsql.store.convert import Converted, convert
from davsql.store.exclusion import require_unused


@click.command(short_help="Encrypt a store (SQLCipher 4).")
@recovery_option
@locked_target_option
def encrypt(target: Target, *, has_recovery: bool) -> None:
    """Encrypt the store with a passphrase, or with the key of --key-file or --key-command.

    A copy is made beside it, every byte of the copy is verified, and then it takes the place of the store. Nobody may
    use the store meanwhile. If it is stopped, the same command goes on with what was copied. What is to be kept safe
    is shown.

    \b
    Examples:
      davsql encrypt
      davsql key new photos.key; davsql encrypt --db /srv/photos.db --key-file photos.key
    """
    require_convertible(target)
    if keys_file(target.db).exists() and not is_plain_file(target.db):
        raise WrongKey(f"{target.db} is encrypted already; `davsql key` changes its keys")
    _require_other_place(target)
    page_size = page_size_of(target)  # before somebody is asked for a passphrase: it may be no store
    recovery, keys = owners(target.keys, has_recovery=has_recovery)
    key = data_key(target, page_size, keys)
    done = converted(target, key)
    click.echo(f"encrypted {printable(done.file)}: {work_done(done)}")
    click.echo(
        "What was stored before may still be found on the disk for a while, in backups that were made before, and in "
        "snapshots of the file system"
    )
    tell_what_to_keep(target, key, recovery)


@click.command(short_help="Make an encrypted store a plain one again.")
@target_option
def decrypt(target: Target) -> None:
    """Decrypt the store: afterwards whoever can read its file can read everything.

    As with encrypt a copy is made and verified, and then it takes the place of the store. Nobody may use the store
    meanwhile.

    \b
    Examples:
      davsql decrypt --db /srv/photos.db --key-file photos.key
    """
    require_convertible(target)
    if target.options.key is None:
        page_size_of(target)  # it may be no store at all
        raise WrongKey(f"{target.db} is not encrypted")
    done = converted(target, None)
    click.echo(f"decrypted {printable(done.file)}: {work_done(done)}")
    warn("whoever can read the file can read everything in it; its backups are plain from now on")


def require_convertible(target: Target) -> None:
    """Refuse, before anybody is asked for a passphrase, what would be refused later.

    Raises:
        NotFound, StoreReadOnly, StoreBusy, StoreUnavailable.
    """
    require_file(target.db)
    if target.options.read_only:
        raise StoreReadOnly(f"{target.db} is a read-only share; use --db without --config")
    if target.replica.options.url is not None:
        raise StoreUnavailable("the store has a replica, which Litestream keeps plain: take replica.url out first")
    require_unused(target.db)


def _require_other_place(target: Target) -> None:
    """Raise BadKey when the key lies where the wrapped keys come: a file that is in their way is moved aside."""
    file, place = target.keys.file, keys_file(Path(os.path.realpath(target.db)))
    if file is not None and Path(os.path.realpath(file)) == place:
        raise BadKey(f"{place} is where the wrapped keys of the store come: give your key file another name or place")


def page_size_of(target: Target) -> int:
    """That of a plain store; an encrypted one has it in its envelope."""
    connection = open_copy(target.db, target.options)
    try:
        return int(connection.pragma("page_size"))
    finally:
        connection.close()


def converted(target: Target, key: DataKey | None) -> Converted:
    """Give the store of `target` another key, with a progress bar."""
    record_keys(target.db, None if key is None else named(key.envelope.keys))
    try:
        with shown_copy(CopyOptions()) as how:
            return convert(target.db, replace(target.options, read_only=False), key, how)
    except KeyboardInterrupt:
        click.echo("the store is as it was; the same command goes on with what was copied", err=True)
        raise


def work_done(done: Converted) -> str:
    """What was written in which time, and what was there already."""
    reused = f"; an earlier run had copied {human_size(done.reused_bytes)}" if done.reused_bytes else ""
    return f"{human_size(done.size_bytes)} in {done.duration_s:.1f} s{reused}"

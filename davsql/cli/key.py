"""`davsql key`: the keys that open a store."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click

from davsql.cli.auditing import record_keys
from davsql.cli.encrypt import converted, require_convertible, work_done
from davsql.cli.keeping import RECOVERY, data_key, named, recovery_option, tell_recovery
from davsql.cli.printing import human_size, printable
from davsql.cli.target import Target, locked_target_option
from davsql.cli.unlocking import Unlocked, envelope_of, new_given, unlock_store, warn
from davsql.keys.envelope import Envelope, exchanged, opened_by, with_key, without_key
from davsql.keys.file import change, keys_file, write_private
from davsql.keys.secret import GivenKey, new_key_text
from davsql.keys.sources import KeySource
from davsql.store.connection import Role, open_connection, require_file

_new_key_file = click.option(
    "--new-key-file", type=click.Path(path_type=Path), metavar="FILE", help="The new key.  [default: a passphrase]"
)


@click.group(short_help="Make, add, change and revoke the keys of an encrypted store.")
def key() -> None:
    """The keys of an encrypted store. Each of those who use it can have one, and any of them opens it.

    \b
    Examples:
      davsql key new ann.key
      davsql key add --name ann --new-key-file ann.key --key-file photos.key
      davsql key revoke ann --key-file photos.key
      davsql key info
    """


@key.command()
@click.argument("file", type=click.Path(path_type=Path))
def new(file: Path) -> None:
    """Make a random key in the file FILE, which only you can read. An existing file is never touched."""
    write_private(file.absolute(), new_key_text().encode() + b"\n", may_replace=False)
    click.echo(f"made a key: {printable(file)}; keep a copy of it apart from the store it is for")


@key.command()
@click.option("--name", required=True, help="Whose it is, or what it is for.")
@_new_key_file
@click.option("--recovery", "is_recovery", is_flag=True, help="Make a recovery key, which is shown once.")
@locked_target_option
def add(target: Target, name: str, new_key_file: Path | None, *, is_recovery: bool) -> None:
    """Let one more key open the store: that of --new-key-file, or a passphrase that is asked for."""
    found = _unlocked(target)
    recovery = new_key_text() if is_recovery else None
    given = GivenKey(recovery) if recovery is not None else new_given(KeySource(new_key_file))
    _change(target, found, lambda now: with_key(replace(found.key, envelope=now), name, given).envelope)
    click.echo(f"added {name}")
    if recovery is not None:
        tell_recovery(recovery)


@key.command()
@click.argument("name")
@locked_target_option
def revoke(target: Target, name: str) -> None:
    """Let the key NAME open the store no longer. The last one stays.

    Whoever has an old copy of the file PATH.keys can go on using the key with it: when a key has become known, run
    davsql key rotate --data-key too.
    """
    found = _unlocked(target)
    _change(target, found, lambda now: without_key(now, name))
    click.echo(f"revoked {name}; backups that were made before still open with it")


@key.command()
@_new_key_file
@click.option(
    "--data-key", "is_data_key", is_flag=True, help="Encrypt the whole store anew; keep the key that you use."
)
@recovery_option
@locked_target_option
def rotate(target: Target, new_key_file: Path | None, *, is_data_key: bool, has_recovery: bool) -> None:
    """Exchange the key that you use for that of --new-key-file, or for a new passphrase. It takes a moment.

    With --data-key everything is encrypted anew, so that no key from before, and no old copy of PATH.keys, opens the
    store. All keys but the one that you use are gone then, and there is a new recovery key. A copy is made beside the
    store, every byte of it is verified, and then it takes its place; nobody may use the store meanwhile. If it is
    stopped, the same command goes on with what was copied.
    """
    if is_data_key and new_key_file is not None:
        raise click.UsageError("--data-key keeps the key that you use; exchange that one first, without --data-key.")
    if is_data_key:
        require_convertible(target)
    found = _unlocked(target)
    if is_data_key:
        _rotate_data_key(target, found, has_recovery=has_recovery)
        return
    old, given = opened_by(found.key.envelope, found.given), new_given(KeySource(new_key_file))
    _change(target, found, lambda now: exchanged(replace(found.key, envelope=now), old, given).envelope)
    click.echo(f"exchanged the key {old.name}; backups that were made before still open with the old one")


@key.command()
@locked_target_option
def verify(target: Target) -> None:
    """Say whether the key opens the store, and which one it is."""
    found = _unlocked(target)
    options = replace(target.options, key=found.key, read_only=True)
    open_connection(target.db, Role.READER, options).close()
    click.echo(f"{printable(target.db)} is opened by the key {opened_by(found.key.envelope, found.given).name}")


@key.command()
@locked_target_option
def info(target: Target) -> None:
    """Say how the store is encrypted, and which keys open it. No key is needed."""
    require_file(target.db)
    envelope = envelope_of(Path(os.path.realpath(target.db)))
    click.echo(f"{printable(target.db)}: {envelope.cipher} 4, pages of {envelope.page_size} bytes")
    click.echo(f"data key of {envelope.created_at}; encrypted with it: {human_size(target.db.stat().st_size)}")
    for each in envelope.keys:
        click.echo(printable(f"  {each.name}: {each.kind}, id {each.key_id}, of {each.created_at}"))


@key.command()
@click.option("--yes", "is_confirmed", is_flag=True, help="Do not ask.")
@locked_target_option
def export(target: Target, *, is_confirmed: bool) -> None:
    """Show the key of the data itself, for SQLCipher's own tools. It cannot be revoked: whoever has it can read all."""
    found = _unlocked(target)
    warn("what follows opens the store for everybody, whatever you revoke, until `davsql key rotate --data-key`")
    if not is_confirmed:
        if not sys.stdin.isatty():
            raise click.UsageError("There is no terminal to ask at; say --yes.")
        click.confirm("Show it?", abort=True, err=True)
    record_keys(target.db)
    click.echo(f'PRAGMA key = "{found.key.raw}";')
    click.echo(f"PRAGMA cipher_page_size = {found.key.envelope.page_size};")


def _rotate_data_key(target: Target, found: Unlocked, *, has_recovery: bool) -> None:
    before = found.key.envelope
    mine = opened_by(before, found.given).name
    recovery = new_key_text() if has_recovery and mine != RECOVERY else None
    kept = [(mine, found.given), *([] if recovery is None else [(RECOVERY, GivenKey(recovery))])]
    key = data_key(target, before.page_size, kept)
    done = converted(replace(target, options=replace(target.options, key=found.key)), key)
    click.echo(f"encrypted {printable(done.file)} anew: {work_done(done)}")
    click.echo(f"{printable(mine)} opens it")
    for name in (each.name for each in before.keys if each.name != mine):
        of_before = " of before" if name == RECOVERY and recovery is not None else ""
        click.echo(
            f"{printable(name)}{of_before} does not open it any more; davsql key add --name NAME lets a key in again"
        )
    click.echo("backups that were made before still open with the keys of their time")
    if recovery is not None:
        tell_recovery(recovery)


def _unlocked(target: Target) -> Unlocked:
    require_file(target.db)
    return unlock_store(target.db, target.keys)


def _change(target: Target, found: Unlocked, new: Callable[[Envelope], Envelope]) -> None:
    """Exchange the store's envelope as it is now: somebody may have changed it since it was unlocked."""

    def recorded(now: Envelope) -> Envelope:
        envelope = new(now)
        record_keys(target.db, named(envelope.keys))
        return envelope

    change(keys_file(Path(os.path.realpath(target.db))), found.key.envelope.store, recorded)

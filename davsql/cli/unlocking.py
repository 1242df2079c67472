"""The key of the store that a command is about: fetched from where options and configuration say, or asked for."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import click

from davsql.cli.printing import printable
from davsql.cli.secrecy import keep_memory_private
from davsql.errors import BadKey, KeyMissing, WrongKey
from davsql.keys.envelope import DataKey, Envelope, unlock
from davsql.keys.file import keys_file, read_envelopes
from davsql.keys.secret import GivenKey
from davsql.keys.sources import KeySource, fetch_key
from davsql.store.cipher import PLAIN_HEADER, first_bytes
from davsql.store.options import StoreOptions

PASSPHRASE_CHARACTERS = 8

# By the name of the envelope. Worker processes are forked from one that has the keys: they ask nobody again.
_known: dict[str, DataKey] = {}


class Unlocked(NamedTuple):
    """A store's key, and the one with which it was unlocked."""

    key: DataKey
    given: GivenKey


def key_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --key-file and --key-command, handed over as `keys`."""

    @functools.wraps(command)
    def with_keys(*args: Any, key_file: Path | None, key_command: str | None, **kwargs: Any) -> Any:
        if key_file is not None and key_command is not None:
            raise click.UsageError("--key-file and --key-command say both where the key is; choose one.")
        return command(*args, keys=KeySource(key_file, key_command), **kwargs)

    file = click.option(
        "--key-file", type=click.Path(path_type=Path), metavar="FILE", help="Where the key of an encrypted store is."
    )
    shown = click.option("--key-command", metavar="CMD", help="A program that prints the key, with its arguments.")
    return file(shown(with_keys))


def unlocked(db: Path, options: StoreOptions, source: KeySource) -> StoreOptions:
    """The options with the key of the store at `db`; as they are where there is no store, or a plain one.

    Raises:
        KeyFailed: there is no key, or a wrong one; or a key was given and the store needs none.
    """
    db = Path(os.path.realpath(db))
    if not db.is_file():
        return options  # whoever opens it says what is the matter
    header = first_bytes(db)
    if header == PLAIN_HEADER:
        if source.is_given:
            raise WrongKey(f"{db} is not encrypted, and a key was given: leave it out, or run `davsql encrypt`")
        return options
    if not header or not (source.is_given or keys_file(db).exists()):
        return options
    key = _known.get(header.hex())
    if key is None:
        key, given = unlock_store(db, source)
        given.secret.wipe()
    return replace(options, key=key)


def unlock_store(db: Path, source: KeySource) -> Unlocked:
    """Fetch the key of an encrypted store, asking for a passphrase where somebody is there.

    Raises:
        KeyFailed: there is no key, or a wrong one.
    """
    db = Path(os.path.realpath(db))
    envelope = envelope_of(db)
    has_passphrase = any(each.kind == "passphrase" for each in envelope.keys)
    can_ask = has_passphrase and sys.stdin.isatty()
    keep_memory_private()
    try:
        given = fetch_key(source, warn, functools.partial(_ask, db) if can_ask else None)
        key = unlock(envelope, given)
    except KeyMissing as error:
        raise KeyMissing(f"{db}: {error}") from None
    except WrongKey as error:
        names = ", ".join(f"{each.name} ({each.kind})" for each in envelope.keys)
        raise WrongKey(f"{db} was not opened: {error}; it is opened by: {names}") from None
    except BadKey as error:
        raise BadKey(f"{db} was not opened: {error}") from None
    _known[envelope.store] = key
    return Unlocked(key, given)


def envelope_of(db: Path) -> Envelope:
    """What lies beside an encrypted store for it.

    Raises:
        KeyFailed: nothing, or something of another store; or the store is not encrypted.
    """
    header = first_bytes(db)
    if header == PLAIN_HEADER:
        raise WrongKey(f"{db} is not encrypted; `davsql encrypt` encrypts it")
    for envelope in read_envelopes(keys_file(db)):
        if envelope.store == header.hex():
            return envelope
    raise WrongKey(
        f"{keys_file(db)} belongs to another store, or {db} is damaged at its very beginning; put the two files of one "
        "store, or of one backup, side by side"
    )


def new_given(source: KeySource) -> GivenKey:
    """A key that shall open a store: from where it is said to be, else a passphrase that is typed twice.

    Raises:
        click.UsageError: nobody is there to type.
        KeyFailed: what is there cannot be used.
    """
    keep_memory_private()
    if source.is_given:
        given = fetch_key(source, warn, None)
    elif sys.stdin.isatty():
        given = GivenKey(click.prompt("New passphrase", hide_input=True, confirmation_prompt=True, err=True))
    else:
        raise click.UsageError("There is no terminal to ask for a passphrase at; make a key: davsql key new FILE")
    if len(given.secret.reveal()) < PASSPHRASE_CHARACTERS:  # the first line of some other file, perhaps
        raise BadKey(
            f"a passphrase has at least {PASSPHRASE_CHARACTERS} characters; a few random words make a good one"
        )
    return given


def warn(message: str) -> None:
    """Say it on standard error."""
    click.echo(f"davsql: warning: {printable(message)}", err=True)


def _ask(db: Path) -> str:
    return str(click.prompt(f"Passphrase of {printable(db)}", hide_input=True, err=True))

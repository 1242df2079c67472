"""New keys for a store, and what its owner is told to keep safe."""

from __future__ import annotations

from collections.abc import Sequence

import click

from davsql.cli.printing import printable
from davsql.cli.target import Target
from davsql.cli.unlocking import new_given
from davsql.keys.envelope import DataKey, WrappedKey, new_data_key, owned_by
from davsql.keys.file import keys_file
from davsql.keys.secret import GivenKey, new_key_text
from davsql.keys.sources import KeySource
from davsql.store.convert import begun_key

RECOVERY = "recovery"

recovery_option = click.option(
    "--recovery/--no-recovery",
    "has_recovery",
    default=True,
    help="Make a recovery key too, which is shown once.  [default: yes]",
)


def named(keys: Sequence[WrappedKey]) -> str:
    """The keys of a store, for the audit log."""
    return "keys: " + ", ".join(f"{each.name} {each.key_id}" for each in keys)


def owners(source: KeySource, *, has_recovery: bool) -> tuple[str | None, list[tuple[str, GivenKey]]]:
    """The keys of a store that is to be encrypted, with their names, and the text of the one for recovery."""
    given = new_given(source)
    keys = [(given.kind, given)]
    if not has_recovery:
        return None, [(str(name), key) for name, key in keys]
    recovery = new_key_text()
    return recovery, [(given.kind, given), (RECOVERY, GivenKey(recovery))]


def data_key(target: Target, page_size: int, keys: Sequence[tuple[str, GivenKey]]) -> DataKey:
    """The key of what an earlier run has left, where the first of these keys opens it; else a new one."""
    begun = begun_key(target.db, keys[0][1])
    if begun is None or begun.envelope.page_size != page_size:
        return new_data_key(page_size, keys)
    return owned_by(begun, keys)


def tell_what_to_keep(target: Target, key: DataKey, recovery: str | None) -> None:
    """What is lost with what."""
    first = key.envelope.keys[0]
    kept = printable(target.keys.file) if target.keys.file is not None else f"the {first.kind}"
    click.echo("Without a key nobody can read it again. Keep these apart from the store and from each other:")
    click.echo(f"  {kept} opens the store")
    click.echo(f"  {printable(keys_file(target.db))} is needed beside the store; alone it opens nothing. Copy it; each")
    click.echo("  backup has one beside it too")
    if recovery is not None:
        tell_recovery(recovery)


def tell_recovery(recovery: str) -> None:
    """Show the recovery key."""
    click.echo("  the recovery key opens the store when all others are lost; it is shown once, write it down:")
    click.echo(f"\n    {recovery}\n")

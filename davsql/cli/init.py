"""`davsql init`: make an empty store."""

from __future__ import annotations

from dataclasses import replace

import click

from davsql.cli.auditing import record_keys
from davsql.cli.keeping import named, owners, recovery_option, tell_what_to_keep
from davsql.cli.printing import printable
from davsql.cli.target import Target, locked_target_option
from davsql.errors import StoreUnavailable
from davsql.keys.envelope import new_data_key


@click.command()
@click.option("--encrypt", "is_encrypted", is_flag=True, help="Encrypt it with a passphrase, or the key of --key-file.")
@recovery_option
@locked_target_option
def init(target: Target, *, is_encrypted: bool, has_recovery: bool) -> None:
    """Make an empty store. An existing file is never touched.

    With --encrypt everything in it is encrypted (SQLCipher 4), and its backups are. What is to be kept safe is shown.

    \b
    Examples:
      davsql init
      davsql init --db /srv/photos.db
      davsql init --encrypt
      davsql key new photos.key; davsql init --encrypt --db /srv/photos.db --key-file photos.key
    """
    if target.db.exists():
        raise StoreUnavailable(f"{target.db} exists already; choose another path, or delete the file first")
    if not is_encrypted:
        if target.keys.is_given:
            raise click.UsageError("A key was given: add --encrypt, or leave the key out.")
        with target.open(create=True):
            click.echo(f"made an empty store: {printable(target.db)}")
        return
    recovery, keys = owners(target.keys, has_recovery=has_recovery)
    key = new_data_key(target.options.page_size, keys)
    record_keys(target.db, named(key.envelope.keys))
    with replace(target, options=replace(target.options, key=key)).open(create=True):
        click.echo(f"made an empty encrypted store: {printable(target.db)}")
    tell_what_to_keep(target, key, recovery)

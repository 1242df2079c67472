"""`davsql init`: make an empty store."""

from __future__ import annotations

import click

from davsql.cli.printing import printable
from davsql.cli.target import Target, target_option
from davsql.errors import StoreUnavailable


@click.command()
@target_option
def init(target: Target) -> None:
    """Make an empty store. An existing file is never touched.

    \b
    Examples:
      davsql init
      davsql init --db /srv/photos.db
    """
    if target.db.exists():
        raise StoreUnavailable(f"{target.db} exists already; choose another path, or delete the file first")
    with target.open(create=True):
        click.echo(f"made an empty store: {printable(target.db)}")

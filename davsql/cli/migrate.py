"""`davsql migrate`: bring a store to the schema version of this davsql, or try that on a copy."""

from __future__ import annotations

from pathlib import Path

import click

from davsql.cli.copying import shown_copy
from davsql.cli.printing import counted, human_size, printable
from davsql.cli.target import Target, target_option
from davsql.errors import StoreReadOnly
from davsql.store.backup import CopyOptions, live_source, part_copy, real_path
from davsql.store.connection import Role, open_connection, require_file
from davsql.store.migrate import SCHEMA_VERSION, known_version
from davsql.store.trial import try_out
from davsql.store.upgrade import upgrade


@click.command(short_help="Bring the store to the schema version of this davsql.")
@click.option("--dry-run", "is_dry_run", is_flag=True, help="Migrate and check a copy; the store stays as it is.")
@click.option(
    "--backup-to",
    "folder",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Where the backup, or the copy of --dry-run, goes.  [default: beside the store]",
)
@target_option
@click.pass_context
def migrate(context: click.Context, target: Target, folder: Path | None, *, is_dry_run: bool) -> None:
    """Bring the store to the schema version of this davsql, after a backup to PATH.before-vN-TIME.

    Every command that writes to an older store does the same by itself; those that only read refuse it. Stop davsql
    of the older version first.

    \b
    Examples:
      davsql migrate --dry-run
      davsql migrate --db /srv/photos.db --backup-to /mnt/stick
    """
    require_file(target.db)
    if is_dry_run:
        context.exit(_try(target, folder))
    if target.options.read_only:
        raise StoreReadOnly(f"{target.db} is a read-only share; use --db without --config to migrate it")
    connection = open_connection(target.db, Role.WRITER, target.options)
    try:
        found = known_version(connection)
        with shown_copy(CopyOptions()) as how:
            kept = upgrade(connection, target.db.absolute(), target.options, folder, how)
    finally:
        connection.close()
    if kept is None:
        click.echo(f"{printable(target.db)} has schema version {SCHEMA_VERSION} already")
    else:
        click.echo(f"{printable(target.db)}: schema version {found} became {SCHEMA_VERSION}")
        click.echo(f"as it was it is kept as {printable(kept)}")


def _try(target: Target, folder: Path | None) -> int:
    destination = real_path((folder or target.db.absolute().parent) / target.db.name)
    source = live_source(target.db, target.options)
    with shown_copy(CopyOptions()) as how, part_copy(source, destination, target.options, how) as copy:
        trial = try_out(copy.file, target.options)
    for violation in trial.violations:
        click.echo(f"rule {violation.rule}: {printable(violation.message)}")
    size = human_size(copy.snapshot.size_bytes)
    click.echo(
        f"a copy of {printable(target.db)} ({size}, made in {copy.duration_s:.1f} s): schema version "
        f"{trial.found_version} became {SCHEMA_VERSION} in {trial.migration_s:.2f} s, "
        + (counted(len(trial.violations), "violation") if trial.violations else "all invariants hold")
    )
    return 1 if trial.violations else 0

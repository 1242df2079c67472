"""`davsql check`: verify every invariant of a store."""

from __future__ import annotations

import click
from tqdm import tqdm

from davsql.cli.printing import counted, printable
from davsql.cli.target import Target, target_option
from davsql.store import check as store_check
from davsql.store.records import end_failures, task_records


@click.command(short_help="Verify every invariant of a store, and with --deep every byte.")
@click.option("--deep", "is_deep", is_flag=True, help="Read and rehash every chunk too.")
@target_option
@click.pass_context
def check(context: click.Context, target: Target, *, is_deep: bool) -> None:
    """Verify the store: every invariant, and with --deep every byte. It may be served meanwhile.

    Exit code 1, and a list of what is broken, when something is. Nothing is changed; only where maintenance has found
    damage and there is none any more, the store is told.

    \b
    Examples:
      davsql check
      davsql check --deep --db /srv/photos.db
    """
    with target.open(read_only=True) as store, tqdm(unit="B", unit_scale=True, disable=None, leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        violations = store_check.check(store, deep=is_deep, progress=progress)
        with store.read() as tx:
            failed = {name for name, record in task_records(tx).items() if record.outcome == "failed"}
    for violation in violations:
        click.echo(f"rule {violation.rule}: {printable(violation.message)}")
    if violations:
        click.echo(f"{printable(target.db)}: {counted(len(violations), 'violation')}", err=True)
        context.exit(1)
    over = failed.intersection(store_check.covered(is_deep=is_deep))
    if over and not target.options.read_only:
        with target.open() as store:
            store.write(lambda tx: end_failures(tx, over, "davsql check found nothing"))
    click.echo(f"{printable(target.db)}: all invariants hold" + (", every byte is as it was stored" if is_deep else ""))

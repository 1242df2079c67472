"""`davsql maintain`: do now what the maintenance threads do by and by."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click

from davsql.cli.printing import counted, printable
from davsql.cli.target import Target, target_option
from davsql.maintenance import tasks
from davsql.maintenance.gc import collect_garbage
from davsql.maintenance.thread import MaintenanceOptions
from davsql.store.store import Store

UNLIMITED_BYTES_PER_S = 1e15

Work = Callable[[Store, MaintenanceOptions], str]


def _gc(store: Store, options: MaintenanceOptions) -> str:
    removed = collect_garbage(
        store,
        grace_s=options.gc_grace_s,
        upload_expiry_s=options.upload_expiry_s,
        journal_days=options.journal_days,
    )
    return f"{counted(removed, 'row')} removed"


def _checkpoint(store: Store, _options: MaintenanceOptions) -> str:
    pages, moved = store.checkpoint(truncate=True)
    return f"{moved} of {counted(pages, 'page')} moved"


def _task(task: tasks.Task) -> Work:
    return lambda store, _options: tasks.run_task(task, store, lambda: False)


WORK: dict[str, Work] = {
    "gc": _gc,
    "checkpoint": _checkpoint,
    "optimize": _task(tasks.Optimize()),
    "quick-check": _task(tasks.QuickCheck()),
    "integrity-check": _task(tasks.IntegrityCheck(0)),
    "scrub": _task(tasks.Scrub(0, UNLIMITED_BYTES_PER_S)),
    "incremental-vacuum": _task(tasks.IncrementalVacuum(0, pause=1.0)),  # somebody waits for it
    "vacuum": _task(tasks.FullVacuum("")),
}


@click.command(short_help="Do maintenance now: garbage collection, checkpoint, checks, VACUUM.")
@click.argument("work", type=click.Choice(tuple(WORK)), nargs=-1, required=True)
@target_option
def maintain(target: Target, work: Sequence[str]) -> None:
    """Do WORK now, in the order given. `davsql serve` does all of it by itself; the store may be served meanwhile.

    \b
    gc                  remove what nothing refers to any more, by the settings in [maintenance]
    checkpoint          move the WAL into the database and empty it
    optimize            bring the query planner's statistics up to date
    quick-check         SQLite's quick_check
    integrity-check     SQLite's integrity_check and foreign_key_check
    scrub               rehash every chunk; from where an interrupted run stopped
    incremental-vacuum  give all free pages back to the file system
    vacuum              rebuild the file: stops writers meanwhile and needs room for a second copy

    \b
    Examples:
      davsql maintain gc incremental-vacuum
      davsql maintain scrub --db /srv/photos.db
    """
    with target.open() as store:
        for name in work:
            detail = WORK[name](store, target.maintenance)
            click.echo(f"{printable(target.db)}: {name} is done" + (f": {detail}" if detail else ""))

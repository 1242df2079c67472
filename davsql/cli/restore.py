"""`davsql restore`: make a backup, or the replica, the store again."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import click

from davsql.cli.copying import shown_copy
from davsql.cli.printing import counted, human_size, printable
from davsql.cli.target import Target, locked_target_option
from davsql.cli.unlocking import unlocked, warn
from davsql.maintenance.litestream import Replicated
from davsql.maintenance.replica_restore import restore_from_replica
from davsql.store import restore as store_restore
from davsql.store.backup import CopyOptions
from davsql.store.cipher import is_plain_file


class _Time(click.ParamType[datetime]):
    """A moment: ISO 8601, local time where no zone is given."""

    name = "time"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            return datetime.fromisoformat(value).astimezone()
        except (ValueError, OverflowError, OSError):
            self.fail(f"{value!r} is no time such as 2026-11-23T12:00:00Z or '2026-11-23 12:00:00'.", param, ctx)


@click.command(short_help="Make a backup, or the replica, the store again.")
@click.argument("source", metavar="[BACKUP | URL]", required=False)
@click.option("--from-replica", "is_replica", is_flag=True, help="Restore from URL, or the replica of --config.")
@click.option("--at", type=_Time(), metavar="TIME", help="With --from-replica: as it was then.  [default: the newest]")
@click.option("--deep", "is_deep", is_flag=True, help="Read and rehash every chunk of the copy too.")
@click.option("--force", "is_forced", is_flag=True, help="Put it in the place of a store, which is kept.")
@locked_target_option
def restore(
    target: Target, source: str | None, at: datetime | None, *, is_replica: bool, is_deep: bool, is_forced: bool
) -> None:
    """Make the store of --db from the file BACKUP or from a replica, after checking it; the source is only read.

    A store that is there stays as it is without --force; with --force it is kept as PATH.replaced-TIME. It must not
    be in use. A backup of an older davsql is migrated on the way. The check is that of `davsql check`, with --deep too.
    An encrypted backup needs BACKUP.keys beside it, and becomes an encrypted store that the same keys open.

    \b
    Examples:
      davsql restore /mnt/stick/davsql-20261123T030000Z.davsql
      davsql restore photos.davsql --db /srv/photos.db --force
      davsql restore --from-replica --config /etc/davsql.toml --at "2026-11-23 11:59:30"
      davsql restore --from-replica file:///mnt/other-disk/davsql --db /srv/davsql.db
    """
    if at is not None and not is_replica:
        raise click.UsageError("--at needs --from-replica; a backup is of one moment.")
    changed = ""
    with shown_copy(CopyOptions(is_deep=is_deep, may_replace=is_forced)) as how:
        if is_replica:
            replica = _replica(target, source)
            source = replica.url
            done, changed_at = restore_from_replica(replica, target.db, target.options, how, at=at)
            changed = f", last change {changed_at.astimezone().isoformat(sep=' ', timespec='seconds')}"
        elif source is None:
            raise click.UsageError("Missing argument 'BACKUP'.")
        else:
            was_encrypted = target.db.is_file() and not is_plain_file(target.db)
            options = unlocked(Path(source), target.options, target.keys)
            done = store_restore.restore(Path(source), target.db, options, how)
            if was_encrypted and options.key is None:
                warn("the store was encrypted, and its backup is not; `davsql encrypt` encrypts it again")
    if done.replaced is not None:
        click.echo(f"what was there is kept as {printable(done.replaced)}")
    nodes = counted(done.snapshot.nodes, "node")
    size = human_size(done.snapshot.size_bytes)
    checked = "all invariants hold" + (", every byte is as it was stored" if is_deep else "")
    click.echo(f"restored {printable(done.file)} from {printable(source)}: {size}, {nodes}{changed}, {checked}")


def _replica(target: Target, url: str | None) -> Replicated:
    if url is not None:
        try:
            return Replicated(replace(target.replica.options, url=url))
        except ValueError as error:
            raise click.UsageError(str(error)) from error
    if target.replica.options.url is None:
        raise click.UsageError("--from-replica needs a URL, or a --config that has replica.url.")
    return target.replica

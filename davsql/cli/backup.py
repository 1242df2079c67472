"""`davsql backup`: copy a store that may be in use, as it is at one moment."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from davsql.cli.copying import shown_copy
from davsql.cli.encrypt import page_size_of
from davsql.cli.printing import human_size, printable
from davsql.cli.target import Target, target_option
from davsql.cli.unlocking import new_given, warn
from davsql.errors import StoreError
from davsql.keys.envelope import new_data_key
from davsql.keys.file import keys_file
from davsql.keys.sources import KeySource
from davsql.maintenance.backup import TASK_NAME, backup_name, describe
from davsql.store.backup import GENTLE_REST, Backup, CopyOptions, Rekey, back_up, live_source, part_copy, real_path
from davsql.store.connection import require_file
from davsql.store.exclusion import require_unused
from davsql.store.migrate import SCHEMA_VERSION
from davsql.store.records import finish_task

STREAM_BYTES = 1024 * 1024


@click.command(short_help="Copy the store, which may be in use, to one file.")
@click.argument("destination", metavar="[DEST]", required=False, type=click.Path(path_type=Path))
@click.option("--to", "to", type=click.Choice(["-"]), help="Write the backup to standard output.")
@click.option(
    "--tmp",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Where --to - makes it first.  [default: beside the store]",
)
@click.option("--deep", "verify", flag_value="deep", help="Read and rehash every chunk of the backup too.")
@click.option("--no-verify", "verify", flag_value="no", help="Do not read the backup again.")
@click.option("--force", "is_forced", is_flag=True, help="Replace DEST.")
@click.option(
    "--backup-key-file",
    "backup_key_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Encrypt DEST under this key.  [default: the keys of the store]",
)
@click.option("--plaintext", "is_plain", is_flag=True, help="Do not encrypt DEST, though the store is.")
@target_option
def backup(
    target: Target, destination: Path | None, to: str | None, tmp: Path | None, verify: str | None, **form: Any
) -> None:
    """Copy the store as it is at this moment to the file DEST, or into the folder DEST as NAME-TIME.davsql.

    The store may be served and written to meanwhile. DEST gets its name when it is complete and verified, and is a
    store itself: one file. Without DEST the folder of [backup] in the configuration file is used. The backup of an
    encrypted store is encrypted too; DEST.keys, which belongs to it, is made beside it.

    \b
    Examples:
      davsql backup /mnt/stick
      davsql backup --db /srv/photos.db photos.davsql --force --deep
      davsql backup --to - | ssh host 'cat > drive.davsql'
    """
    require_file(target.db)
    rest, is_forced, rekey = (
        _rest(target),
        form["is_forced"],
        _rekey(target, form["backup_key_file"], is_plain=form["is_plain"]),
    )
    how = CopyOptions(verify != "no", verify == "deep", may_replace=is_forced, rekey=rekey, rest=rest)
    if to is not None:
        if destination is not None or is_forced or form["backup_key_file"] is not None:
            raise click.UsageError("--to - goes with none of DEST, --force and --backup-key-file.")
        _stream(target, tmp, how)
        return
    if tmp is not None:
        raise click.UsageError("--tmp goes with --to - only.")
    file = _file(target, destination)
    with shown_copy(how) as shown:
        made = back_up(target.db, file, target.options, shown)
    _note(target, made, how)
    size = human_size(made.snapshot.size_bytes)
    took = f"{size} in {made.duration_s:.1f} s, {how.verified}"
    click.echo(f"backed up {printable(target.db)} to {printable(made.file)}: {took}")


def _rekey(target: Target, key_file: Path | None, *, is_plain: bool) -> Rekey | None:
    if key_file is not None and is_plain:
        raise click.UsageError("--backup-key-file and --plaintext exclude each other.")
    if key_file is not None:
        given = new_given(KeySource(key_file))
        key = target.options.key
        page_size = page_size_of(target) if key is None else key.envelope.page_size
        return Rekey(new_data_key(page_size, [(given.kind, given)]))
    if is_plain and target.options.key is not None:
        warn("the backup is not encrypted: whoever has it can read everything")
        return Rekey(None)
    return None


def _file(target: Target, destination: Path | None) -> Path:
    chosen = target.backup.folder if destination is None else destination
    if chosen is None:
        raise click.UsageError("Missing argument 'DEST': a file, or a folder that gets NAME-TIME.davsql.")
    is_folder = destination is None or chosen.is_dir()
    return chosen / backup_name(target.db, datetime.now(UTC)) if is_folder else chosen


def _rest(target: Target) -> float:
    """How much to hold back: not at all when nobody else uses the store."""
    try:
        require_unused(target.db)
    except StoreError:
        return GENTLE_REST
    return 0.0


def _stream(target: Target, tmp: Path | None, how: CopyOptions) -> None:
    out = sys.stdout.buffer
    if out.isatty():
        raise click.UsageError("A backup cannot be shown on a terminal; say where to: davsql backup --to - > FILE")
    destination = real_path((tmp or target.db.absolute().parent) / target.db.name)
    with (
        shown_copy(how) as shown,
        part_copy(live_source(target.db, target.options), destination, target.options, shown) as made,
        made.file.open("rb") as copy,
    ):
        if os.name != "nt":
            made.file.unlink()  # nothing stays, whatever becomes of this process
        shutil.copyfileobj(copy, out, STREAM_BYTES)
        out.flush()
    if target.options.key is not None and how.rekey is None:
        click.echo(f"davsql: keep a copy of {printable(keys_file(target.db))} with it", err=True)
    _note(target, made._replace(file=Path("standard output")), how)


def _note(target: Target, made: Backup, how: CopyOptions) -> None:
    """Let the store know that it has a backup; a store that cannot take the note has its backup nevertheless."""
    if target.options.read_only or made.snapshot.schema_version != SCHEMA_VERSION:
        return
    detail = describe(made, how)
    with suppress(StoreError), replace(target, options=replace(target.options, busy_timeout_s=2)).open() as store:
        store.write(lambda tx: finish_task(tx, TASK_NAME, "ok", detail))

"""Migration of a store that people use: the file as it was is kept beside it.

The backup is made while the migration's transaction is open: what is migrated is exactly what was backed up, whatever
other processes would like to write.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import apsw

from davsql.errors import StoreError, StoreFull
from davsql.store import migrate
from davsql.store.backup import CopyOptions, back_up, unused_name
from davsql.store.keyfiles import forget_keys
from davsql.store.options import StoreOptions


def upgrade(
    connection: apsw.Connection,
    file: Path,
    options: StoreOptions,
    folder: Path | None = None,
    how: CopyOptions | None = None,
) -> Path | None:
    """Bring the store up to date, with a backup first.

    Args:
        connection: one that may write to `file`.
        folder: where the backup goes; None: beside the store.

    Returns:
        The backup, `FILE.before-vN-STAMP`; None when the store was up to date.

    Raises:
        StoreFull: there is no room for the backup; nothing was changed.
        StoreError: as `migrate.migrate` and `backup.back_up`; nothing was changed.
    """
    kept: list[Path] = []

    def keep(version: int) -> None:
        beside = file if folder is None else folder / file.name
        try:
            kept.append(back_up(file, unused_name(beside, f"before-v{version}"), options, how).file)
        except StoreFull as error:
            raise StoreFull(
                f"{file} is not migrated without a backup: {error}; or say `davsql migrate --backup-to DIR`"
            ) from error

    try:
        migrate.migrate(connection, keep)
    except BaseException:
        with suppress(StoreError):
            # A COMMIT that fails may have happened nevertheless: then the backup stays.
            if kept and migrate.schema_version(connection) < migrate.SCHEMA_VERSION:
                kept[0].unlink()
                forget_keys(kept[0])
        raise
    return kept[0] if kept else None

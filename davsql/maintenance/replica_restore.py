"""A store again from its replica alone."""

from __future__ import annotations

import json
import os
import tempfile
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from davsql.errors import AlreadyExists, ReplicaError, StoreDamaged
from davsql.maintenance import litestream
from davsql.maintenance.litestream import Replicated
from davsql.store.backup import CopyOptions
from davsql.store.options import StoreOptions
from davsql.store.restore import Restored, restore


class FromReplica(NamedTuple):
    """A replica that is a store again."""

    restored: Restored
    changed_at: datetime  # when Litestream saw the last change that is in it, to the second


def restore_from_replica(
    replica: Replicated,
    target: Path,
    store_options: StoreOptions,
    how: CopyOptions | None = None,
    *,
    at: datetime | None = None,
) -> FromReplica:
    """Make `target` a store as its replica has it, as it was at `at` or as late as possible.

    Raises:
        ReplicaError: the replica cannot be read, or does not go back so far; `target` is as before.
        StoreError: as `davsql.store.restore.restore`.
    """
    target = Path(os.path.realpath(target))
    how = how or CopyOptions()
    if target.exists() and not how.may_replace:
        raise AlreadyExists(
            f"{target} exists already; --force puts the replica in its place and keeps it under another name"
        )
    try:
        # Beside the target: there must be room for a store anyway.
        folder = tempfile.TemporaryDirectory(prefix=f".{target.name[:100]}.", suffix=".davsql-part", dir=target.parent)
    except OSError as error:
        raise ReplicaError(f"{target.parent}: {error.strerror}") from error
    with folder as name:
        fetch = _Fetch(replica, Path(name), at)
        try:
            changed_at = fetch.changed_at()
            fetch.run()
        except ReplicaError as error:
            when = "" if at is None else f" as it was at {at.astimezone().isoformat(sep=' ', timespec='seconds')}"
            raise ReplicaError(f"{replica.url} cannot be restored{when}: {error}") from error
        try:
            return FromReplica(restore(fetch.file, target, store_options, how), changed_at)
        except StoreDamaged as error:
            raise StoreDamaged(f"{replica.url}, with --at TIME an earlier state of it: {error}") from error


class _Fetch:
    """Has Litestream put a store together in a folder of its own."""

    def __init__(self, replica: Replicated, folder: Path, at: datetime | None) -> None:
        self.file = folder / "store.db"
        self._settings = folder / "litestream.yml"
        self._at = at
        content = litestream.configuration(self.file, folder / "state", None, replica)
        litestream.write_configuration(self._settings, content)

    def changed_at(self) -> datetime:
        """When the last change was seen that would be restored."""
        plan = json.loads(litestream.restore(self._settings, self.file, at=self._at, is_dry_run=True))
        return datetime.fromisoformat(plan["files"][-1]["timestamp"])

    def run(self) -> None:
        litestream.restore(self._settings, self.file, at=self._at)
        self.file.chmod(0o600)

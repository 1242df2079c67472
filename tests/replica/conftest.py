"""A store in this process that has a replica."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from davsql.maintenance.litestream import ReplicaOptions, Replicated
from davsql.maintenance.replica import Replica
from davsql.maintenance.replica_progress import ReplicaStatus
from davsql.maintenance.replica_restore import restore_from_replica
from davsql.store.check import check
from davsql.store.options import StoreOptions
from davsql.store.store import Store
from tests.store_steps import tree

WAIT_S = 30


class ReplicatedStore:
    """A store, its replica, and what can be brought back from it."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "store.db"
        self.folder = folder / "replica"
        self.folder.mkdir()
        self.replicated = Replicated(ReplicaOptions(url=f"file://{self.folder}", interval_s=0.1))
        self._target = folder / "restored.db"
        self.open()

    def open(self) -> None:
        self.store = Store.open(self.file, StoreOptions(leaves_checkpoints=True), create=True)
        self.replica = Replica(self.file, self.replicated)

    def close(self) -> None:
        self.store.close()
        self.replica.stop()

    def wait(self, wanted: Callable[[ReplicaStatus], bool]) -> ReplicaStatus:
        """Until the status is as wanted."""
        deadline = time.monotonic() + WAIT_S
        while not wanted(status := self.replica.status()):
            assert time.monotonic() < deadline, status
            time.sleep(0.02)
        return status

    def wait_until_replicated(self) -> None:
        """Until all that was written so far is in the replica."""
        now = time.monotonic()
        self.wait(lambda status: status.lag_s is not None and time.monotonic() - status.lag_s > now)

    def restored(self) -> dict[str, bytes | None]:
        """What the replica has now, checked whole."""
        for old in self._target.parent.glob("restored.db*"):
            old.unlink()
        restore_from_replica(self.replicated, self._target, StoreOptions())
        with Store.open(self._target) as store:
            assert check(store, deep=True) == []
            return tree(store)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[ReplicatedStore]:
    made = ReplicatedStore(tmp_path)
    try:
        yield made
    finally:
        made.close()

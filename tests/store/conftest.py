"""Fixtures of the engine's tests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from davsql.store.check import check
from davsql.store.options import StoreOptions
from davsql.store.store import Store
from tests.store.engine_steps import Clock

MakeStore = Callable[[StoreOptions], Store]


@pytest.fixture
def make_store(tmp_path: Path) -> Iterator[MakeStore]:
    """Makes one store with options of the test's choice; afterwards it is closed and every invariant must hold."""
    made: list[Store] = []

    def make(options: StoreOptions) -> Store:
        made.append(Store.open(tmp_path / f"store-{len(made)}.db", options, create=True))
        return made[-1]

    yield make
    for store in made:
        store.close()
        with Store.open(store.file) as reopened:
            assert check(reopened) == []


@pytest.fixture
def store(make_store: MakeStore) -> Store:
    """An empty store, checked afterwards. Nobody cuts the power here: fsync would only cost time."""
    return make_store(StoreOptions(durability="normal"))


@pytest.fixture
def unchecked_store(tmp_path: Path) -> Iterator[Store]:
    """An empty store to be damaged: nothing is checked afterwards."""
    with Store.open(tmp_path / "store.db", create=True) as opened:
        yield opened


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Stops the store's clock at the present."""
    stopped = Clock(time.time_ns())
    monkeypatch.setattr("davsql.store.transaction.time.time_ns", stopped)
    return stopped

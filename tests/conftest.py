"""Fixtures for every test: a store that is checked afterwards, and a real server over it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from davsql.store.check import check
from davsql.store.store import Store
from tests.live_server import LiveServer, serving_shares


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store; when the test is over it is closed, opened again and every invariant must hold."""
    file = tmp_path / "store.db"
    with Store.open(file, create=True) as opened:
        yield opened
    with Store.open(file) as reopened:
        assert check(reopened) == []


@pytest.fixture
def server(store: Store) -> Iterator[LiveServer]:
    """A real server on a free port over `store`, mounted at "/"."""
    with serving_shares({"/": store}) as live:
        yield live

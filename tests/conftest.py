"""Fixtures for every test: a store that is checked afterwards, and a real server over it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from davsql.keys.envelope import new_data_key
from davsql.keys.secret import GivenKey, new_key_text
from davsql.store.check import check
from davsql.store.options import StoreOptions
from davsql.store.store import Store
from tests.live_server import Served, serving_processes, serving_shares


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store; when the test is over it is closed, opened again and every invariant must hold."""
    file = tmp_path / "store.db"
    if "DAVSQL_TEST_ENCRYPTED" in os.environ:  # for those who want to see everything over an encrypted one
        text = new_key_text()
        with pytest.MonkeyPatch.context() as patch, encrypted_store(file, text) as opened:
            patch.setenv("DAVSQL_KEY", text)  # for processes that serve it
            yield opened
        return
    with Store.open(file, create=True) as opened:
        yield opened
    with Store.open(file) as reopened:
        assert check(reopened) == []


@contextmanager
def encrypted_store(file: Path, key: str | None = None) -> Iterator[Store]:
    """An empty encrypted store, checked in the same way."""
    options = StoreOptions(key=new_data_key(8192, [("key", GivenKey(key or new_key_text()))]))
    with Store.open(file, options, create=True) as opened:
        yield opened
    with Store.open(file, options) as reopened:
        assert check(reopened) == []


@pytest.fixture
def server(store: Store, request: pytest.FixtureRequest) -> Iterator[Served]:
    """A real server on a free port over `store`, mounted at "/": in this process, or in so many others."""
    if "DAVSQL_TEST_WORKERS" in os.environ and "monkeypatch" not in request.fixturenames:  # which reaches only this one
        with serving_processes(store.file, int(os.environ["DAVSQL_TEST_WORKERS"])) as processes:
            yield processes
        return
    with serving_shares({"/": store}) as live:
        yield live

"""dav.junk = "drop": litter of file managers is accepted and forgotten, and nothing else is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from davsql.dav.request import DavOptions
from davsql.store.options import StoreOptions
from davsql.store.store import Store
from tests.dav.answers import lock_body, only_response, set_body, token_of
from tests.live_server import LiveServer, serving_shares
from tests.store_steps import mkcol, put, tree

NAMES = ["/._a.jpg", "/._.", "/.DS_Store", "/Thumbs.db", "/c/desktop.ini", "/c/Desktop.ini"]
OPTIONS = DavOptions(junk="drop")


@pytest.fixture
def dropping(store: Store) -> Iterator[LiveServer]:
    mkcol(store, "/c")
    with serving_shares({"/": store}, dav=OPTIONS) as live:
        yield live


@pytest.mark.parametrize("path", NAMES)
def test_junk__is_accepted_and_forgotten(dropping: LiveServer, store: Store, path: str) -> None:
    reply = dropping.request("LOCK", path, lock_body())
    assert reply.status == 201
    token = token_of(reply)
    held = {"If": f"(<{token}>)"}
    with dropping.client() as client:  # bodies are read to their ends
        assert client.request("PUT", path, b"x" * 300_000, held).status == 201
        assert client.request("PUT", path, iter([b"x", b"y"]), held).status == 201
        assert client.request("GET", path).status == 404
        assert client.request("PROPFIND", path, None, {"Depth": "0"}).status == 404
        assert set(only_response(client.request("PROPPATCH", path, set_body("<x/>")))) == {200}
        assert client.request("UNLOCK", path, None, {"Lock-Token": f"<{token}>"}).status == 204
        assert client.request("DELETE", path).status == 204
    assert tree(store) == {"/c": None}


@pytest.mark.parametrize("path", ["/a._b", "/.DS_Store.txt", "/_.a", "/thumbs.db2", "/desktop.ini/x"])
def test_junk__other_names_are_files(dropping: LiveServer, store: Store, path: str) -> None:
    if path.endswith("/x"):
        assert dropping.request("MKCOL", "/desktop.ini").status == 201
    assert dropping.request("PUT", path, b"x").status == 201
    assert tree(store)[path] == b"x"


def test_junk__what_was_stored_before_stays_a_file(dropping: LiveServer, store: Store) -> None:
    put(store, "/desktop.ini", b"old")
    assert dropping.request("GET", "/desktop.ini").body == b"old"
    assert dropping.request("PUT", "/desktop.ini", b"new").status == 204
    assert tree(store)["/desktop.ini"] == b"new"
    assert dropping.request("DELETE", "/desktop.ini").status == 204
    assert tree(store) == {"/c": None}


def test_junk__is_refused_where_nothing_can_be_written(dropping: LiveServer, store: Store, tmp_path: Path) -> None:
    assert dropping.request("PUT", "/missing/.DS_Store", b"x").status == 409
    file = tmp_path / "other.db"
    Store.open(file, create=True).close()
    with Store.open(file, StoreOptions(read_only=True)) as other, serving_shares({"/": other}, dav=OPTIONS) as live:
        assert live.request("PUT", "/.DS_Store", b"x").status == 403


def test_junk__is_stored_by_default(server: LiveServer, store: Store) -> None:
    assert server.request("PUT", "/.DS_Store", b"x").status == 201
    assert tree(store) == {"/.DS_Store": b"x"}

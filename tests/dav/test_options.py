from __future__ import annotations

from pathlib import Path

import pytest

from davsql.paths import DavPath
from davsql.store.options import StoreOptions
from davsql.store.store import Store
from tests.live_server import LiveServer, serving_shares


def allowed(server: LiveServer, target: str) -> set[str]:
    return set((server.request("OPTIONS", target).header("Allow") or "").split(", "))


@pytest.mark.parametrize("target", ["/", "/a", "/c", "/c/", "/no", "/no/no", "*"])
def test_options__announces_classes(server: LiveServer, target: str) -> None:
    server.request("PUT", "/a", b"x")
    server.request("MKCOL", "/c")
    reply = server.request("OPTIONS", target)
    assert (reply.status, reply.body, reply.header("Content-Length")) == (200, b"", "0")
    assert reply.header("DAV") == "1, 2, 3, sabredav-partialupdate"
    assert reply.header("MS-Author-Via") == "DAV"


def test_options__allows_what_the_resource_can(server: LiveServer) -> None:
    server.request("PUT", "/a", b"x")
    server.request("MKCOL", "/c")
    assert allowed(server, "/no") == {"OPTIONS", "PUT", "MKCOL", "LOCK"}
    everywhere = {"OPTIONS", "GET", "HEAD", "PROPFIND", "PROPPATCH", "COPY", "LOCK", "UNLOCK"}
    assert allowed(server, "/") == everywhere | {"REPORT"}
    assert allowed(server, "/c") == everywhere | {"DELETE", "MOVE", "REPORT"}
    assert allowed(server, "/a") == everywhere | {"DELETE", "MOVE", "PUT", "PATCH"}


def test_options__dav_header_values_are_short_enough_for_windows(server: LiveServer) -> None:
    assert all(len(value) <= 63 for value in server.request("OPTIONS", "/").headers.get_all("DAV") or [])


def test_options__impossible_paths_are_400(server: LiveServer) -> None:
    assert server.request("OPTIONS", "/a/../b").status == 400


def test_options__a_read_only_share_allows_reading(tmp_path: Path) -> None:
    file = tmp_path / "store.db"
    with Store.open(file, create=True) as store:
        store.make_collection(DavPath(("c",)))
    with Store.open(file, StoreOptions(read_only=True)) as store, serving_shares({"/": store}) as server:
        assert allowed(server, "/c") == {"OPTIONS", "GET", "HEAD", "PROPFIND", "REPORT"}
        assert server.request("OPTIONS", "/c").header("DAV") == "1, 3"
        assert server.request("PUT", "/a", b"x").status == 403
        assert server.request("MKCOL", "/d").status == 403
        assert server.request("DELETE", "/c").status == 403
        assert server.request("MOVE", "/c", headers={"Destination": "/d"}).status == 403

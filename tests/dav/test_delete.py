from __future__ import annotations

import pytest

from davsql.store.store import Store
from tests.dav.locking import lock_of
from tests.live_server import LiveServer


@pytest.fixture
def tree(server: LiveServer) -> None:
    """/c, /c/sub and the files /c/a and /c/sub/b."""
    for path in ("/c", "/c/sub"):
        server.request("MKCOL", path)
    for path in ("/c/a", "/c/sub/b"):
        server.request("PUT", path, path.encode())


def test_delete__a_file(server: LiveServer, tree: None) -> None:
    reply = server.request("DELETE", "/c/a")
    assert (reply.status, reply.body, reply.header("Content-Length")) == (204, b"", None)
    assert server.request("GET", "/c/a").status == 404
    assert server.request("DELETE", "/c/a").status == 404


@pytest.mark.parametrize("target", ["/c", "/c/"])
def test_delete__a_collection_with_all_it_holds(server: LiveServer, tree: None, target: str) -> None:
    assert server.request("DELETE", target, headers={"Depth": "infinity"}).status == 204
    for path in ("/c", "/c/a", "/c/sub/b"):
        assert server.request("GET", path).status == 404


def test_delete__a_depth_for_a_part_of_a_collection_is_400(server: LiveServer, tree: None) -> None:
    for depth in ("0", "1", "2", "x"):
        assert server.request("DELETE", "/c", headers={"Depth": depth}).status == 400
    assert server.request("GET", "/c/sub/b").status == 200
    assert server.request("DELETE", "/c/a", headers={"Depth": "0"}).status == 204


def test_delete__the_root_is_403(server: LiveServer, tree: None) -> None:
    assert server.request("DELETE", "/").status == 403
    assert server.request("GET", "/c/a").status == 200


def test_delete__a_fragment_is_400(server: LiveServer, tree: None) -> None:
    assert server.exchange(b"DELETE /c/#a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").startswith(
        b"HTTP/1.1 400 "
    )
    assert server.request("GET", "/c/a").status == 200


def test_delete__a_body_is_415(server: LiveServer, tree: None) -> None:
    assert server.request("DELETE", "/c/a", b"<x/>").status == 415
    assert server.request("DELETE", "/c/a", [b"<x/>"]).status == 415
    assert server.request("GET", "/c/a").status == 200
    assert server.request("DELETE", "/c/a", b"").status == 204


@pytest.mark.parametrize("target", ["/c", "/c/"])
def test_delete__a_locked_member_protects_the_whole_tree(
    server: LiveServer, store: Store, tree: None, target: str
) -> None:
    lock = lock_of(store, "/c/sub/b")
    refused = server.request("DELETE", target)
    assert refused.status == 423
    assert refused.xml.findtext("{DAV:}lock-token-submitted/{DAV:}href") == "/c/sub/b"
    for path in ("/c/a", "/c/sub/b"):
        assert server.request("GET", path).status == 200
    assert server.request("DELETE", target, headers={"If": f"</c/sub/b> (<{lock.token}>)"}).status == 204


def test_delete__conditions_are_kept(server: LiveServer, tree: None) -> None:
    etag = server.request("HEAD", "/c/a").header("ETag") or ""
    assert server.request("DELETE", "/c/a", headers={"If-Match": '"other"'}).status == 412
    assert server.request("DELETE", "/c/a", headers={"If-None-Match": etag}).status == 412
    assert server.request("DELETE", "/c/a", headers={"If": "(<DAV:no-lock>)"}).status == 412
    assert server.request("DELETE", "/c/a", headers={"If-Match": etag}).status == 204

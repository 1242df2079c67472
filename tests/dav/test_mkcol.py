from __future__ import annotations

import pytest

from davsql.store.store import Store
from tests.dav.locking import lock_of
from tests.live_server import LiveServer


@pytest.mark.parametrize("target", ["/c", "/c/", "/caf%C3%A9/"])
def test_mkcol__makes_a_collection(server: LiveServer, target: str) -> None:
    reply = server.request("MKCOL", target)
    assert (reply.status, reply.body) == (201, b"")
    assert server.request("PUT", target.rstrip("/") + "/a", b"x").status == 201


def test_mkcol__an_existing_resource_is_405(server: LiveServer) -> None:
    server.request("MKCOL", "/c")
    server.request("PUT", "/a", b"x")
    for target, allowed in (("/c", "PROPFIND"), ("/c/", "PROPFIND"), ("/a", "PUT"), ("/", "PROPFIND")):
        reply = server.request("MKCOL", target)
        assert reply.status == 405
        assert allowed in (reply.header("Allow") or "").split(", ")
        assert "MKCOL" not in (reply.header("Allow") or "")
    assert server.request("GET", "/a").body == b"x"


def test_mkcol__a_missing_parent_is_409(server: LiveServer) -> None:
    server.request("PUT", "/a", b"x")
    assert server.request("MKCOL", "/no/c").status == 409
    assert server.request("MKCOL", "/a/c").status == 409


@pytest.mark.parametrize("body", [b"<x/>", [b"<x/>"]])
def test_mkcol__a_body_is_415(server: LiveServer, body: bytes | list[bytes]) -> None:
    assert server.request("MKCOL", "/c", body, {"Content-Type": "application/xml"}).status == 415
    assert server.request("GET", "/c").status == 404


@pytest.mark.parametrize("body", [b"", []])
def test_mkcol__an_empty_body_is_none(server: LiveServer, body: bytes | list[bytes]) -> None:
    assert server.request("MKCOL", "/c", body).status == 201


def test_mkcol__needs_the_token_of_its_parents_lock(server: LiveServer, store: Store) -> None:
    lock = lock_of(store, "/")
    assert server.request("MKCOL", "/c").status == 423
    assert server.request("MKCOL", "/c", headers={"If": f"</> (<{lock.token}>)"}).status == 201


def test_mkcol__conditions_are_kept(server: LiveServer) -> None:
    assert server.request("MKCOL", "/c", headers={"If-Match": "*"}).status == 412
    assert server.request("MKCOL", "/c", headers={"If-None-Match": "*"}).status == 201

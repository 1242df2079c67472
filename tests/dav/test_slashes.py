"""A slash too many or too few at the end of a URL says nothing: no client is sent elsewhere, or told it is wrong."""

from __future__ import annotations

import pytest

from davsql.store.store import Store
from tests.dav.answers import lock_body, responses, set_body
from tests.live_server import LiveServer
from tests.store_steps import mkcol, put, tree

COLOUR = set_body('<x:colour xmlns:x="urn:x">red</x:colour>')


@pytest.fixture(autouse=True)
def members(store: Store) -> None:
    """A file and a collection."""
    put(store, "/file", b"content")
    mkcol(store, "/folder")


@pytest.mark.parametrize("path", ["/file", "/file/", "/folder", "/folder/"])
@pytest.mark.parametrize(
    ("method", "body", "status"),
    [
        ("OPTIONS", None, 200),
        ("HEAD", None, 200),
        ("GET", None, 200),
        ("PROPFIND", None, 207),
        ("PROPPATCH", COLOUR, 207),
        ("LOCK", lock_body(), 200),
        ("DELETE", None, 204),
    ],
)
def test_slash__is_no_part_of_a_name(
    server: LiveServer, path: str, method: str, body: bytes | None, status: int
) -> None:
    reply = server.request(method, path, body, {"Depth": "0"} if method == "PROPFIND" else {})
    assert reply.status == status
    if method == "PROPFIND":
        assert set(responses(reply)) == {"/file" if "file" in path else "/folder/"}


@pytest.mark.parametrize("source", ["/file", "/file/", "/folder", "/folder/"])
@pytest.mark.parametrize("destination", ["/new", "/new/"])
@pytest.mark.parametrize("method", ["MOVE", "COPY"])
def test_slash__is_no_part_of_a_destination(
    server: LiveServer, store: Store, method: str, source: str, destination: str
) -> None:
    assert server.request(method, source, headers={"Destination": server.url + destination}).status == 201
    assert tree(store)["/new"] == (b"content" if "file" in source else None)


@pytest.mark.parametrize("slash", ["", "/"])
def test_slash__does_not_decide_what_is_made(server: LiveServer, store: Store, slash: str) -> None:
    assert server.request("MKCOL", "/c" + slash).status == 201
    assert server.request("PUT", "/f" + slash, b"x").status == 201
    assert server.request("PUT", "/f" + slash, b"y").status == 204
    assert server.request("LOCK", "/l" + slash, lock_body()).status == 201
    assert tree(store) == {"/file": b"content", "/folder": None, "/c": None, "/f": b"y", "/l": b""}

"""Folders as ZIP files, read by Python's zipfile."""

from __future__ import annotations

import http.client
import io
import time
import zipfile

import pytest

from davsql.access import Access, Right
from davsql.dav import archives
from davsql.dav.application import make_application
from davsql.dav.archives import archive
from davsql.dav.request import DavOptions, Request, Share
from davsql.errors import StoreDamaged
from davsql.paths import DavPath
from davsql.store.download import Download
from davsql.store.store import Store
from tests.live_server import LiveServer, serving

LARGE = bytes(range(256)) * 8192


@pytest.fixture
def server(server: LiveServer) -> LiveServer:
    for folder in ("/d", "/d/empty", "/d/%C3%A4"):
        server.request("MKCOL", folder)
    server.request("PUT", "/d/a.txt", b"first")
    server.request("PUT", "/d/%C3%A4/large.bin", LARGE)
    server.request("PUT", "/d/..%5Cevil", b"")
    return server


def damaged(*_: object) -> bytes:
    raise StoreDamaged("this is damaged")


def unzipped(body: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_archive__holds_the_tree(server: LiveServer) -> None:
    reply = server.request("GET", "/d/?download=zip")
    assert reply.status == 200
    assert reply.header("Content-Disposition") == "attachment; filename*=UTF-8''d.zip"
    assert unzipped(reply.body) == {
        "a.txt": b"first",
        "empty/": b"",
        "ä/": b"",
        "ä/large.bin": LARGE,
        ".._evil": b"",
    }
    assert server.request("HEAD", "/d/?download=zip").status == 200


def test_archive__holds_members_that_were_chosen(server: LiveServer) -> None:
    reply = server.request("GET", "/d/?download=zip&name=a.txt&name=%C3%A4&name=a.txt")
    assert unzipped(reply.body).keys() == {"a.txt", "ä/", "ä/large.bin"}
    assert server.request("GET", "/d/?download=zip&name=no").status == 404
    assert server.request("GET", "/d/?download=zip&name=..").status == 400
    assert server.request("GET", "/d/?download=zip" + "&name=a" * 1000).status == 400


def test_archive__keeps_dates(server: LiveServer, store: Store) -> None:
    with zipfile.ZipFile(io.BytesIO(server.request("GET", "/d/?download=zip").body)) as archive:
        date = time.mktime((*archive.getinfo("a.txt").date_time, 0, 0, -1))
    assert abs(date - time.time()) < 3600


def test_archive__has_a_bound(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "ENTRIES_MAX", 4)
    assert server.request("GET", "/d/?download=zip").status == 403
    assert server.request("GET", "/d/?download=zip&name=a.txt").status == 200


def test_archive__leaves_out_what_may_not_be_read(store: Store, server: LiveServer) -> None:
    class Rules:
        def access_of(self, _: object) -> Access:
            return Access({(): Right.READ, ("d", "ä"): Right.NONE, ("d", "ä", "large.bin"): Right.NONE})

    application = make_application({"/": store}, DavOptions(), rules={"/": Rules()})  # type: ignore[dict-item]
    with serving(application) as limited:
        body = limited.request("GET", "/?download=zip").body
        assert unzipped(body).keys() == {"d/", "d/a.txt", "d/empty/", "d/.._evil"}
        assert limited.request("GET", "/d/?download=zip&name=%C3%A4").status == 404


def test_archive__leaves_out_what_is_gone_when_its_turn_comes(store: Store, server: LiveServer) -> None:
    request = Request(
        {"REQUEST_METHOD": "GET", "QUERY_STRING": ""}, Share("", store, DavOptions()), DavPath.parse("/d")
    )
    body = archive(request).body
    server.request("DELETE", "/d/a.txt")
    found = unzipped(body if isinstance(body, bytes) else b"".join(body))
    assert "a.txt" not in found
    assert found["ä/large.bin"] == LARGE


def test_archive__is_cut_where_content_is_damaged(server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Download, "_verified", damaged)
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        server.request("GET", "/d/?download=zip")

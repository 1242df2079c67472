"""A server whose public URL has a path: every URL that it says or takes begins with it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from davsql.dav.application import make_application
from davsql.dav.peer import ProxyOptions
from davsql.dav.request import DavOptions
from davsql.store.store import Store
from tests.dav.answers import DAV, lock_body, propfind_body, responses, token_of
from tests.dav.test_report import sync_body, told
from tests.live_server import LiveServer, serving
from tests.store_steps import mkcol, put, read

BASE = "/my%20files"
DEEP = "<D:sync-level>infinite</D:sync-level>"


@contextmanager
def serving_below(shares: dict[str, Store], *, nextcloud_paths: bool = False) -> Iterator[LiveServer]:
    proxy = ProxyOptions(public_url=f"https://example.org{BASE}/")
    with serving(make_application(shares, DavOptions(nextcloud_paths=nextcloud_paths), proxy=proxy)) as server:
        yield server


@pytest.fixture
def server(store: Store) -> Iterator[LiveServer]:
    """It has /c and /c/a b."""
    mkcol(store, "/c")
    put(store, "/c/a b", b"content")
    with serving_below({"/": store}) as live:
        yield live


@pytest.mark.parametrize("path", ["/", "/c/", "/my", "/my%20filesx/c", "/MY%20FILES/c", "//c", "/x/my%20files/c"])
def test_request__elsewhere_is_404(server: LiveServer, store: Store, path: str) -> None:
    for method in ("OPTIONS", "PROPFIND", "GET", "PUT", "DELETE", "MKCOL"):
        assert server.request(method, path).status == 404
    assert read(store, "/c/a b") == b"content"


@pytest.mark.parametrize("base", [BASE, "/my%20files", "/%6dy%20files", "//my%20files/"])
def test_request__below_is_found(server: LiveServer, base: str) -> None:
    assert server.request("GET", f"{base}/c/a%20b").body == b"content"
    assert server.request("OPTIONS", base).status == 200


def test_propfind__hrefs_begin_with_it(server: LiveServer) -> None:
    for path in (BASE, f"{BASE}/"):
        found = responses(server.request("PROPFIND", path, propfind_body("resourcetype"), {"Depth": "infinity"}))
        assert set(found) == {f"{BASE}/", f"{BASE}/c/", f"{BASE}/c/a%20b"}


def test_destination__begins_with_it(server: LiveServer, store: Store) -> None:
    source = f"{BASE}/c/a%20b"
    to = [f"{BASE}/one", f"http://127.0.0.1:{server.address[1]}{BASE}/two", f"https://example.org{BASE}/three"]
    for destination in to:
        reply = server.request("COPY", source, headers={"Destination": destination})
        assert reply.status == 201
        assert (reply.header("Location") or "").startswith(f"{BASE}/")
    assert [read(store, f"/{name}") for name in ("one", "two", "three")] == [b"content"] * 3
    for destination in (
        "/four",
        "https://example.org/four",
        "https://example.org/my/four",
        "https://other/my%20files/x",
    ):
        assert server.request("MOVE", source, headers={"Destination": destination}).status == 502
    assert read(store, "/c/a b") == b"content"


def test_locks__are_named_with_it(server: LiveServer) -> None:
    made = server.request("LOCK", f"{BASE}/c", lock_body(), {"Depth": "infinity"})
    assert [each.findtext(f"{DAV}href") for each in made.xml.iter(f"{DAV}lockroot")] == [f"{BASE}/c/"]
    refused = server.request("DELETE", f"{BASE}/c/a%20b")
    assert (refused.status, refused.xml.findtext(f".//{DAV}href")) == (423, f"{BASE}/c/")
    tagged = {"If": f"<https://example.org{BASE}/c> (<{token_of(made)}>)"}
    assert server.request("DELETE", f"{BASE}/c/a%20b", headers=tagged).status == 204


def test_report__hrefs_begin_with_it(server: LiveServer) -> None:
    first = told(server.request("REPORT", f"{BASE}/", sync_body("", DEEP)))
    assert first.changed == {f"{BASE}/c/", f"{BASE}/c/a%20b"}
    server.request("DELETE", f"{BASE}/c/a%20b")
    assert told(server.request("REPORT", f"{BASE}/", sync_body(first.token, DEEP))).removed == {f"{BASE}/c/a%20b"}


def test_page__links_begin_with_it(server: LiveServer) -> None:
    page = server.request("GET", f"{BASE}/c/", headers={"Accept": "text/html"}).text
    links = re.findall(r'(?:href|src)="(/[^"]*)"', page)
    assert f"{BASE}/c/a%20b" in links
    assert [link for link in links if not link.startswith(f"{BASE}/")] == []
    assert f'data-base="{BASE}/" data-share="{BASE}/"' in page
    assert re.findall(r"<nav.*?</nav>", page)[0].count("<a ") == 2  # Home, c
    for link in (each for each in links if "?asset=" in each):
        assert server.request("GET", link.replace("&amp;", "&")).status == 200


def test_shares__are_listed_below_it(store: Store) -> None:
    put(store, "/a", b"x")
    with serving_below({"/photos": store}) as server:
        found = responses(server.request("PROPFIND", BASE, propfind_body("displayname"), {"Depth": "1"}))
        assert set(found) == {f"{BASE}/", f"{BASE}/photos/"}
        assert f'href="{BASE}/photos/"' in server.request("GET", f"{BASE}/").text
        page = server.request("GET", f"{BASE}/photos/").text
        assert re.findall(r"<nav.*?</nav>", page)[0].count("<a ") == 2  # Home, photos
        assert set(responses(server.request("PROPFIND", f"{BASE}/photos", headers={"Depth": "1"}))) == {
            f"{BASE}/photos/",
            f"{BASE}/photos/a",
        }
        assert server.request("GET", "/photos/a").status == 404


def test_nextcloud__paths_are_below_it(store: Store) -> None:
    with serving_below({"/": store}, nextcloud_paths=True) as server:
        files, upload = f"{BASE}/remote.php/dav/files/me", f"{BASE}/remote.php/dav/uploads/me/1"
        assert server.request("MKCOL", upload).status == 201
        assert server.request("PUT", f"{upload}/1", b"content").status == 201
        to = {"Destination": f"https://example.org{files}/whole"}
        assert server.request("MOVE", f"{upload}/.file", headers=to).status == 201
        assert read(store, "/whole") == b"content"
        found = responses(server.request("PROPFIND", files, propfind_body("getetag"), {"Depth": "1"}))
        assert set(found) == {f"{files}/", f"{files}/whole"}

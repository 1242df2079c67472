"""The parts of the page for browsers."""

from __future__ import annotations

import re

from tests.live_server import LiveServer


def test_assets__are_what_the_page_names(server: LiveServer) -> None:
    page = server.request("GET", "/").text
    urls = set(re.findall(r'"(/\?asset=[^"]*)"', page.replace("&amp;", "&")))
    assert {re.sub(r".*asset=|&.*", "", url) for url in urls} == {"app.js", "page.css", "icons.svg"}
    for url in urls:
        reply = server.request("GET", url)
        assert reply.status == 200
        assert "immutable" in (reply.header("Cache-Control") or "")
        assert server.request("GET", url, headers={"If-None-Match": reply.header("ETag") or ""}).status == 304
    script = server.request("GET", "/?asset=app.js").text
    for name in re.findall(r'"\./(\?asset=[^"]*)"', script):
        assert server.request("GET", f"/{name}").status == 200


def test_assets__collide_with_no_name(server: LiveServer) -> None:
    server.request("PUT", "/app.js", b"mine")
    assert server.request("GET", "/app.js?asset=app.js").body == b"mine"
    assert server.request("PUT", "/?asset=app.js", b"x").status == 405
    assert server.request("GET", "/?asset=..%2Fassets.py").status == 404


def test_page__scripts_run_by_a_nonce_that_is_never_the_same(server: LiveServer) -> None:
    policies = [server.request("GET", "/").header("Content-Security-Policy") or "" for _ in range(2)]
    assert policies[0] != policies[1]
    assert "script-src 'nonce-" in policies[0]
    assert "'unsafe" not in policies[0]

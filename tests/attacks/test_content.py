"""What users upload cannot script on the origin of the server, whatever type it claims and however it is asked for."""

from __future__ import annotations

import re

import pytest

from tests.attacks.conftest import Victim
from tests.http_client import Reply

SCRIPT = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>" * 20
# Types under which a browser might run the content as a document or a script of the origin.
ACTIVE = [
    "text/html",
    "TEXT/HTML; charset=utf-7",
    "text/html;",
    "application/xhtml+xml",
    "image/svg+xml",
    "IMAGE/SVG+XML",
    "image/svg+xml; charset=utf-8",
    "text/xml",
    "application/xml",
    "application/mathml+xml",
    "text/xsl",
    "application/javascript",
    "text/ecmascript",
    "application/x-shockwave-flash",
    "text/cache-manifest",
    "application/vnd.example+xml",
    "message/rfc822",
    "multipart/related; boundary=x",
    "multipart/x-mixed-replace;boundary=x",
    " Multipart/x-mixed-replace; boundary=x",
    "image/png, text/html",
    "image/png text/html",
    "image/",
    "html",
    "*/*",
    "unknown/unknown",
    "text/x-component",
    "application/hta",
    "image/png;,text/html",
    "image/pn\xe9",
    "text/javascript",
]
PASSIVE = [
    "image/png",
    "text/plain; charset=utf-8",
    "application/pdf",
    "video/mp4",
    "application/json",
    "application/zip",
]


def require_harmless(reply: Reply) -> None:
    """No sniffing, no other page that embeds it; a sandbox unless the type is one that browsers only show."""
    assert reply.header("X-Content-Type-Options") == "nosniff"
    kind = str(reply.header("Content-Type"))
    is_embedded = kind.lower().startswith(("image/", "video/", "multipart/byteranges"))  # by a stored page: see below
    assert is_embedded or reply.header("Cross-Origin-Resource-Policy") == "same-origin"
    assert not kind.lower().lstrip().startswith("multipart/") or "byteranges" in kind
    policy = reply.header("Content-Security-Policy") or ""
    if policy:
        assert re.match("sandbox;", policy), "no allowances"
        assert "default-src 'none'" in policy
        assert "script-src" not in policy
        assert "frame-ancestors 'none'" in policy


@pytest.mark.parametrize("content_type", ACTIVE)
def test_content__that_could_script_is_sandboxed(victim: Victim, content_type: str) -> None:
    for name in ("/a.html", "/a.png", "/a"):
        with victim.server.client() as client:
            client.request("PUT", name, SCRIPT, {"Content-Type": content_type})
            whole = client.request("GET", name)
            is_neutral = whole.header("Content-Type") == "application/octet-stream"
            for reply in (
                whole,
                client.request("HEAD", name),
                client.request("GET", name, headers={"Range": "bytes=0-9"}),
                client.request("GET", name, headers={"Range": "bytes=0-9,90-99"}),
            ):
                require_harmless(reply)
                assert is_neutral or reply.header("Content-Security-Policy"), (content_type, reply)


@pytest.mark.parametrize("ending", ["html", "HTM", "svg", "xml", "js", "xhtml", "shtml", "mht", "ics"])
def test_content__is_sandboxed_or_neutral_by_its_name(victim: Victim, ending: str) -> None:
    victim.server.request("PUT", f"/named.{ending}", SCRIPT)
    reply = victim.server.request("GET", f"/named.{ending}")
    require_harmless(reply)
    is_neutral = reply.header("Content-Type") == "application/octet-stream"
    assert is_neutral or reply.header("Content-Security-Policy")


@pytest.mark.parametrize("content_type", PASSIVE)
def test_content__that_browsers_only_show_stays_usable(victim: Victim, content_type: str) -> None:
    victim.server.request("PUT", "/a", SCRIPT, {"Content-Type": content_type})
    reply = victim.server.request("GET", "/a")
    require_harmless(reply)
    assert reply.header("Content-Type") == content_type
    assert reply.header("Content-Security-Policy") is None


@pytest.mark.parametrize(
    "name", ["<img src=x onerror=alert(1)>", "'\"><script>1<b>", "&lt;b&gt;", "a\u202egpj.exe", "]]>"]
)
def test_content__names_are_escaped_everywhere(victim: Victim, name: str) -> None:
    target = "/" + "".join(f"%{byte:02X}" for byte in name.encode())
    with victim.server.client() as client:
        assert client.request("MKCOL", target).status == 201
        assert client.request("PUT", f"{target}{target}", b"x").status == 201
        for page in (client.request("GET", "/"), client.request("GET", target + "/")):
            policy = str(page.header("Content-Security-Policy"))
            assert "frame-ancestors 'none'" in policy
            assert "; script-src 'nonce-" in policy
            assert "unsafe" not in policy
            assert "<img" not in page.text
            assert page.text.count("<script") == 1  # ours
        listing = client.request("PROPFIND", "/", headers={"Depth": "1"})
        assert name in [each.text for each in listing.xml.iter("{DAV:}displayname")]
        error = client.request("GET", f"{target}/missing%3Cimg%3E")
        assert (error.status, error.header("X-Content-Type-Options")) == (404, "nosniff")
        assert str(error.header("Content-Type")).startswith("text/plain")

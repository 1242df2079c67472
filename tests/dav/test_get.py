from __future__ import annotations

import re
import time

import pytest

from davsql.dav.dates import NS_PER_S, http_date
from davsql.dav.pages import PAGE_MEMBERS
from davsql.store.store import Store
from tests.dav.locking import lock_of
from tests.live_server import LiveServer

CONTENT = bytes(range(256)) * 4096  # 1 MiB: more than is answered in one piece


@pytest.fixture
def small(server: LiveServer) -> str:
    """The path of a file of 10 bytes."""
    server.request("PUT", "/small.txt", b"0123456789")
    return "/small.txt"


@pytest.fixture
def large(server: LiveServer) -> str:
    """The path of a file that holds CONTENT."""
    server.request("PUT", "/large.bin", CONTENT)
    return "/large.bin"


# --- files --------------------------------------------------------------------------------------------------------


def test_get__answers_content_and_validators(server: LiveServer, small: str) -> None:
    reply = server.request("GET", small)
    assert (reply.status, reply.body) == (200, b"0123456789")
    assert reply.header("Content-Length") == "10"
    assert reply.header("Content-Type") == "text/plain"
    assert reply.header("Accept-Ranges") == "bytes"
    assert re.fullmatch(r'"[A-Za-z0-9_-]{43}"', reply.header("ETag") or "")
    assert (reply.header("Last-Modified") or "").endswith(" GMT")
    assert reply.header("X-Content-Type-Options") == "nosniff"


def test_get__large_files_come_whole(server: LiveServer, large: str) -> None:
    reply = server.request("GET", large)
    assert reply.header("Content-Length") == str(len(CONTENT))
    assert reply.body == CONTENT


def test_get__empty_files_are_empty(server: LiveServer) -> None:
    server.request("PUT", "/empty", b"")
    reply = server.request("GET", "/empty", headers={"Range": "bytes=0-"})
    assert (reply.status, reply.header("Content-Length"), reply.body) == (200, "0", b"")


def test_get__missing_is_404(server: LiveServer) -> None:
    assert server.request("GET", "/no").status == 404
    assert server.request("GET", "/no/deeper").status == 404
    assert server.request("HEAD", "/no").status == 404


def test_get__a_trailing_slash_is_tolerated(server: LiveServer, small: str) -> None:
    assert server.request("GET", small + "/").body == b"0123456789"


def test_get__a_query_is_no_part_of_the_name(server: LiveServer, small: str) -> None:
    assert server.request("GET", small + "?x=%2F..").body == b"0123456789"


@pytest.mark.parametrize("path", ["/large.bin", "/small.txt", "/page.html", "/", "/no"])
def test_head__has_the_headers_of_get_and_no_body(server: LiveServer, small: str, large: str, path: str) -> None:
    server.request("PUT", "/page.html", b"<p>")
    got, head = server.request("GET", path), server.request("HEAD", path)
    assert head.body == b""
    assert head.status == got.status
    own = {"Date": "", "X-Request-ID": "", "Content-Security-Policy": ""}
    assert {**head.headers, **own} == {**got.headers, **own}
    policies = [re.sub("nonce-[^']+", "nonce", each.header("Content-Security-Policy") or "") for each in (got, head)]
    assert policies[0] == policies[1]


def test_get__keeps_the_connection(server: LiveServer, small: str, large: str) -> None:
    with server.client() as client:
        for path in (small, large, "/no", "/", small):
            for method in ("GET", "HEAD", "OPTIONS"):
                assert client.request(method, path).header("Connection") is None


@pytest.mark.parametrize(
    ("name", "content_type", "is_sandboxed"),
    [
        ("a.html", None, True),
        ("a.svg", None, True),
        ("a.xhtml", "application/xhtml+xml", True),
        ("a.png", "text/html; charset=utf-8", True),
        ("a", "image/png, text/html", True),
        ("a", "x", True),
        ("a.png", None, False),
        ("a.pdf", None, False),
        ("a.bin", None, False),
        ("a", "image/webp", False),
    ],
)
def test_get__content_that_a_browser_would_run_is_sandboxed(
    server: LiveServer, name: str, content_type: str | None, is_sandboxed: bool
) -> None:
    server.request("PUT", f"/{name}", b"x", {} if content_type is None else {"Content-Type": content_type})
    reply = server.request("GET", f"/{name}")
    policy = reply.header("Content-Security-Policy") or ""
    assert ("sandbox" in policy and "frame-ancestors 'none'" in policy) is is_sandboxed
    assert reply.header("X-Content-Type-Options") == "nosniff"


# --- conditions ---------------------------------------------------------------------------------------------------


def test_get__not_modified_carries_the_etag(server: LiveServer, small: str) -> None:
    etag = server.request("GET", small).header("ETag") or ""
    for sent in (etag, f"W/{etag}", f'"other,tag", {etag}', "*"):
        for method in ("GET", "HEAD"):
            reply = server.request(method, small, headers={"If-None-Match": sent})
            assert (reply.status, reply.body) == (304, b"")
            assert reply.header("ETag") == etag
            assert reply.header("Content-Length") is None
    assert server.request("GET", small, headers={"If-None-Match": '"other"'}).status == 200


def test_get__if_modified_since(server: LiveServer, small: str) -> None:
    modified = server.request("GET", small).header("Last-Modified") or ""
    before = http_date((int(time.time()) - 3600) * NS_PER_S)
    future = http_date((int(time.time()) + 3600) * NS_PER_S)
    expected = {modified: 304, before: 200, future: 200, "nonsense": 200}
    for date, status in expected.items():
        assert server.request("GET", small, headers={"If-Modified-Since": date}).status == status, date
    # RFC 9110 13.1.3: not looked at beside If-None-Match
    both = {"If-Modified-Since": modified, "If-None-Match": '"other"'}
    assert server.request("GET", small, headers=both).status == 200


def test_get__if_match_and_if_unmodified_since(server: LiveServer, small: str) -> None:
    got = server.request("GET", small)
    etag = got.header("ETag") or ""
    before = http_date((int(time.time()) - 3600) * NS_PER_S)
    assert server.request("GET", small, headers={"If-Match": etag}).status == 200
    assert server.request("GET", small, headers={"If-Match": "*"}).status == 200
    assert server.request("GET", small, headers={"If-Match": f"W/{etag}"}).status == 412
    assert server.request("HEAD", small, headers={"If-Match": '"other"'}).status == 412
    assert server.request("GET", small, headers={"If-Match": "unquoted"}).status == 400
    assert server.request("GET", small, headers={"If-Unmodified-Since": before}).status == 412
    assert (
        server.request("GET", small, headers={"If-Unmodified-Since": got.header("Last-Modified") or ""}).status == 200
    )
    assert server.request("GET", small, headers={"If-Match": etag, "If-Unmodified-Since": before}).status == 200


def test_get__the_if_header_counts(server: LiveServer, store: Store, small: str) -> None:
    etag = server.request("GET", small).header("ETag")
    lock = lock_of(store, small)
    for sent, status in {
        f"(<{lock.token}> [{etag}])": 200,
        f"<{small}> (<{lock.token}>)": 200,
        "(Not <DAV:no-lock>)": 200,
        "(<DAV:no-lock>)": 412,
        f'(<{lock.token}> ["other"])': 412,
        f"(Not <{lock.token}>)": 412,
        f"</elsewhere> (<{lock.token}>)": 412,
        f"<http://other.example{small}> (<{lock.token}>)": 412,
        "malformed": 400,
    }.items():
        for method in ("GET", "HEAD"):
            assert server.request(method, small, headers={"If": sent}).status == status, sent


# --- ranges -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "start", "stop"),
    [("0-0", 0, 1), ("5-", 5, 2**20), ("-7", 2**20 - 7, 2**20), ("262140-262150", 262140, 262151), ("0-", 0, 2**20)],
)
def test_get__one_range(server: LiveServer, large: str, sent: str, start: int, stop: int) -> None:
    reply = server.request("GET", large, headers={"Range": f"bytes={sent}"})
    assert reply.status == 206
    assert reply.header("Content-Range") == f"bytes {start}-{stop - 1}/{len(CONTENT)}"
    assert reply.header("Content-Length") == str(stop - start)
    assert reply.header("ETag") is not None
    assert reply.body == CONTENT[start:stop]


def test_get__several_ranges_are_all_sent(server: LiveServer, large: str) -> None:
    spans = [(700_000, 700_100), (0, 10), (1_048_570, 1_048_576)]
    sent = ",".join(f"{start}-{stop - 1}" for start, stop in spans) + ",2000000-"
    reply = server.request("GET", large, headers={"Range": f"bytes={sent}"})
    assert reply.status == 206
    assert reply.header("Content-Range") is None
    assert reply.header("Content-Length") == str(len(reply.body))
    content_type = reply.header("Content-Type") or ""
    assert content_type.startswith("multipart/byteranges; boundary=")
    parts = reply.body.split(b"\r\n--" + content_type.partition("boundary=")[2].encode())
    assert parts[0] == b""
    assert parts[-1] == b"--\r\n"
    for part, (start, stop) in zip(parts[1:-1], spans, strict=True):
        head, _, data = part.partition(b"\r\n\r\n")
        assert f"Content-Range: bytes {start}-{stop - 1}/{len(CONTENT)}".encode() in head
        assert b"Content-Type: application/octet-stream" in head
        assert data == CONTENT[start:stop]


def test_get__overlapping_ranges_send_each_byte_once(server: LiveServer, small: str) -> None:
    reply = server.request("GET", small, headers={"Range": "bytes=" + ",".join(["0-5", "3-8"] * 100)})
    assert (reply.status, reply.header("Content-Range"), reply.body) == (206, "bytes 0-8/10", b"012345678")


def test_get__unsatisfiable_ranges_are_416(server: LiveServer, small: str) -> None:
    for sent in ("10-", "-0", "100-200,300-"):
        reply = server.request("GET", small, headers={"Range": f"bytes={sent}"})
        assert (reply.status, reply.header("Content-Range")) == (416, "bytes */10")


def test_get__ranges_that_cannot_be_understood_are_ignored(server: LiveServer, large: str) -> None:
    flood = ",".join(f"{start}-{start}" for start in range(0, 2000, 2))
    for sent in ("bytes=5-1", "bytes=-", "lines=1-2", "bytes", f"bytes={flood}"):
        reply = server.request("GET", large, headers={"Range": sent})
        assert (reply.status, len(reply.body)) == (200, len(CONTENT)), sent


def test_head__ignores_range(server: LiveServer, small: str) -> None:
    reply = server.request("HEAD", small, headers={"Range": "bytes=0-0"})
    assert (reply.status, reply.header("Content-Length")) == (200, "10")


def test_get__if_range(server: LiveServer, small: str) -> None:
    got = server.request("GET", small)
    etag, modified = got.header("ETag") or "", got.header("Last-Modified") or ""
    expected = {etag: 206, modified: 206, f"W/{etag}": 200, '"other"': 200, http_date(0): 200, "nonsense": 200}
    for sent, status in expected.items():
        assert server.request("GET", small, headers={"Range": "bytes=1-2", "If-Range": sent}).status == status, sent
    assert server.request("GET", small, headers={"Range": "bytes=99-", "If-Range": '"other"'}).status == 200


def test_get__conditions_come_before_ranges(server: LiveServer, small: str) -> None:
    etag = server.request("GET", small).header("ETag") or ""
    assert server.request("GET", small, headers={"Range": "bytes=99-", "If-None-Match": etag}).status == 304
    assert server.request("GET", small, headers={"Range": "bytes=1-2", "If-Match": '"other"'}).status == 412


# --- downloads are given back -------------------------------------------------------------------------------------


def test_get__nothing_stays_pinned(server: LiveServer, store: Store, small: str, large: str) -> None:
    etag = server.request("GET", large).header("ETag") or ""
    for headers in (
        {},
        {"Range": "bytes=1-2"},
        {"Range": "bytes=1-2,5-6"},
        {"Range": "bytes=9999999-"},
        {"If-None-Match": etag},
        {"If-Match": '"other"'},
        {"If-Match": "malformed"},
    ):
        for path in (small, large):
            server.request("GET", path, headers=headers)
    with server.client() as client:
        client._connection.request("GET", large)  # noqa: SLF001  # and never read the answer
    deadline = time.monotonic() + 10
    while store.pins.current() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not store.pins.current()


# --- collections --------------------------------------------------------------------------------------------------


def test_get__a_collection_is_a_page_that_runs_nothing_of_its_members(server: LiveServer) -> None:
    name = "%3Cimg%20src=x%20onerror=alert(1)%3E&amp;'%22"
    server.request("MKCOL", "/c")
    server.request("PUT", f"/c/{name}", b"12345")
    server.request("MKCOL", "/c/sub")
    for target in ("/c", "/c/"):
        reply = server.request("GET", target)
        assert (reply.status, reply.header("Content-Type")) == (200, "text/html; charset=utf-8")
        assert "default-src 'none'" in (reply.header("Content-Security-Policy") or "")
        assert "<img" not in reply.text
        assert "&lt;img src=x onerror=alert(1)&gt;&amp;amp;&#x27;&quot;" in reply.text
        assert '<a href="/c/sub/">sub/</a>' in reply.text
        href = re.search(r'href="(/c/[^"]*img[^"]*)"', reply.text)
        assert href is not None
        assert server.request("GET", href[1]).body == b"12345"


def test_get__a_large_collection_comes_in_pages(server: LiveServer) -> None:
    with server.client() as client:
        for number in range(PAGE_MEMBERS + 5):
            client.request("PUT", f"/f%20{number:05}", b"")
        first = client.request("GET", "/")
        following = re.search(r'href="([^"]*\?after=[^"]*)"', first.text)
        assert following is not None
        second = client.request("GET", following[1])
    names = re.findall(r">(f [0-9]+)<", first.text + second.text)
    assert names == [f"f {number:05}" for number in range(PAGE_MEMBERS + 5)]


def test_get__a_collection_has_no_entity_tag_to_match(server: LiveServer) -> None:
    assert server.request("GET", "/", headers={"If-Match": '"a"'}).status == 412
    assert server.request("GET", "/", headers={"If-None-Match": '"a"'}).status == 200
    assert server.request("GET", "/", headers={"If-None-Match": "*"}).status == 304
    assert server.request("GET", "/", headers={"Range": "bytes=0-1"}).status == 200

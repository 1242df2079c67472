from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import pytest

from davsql.dav.body import BLOCK_BYTES, body_blocks
from davsql.dav.dates import NS_PER_S, http_date
from davsql.dav.request import Request
from davsql.paths import DavPath
from davsql.store.store import Store
from tests.dav.locking import lock_of
from tests.live_server import LiveServer

CONTENT = bytes(range(256)) * 4096


def assert_untouched(server: LiveServer) -> None:
    """`/old` still holds b"old" and `/new` is absent."""
    assert server.request("GET", "/old").body == b"old"
    assert server.request("GET", "/new").status == 404


@pytest.fixture
def old_etag(server: LiveServer) -> str:
    """The entity tag of /old, which holds b"old"."""
    return server.request("PUT", "/old", b"old").header("ETag") or ""


# --- what is stored -----------------------------------------------------------------------------------------------


def test_put__creates_then_replaces(server: LiveServer) -> None:
    created = server.request("PUT", "/a", b"one")
    replaced = server.request("PUT", "/a", b"two")
    assert (created.status, replaced.status) == (201, 204)
    assert created.header("ETag") != replaced.header("ETag")
    assert replaced.header("ETag") == server.request("GET", "/a").header("ETag")
    assert server.request("GET", "/a").body == b"two"


@pytest.mark.parametrize("body", [CONTENT, [CONTENT[:1], CONTENT[1:300_000], CONTENT[300_000:]]])
def test_put__large_bodies_arrive_whole(server: LiveServer, body: bytes | list[bytes]) -> None:
    assert server.request("PUT", "/a", body).status == 201
    assert server.request("GET", "/a").body == CONTENT


def test_put__without_a_body_makes_an_empty_file(server: LiveServer) -> None:
    assert server.request("PUT", "/a").status == 201
    assert server.request("PUT", "/b", []).status == 201
    assert server.request("GET", "/a").body == b""
    assert server.request("GET", "/b").body == b""


def test_put__keeps_the_content_type_as_sent(server: LiveServer) -> None:
    sent = 'Text/Plain; charset="ISO-8859-1"; format=flowed'
    server.request("PUT", "/a.png", b"x", {"Content-Type": sent, "Content-Language": "de"})
    assert server.request("GET", "/a.png").header("Content-Type") == sent
    server.request("PUT", "/a.png", b"x")
    assert server.request("GET", "/a.png").header("Content-Type") == "image/png"


def test_put__a_content_type_without_end_is_not_kept(server: LiveServer) -> None:
    server.request("PUT", "/a.png", b"x", {"Content-Type": "a/" + "b" * 1000})
    assert server.request("GET", "/a.png").header("Content-Type") == "image/png"


def test_put__names_are_what_their_encoding_says(server: LiveServer) -> None:
    for target in ("/x;y", "/q%3Fz", "/h%23z", "/%25", "/a%20b", "/%C3%A9", "/(x)", "/+", "/%E2%82%AC%F0%9F%98%80"):
        assert server.request("PUT", target, target.encode()).status == 201
        assert server.request("GET", target).body == target.encode()


def test_put__nfd_finds_what_nfc_stored(server: LiveServer) -> None:
    server.request("PUT", "/caf%C3%A9", b"one")
    assert server.request("PUT", "/cafe%CC%81", b"two").status == 204
    assert server.request("GET", "/caf%C3%A9").body == b"two"


# --- what is refused, and changes nothing -------------------------------------------------------------------------


def test_put__refuses_collections_and_missing_parents(server: LiveServer, old_etag: str) -> None:
    server.request("MKCOL", "/c")
    refused = server.request("PUT", "/c", b"x")
    assert refused.status == 405
    assert "PROPFIND" in (refused.header("Allow") or "")
    assert server.request("PUT", "/c/", b"x").status == 405
    assert server.request("PUT", "/", b"x").status == 405
    assert server.request("PUT", "/no/a", b"x").status == 409
    assert server.request("PUT", "/old/a", b"x").status == 409
    assert_untouched(server)


@pytest.mark.parametrize("target", ["/old", "/new"])
def test_put__a_length_other_than_announced_is_400(server: LiveServer, old_etag: str, target: str) -> None:
    for announced in ("4", "6", "x", "-5", "", "5, 5"):
        reply = server.request("PUT", target, [b"12345"], {"X-Expected-Entity-Length": announced})
        assert reply.status == 400, announced
    assert server.request("PUT", target, b"12345", {"X-Expected-Entity-Length": "4"}).status == 400
    assert_untouched(server)


def test_put__finders_chunked_body_of_the_announced_length_is_stored(server: LiveServer) -> None:
    reply = server.request("PUT", "/a", [b"123", b"45"], {"X-Expected-Entity-Length": "5"})
    assert reply.status == 201
    assert server.request("GET", "/a").body == b"12345"


@pytest.mark.parametrize("target", [b"/old", b"/new"])
@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 10\r\n\r\n12345",
        b"Content-Length: 600000\r\n\r\n" + b"x" * 599_999,
        b"Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\n123",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n0x5\r\n12345\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n-5\r\n12345\r\n0\r\n\r\n",
    ],
)
def test_put__a_body_that_ends_early_or_is_malformed_changes_nothing(
    server: LiveServer, old_etag: str, target: bytes, framing: bytes
) -> None:
    answer = server.exchange(b"PUT " + target + b" HTTP/1.1\r\nHost: localhost\r\n" + framing, half_close=True)
    assert not answer or answer.startswith(b"HTTP/1.1 400 ")
    assert_untouched(server)


def test_put__readers_see_the_old_content_until_the_end(server: LiveServer, old_etag: str) -> None:
    half, seen = threading.Event(), threading.Event()

    def body() -> Iterator[bytes]:
        yield CONTENT
        half.set()
        assert seen.wait(10)
        yield CONTENT

    writer = threading.Thread(target=server.request, args=("PUT", "/old", body()))
    writer.start()
    assert half.wait(10)
    time.sleep(0.1)
    assert server.request("GET", "/old").body == b"old"
    assert server.request("HEAD", "/old").header("ETag") == old_etag
    seen.set()
    writer.join(10)
    assert server.request("GET", "/old").body == CONTENT * 2


# --- conditions ---------------------------------------------------------------------------------------------------


def test_put__if_match(server: LiveServer, old_etag: str) -> None:
    for target, tag in (
        ("/new", "*"),
        ("/new", old_etag),
        ("/old", '"other"'),
        ("/old", f"W/{old_etag}"),
        ("/old", f'"x,{old_etag[1:]}'),
    ):
        assert server.request("PUT", target, b"x", {"If-Match": tag}).status == 412, (target, tag)
    assert server.request("PUT", "/old", b"x", {"If-Match": "unquoted"}).status == 400
    assert_untouched(server)
    assert server.request("PUT", "/old", b"x", {"If-Match": f'"other,x", {old_etag}'}).status == 204


def test_put__if_none_match(server: LiveServer, old_etag: str) -> None:
    for tag in ("*", old_etag, f"W/{old_etag}"):
        assert server.request("PUT", "/old", b"x", {"If-None-Match": tag}).status == 412
    assert_untouched(server)
    assert server.request("PUT", "/new", b"x", {"If-None-Match": "*"}).status == 201
    assert server.request("PUT", "/old", b"x", {"If-None-Match": '"other"'}).status == 204


def test_put__joplins_if_none_match_means_nothing(server: LiveServer, old_etag: str) -> None:
    assert server.request("PUT", "/old", b"x", {"If-None-Match": "JoplinIgnore-1"}).status == 204
    assert server.request("MKCOL", "/c", None, {"If-None-Match": "JoplinIgnore-2"}).status == 201


def test_put__dates(server: LiveServer, old_etag: str) -> None:
    modified = server.request("HEAD", "/old").header("Last-Modified") or ""
    before = http_date((int(time.time()) - 3600) * NS_PER_S)
    assert server.request("PUT", "/old", b"x", {"If-Unmodified-Since": before}).status == 412
    assert_untouched(server)
    assert server.request("PUT", "/old", b"x", {"If-Modified-Since": modified}).status == 204
    modified = server.request("HEAD", "/old").header("Last-Modified") or ""
    assert server.request("PUT", "/old", b"x", {"If-Unmodified-Since": modified}).status == 204


def test_put__the_if_header(server: LiveServer, old_etag: str) -> None:
    for target, sent in (
        ("/new", f"([{old_etag}])"),
        ("/new", "(<DAV:no-lock>)"),
        ("/old", '(["other"])'),
        ("/old", f"(Not [{old_etag}])"),
        ("/old", f"<{server.url}/new> ([{old_etag}])"),
        ("/old", f"<http://other.example/old> ([{old_etag}])"),
        ("/new", '</old> (["other"])'),
    ):
        assert server.request("PUT", target, b"x", {"If": sent}).status == 412, (target, sent)
    for sent in ("(", "x", f"([{old_etag}]", "(<x>)"):
        assert server.request("PUT", "/old", b"x", {"If": sent}).status == 400, sent
    assert_untouched(server)
    assert server.request("PUT", "/new", b"x", {"If": '(["other"]) (Not ["other"])'}).status == 201
    assert server.request("PUT", "/old", b"x", {"If": f"<{server.url}/old> ([{old_etag}])"}).status == 204


def test_put__one_of_six_with_the_same_if_match_wins(server: LiveServer, old_etag: str) -> None:
    statuses: list[int] = []
    bodies = [b"%d" % number * 1000 for number in range(6)]

    def put(body: bytes) -> None:
        statuses.append(server.request("PUT", "/old", body, {"If-Match": old_etag}).status)

    threads = [threading.Thread(target=put, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [204] + [412] * 5
    assert server.request("GET", "/old").body in bodies


def test_put__a_lock_protects_without_its_token(server: LiveServer, store: Store, old_etag: str) -> None:
    lock = lock_of(store, "/old")
    refused = server.request("PUT", "/old", b"x")
    assert refused.status == 423
    assert refused.xml.findtext("{DAV:}lock-token-submitted/{DAV:}href") == "/old"
    assert server.request("PUT", "/old", b"x", {"If": "(<urn:uuid:other>)"}).status == 412
    assert server.request("PUT", "/old", b"x", {"If": "(Not <urn:uuid:other>)"}).status == 423
    assert_untouched(server)
    assert server.request("PUT", "/old", b"x", {"If": f"(<{lock.token}>)"}).status == 204


def test_put__expect_is_refused_before_the_body(server: LiveServer, store: Store, old_etag: str) -> None:
    store.make_collection(DavPath.parse("/c"))
    head = (
        "PUT {} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n{}\r\n"
    )
    for target, extra, status in (
        ("/old", "If-None-Match: *\r\n", 412),
        ("/new", "If-Match: *\r\n", 412),
        ("/no/new", "", 409),
        ("/c", "", 405),
    ):
        answer = server.exchange(head.format(target, extra).encode())
        assert answer.startswith(b"HTTP/1.1 %d " % status)
    lock_of(store, "/old")
    assert server.exchange(head.format("/old", "").encode()).startswith(b"HTTP/1.1 423 ")


@pytest.mark.parametrize(("coding", "status"), [("gzip", 415), ("identity", 201), ("Identity", 201), ("br, gzip", 415)])
def test_put__an_encoded_body_is_refused(server: LiveServer, coding: str, status: int) -> None:
    assert server.request("PUT", "/f", b"x", {"Content-Encoding": coding}).status == status
    assert server.request("HEAD", "/f").status == (200 if status == 201 else 404)


# --- the blocks of a body ---------------------------------------------------------------------------------------------


def test_body_blocks__after_a_short_one_end_again_where_chunks_do() -> None:
    sizes = iter((100_000, BLOCK_BYTES))

    def read(size: int) -> bytes:
        return bytes(min(size, next(sizes, size)))

    request = cast(Request, SimpleNamespace(environ={"wsgi.input": SimpleNamespace(read=read)}))
    blocks = [len(block) for block in body_blocks(request, 3 * BLOCK_BYTES + 5)]
    assert blocks == [100_000, BLOCK_BYTES - 100_000, BLOCK_BYTES, BLOCK_BYTES, 5]

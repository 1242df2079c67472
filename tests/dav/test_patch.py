"""Parts of files: PATCH with X-Update-Range, PUT with Content-Range."""

from __future__ import annotations

import hashlib
import random
import threading

import pytest

from davsql.dav.methods.patch import PATCH_TYPE
from davsql.dav.quotas import ShareQuotas
from davsql.maintenance.gc import collect_garbage
from davsql.model import Limit
from davsql.store.blobs import CHUNK_BYTES
from davsql.store.check import check
from davsql.store.store import Store
from tests.dav.locking import lock_of
from tests.http_client import Reply
from tests.live_server import LiveServer, serving_shares
from tests.store_steps import at, put, read

LARGE = random.Random(7).randbytes(5 * CHUNK_BYTES + 1000)  # noqa: S311  # content, no secret


def patch(server: LiveServer, target: str, span: str, body: bytes | list[bytes], **more: str) -> Reply:
    headers = {"Content-Type": PATCH_TYPE, "X-Update-Range": span}
    return server.request(
        "PATCH", target, body, headers | {name.replace("_", "-"): text for name, text in more.items()}
    )


def content(server: LiveServer, target: str = "/a") -> bytes:
    return server.request("GET", target).body


@pytest.mark.parametrize(
    ("span", "body", "expected"),
    [
        ("append", b"xyz", b"0123456789xyz"),
        ("bytes=3-6", b"wxyz", b"012wxyz789"),
        ("bytes=3-", b"wx", b"012wx56789"),
        ("bytes=8-11", b"wxyz", b"01234567wxyz"),
        ("bytes=10-11", b"yz", b"0123456789yz"),
        ("bytes=-3", b"xyz", b"0123456xyz"),
        ("BYTES=0-0", b"x", b"x123456789"),
        ("append", [b"in ", b"chunks"], b"0123456789in chunks"),
        ("bytes=1-3", [b"x", b"yz"], b"0xyz456789"),
    ],
)
def test_patch__changes_what_the_range_says(
    server: LiveServer, span: str, body: bytes | list[bytes], expected: bytes
) -> None:
    server.request("PUT", "/a", b"0123456789", {"Content-Type": "text/x-mine"})
    reply = patch(server, "/a", span, body)
    assert reply.status == 204
    now = server.request("GET", "/a")
    assert (now.body, now.header("ETag")) == (expected, reply.header("ETag"))
    assert now.header("Content-Type") == "text/x-mine"


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (400, {"Content-Type": PATCH_TYPE}, b"x"),
        (400, {"Content-Type": PATCH_TYPE, "X-Update-Range": "bytes=x-y"}, b"x"),
        (400, {"Content-Type": PATCH_TYPE, "X-Update-Range": "bytes=1-2,4-5"}, b"xxxx"),
        (415, {"Content-Type": "text/plain", "X-Update-Range": "append"}, b"x"),
        (415, {"Content-Type": PATCH_TYPE, "X-Update-Range": "append", "Content-Encoding": "gzip"}, b"x"),
        (416, {"Content-Type": PATCH_TYPE, "X-Update-Range": "bytes=4-4"}, b"x"),  # a gap
        (416, {"Content-Type": PATCH_TYPE, "X-Update-Range": "bytes=2-1"}, b"x"),
        (416, {"Content-Type": PATCH_TYPE, "X-Update-Range": "bytes=-4"}, b"x"),
        (416, {"Content-Type": PATCH_TYPE, "X-Update-Range": "bytes=0-4"}, b"x"),
        (400, {"Content-Type": PATCH_TYPE, "X-Update-Range": "bytes=0-4"}, [b"x"]),
        (412, {"Content-Type": PATCH_TYPE, "X-Update-Range": "append", "If-Match": '"other"'}, b"x"),
        (412, {"Content-Type": PATCH_TYPE, "X-Update-Range": "append", "If-None-Match": "*"}, b"x"),
    ],
)
def test_patch__refused_changes_nothing(
    server: LiveServer, status: int, headers: dict[str, str], body: bytes | list[bytes]
) -> None:
    server.request("PUT", "/a", b"old")
    assert server.request("PATCH", "/a", body, headers).status == status
    assert content(server) == b"old"


def test_patch__checksums_are_of_the_part(server: LiveServer) -> None:
    server.request("PUT", "/a", b"old")
    sums = [hashlib.sha1(each, usedforsecurity=False).hexdigest() for each in (b"new", b"other")]
    assert patch(server, "/a", "append", b"new", OC_Checksum=f"SHA1:{sums[1]}").status == 400
    assert content(server) == b"old"
    reply = patch(server, "/a", "append", b"new", OC_Checksum=f"SHA1:{sums[0]}", X_OC_Mtime="1700000000")
    assert (reply.status, reply.header("X-OC-Mtime")) == (204, "accepted")
    assert content(server) == b"oldnew"


def test_patch__tells_a_checksum(server: LiveServer) -> None:
    server.request("PUT", "/a", LARGE)
    reply = server.request("PATCH", "/a", headers={"X-Recalculate-Hash": "sha1"})
    sha1 = hashlib.sha1(LARGE, usedforsecurity=False).hexdigest()
    assert (reply.status, reply.header("OC-Checksum")) == (204, f"SHA1:{sha1}")
    assert server.request("PATCH", "/a", headers={"X-Recalculate-Hash": "crc"}).status == 400
    assert server.request("PATCH", "/no", headers={"X-Recalculate-Hash": "sha1"}).status == 404


def test_patch__needs_a_file(server: LiveServer) -> None:
    server.request("MKCOL", "/c")
    assert patch(server, "/none", "append", b"x").status == 404
    assert patch(server, "/c", "append", b"x").status == 405
    assert server.request("GET", "/none").status == 404


def test_patch__of_a_locked_file_needs_the_token(server: LiveServer, store: Store) -> None:
    server.request("PUT", "/a", b"old")
    lock = lock_of(store, "/a")
    assert patch(server, "/a", "append", b"x").status == 423
    assert content(server) == b"old"
    assert patch(server, "/a", "append", b"x", If=f"(<{lock.token}>)").status == 204
    assert content(server) == b"oldx"


@pytest.mark.parametrize("start", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 5, 3 * CHUNK_BYTES - 1, len(LARGE) - 3, len(LARGE)])
@pytest.mark.parametrize("size", [1, 2 * CHUNK_BYTES])
def test_patch__of_large_files(server: LiveServer, store: Store, start: int, size: int) -> None:
    put(store, "/a", LARGE)
    new = random.Random(start).randbytes(size)  # noqa: S311  # content, no secret
    assert patch(server, "/a", f"bytes={start}-{start + size - 1}", new).status == 204
    assert content(server) == LARGE[:start] + new + LARGE[start + size :]
    assert check(store, deep=True) == []


def test_patch__many_small_appends_leave_few_chunks(server: LiveServer, store: Store) -> None:
    put(store, "/a", LARGE)
    expected = LARGE
    for number in range(40):
        expected += bytes([number]) * 9000
        assert patch(server, "/a", "append", bytes([number]) * 9000).status == 204
    assert hashlib.sha256(content(server)).digest() == hashlib.sha256(expected).digest()
    with store.open_download(at("/a")) as download:
        sizes = [place.size for place in download.places(0, len(expected))]
    assert len(sizes) < len(expected) / 64_000 + 2
    assert check(store, deep=True) == []


def test_patch__a_change_at_the_same_time_is_409(server: LiveServer, store: Store) -> None:
    """Two append at once: the one that commits last sees that the file is no longer what it began with."""
    put(store, "/a", LARGE)
    head = (
        f"PATCH /a HTTP/1.1\r\nHost: x\r\nContent-Type: {PATCH_TYPE}\r\nX-Update-Range: append\r\n"
        "Content-Length: 4\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    ).replace("Host: x", f"Host: {server.address[0]}:{server.address[1]}")
    with server.connect() as slow:
        slow.sendall(head.encode())
        assert slow.recv(1000).startswith(b"HTTP/1.1 100")  # it has begun
        assert patch(server, "/a", "append", b"fast").status == 204
        slow.sendall(b"slow")
        assert slow.recv(1000).startswith(b"HTTP/1.1 409")
    assert content(server) == LARGE + b"fast"


def test_patch__concurrent_appends_are_whole_or_refused(server: LiveServer, store: Store) -> None:
    put(store, "/a", LARGE)
    done: list[bytes] = []

    def append(letter: bytes) -> None:
        for _ in range(5):
            status = patch(server, "/a", "append", letter * 3000).status
            assert status in (204, 409)
            if status == 204:
                done.append(letter)

    threads = [threading.Thread(target=append, args=(bytes([letter]),)) for letter in b"abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    added = content(server)[len(LARGE) :]
    pieces = [added[at : at + 3000] for at in range(0, len(added), 3000)]
    assert done
    assert sorted(pieces) == sorted(letter * 3000 for letter in done)


def test_patch__counts_against_the_quota(store: Store) -> None:
    put(store, "/a", b"x" * 900_000)
    with serving_shares({"/": store}, quotas={"/": ShareQuotas(Limit(size_bytes=1_048_576))}) as server:
        assert patch(server, "/a", "append", b"y" * 200_000).status == 507
        assert patch(server, "/a", "append", [b"y" * 200_000]).status == 507
        assert patch(server, "/a", "append", b"y" * 100_000).status == 204
        assert patch(server, "/a", "bytes=0-9", b"0123456789").status == 204


# --- PUT with Content-Range ---------------------------------------------------------------------------------------


def test_content_range__parts_in_order_make_the_file(server: LiveServer, store: Store) -> None:
    step = 300_000
    for start in range(0, len(LARGE), step):
        part = LARGE[start : start + step]
        span = f"bytes {start}-{start + len(part) - 1}/{len(LARGE) if start else '*'}"
        reply = server.request("PUT", "/a", part, {"Content-Range": span, "Content-Type": "text/x-mine"})
        assert reply.status == (204 if start else 201)
    now = server.request("GET", "/a")
    assert now.body == LARGE
    assert (now.header("ETag"), now.header("Content-Type")) == (reply.header("ETag"), "text/x-mine")
    assert put(store, "/b", LARGE).node.etag == now.header("ETag")


@pytest.mark.parametrize("span", ["bytes 4-4/5", "bytes 0-0/2", "bytes 0-0/*", "bytes 2-2/3"])
def test_content_range__elsewhere_is_416_with_the_size(server: LiveServer, span: str) -> None:
    server.request("PUT", "/a", b"old")
    reply = server.request("PUT", "/a", b"x", {"Content-Range": span})
    assert (reply.status, reply.header("Content-Range")) == (416, "bytes */3")
    assert content(server) == b"old"
    assert server.request("PUT", "/new", b"x", {"Content-Range": "bytes 1-1/2"}).status == 416
    assert server.request("GET", "/new").status == 404


def test_content_range__of_the_whole_is_an_ordinary_put(server: LiveServer) -> None:
    whole = {"Content-Range": "bytes 0-4/5", "Content-Type": "text/x-mine"}
    for target, status in (("/a", 201), ("/a", 204)):
        assert server.request("PUT", target, b"whole", whole).status == status
    got = server.request("GET", "/a")
    assert (got.body, got.header("Content-Type")) == (b"whole", "text/x-mine")
    server.request("PUT", "/a", b"longer than that")
    assert server.request("PUT", "/a", b"whol", whole).status == 416
    assert server.request("PUT", "/a", [b"whol"], whole).status == 400
    assert server.request("PUT", "/a", b"whole", whole | {"If-None-Match": "*"}).status == 412
    assert content(server) == b"longer than that"
    assert server.request("PUT", "/a", b"whole", whole).status == 204
    assert content(server) == b"whole"


def test_content_range__the_first_part_replaces_nothing_that_came_meanwhile(server: LiveServer, store: Store) -> None:
    head = (
        f"PUT /new HTTP/1.1\r\nHost: {server.address[0]}:{server.address[1]}\r\nContent-Range: bytes 0-3/9\r\n"
        "Content-Length: 4\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    )
    with server.connect() as slow:
        slow.sendall(head.encode())
        assert slow.recv(1000).startswith(b"HTTP/1.1 100")
        put(store, "/new", b"whole")
        slow.sendall(b"slow")
        assert slow.recv(1000).startswith(b"HTTP/1.1 409")
    assert read(store, "/new") == b"whole"


@pytest.mark.parametrize("span", ["bytes 3-2/9", "bytes 3-3/3", "bytes */9", "items 3-3/4", "", "bytes 3-x/9"])
def test_content_range__malformed_is_400(server: LiveServer, span: str) -> None:
    server.request("PUT", "/a", b"old")
    assert server.request("PUT", "/a", b"x", {"Content-Range": span}).status == 400
    assert content(server) == b"old"


def test_content_range__a_body_of_another_length_changes_nothing(server: LiveServer) -> None:
    server.request("PUT", "/a", b"old")
    assert server.request("PUT", "/a", b"xyz", {"Content-Range": "bytes 3-3/4"}).status == 416
    assert server.request("PUT", "/a", [b"xyz"], {"Content-Range": "bytes 3-3/4"}).status == 400
    assert content(server) == b"old"


def test_shared_chunks__outlive_the_file_they_came_from(server: LiveServer, store: Store) -> None:
    put(store, "/a", LARGE)
    assert patch(server, "/a", "append", b"x").status == 204
    collect_garbage(store, grace_s=0, upload_expiry_s=0)
    assert read(store, "/a") == LARGE + b"x"
    assert check(store, deep=True) == []

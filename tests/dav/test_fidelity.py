"""Times, checksums and ids: what programs that synchronise set, compare and read back."""

from __future__ import annotations

import hashlib
import zlib
from base64 import b64encode
from dataclasses import replace

import pytest

from davsql.dav.request import DavOptions
from davsql.maintenance.gc import collect_garbage
from davsql.model import Checksums, PropertyUpdate
from davsql.store.store import Store
from tests.access.wsgi import one_share, rule, user
from tests.dav.answers import DAV, only_response, propfind_body, proppatch_body, responses, set_body
from tests.http_client import Reply
from tests.live_server import LiveServer, serving_shares
from tests.store_steps import at, mkcol, put, read, tree

OC = "{http://owncloud.org/ns}"
MS = "{urn:schemas-microsoft-com:}"
TIME_S = 1_700_000_000
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"
DATA = b"hello, world"
LONG = DATA * 50_000  # three chunks


def base64(name: str, data: bytes) -> str:
    return f":{b64encode(hashlib.new(name, data).digest()).decode()}:"


def ask(server: LiveServer, path: str, *names: str) -> dict[int, dict[str, str | None]]:
    body = f'<propfind xmlns="DAV:" xmlns:oc="http://owncloud.org/ns"><prop>{"".join(names)}</prop></propfind>'
    found = only_response(server.request("PROPFIND", path, body.encode(), {"Depth": "0"}))
    return {status: {name: each.text for name, each in named.items()} for status, named in found.items()}


def modified(store: Store, path: str) -> float:
    return store.node(at(path)).modified_at / 1_000_000_000


def test_put__keeps_the_time_that_came(server: LiveServer, store: Store) -> None:
    for status, body in ((201, DATA), (204, LONG)):
        reply = server.request("PUT", "/a", body, {"X-OC-Mtime": str(TIME_S)})
        assert (reply.status, reply.header("X-OC-Mtime")) == (status, "accepted")
        assert modified(store, "/a") == TIME_S
    assert server.request("HEAD", "/a").header("Last-Modified") == DATE
    assert server.request("PUT", "/a", DATA, {"X-OC-Mtime": f"{TIME_S}.75"}).header("X-OC-Mtime") == "accepted"
    assert modified(store, "/a") == TIME_S
    assert server.request("PUT", "/a", DATA).header("X-OC-Mtime") is None
    assert modified(store, "/a") > TIME_S


@pytest.mark.parametrize("time", ["now", "", "0x10", "1e9", "9999999999999", "-99999999999", "1 2"])
def test_put__a_time_that_is_none_changes_nothing(server: LiveServer, store: Store, time: str) -> None:
    assert server.request("PUT", "/a", DATA, {"X-OC-Mtime": time}).status == 400
    assert server.request("MKCOL", "/c", None, {"X-OC-Mtime": time}).status == 400
    assert tree(store) == {}


def test_mkcol__keeps_the_time_that_came(server: LiveServer, store: Store) -> None:
    reply = server.request("MKCOL", "/c", None, {"X-OC-Mtime": "-86400"})
    assert (reply.status, reply.header("X-OC-Mtime")) == (201, "accepted")
    assert modified(store, "/c") == -86400


GOOD = [
    {"OC-Checksum": f"SHA1:{hashlib.sha1(DATA).hexdigest()}"},  # noqa: S324  # what clients send
    {"OC-Checksum": f"md5:{hashlib.md5(DATA).hexdigest().upper()}"},  # noqa: S324
    {"OC-Checksum": f"SHA256:{hashlib.sha256(DATA).hexdigest()} ADLER32:{zlib.adler32(DATA):08x}"},
    {"OC-Checksum": "CRC99:ffff"},
    {"Content-Digest": f"sha-256={base64('sha256', DATA)}"},
    {"Repr-Digest": f"unixsum=:AAA=:, sha-512={base64('sha512', DATA)}"},
]
BAD = [
    {"OC-Checksum": "SHA1:" + "0" * 40},
    {"OC-Checksum": "MD5:" + "0" * 32},
    {"OC-Checksum": "ADLER32:00000000"},
    {"OC-Checksum": f"SHA256:{hashlib.sha256(DATA).hexdigest()} MD5:{'0' * 32}"},
    {"OC-Checksum": "SHA1:abc"},
    {"OC-Checksum": "SHA1:xx"},
    {"Content-Digest": f"sha-256={base64('sha256', b'other')}"},
    {"Content-Digest": f"sha-256={base64('sha512', DATA)}"},
    {"Repr-Digest": f"sha-512={base64('sha512', b'other')}"},
    {"Repr-Digest": "sha-256"},
    {"Repr-Digest": "sha-256=:A:"},
    {"Content-Digest": f"sha-256={base64('sha256', DATA)}", "Repr-Digest": f"sha-256={base64('sha256', b'x')}"},
]


@pytest.mark.parametrize("headers", GOOD, ids=str)
def test_put__a_checksum_that_fits(server: LiveServer, store: Store, headers: dict[str, str]) -> None:
    assert server.request("PUT", "/a", DATA, headers).status == 201
    assert read(store, "/a") == DATA


@pytest.mark.parametrize("headers", BAD, ids=str)
def test_put__another_checksum_changes_nothing(server: LiveServer, store: Store, headers: dict[str, str]) -> None:
    put(store, "/a", b"old")
    for path in ("/a", "/new"):
        assert server.request("PUT", path, DATA, headers).status == 400
    assert tree(store) == {"/a": b"old"}


def test_put__checksums_of_long_and_of_chunked_bodies_count(server: LiveServer, store: Store) -> None:
    put(store, "/a", b"old")
    wrong = {"OC-Checksum": f"SHA1:{hashlib.sha1(DATA).hexdigest()}"}  # noqa: S324
    right = {"OC-Checksum": f"SHA1:{hashlib.sha1(LONG).hexdigest()}"}  # noqa: S324
    assert server.request("PUT", "/a", LONG, wrong).status == 400
    assert server.request("PUT", "/a", iter([LONG[:300_000], LONG[300_000:]]), wrong).status == 400
    assert read(store, "/a") == b"old"
    assert server.request("PUT", "/a", iter([LONG[:300_000], LONG[300_000:]]), right).status == 204
    assert read(store, "/a") == LONG


@pytest.mark.parametrize(
    ("wanted", "is_given"),
    [("sha-256=10", True), ("sha-512=3, sha-256=1", True), ("sha-256=0", False), ("sha-512=3", False), ("x", False)],
)
def test_get__tells_the_digest_to_those_who_want_it(
    server: LiveServer, store: Store, wanted: str, *, is_given: bool
) -> None:
    put(store, "/a", DATA)
    for method, more in (("GET", {}), ("HEAD", {}), ("GET", {"Range": "bytes=1-3"})):
        reply = server.request(method, "/a", None, {"Want-Repr-Digest": wanted, **more})
        assert reply.header("Repr-Digest") == (f"sha-256={base64('sha256', DATA)}" if is_given else None)
    assert server.request("GET", "/a").header("Repr-Digest") is None


def patch(server: LiveServer, path: str, *properties: str) -> Reply:
    return server.request("PROPPATCH", path, set_body(*properties))


def win32(value: str) -> str:
    return f'<Z:Win32LastModifiedTime xmlns:Z="urn:schemas-microsoft-com:">{value}</Z:Win32LastModifiedTime>'


@pytest.mark.parametrize("path", ["/a", "/c"])
def test_proppatch__sets_the_time_as_rclone_does(server: LiveServer, store: Store, path: str) -> None:
    put(store, "/a", DATA)
    mkcol(store, "/c")
    etag = store.node(at(path)).etag
    assert set(only_response(patch(server, path, f"<D:lastmodified>{TIME_S}</D:lastmodified>"))) == {200}
    assert (modified(store, path), store.node(at(path)).etag) == (TIME_S, etag)
    assert ask(server, path, "<lastmodified/><getlastmodified/>") == {
        200: {f"{DAV}lastmodified": str(TIME_S), f"{DAV}getlastmodified": DATE}
    }
    allprop = only_response(server.request("PROPFIND", path, None, {"Depth": "0"}))[200]
    assert f"{DAV}lastmodified" not in allprop


def test_proppatch__sets_the_time_as_windows_does(server: LiveServer, store: Store) -> None:
    put(store, "/a", DATA)
    assert set(only_response(patch(server, "/a", win32(DATE)))) == {200}
    assert modified(store, "/a") == TIME_S
    # What others write later counts: Windows would show the old time for ever.
    server.request("PUT", "/a", LONG, {"X-OC-Mtime": str(TIME_S + 3600)})
    allprop = only_response(server.request("PROPFIND", "/a", None, {"Depth": "0"}))[200]
    assert allprop[f"{MS}Win32LastModifiedTime"].text == "Tue, 14 Nov 2023 23:13:20 GMT"


@pytest.mark.parametrize("wrong", ["<D:lastmodified>soon</D:lastmodified>", win32("soon"), "<D:lastmodified/>"])
def test_proppatch__a_time_that_is_none_changes_nothing(server: LiveServer, store: Store, wrong: str) -> None:
    put(store, "/a", DATA)
    before = modified(store, "/a")
    said = only_response(patch(server, "/a", "<x/>", wrong))
    assert {status: len(named) for status, named in said.items()} == {409: 1, 424: 1}
    assert modified(store, "/a") == before


def test_proppatch__cannot_remove_the_time_nor_set_ids(server: LiveServer, store: Store) -> None:
    put(store, "/a", DATA)
    remove = proppatch_body("<D:remove><D:prop><D:lastmodified/></D:prop></D:remove>")
    assert set(only_response(server.request("PROPPATCH", "/a", remove))) == {403}
    assert set(only_response(patch(server, "/a", '<x:fileid xmlns:x="http://owncloud.org/ns">1</x:fileid>'))) == {403}


def test_propfind__what_owncloud_clients_ask_for(server: LiveServer, store: Store) -> None:
    node = put(store, "/a", DATA).node
    folder = mkcol(store, "/c")
    names = "<oc:fileid/>", "<oc:id/>", "<oc:permissions/>", "<oc:size/>"
    found = {f"{OC}fileid": str(node.inode), f"{OC}id": str(node.inode), f"{OC}permissions": "GDNVW", f"{OC}size": "12"}
    assert ask(server, "/a", *names) == {200: found}
    server.request("MOVE", "/a", None, {"Destination": "/b"})
    assert ask(server, "/b", *names) == {200: found}
    inode = str(folder.inode)
    found = {f"{OC}fileid": inode, f"{OC}id": inode, f"{OC}permissions": "GDNVCK", f"{OC}size": "0"}
    assert ask(server, "/c", *names) == {200: found}


SIZES = (
    '<propfind xmlns="DAV:" xmlns:oc="http://owncloud.org/ns"><prop><getcontentlength/><oc:size/>{}</prop></propfind>'
)


def told_sizes(reply: Reply) -> dict[str, tuple[str | None, str | None]]:
    """Of each href the length and the size, None where they are 404."""
    return {
        href: (found.get(200, {}).get(f"{DAV}getcontentlength"), found.get(200, {}).get(f"{OC}size"))
        for href, found in (
            (href, {status: {name: each.text for name, each in named.items()} for status, named in by_status.items()})
            for href, by_status in responses(reply).items()
        )
    }


@pytest.fixture
def folders(store: Store) -> None:
    """12 bytes in /c/d, 5 more in /c, none in /e."""
    for path in ("/c", "/c/d", "/e"):
        mkcol(store, path)
    put(store, "/c/d/a", DATA)
    put(store, "/c/b", b"12345")


@pytest.mark.usefixtures("folders")
def test_propfind__sizes_of_collections_are_those_of_their_trees(
    server: LiveServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = {"/": ("17", "17"), "/c/": ("17", "17"), "/e/": ("0", "0")}
    body = SIZES.format("").encode()
    assert told_sizes(server.request("PROPFIND", "/", body, {"Depth": "1"})) == expected
    assert told_sizes(server.request("PROPFIND", "/c", body, {"Depth": "0"})) == {"/c/": ("17", "17")}
    found = told_sizes(server.request("PROPFIND", "/c", body, {"Depth": "infinity"}))
    assert found == {"/c/": ("17", "17"), "/c/d/": ("12", "12"), "/c/b": ("5", "5"), "/c/d/a": ("12", "12")}
    sync = (
        SIZES.format("")
        .replace("propfind", "sync-collection")
        .replace("<prop>", "<sync-token/><sync-level>1</sync-level><prop>")
    )
    reply = server.request("REPORT", "/c", sync.encode())
    assert "<D:getcontentlength>12</D:getcontentlength>" in reply.text
    store.set_properties(at("/c"), [PropertyUpdate("urn:x", "colour", "<x:colour xmlns:x='urn:x'>red</x:colour>")])
    monkeypatch.setattr("davsql.dav.methods.propfind.PAGE_MEMBERS", 1)
    assert told_sizes(server.request("PROPFIND", "/", body, {"Depth": "1"})) == expected
    below = {"/c/": ("17", "17"), "/c/b": ("5", "5"), "/c/d/": ("12", "12")}
    assert told_sizes(server.request("PROPFIND", "/c", body, {"Depth": "1"})) == below
    with_dead = SIZES.format('<x:colour xmlns:x="urn:x"/>').encode()
    assert told_sizes(server.request("PROPFIND", "/", with_dead, {"Depth": "1"})) == expected


@pytest.mark.usefixtures("folders")
def test_propfind__sizes_of_collections_are_for_those_alone_who_ask(server: LiveServer) -> None:
    for name in ("getcontentlength", "getetag"):
        found = only_response(server.request("PROPFIND", "/c", propfind_body(name), {"Depth": "0"}))
        assert {status: set(named) for status, named in found.items()} == {404: {f"{DAV}{name}"}}
    for inside in ("<D:allprop/>", "<D:propname/>"):
        body = f'<D:propfind xmlns:D="DAV:">{inside}</D:propfind>'.encode()
        (said,) = only_response(server.request("PROPFIND", "/c", body, {"Depth": "0"})).values()
        assert {f"{DAV}getcontentlength", f"{OC}size"}.isdisjoint(said)


@pytest.mark.usefixtures("folders")
def test_propfind__sizes_of_collections_too_large_to_count_are_404(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing, body = (None, None), SIZES.format("").encode()
    for counted, depth, expected in (
        (5, "1", {"/": ("17", "17"), "/c/": ("17", "17"), "/e/": ("0", "0")}),  # /c has 4 nodes, /e 1
        (4, "1", {"/": nothing, "/c/": ("17", "17"), "/e/": nothing}),
        (3, "1", {"/": nothing, "/c/": nothing, "/e/": nothing}),
        (6, "0", {"/": ("17", "17")}),
        (5, "0", {"/": nothing}),
    ):
        monkeypatch.setattr("davsql.store.sizes.COUNTED_NODES", counted)
        assert told_sizes(server.request("PROPFIND", "/", body, {"Depth": depth})) == expected


def checksums(server: LiveServer, path: str) -> str | None:
    body = '<propfind xmlns="DAV:" xmlns:oc="http://owncloud.org/ns"><prop><oc:checksums/></prop></propfind>'
    found = only_response(server.request("PROPFIND", path, body.encode(), {"Depth": "0"}))
    return found[200][f"{OC}checksums"].findtext(f"{OC}checksum") if 200 in found else None


def all_of(data: bytes) -> str:
    names = ("sha1", "md5", "sha256")
    return " ".join(f"{name.upper()}:{hashlib.new(name, data).hexdigest()}" for name in names)


@pytest.mark.parametrize("data", [b"", DATA, LONG], ids=len)
def test_checksums__are_kept_for_those_who_compare_them(server: LiveServer, store: Store, data: bytes) -> None:
    assert server.request("PUT", "/plain", b"plain").status == 201
    assert checksums(server, "/plain") == f"SHA256:{hashlib.sha256(b'plain').hexdigest()}"
    assert server.request("PUT", "/a", data, {"X-OC-Mtime": str(TIME_S)}).status == 201
    assert checksums(server, "/a") == all_of(data)
    # They belong to the content: they go where it goes, and not where it has been.
    server.request("COPY", "/a", None, {"Destination": "/b"})
    server.request("PUT", "/a", b"other")
    assert checksums(server, "/b") == all_of(data)
    assert checksums(server, "/a") == f"SHA256:{hashlib.sha256(b'other').hexdigest()}"
    md5 = {"OC-Checksum": f"MD5:{hashlib.md5(b'other').hexdigest()}"}  # noqa: S324
    assert server.request("PUT", "/c", b"other", md5).status == 201
    assert checksums(server, "/a") == all_of(b"other")  # equal files share their content
    assert checksums(server, "/") is None


def test_checksums__are_kept_when_they_were_asked_for(server: LiveServer, store: Store) -> None:
    server.request("PUT", "/a", LONG)
    before = store.node(at("/a"))
    with (
        Store.open(store.file, replace(store.options, read_only=True)) as other,
        serving_shares({"/": other}) as reading,
    ):
        assert reading.request("PATCH", "/a", None, {"X-Recalculate-Hash": "md5"}).status == 204
    assert checksums(server, "/a") == f"SHA256:{hashlib.sha256(LONG).hexdigest()}"
    for _ in range(2):
        reply = server.request("PATCH", "/a", None, {"X-Recalculate-Hash": "adler32"})
        assert (reply.status, reply.header("OC-Checksum")) == (204, f"ADLER32:{zlib.adler32(LONG):08x}")
        assert checksums(server, "/a") == all_of(LONG)
    assert store.node(at("/a")) == before


def test_checksums__are_kept_for_those_alone_who_may_write_the_file(store: Store) -> None:
    put(store, "/a", DATA)
    ann, bob, site = user("ann"), user("bob"), one_share(store, rule("/", "ann", "rw"), rule("/", "bob", "r"))
    blob_id = store.node(at("/a")).blob_id
    for who, count in ((bob, 0), (ann, 1)):
        assert site.ask(who, "PATCH", "/a", headers={"X-Recalculate-Hash": "sha1"}).status == 204
        with store.snapshot() as view:
            assert len(view.checksums([blob_id])) == count


def test_checksums__of_other_content_are_not_kept(store: Store) -> None:
    put(store, "/a", DATA)
    node = store.node(at("/a"))
    store.keep_checksums(node._replace(digest=bytes(32)), Checksums(bytes(20), bytes(16)))
    with store.snapshot() as view:
        assert view.checksums([node.blob_id]) == {}


def test_checksums__of_what_came_in_parts(store: Store) -> None:
    upload, target = "/dav/uploads/me/1", {"Destination": "/dav/files/me/a"}
    sums = {"OC-Checksum": f"SHA1:{hashlib.sha1(LONG, usedforsecurity=False).hexdigest()}"}
    with serving_shares({"/": store}, dav=DavOptions(nextcloud_paths=True)) as server:
        for more, expected in (
            ({"X-OC-Mtime": str(TIME_S)}, f"SHA256:{hashlib.sha256(LONG).hexdigest()}"),  # not worth another reading
            (sums, all_of(LONG)),
        ):
            assert server.request("MKCOL", upload).status == 201
            for number, start in enumerate(range(0, len(LONG), 250_000)):
                assert server.request("PUT", f"{upload}/{number + 1}", LONG[start : start + 250_000]).status == 201
            assert server.request("MOVE", f"{upload}/.file", None, target | more).status in (201, 204)
            assert checksums(server, "/a") == expected
        whole = {"Content-Range": f"bytes 0-{len(DATA) - 1}/{len(DATA)}", "X-OC-Mtime": str(TIME_S)}
        assert server.request("PUT", "/a", DATA, whole).status == 204
        assert checksums(server, "/a") == all_of(DATA)


def test_checksums__go_with_the_content(server: LiveServer, store: Store) -> None:
    server.request("PUT", "/a", DATA, {"X-OC-Mtime": str(TIME_S)})
    server.request("DELETE", "/a")
    collect_garbage(store, grace_s=0, upload_expiry_s=0)
    with store.read() as tx:
        assert tx.value("SELECT count(*) FROM checksums") == 0

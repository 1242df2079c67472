from __future__ import annotations

import http.client
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from davsql.dav import provider
from davsql.dav.application import make_application
from davsql.dav.dates import NS_PER_S
from davsql.dav.request import DavOptions
from davsql.dav.resources import CollectionView, FileView
from davsql.dav.responses import Response
from davsql.errors import ConfigError, StoreDamaged
from davsql.paths import ROOT, DavPath
from davsql.store.download import Download
from davsql.store.store import Store
from tests.dav.answers import names, responses
from tests.live_server import LiveServer, serving_shares


@contextmanager
def serving_names(tmp_path: Path, *mounts: str) -> Iterator[LiveServer]:
    """A server with a new store at each of these mount paths."""
    with ExitStack() as stack:
        stores = {
            mount: stack.enter_context(Store.open(tmp_path / f"{number}.db", create=True))
            for number, mount in enumerate(mounts)
        }
        yield stack.enter_context(serving_shares(stores))


# --- paths --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/..", 400),
        ("/a/../b", 400),
        ("/%2e%2e/b", 400),
        ("/a/%2E%2e", 400),
        ("/./a", 400),
        ("//..", 400),
        ("/a%2Fb", 400),
        ("/..%2f..%2fetc", 400),
        ("/a%00b", 400),
        ("/a%0Db", 400),
        ("/a%0Ab", 400),
        ("/a%7Fb", 400),
        ("/a%C2%85b", 400),
        ("/%FF", 400),
        ("/%C0%AE%C0%AE/", 400),
        ("/%ED%A0%80", 400),
        ("/%zz", 400),
        ("/a%", 400),
        ("/" + "n" * 256, 403),
        ("/" + "%E2%82%AC" * 86, 403),
        ("/" + "n/" * 2500, 414),
    ],
)
@pytest.mark.parametrize("method", ["PUT", "MKCOL"])
def test_application__impossible_paths_are_refused(server: LiveServer, method: str, target: str, status: int) -> None:
    assert server.request(method, target).status == status
    assert "<td><a href" not in server.request("GET", "/").text


@pytest.mark.parametrize("target", ["/%252e%252e", "/..%5c..", "/...", "/%5C", "/a;b=1", "/~a", "/a%26b", "/con"])
def test_application__odd_names_are_names(server: LiveServer, target: str) -> None:
    assert server.request("PUT", target, b"x").status == 201
    assert server.request("GET", target).body == b"x"


def test_application__takes_absolute_form(server: LiveServer) -> None:
    assert server.request("PUT", f"{server.url}/a%20b", b"x").status == 201
    assert server.request("GET", "/a%20b").body == b"x"
    # RFC 9112 3.2.2: its host counts, not that of the header
    moved = server.request("MOVE", "http://[::1]:9/a%20b", headers={"Host": "x", "Destination": "http://[::1]:9/c"})
    assert moved.status == 201


def test_application__errors_of_paths_look_like_all_errors(server: LiveServer) -> None:
    with server.client() as client:
        for method in ("GET", "HEAD", "PUT", "PROPFIND", "REPORT", "OPTIONS"):
            reply = client.request(method, "/a%00")
            assert reply.status == 400
            assert reply.header("Content-Type") == "text/plain; charset=utf-8"
            assert reply.header("Connection") is None
            assert bool(reply.body) is (method != "HEAD")


def test_application__paths_are_at_most_so_deep(server: LiveServer, store: Store) -> None:
    with server.client() as client:
        path = ""
        for _ in range(store.options.max_depth):
            path += "/n"
            assert client.request("MKCOL", path).status == 201
        assert client.request("MKCOL", path + "/n").status == 403
        assert client.request("PUT", path + "/n", b"x").status == 403
        assert client.request("COPY", "/n", headers={"Destination": "/n/n/m"}).status == 403
        assert client.request("GET", path).status == 200


# --- methods ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "TRACE", "SEARCH", "ACL", "MKCALENDAR", "BIND"])
@pytest.mark.parametrize("target", ["/", "/a", "/no"])
def test_application__methods_it_has_not_are_405_with_allow(server: LiveServer, method: str, target: str) -> None:
    server.request("PUT", "/a", b"x")
    reply = server.request(method, target)
    assert reply.status == 405
    assert reply.header("Allow") == server.request("OPTIONS", target).header("Allow")
    assert server.request("GET", "/a").body == b"x"


def test_application__204_has_no_content_length(server: LiveServer) -> None:
    server.request("PUT", "/a", b"x")
    with server.client() as client:
        for method, body in (("PUT", b"y"), ("DELETE", None)):
            reply = client.request(method, "/a", body)
            assert (reply.status, reply.header("Content-Length"), reply.header("Connection")) == (204, None, None)


# --- errors of our own --------------------------------------------------------------------------------------------


def test_application__an_error_of_its_own_is_500_without_internals_and_logged_once(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(request: object) -> Any:
        raise ZeroDivisionError("secret")

    monkeypatch.setitem(provider.METHODS, "PROPPATCH", broken)
    reply = server.request("PROPPATCH", "/")
    assert (reply.status, reply.header("Content-Type")) == (500, "text/plain; charset=utf-8")
    assert b"secret" not in reply.body
    assert b"Zero" not in reply.body
    assert [record.levelno for record in caplog.records if record.levelno >= logging.ERROR] == [logging.ERROR]
    assert "secret" in caplog.text


def test_application__damage_before_the_first_byte_is_500(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def damaged(self: Download, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        yield from ()
        raise StoreDamaged("chunk 7")

    for path, size in (("/small", 10), ("/large", 2**20)):
        server.request("PUT", path, b"x" * size)
    monkeypatch.setattr(Download, "chunks", damaged)
    for path in ("/small", "/large"):
        reply = server.request("GET", path)
        assert reply.status == 500
        assert b"chunk 7" not in reply.body
    assert "chunk 7" in caplog.text


def test_application__damage_in_the_middle_cuts_the_answer(
    server: LiveServer, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = Download.chunks

    def damaged(self: Download, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        yield next(iter(whole(self, start, stop)))
        raise StoreDamaged("chunk 7")

    server.request("PUT", "/large", b"x" * 2**20)
    monkeypatch.setattr(Download, "chunks", damaged)
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        server.request("GET", "/large")
    monkeypatch.undo()
    assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == 1
    assert "chunk 7" in caplog.text
    assert server.request("GET", "/large").body == b"x" * 2**20


# --- pages of other sites -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "https://127.0.0.1"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_application__a_foreign_page_changes_nothing(server: LiveServer, headers: dict[str, str]) -> None:
    server.request("PUT", "/a", b"x")
    for method in ("PUT", "DELETE", "MKCOL", "MOVE", "POST"):
        assert server.request(method, "/a", headers={"Destination": "/b", **headers}).status == 403
    assert server.request("GET", "/a", headers=headers).body == b"x"


def test_application__its_own_page_and_applications_may(server: LiveServer) -> None:
    for number, headers in enumerate(
        (
            {"Origin": server.url},
            {"Origin": "app://notes"},
            {"Sec-Fetch-Site": "same-origin"},
            {"Sec-Fetch-Site": "none"},
        )
    ):
        assert server.request("PUT", f"/{number}", b"x", headers).status == 201


# --- several shares -----------------------------------------------------------------------------------------------


def test_shares__are_found_by_their_whole_exact_name(tmp_path: Path) -> None:
    with serving_names(tmp_path, "/Data", "/data", "/data_evil", "/caf\u00e9 x") as server:
        for mount in ("/Data", "/data", "/data_evil", "/caf%C3%A9%20x"):
            assert server.request("PUT", f"{mount}/a", mount.encode()).status == 201
        for mount in ("/Data", "/data", "/data_evil", "/caf%C3%A9%20x", "/cafe%CC%81%20x"):
            expected = mount.replace("e%CC%81", "%C3%A9")
            assert server.request("GET", f"{mount}/a").body == expected.encode()
        for missing in ("/DATA/a", "/data_/a", "/dat/a", "/data_evilx/a"):
            assert server.request("GET", missing).status == 404
            assert server.request("PUT", missing, b"x").status == 403


def test_shares__are_mounts_in_every_url(tmp_path: Path) -> None:
    with serving_names(tmp_path, "/one x", "/two") as server:
        server.request("MKCOL", "/one%20x/c")
        assert server.request("MOVE", "/one%20x/c", headers={"Destination": "/two/c"}).status == 502
        assert server.request("MOVE", "/one%20x/c", headers={"Destination": "/c"}).status == 502
        moved = server.request("MOVE", "/one%20x/c", headers={"Destination": f"{server.url}/one%20x/d%20d/"})
        assert (moved.status, moved.header("Location")) == (201, "/one%20x/d%20d/")
        assert 'href="/one%20x/d%20d/"' in server.request("GET", "/one%20x").text
        assert set(responses(server.request("PROPFIND", "/one%20x", headers={"Depth": "1"}))) == {
            "/one%20x/",
            "/one%20x/d%20d/",
        }
        assert server.request("DELETE", "/one%20x").status == 403


def test_shares__the_root_lists_them_and_refuses_changes(tmp_path: Path) -> None:
    with serving_names(tmp_path, "/b & c", "/a") as server:
        page = server.request("GET", "/")
        assert (page.status, server.request("HEAD", "/").header("Content-Length")) == (200, str(len(page.body)))
        assert page.text.index('<a href="/a/">a/</a>') < page.text.index('<a href="/b%20%26%20c/">b &amp; c/</a>')
        listed = responses(server.request("PROPFIND", "/", headers={"Depth": "1"}))
        assert list(listed) == ["/", "/a/", "/b%20%26%20c/"]
        assert listed["/b%20%26%20c/"][200]["{DAV:}displayname"].text == "b & c"
        assert {"resourcetype", "getlastmodified"} <= names(listed["/"][200])
        assert list(responses(server.request("PROPFIND", "/", headers={"Depth": "0"}))) == ["/"]
        assert server.request("PROPFIND", "/").status == 403
        assert server.request("PROPFIND", "/", b"<!DOCTYPE x><x/>", {"Depth": "1"}).status == 400
        assert server.request("OPTIONS", "/").header("Allow") == "OPTIONS, GET, HEAD, PROPFIND"
        assert server.request("REPORT", "/").status == 405
        for method in ("PUT", "MKCOL", "DELETE", "LOCK", "PROPPATCH", "COPY", "MOVE"):
            assert server.request(method, "/", headers={"Destination": "/a/x"}).status == 403
        for method, status in {"MKCOL": 403, "PUT": 403, "DELETE": 404, "PROPFIND": 404, "OPTIONS": 200}.items():
            assert server.request(method, "/new").status == status


def test_make_application__refuses_mounts_that_cannot_be(tmp_path: Path) -> None:
    with Store.open(tmp_path / "a.db", create=True) as store:
        for shares in (
            {},
            {"name": store},
            {"/a/b": store},
            {"/": store, "/a": store},
            {"/caf\u00e9": store, "/cafe\u0301": store},
        ):
            with pytest.raises(ConfigError):
                make_application(shares, DavOptions())


# --- WsgiDAV's side -----------------------------------------------------------------------------------------------


def test_provider__shows_wsgidav_what_there_is(store: Store) -> None:
    application: Any = make_application({"/": store}, DavOptions())
    store.make_collection(DavPath(("c",)))
    with store.upload() as upload:
        upload.write(b"12345")
        node = upload.commit(DavPath(("c", "a.txt"))).node
    ours = application.provider_map["/"]
    environ: dict[str, Any] = {"wsgidav.provider": ours}
    collection = ours.get_resource_inst("/c/", environ)
    assert isinstance(collection, CollectionView)
    assert collection.get_member_names() == ["a.txt"]
    file = collection.get_member("a.txt")
    assert isinstance(file, FileView)
    assert (file.get_display_name(), file.get_content_length(), file.get_content_type()) == ("a.txt", 5, "text/plain")
    assert file.get_etag() == (node.etag or "").strip('"')
    assert file.get_last_modified() == node.modified_at / NS_PER_S
    assert ours.get_resource_inst("/no", environ) is None
    assert ours.get_resource_inst("/../x", environ) is None
    assert not ours.is_readonly()
    assert not ours.lock_manager.is_url_locked("/c/a.txt")
    assert application.resolve_provider("/c")[0] == "/"
    assert ours.get_resource_inst("/", environ).path == str(ROOT)


# --- without a server: what it would repair -----------------------------------------------------------------------


class Call:
    """A request to an application without a server around it."""

    def __init__(self, store: Store, method: str, target: str, **environ: str) -> None:
        self.status = ""
        self.headers: dict[str, str] = {}
        base = {
            "REQUEST_METHOD": method,
            "REQUEST_URI": target,
            "PATH_INFO": "/",
            "SCRIPT_NAME": "",
            "HTTP_HOST": "localhost",
            "wsgi.url_scheme": "http",
        }
        self.body: Any = make_application({"/": store}, DavOptions())({**base, **environ}, self._start_response)

    def _start_response(self, status: str, headers: list[tuple[str, str]], _exc_info: object = None, /) -> Any:
        assert not self.status, "start_response is called once"
        self.status, self.headers = status, dict(headers)

    def run(self) -> bytes:
        return b"".join(self.body)


def test_application__a_204_is_sent_without_content_length_and_without_closing(store: Store) -> None:
    store.make_collection(DavPath(("c",)))
    call = Call(store, "DELETE", "/c")
    assert call.run() == b""
    assert (call.status, call.headers) == ("204 No Content", {})


def test_application__a_stream_without_length_is_left_to_the_server(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(provider.METHODS, "PROPFIND", lambda _: Response(207, [], iter([b"a", b"b"])))
    call = Call(store, "PROPFIND", "/")
    assert call.run() == b"ab"
    assert call.headers == {}


def test_application__the_host_of_absolute_form_is_the_one_that_counts(store: Store) -> None:
    store.make_collection(DavPath(("c",)))
    call = Call(store, "MOVE", "http://127.0.0.2/c", HTTP_DESTINATION="http://127.0.0.2/d")
    call.run()
    assert call.status == "201 Created"

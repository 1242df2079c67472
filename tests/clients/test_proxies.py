"""The recipes of config/ for proxies: TLS in front, davsql behind, and nothing is lost between them."""

from __future__ import annotations

import http.client
import os
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from davsql.dav.application import make_application
from davsql.dav.peer import ProxyOptions
from davsql.dav.request import DavOptions
from davsql.store.store import Store
from tests.accounts.account_steps import PASSWORD, basic, gate_of, new_accounts
from tests.clients.programs import find_program
from tests.clients.proxies import RECIPES, proxy, trusting
from tests.live_server import serving
from tests.store_steps import read

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the recipes are for Unix")

HALF = b"x" * 1024 * 1024
ANN = basic("ann", PASSWORD)


@dataclass
class Behind:
    """davsql behind a proxy, as the proxy's clients see it and as davsql sees them."""

    application: Any
    folder: Path
    base: str  # what the proxy hands on to davsql begins with it
    port: int = 0
    environ: dict[str, Any] = field(default_factory=dict)
    has_body: threading.Event = field(default_factory=threading.Event)
    is_answered: threading.Event = field(default_factory=threading.Event)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.environ = environ
        body, has_body = environ["wsgi.input"], self.has_body

        class Watched:
            def read(self, size: int = -1) -> bytes:
                data: bytes = body.read(size)
                has_body.set()
                return data

        environ["wsgi.input"] = Watched()
        self.is_answered.clear()
        answer: Iterable[bytes] = self.application(environ, start_response)
        self.is_answered.set()
        return answer

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> http.client.HTTPResponse:
        with closing(self.connect()) as client:
            client.request(method, path, body, ANN if headers is None else ANN | headers)
            answer = client.getresponse()
            answer.read()
            return answer

    def connect(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection("localhost", self.port, timeout=20, context=trusting(self.folder))


@pytest.fixture(params=RECIPES)
def behind(request: pytest.FixtureRequest, store: Store, tmp_path: Path) -> Iterator[Behind]:
    folder, recipe = tmp_path / "proxy", str(request.param)
    folder.mkdir()
    base = "/files" if "-path" in recipe else ""
    public = f"https://drive.example.com{base}" if base else None
    trusted = ProxyOptions(trusted_proxies=("127.0.0.1", "::1"), public_url=public)
    with closing(new_accounts(tmp_path)) as accounts:
        gate = gate_of(accounts)
        application = make_application({"/drive": store}, DavOptions(), gate=gate, proxy=trusted)
        behind = Behind(application, folder, base)
        with serving(behind) as server, proxy(recipe, folder, server.address) as behind.port:
            yield behind


def test_proxy__leaves_everything_as_it_is(behind: Behind, folder: Path) -> None:
    origin, drive = f"https://localhost:{behind.port}", f"{behind.base}/drive"
    with closing(behind.connect()) as client:
        client.request("GET", f"{drive}/")
        assert client.getresponse().status == 401
    odd = f"{drive}/%C3%A9%20%25%23%3F%3B%26+.txt"
    made_up = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "gopher", "X-Request-ID": "made-up"}
    put = behind.request("PUT", odd, b"content", made_up)
    assert put.status == 201
    assert behind.environ["wsgi.url_scheme"] == "https"
    assert behind.environ["HTTP_HOST"] == origin.removeprefix("https://")
    assert behind.environ["HTTP_X_FORWARDED_FOR"].endswith(("127.0.0.1", "::1"))
    assert behind.environ["HTTP_X_REQUEST_ID"] == put.headers["X-Request-ID"] != "made-up"
    assert behind.request("MOVE", odd, None, {"Destination": f"{origin}{drive}/b.txt"}).status == 201
    assert behind.request("COPY", f"{drive}/b.txt", None, {"Destination": f"{origin}{odd}"}).status == 201
    assert behind.request("MOVE", odd, None, {"Destination": f"https://other{drive}/b.txt"}).status == 502
    assert behind.request("GET", f"{drive}/a%2Fb").status == 400
    curl = find_program("curl", folder)
    login = ["-sSf", "--cacert", str(behind.folder / "drive.pem"), "-u", f"ann:{PASSWORD}"]
    assert curl.succeed(*login, f"{origin}{odd}").out == "content"


@pytest.mark.parametrize("behind", [each for each in RECIPES if "-path" in each], indirect=True)
def test_proxy__of_a_path_leaves_the_rest_of_the_site_alone(behind: Behind) -> None:
    assert behind.request("MKCOL", f"{behind.base}/drive/new").status == 201
    with closing(behind.connect()) as client:
        client.request("PROPFIND", behind.base, headers=ANN | {"Depth": "1"})  # without a slash, and not redirected
        listed = client.getresponse()
        assert listed.status == 207
        assert f"<D:href>{behind.base}/drive/</D:href>".encode() in listed.read()
    behind.environ = {}
    for path in ("/", "/filesystem", "/drive/"):
        behind.request("PROPFIND", path)
    assert behind.environ == {}


def begun_upload(behind: Behind, *, is_chunked: bool) -> http.client.HTTPSConnection:
    """A PUT of /drive/large of which half was sent, and has reached davsql."""
    client = behind.connect()
    client.putrequest("PUT", f"{behind.base}/drive/large")
    framing = {"Transfer-Encoding": "chunked"} if is_chunked else {"Content-Length": str(2 * len(HALF))}
    for name, value in (ANN | framing).items():
        client.putheader(name, value)
    behind.has_body.clear()
    client.endheaders(half(is_chunked=is_chunked))
    assert behind.has_body.wait(20), "the proxy waits for the end"
    return client


def half(*, is_chunked: bool) -> bytes:
    return b"%x\r\n%b\r\n" % (len(HALF), HALF) if is_chunked else HALF


framed = pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])


@framed
def test_proxy__hands_a_body_on_as_it_comes(behind: Behind, store: Store, is_chunked: bool) -> None:
    with closing(begun_upload(behind, is_chunked=is_chunked)) as client:
        client.send(half(is_chunked=is_chunked) + (b"0\r\n\r\n" if is_chunked else b""))
        assert client.getresponse().status == 201
    assert read(store, "/large") == HALF + HALF


@framed
def test_proxy__of_a_client_that_goes_away_leaves_no_part_of_a_file(behind: Behind, is_chunked: bool) -> None:
    behind.request("PUT", f"{behind.base}/drive/large", b"old")
    client = begun_upload(behind, is_chunked=is_chunked)
    client.sock.shutdown(socket.SHUT_RDWR)
    client.close()
    assert behind.is_answered.wait(20)
    with closing(behind.connect()) as reader:
        reader.request("GET", f"{behind.base}/drive/large", None, ANN)
        assert reader.getresponse().read() == b"old"

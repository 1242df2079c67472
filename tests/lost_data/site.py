"""A server to put to the test, ours or the stock one, and the words in which scenarios speak of it."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, Protocol, Self

from cheroot.wsgi import Server as StockServer
from lxml import etree
from wsgidav.fs_dav_provider import FilesystemProvider
from wsgidav.wsgidav_app import WsgiDAVApp

from davsql.dav.application import make_application
from davsql.dav.request import DavOptions
from davsql.server.http import HttpServer
from davsql.server.options import ServerOptions
from davsql.store.store import Store
from tests import http_client
from tests.dav.answers import DAV
from tests.http_client import Body, Headers, Reply
from tests.live_server import serving_processes

TIMEOUT_S = 10.0  # an answer that takes longer does not come
SHUTDOWN_S = 0.3  # what running requests get when the server stops
STOP_TIMEOUT_S = 20.0
BROKEN = (OSError, HTTPException)  # what a client sees of an answer that is cut short or never comes


class SetupError(Exception):
    """What a scenario needs first did not work: it proves nothing."""


class Server(Protocol):
    """What both servers can do."""

    bind_addr: Any

    def prepare(self) -> None: ...
    def serve(self) -> None: ...
    def stop(self) -> None: ...


def expect(what: str, seen: object, wanted: object) -> None:
    """AssertionError, in words that a control can look for, unless both are equal."""
    if seen != wanted:
        raise AssertionError(f"{what}: {seen!r} instead of {wanted!r}")


def expect_that(what: str, holds: bool) -> None:
    """AssertionError unless something holds."""
    if not holds:
        raise AssertionError(f"not so: {what}")


def expect_one_of(what: str, seen: object, *wanted: object) -> None:
    """As `expect`, where several answers are right."""
    if seen not in wanted:
        raise AssertionError(f"{what}: {seen!r} instead of one of {wanted!r}")


class Site:
    """A running server over a tree of its own."""

    def __init__(self, make_server: Callable[[], Server]) -> None:
        self._make_server = make_server
        self._start()

    def _start(self) -> None:
        self._server = self._make_server()
        self._server.prepare()
        host, port = self._server.bind_addr[:2]
        self.address: tuple[str, int] = (str(host), int(port))
        self._thread = Thread(target=self._server.serve, name="site", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop as an operator does it: requests that run are cut after a while."""
        self._server.stop()
        self._thread.join(STOP_TIMEOUT_S)
        if self._thread.is_alive():
            raise SetupError("the server did not stop")

    def restart(self) -> None:
        """Stop, and start again over the same tree; the address is another one."""
        self.stop()
        self._start()

    # --- asking --------------------------------------------------------------------------------------------------

    def request(self, method: str, target: str, body: Body = None, headers: Headers = ()) -> Reply:
        """One request on a connection of its own."""
        with http_client.Client(self.address, timeout_s=TIMEOUT_S) as client:
            return client.request(method, target, body, headers)

    def status(self, method: str, target: str, body: Body = None, headers: Headers = ()) -> int:
        """The status of the answer to one request."""
        return self.request(method, target, body, headers).status

    def content(self, target: str) -> bytes | int:
        """What GET gives: the content, or the status when there is none."""
        reply = self.request("GET", target)
        return reply.body if reply.status == 200 else reply.status

    def members(self, target: str) -> set[str]:
        """The paths of all that is below a collection, as hrefs."""
        reply = self.request("PROPFIND", target, headers={"Depth": "infinity"})
        expect(f"PROPFIND {target}", reply.status, 207)
        return {str(href.text) for href in reply.xml.iterfind(f"{DAV}response/{DAV}href")} - {target}

    # --- preparing -----------------------------------------------------------------------------------------------

    def prepared(self, method: str, target: str, body: Body = None, headers: Headers = ()) -> Reply:
        """A request that must succeed before a scenario can begin."""
        reply = self.request(method, target, body, headers)
        if not 200 <= reply.status < 300:
            raise SetupError(f"{method} {target}: {reply.status} {reply.body[:200]!r}")
        return reply

    def put(self, target: str, content: bytes) -> str:
        """Make a file; its entity tag."""
        self.prepared("PUT", target, content)
        return self.etag(target)

    def etag(self, target: str) -> str:
        """The entity tag as the header has it."""
        reply = self.prepared("HEAD", target)
        etag = reply.header("ETag")
        if etag is None:
            raise SetupError(f"HEAD {target}: no ETag")
        return etag

    def mkcol(self, *targets: str) -> None:
        """Make collections."""
        for target in targets:
            self.prepared("MKCOL", target)

    def lock(self, target: str, *, depth: str = "infinity", headers: Headers = ()) -> str:
        """Take an exclusive lock; its token."""
        pairs = dict(headers, Depth=depth, Timeout="Second-600")
        reply = self.prepared("LOCK", target, LOCKINFO, pairs)
        token = reply.header("Lock-Token")
        if token is None:
            raise SetupError(f"LOCK {target}: no Lock-Token")
        return token.strip("<>")

    def begun_put(self, target: str, length: int, *fields: str) -> Unfinished:
        """A PUT of so many bytes whose head is sent, and nothing of its body."""
        return Unfinished(self.address, target, f"Content-Length: {length}", *fields)

    def begun_chunked_put(self, target: str, *fields: str) -> Unfinished:
        """A PUT in chunks whose head is sent, and nothing of its body."""
        return Unfinished(self.address, target, "Transfer-Encoding: chunked", *fields)


LOCKINFO = (
    b'<?xml version="1.0" encoding="utf-8"?><D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope>'
    b"<D:locktype><D:write/></D:locktype><D:owner>me</D:owner></D:lockinfo>"
)


class Unfinished:
    """A PUT that is under way, on a connection of its own; use it in a `with` statement."""

    def __init__(self, address: tuple[str, int], target: str, *fields: str) -> None:
        self._socket = socket.create_connection(address, timeout=TIMEOUT_S)
        lines = (f"PUT {target} HTTP/1.1", f"Host: {address[0]}:{address[1]}", *fields, "Connection: close", "", "")
        self.send("\r\n".join(lines).encode("latin-1"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def send_chunk(self, data: bytes) -> None:
        self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self) -> None:
        """End our side of the connection (FIN)."""
        self._socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Break the connection (RST)."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def status(self) -> int | None:
        """The status of the answer; None when the connection ends without one."""
        received = bytearray()
        try:
            while block := self._socket.recv(65536):
                received += block
        except ConnectionResetError:
            pass  # what came before is the answer
        if not received:
            return None
        final = bytes(received).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
        return int(final.split(b" ", 2)[1])


# --- the two servers ----------------------------------------------------------------------------------------------


@contextmanager
def our_site(file: Path) -> Iterator[Site]:
    """davsql over a new store."""
    options = ServerOptions(shutdown_timeout_s=SHUTDOWN_S)
    with Store.open(file, create=True) as store:
        application = make_application({"/": store}, DavOptions())
        site = Site(lambda: HttpServer(("127.0.0.1", 0), application, options))
        try:
            yield site
        finally:
            site.stop()


class _Processes:
    """`davsql serve` with workers, as a site wants a server."""

    def __init__(self, file: Path) -> None:
        self._running = serving_processes(file, 4)

    def prepare(self) -> None:
        self._served = self._running.__enter__()
        self.bind_addr = self._served.address

    def serve(self) -> None:
        self._served.supervisor.wait()

    def stop(self) -> None:
        self._running.__exit__(None, None, None)


@contextmanager
def site_of_workers(file: Path) -> Iterator[Site]:
    """davsql over a new store, in several processes."""
    site = Site(lambda: _Processes(file))
    try:
        yield site
    finally:
        site.stop()


@contextmanager
def stock_site(folder: Path) -> Iterator[Site]:
    """WsgiDAV as it comes, over a folder, on cheroot as it comes."""

    def make_server() -> Server:
        application = WsgiDAVApp(
            {
                "provider_mapping": {"/": FilesystemProvider(str(folder))},
                "simple_dc": {"user_mapping": {"*": True}},
                "http_authenticator": {"accept_digest": False, "default_to_digest": False},
                "property_manager": True,
                "lock_storage": True,
                "verbose": 0,
                "logging": {"enable": False},
            }
        )
        server = StockServer(("127.0.0.1", 0), application, timeout=5, shutdown_timeout=1)
        server.error_log = _say_nothing  # type: ignore[method-assign]  # its own way is to print tracebacks
        server.expiration_interval = 0.1  # only how soon it sees that it is to stop
        return server

    site = Site(make_server)
    try:
        yield site
    finally:
        site.stop()


def _say_nothing(*_arguments: object, **_more: object) -> None:
    """Stands in for cheroot's log."""


# --- what scenarios look for in XML ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Property:
    """A property in a 207, with the status of its propstat."""

    status: int
    element: etree._Element


def properties(reply: Reply, method: str = "PROPFIND") -> dict[str, dict[str, Property]]:
    """href -> property in Clark notation -> what is said of it."""
    expect(method, reply.status, 207)
    found: dict[str, dict[str, Property]] = {}
    for response in reply.xml.iterfind(f"{DAV}response"):
        of_href = found.setdefault(str(response.findtext(f"{DAV}href")), {})
        for propstat in response.iterfind(f"{DAV}propstat"):
            status = int(str(propstat.findtext(f"{DAV}status")).split()[1])
            for element in propstat.iterfind(f"{DAV}prop/*"):
                of_href[str(element.tag)] = Property(status, element)
    return found

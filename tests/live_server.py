"""A real server on a free port, in a thread of the test's process."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from wsgiref.types import WSGIApplication

from davsql.dav.application import make_application
from davsql.dav.request import DavOptions
from davsql.server.http import HttpServer
from davsql.server.options import ServerOptions
from davsql.store.store import Store
from tests import http_client

STOP_TIMEOUT_S = 30


@dataclass(frozen=True, slots=True)
class LiveServer:
    """Where a running server is and how to talk to it."""

    http: HttpServer
    address: tuple[str, int]

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`, without a slash at the end."""
        host, port = self.address
        return f"http://{host}:{port}"

    def client(self, *, timeout_s: float = http_client.TIMEOUT_S) -> http_client.Client:
        """A keep-alive connection; use it in a `with` statement."""
        return http_client.Client(self.address, timeout_s=timeout_s)

    def request(
        self, method: str, target: str, body: http_client.Body = None, headers: http_client.Headers = ()
    ) -> http_client.Reply:
        """One request on a connection of its own."""
        return http_client.request(self.address, method, target, body, headers)

    def exchange(self, *parts: bytes, half_close: bool = False) -> bytes:
        """Raw bytes out, raw bytes back; see `http_client.exchange`."""
        return http_client.exchange(self.address, *parts, half_close=half_close)


@contextmanager
def serving(application: WSGIApplication, options: ServerOptions | None = None) -> Iterator[LiveServer]:
    """Run `application` under the real server until the block ends."""
    http = HttpServer(("127.0.0.1", 0), application, options or ServerOptions())
    http.expiration_interval = 0.01  # how soon it notices that it is to stop
    http.prepare()
    thread = threading.Thread(target=http.serve, name="live-server", daemon=True)
    thread.start()
    try:
        host, port = http.bind_addr[:2]
        yield LiveServer(http, (str(host), int(port)))
    finally:
        http.stop()
        thread.join(STOP_TIMEOUT_S)
    assert not thread.is_alive(), "the server did not stop"


@contextmanager
def serving_shares(
    shares: Mapping[str, Store], *, dav: DavOptions | None = None, options: ServerOptions | None = None
) -> Iterator[LiveServer]:
    """Serve stores by their mount paths ("/" or "/name") until the block ends."""
    with serving(make_application(shares, dav or DavOptions()), options) as server:
        yield server

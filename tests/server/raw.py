"""A server around a small application that keeps record, and sockets that say exactly what a test wants."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from davsql.errors import DavsqlError
from davsql.server.http import HttpServer
from davsql.server.options import ServerOptions
from davsql.server.tls import Tls

TIMEOUT_S = 10.0
QUICK = ServerOptions(
    threads=4,
    timeout_s=5.0,
    header_timeout_s=0.5,
    stall_timeout_s=0.3,
    shutdown_timeout_s=0.1,
    drain_timeout_s=0.3,
)

Environ = dict[str, Any]
Answer = Callable[[Environ, Any], Any]


@dataclass
class Recorder:
    """The application: GET says "hello", PUT reads its body and says how long it is, /unread is a 401 at once."""

    requests: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)  # those that came to their declared end
    errors: list[DavsqlError] = field(default_factory=list)
    environ: Environ = field(default_factory=dict)
    reading: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))  # released when a read starts

    def clear(self) -> None:
        for record in (self.requests, self.bodies, self.errors):
            record.clear()
        while self.reading.acquire(blocking=False):
            pass

    def __call__(self, environ: Environ, start_response: Any) -> list[bytes]:
        self.requests.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
        self.environ = environ
        if environ["PATH_INFO"].startswith("/unread"):
            return answer(start_response, "401 Unauthorized", b"who are you?")
        if environ["REQUEST_METHOD"] == "PUT":
            return answer(start_response, "201 Created", b"%d" % len(self.read(environ)))
        return answer(start_response, "200 OK", b"hello")

    def read(self, environ: Environ) -> bytes:
        body = bytearray()
        self.reading.release()
        try:
            while data := environ["wsgi.input"].read(1000):
                assert len(data) <= 1000
                body += data
        except DavsqlError as error:
            self.errors.append(error)
            raise
        self.bodies.append(bytes(body))
        return bytes(body)


def answer(start_response: Any, status: str, body: bytes) -> list[bytes]:
    """A short text with its length."""
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


@dataclass(frozen=True)
class Served:
    """A running server."""

    http: HttpServer
    thread: threading.Thread

    def connect(self) -> socket.socket:
        return socket.create_connection(self.http.bind_addr[:2], timeout=TIMEOUT_S)

    def exchange(self, *parts: bytes, half_close: bool = False) -> bytes:
        """Send, then read until the server closes."""
        with self.connect() as client:
            for part in parts:
                client.sendall(part)
            if half_close:
                client.shutdown(socket.SHUT_WR)
            return read_to_end(client)


@contextmanager
def served(application: Answer, options: ServerOptions = QUICK, tls: Tls | None = None) -> Iterator[Served]:
    """Run `application` under the real server on a free port."""
    http = HttpServer(("127.0.0.1", 0), application, options, tls=tls)
    http.prepare()
    thread = threading.Thread(target=http.serve, name="served", daemon=True)
    thread.start()
    try:
        yield Served(http, thread)
    finally:
        http.stop()
        thread.join(TIMEOUT_S)
    assert not thread.is_alive(), "the server did not stop"
    assert not http.connections_open


def read_to_end(client: socket.socket) -> bytes:
    """All that comes until FIN; ConnectionResetError when it ends by RST."""
    received = bytearray()
    while block := client.recv(65536):
        received += block
    return bytes(received)


def read_until(client: socket.socket, end: bytes) -> bytes:
    """What comes up to and with `end`."""
    received = bytearray()
    while not received.endswith(end):
        block = client.recv(1)
        assert block, f"the connection ended after {bytes(received)!r}"
        received += block
    return bytes(received)


def reset(client: socket.socket) -> None:
    """Close with RST."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def request(line: str, *fields: str, body: bytes = b"") -> bytes:
    """A request with Host; the other fields as given."""
    return "".join(f"{part}\r\n" for part in (f"{line} HTTP/1.1", "Host: test", *fields, "")).encode("latin-1") + body


def status_of(reply: bytes) -> int:
    """The status of the first answer."""
    assert reply.startswith(b"HTTP/1.1 "), reply[:200]
    return int(reply[9:12])


def eventually(condition: Callable[[], object]) -> None:
    """Wait until `condition` holds."""
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)

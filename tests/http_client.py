"""A small HTTP client for tests: it sends exactly what it is told and hides nothing of the answer."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.message import Message
from types import TracebackType
from typing import Self

from lxml import etree

TIMEOUT_S = 30.0

Headers = Mapping[str, str] | Iterable[tuple[str, str]]
Body = bytes | Iterable[bytes] | None


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer, read to its end."""

    status: int
    reason: str
    headers: Message
    body: bytes

    def header(self, name: str) -> str | None:
        """The value of a header, None when it is absent; several of one name are joined with commas."""
        values = self.headers.get_all(name)
        return None if values is None else ", ".join(str(value) for value in values)

    @property
    def text(self) -> str:
        return self.body.decode("utf-8")

    @property
    def xml(self) -> etree._Element:
        return etree.fromstring(self.body)


class _Connection(http.client.HTTPConnection):
    """http.client without its check of the target: a test may send what no sane client would."""

    def __init__(self, address: tuple[str, int], timeout_s: float, context: ssl.SSLContext | None) -> None:
        super().__init__(*address, timeout=timeout_s)
        self._context = context

    def connect(self) -> None:
        super().connect()
        if self._context is not None:
            self.sock = self._context.wrap_socket(self.sock, server_hostname=self.host)

    def _validate_path(self, url: str) -> None:
        del url

    def _encode_request(self, request: str) -> bytes:
        return request.encode("latin-1")


class Client:
    """One keep-alive connection, over TLS if there is a context for it.

    Methods and targets go out as given: nothing is percent-encoded for the caller.
    """

    def __init__(
        self, address: tuple[str, int], *, timeout_s: float = TIMEOUT_S, context: ssl.SSLContext | None = None
    ) -> None:
        self.address = address
        self._connection = _Connection(address, timeout_s, context)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def request(self, method: str, target: str, body: Body = None, headers: Headers = ()) -> Reply:
        """Send one request and read its whole answer.

        Bytes are sent with Content-Length, any other iterable chunked, None without a body and without
        Content-Length; a Content-Length, Transfer-Encoding or Host among `headers` replaces the automatic one.

        Raises:
            http.client.HTTPException, OSError: the answer was cut short, is no HTTP or never came.
        """
        pairs = list(headers.items()) if isinstance(headers, Mapping) else list(headers)
        given = {name.lower() for name, _ in pairs}
        self._connection.putrequest(method, target, skip_host="host" in given, skip_accept_encoding=True)
        for name, value in pairs:
            self._connection.putheader(name, value.encode("utf-8"))
        is_chunked = False
        if isinstance(body, bytes):
            if not given & {"content-length", "transfer-encoding"}:
                self._connection.putheader("Content-Length", str(len(body)))
        elif body is not None and "content-length" not in given:
            is_chunked = True
            if "transfer-encoding" not in given:
                self._connection.putheader("Transfer-Encoding", "chunked")
        self._connection.endheaders(body, encode_chunked=is_chunked)
        answer = self._connection.getresponse()
        return Reply(answer.status, answer.reason, answer.headers, answer.read())


def request(address: tuple[str, int], method: str, target: str, body: Body = None, headers: Headers = ()) -> Reply:
    """One request on a connection of its own; see `Client.request`."""
    with Client(address) as client:
        return client.request(method, target, body, headers)


def connect(
    address: tuple[str, int], timeout_s: float = TIMEOUT_S, context: ssl.SSLContext | None = None
) -> socket.socket:
    """A connection for raw bytes, over TLS if there is a context for it; use it in a `with` statement."""
    connection = socket.create_connection(address, timeout=timeout_s)
    return connection if context is None else context.wrap_socket(connection, server_hostname=address[0])


def exchange(
    address: tuple[str, int],
    *parts: bytes,
    half_close: bool = False,
    timeout_s: float = TIMEOUT_S,
    context: ssl.SSLContext | None = None,
) -> bytes:
    """Send raw bytes, part by part, and return all that comes back until the server closes.

    Send `Connection: close` or something that the server refuses, else this waits for the server's idle timeout.
    With `half_close` the client ends its side (FIN) after the last part; over TLS as one does that has died, without
    close_notify.
    """
    received = bytearray()
    with connect(address, timeout_s, context) as connection:
        for part in parts:
            connection.sendall(part)
        if half_close:
            socket.socket.shutdown(connection, socket.SHUT_WR)  # SSLSocket's own would read no TLS after it
        try:
            while block := connection.recv(65536):
                received += block
        except ConnectionResetError:
            pass  # what came before the reset is the answer
    return bytes(received)

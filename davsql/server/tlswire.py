"""A wire under TLS.

OpenSSL works on memory here, not on the socket: every timeout, rate and end is that of `Wire`, a handshake is one more
thing that a connection waits for in the selector, and what goes out goes in large pieces. Python's SSLSocket would poll
before each wait, send each record by itself, and drop to plain text when another thread shuts it down.
Threads: as for `Wire`.
"""

from __future__ import annotations

import logging
import ssl
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from davsql.server.errors import RequestError
from davsql.server.wire import RECEIVE_BYTES, Wire

if TYPE_CHECKING:
    import socket

    from davsql.server.options import ServerOptions

log = logging.getLogger(__name__)

RECORD_BYTES = 16 * 1024  # RFC 8446 5.1: no record holds more
SEND_BYTES = 256 * 1024  # encrypted before it is sent
ALERT_LINGER_S = 0.1


class TlsWire(Wire):
    """Bytes in and out, encrypted on their way. Until the handshake is done `receive` gives None."""

    def __init__(self, sock: socket.socket, options: ServerOptions, context: ssl.SSLContext) -> None:
        super().__init__(sock, options)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._has_begun = False  # the first bytes were seen
        self._is_open = False  # the handshake is done, and nobody has ended
        self._is_plain = False  # the client does not speak TLS

    # --- in -------------------------------------------------------------------------------------------------------

    def has_data(self) -> bool:
        """Whether bytes are here; decrypts what the selector cannot see because it was read from the socket."""
        if super().has_data():
            return True
        if not self._is_open or not (self._incoming.pending or self._tls.pending()):
            return False
        try:
            data = self._decrypt(RECEIVE_BYTES)
        except OSError:  # the next `receive` meets it again
            return False
        if data:
            self.append(data)
        return bool(data)

    def receive(self, limit: int, wait_s: float) -> bytes | None:
        """As in `Wire`. A part of a record is nothing yet.

        Raises:
            RequestError: the client speaks plain HTTP.
        """
        data = self._decrypt(limit) if self._is_open else None
        deadline = time.monotonic() + wait_s
        while data is None:
            raw = super().receive(max(limit, RECEIVE_BYTES), wait_s)
            if not raw:
                return raw
            self._incoming.write(raw)
            if not self._is_open:
                self._refuse_plain(raw)
                if not self._shake_hands():
                    return b""
            data = self._decrypt(limit) if self._is_open else None
            if data is None and time.monotonic() >= deadline:  # bytes that drip must not hold a thread
                return None
        return data

    def receive_if_there(self) -> bytes | None:
        """Nothing: decrypting is for threads that may take their time. The selector will see the bytes at once."""
        return None

    def _decrypt(self, limit: int) -> bytes | None:
        """What the records that are here hold; None: no whole record is here; b"": the peer ended its side."""
        parts: list[bytes] = []
        size = 0
        while size < limit:
            try:
                part = self._tls.read(min(limit - size, RECORD_BYTES))
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                part = b""
            if not part:
                return b"".join(parts)
            parts.append(part)
            size += len(part)
        if self._outgoing.pending:  # an answer to a key update (RFC 8446 4.6.3)
            self._flush()
        return b"".join(parts) if parts else None

    # --- the handshake --------------------------------------------------------------------------------------------

    def _refuse_plain(self, raw: bytes) -> None:
        """A handshake begins with the byte 22 (RFC 8446 5.1), a request with the letters of its method."""
        if self._has_begun:
            return
        self._has_begun = True
        if raw[:1].isalpha():
            self._is_plain = True
            raise RequestError("400 Bad Request", "this port speaks TLS only: use https:// in the place of http://")

    def _shake_hands(self) -> bool:
        """Go on as far as the bytes that are here lead. False: it has failed, and the client was told why."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError as error:
            log.info("TLS handshake with %s failed: %s", self._peer(), error)
            with suppress(OSError):
                self._flush()
            super().linger(ALERT_LINGER_S)
            return False
        else:
            self._flush()
            self._is_open = True
            self.variables = variables_of(self._tls)
        return True

    def _peer(self) -> str:
        with suppress(OSError):
            return str(self._socket.getpeername()[0])
        return "a client that has gone"

    # --- out ------------------------------------------------------------------------------------------------------

    def _send_parts(self, parts: tuple[bytes, ...]) -> None:
        if self._is_plain:
            super()._send_parts(parts)
            return
        for part in parts:
            rest = memoryview(part)
            while rest:
                rest = rest[self._tls.write(rest) :]  # one record
                if self._outgoing.pending >= SEND_BYTES:
                    self._flush()
        self._flush()

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data:
            super()._send_parts((data,))

    def try_send(self, data: bytes) -> None:
        """As in `Wire`; nothing before the handshake is done."""
        if self._is_open:
            with suppress(ssl.SSLError):
                self._tls.write(data)
                super().try_send(self._outgoing.read())

    # --- the end --------------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """As in `Wire`; without the alert that would make an answer look whole (RFC 8446 6.1)."""
        self._is_open = False
        super().reset()

    def linger(self, timeout_s: float) -> None:
        """As in `Wire`."""
        self._say_end()
        super().linger(timeout_s)

    def close(self) -> None:
        """As in `Wire`."""
        if not self.closed and not self.is_interrupted:
            self._say_end()
        super().close()

    def _say_end(self) -> None:
        """Send close_notify, once, and do not wait for the peer's."""
        if self._is_open:
            self._is_open = False
            with suppress(ssl.SSLError):
                self._tls.unwrap()
            super().try_send(self._outgoing.read())


def variables_of(tls: ssl.SSLObject) -> dict[str, str]:
    """What the environ says of the client's certificate, under mod_ssl's names, as WSGI strings."""
    certificate: dict[str, Any] = tls.getpeercert() or {}  # typeshed does not tell which field holds what
    if not certificate:
        return {}
    found = {"SSL_CLIENT_VERIFY": "SUCCESS"}
    names = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
    if len(names) == 1:
        found["SSL_CLIENT_S_DN_CN"] = _wsgi(names[0])
    emails = [value for kind, value in certificate.get("subjectAltName", ()) if kind == "email"]
    return found | {f"SSL_CLIENT_SAN_Email_{number}": _wsgi(email) for number, email in enumerate(emails)}


def _wsgi(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("latin-1")

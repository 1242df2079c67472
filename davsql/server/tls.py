"""Certificates in use: each new connection gets what the files hold now, and those that are open keep what they have.

Threads: `wire` from any; one thread looks at the files.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from davsql.errors import DavsqlError, TlsError
from davsql.networks import plain_address
from davsql.server.tlswire import TlsWire

if TYPE_CHECKING:
    import socket

    from davsql.server.options import ServerOptions
    from davsql.server.response import Application

log = logging.getLogger(__name__)

LOOK_S = 2.0  # between two looks at the files
RENEW_LOOK_S = 3600.0  # between two looks whether a certificate of our own is due
STOP_S = 1.0  # for a look that is under way: names may be asked of a network that does not answer
DAY_S = 24 * 60 * 60

# TLS 1.2 with forward secrecy and authenticated encryption only (RFC 9325 4.2); those of TLS 1.3 are all so.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"

_Signature = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where certificates and keys are, in PEM."""

    certificate: Path
    key: Path | None = None  # None: in the same file
    client_ca: Path | None = None
    requires_client: bool = True  # if there is client_ca

    def all(self) -> list[Path]:
        """Every file that is read."""
        return [each for each in (self.certificate, self.key, self.client_ca) if each is not None]


class Tls:
    """What a server needs to speak TLS."""

    def __init__(self, files: TlsFiles, *, renew: Callable[[], object] = lambda: None, hsts_s: int = 0) -> None:
        """Reads the files.

        Args:
            renew: makes a new certificate if it is time to; asked now and then.
            hsts_s: for how long browsers shall insist on https.

        Raises:
            TlsError: they cannot be used.
        """
        self._files = files
        self._renew = renew
        self._hsts_s = hsts_s
        self._seen = _signature(files)
        self._context = make_context(files)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def wire(self, sock: socket.socket, options: ServerOptions) -> TlsWire:
        """A wire that speaks TLS over an accepted socket."""
        return TlsWire(sock, options, self._context)

    def with_hsts(self, application: Application) -> Application:
        """The application, telling browsers to insist on https (RFC 6797)."""
        return _Hsts(application, self._hsts_s) if self._hsts_s else application

    def start(self) -> None:
        """Look at the files from now on."""
        self._thread = threading.Thread(target=self._watch, name="davsql-tls", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the looking; harmless when never started."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(STOP_S)

    def renew(self) -> None:
        """Let a certificate of our own be made anew if it is due."""
        try:
            self._renew()
        except (DavsqlError, OSError) as error:
            log.error("the certificate cannot be renewed: %s", error)  # noqa: TRY400  # the message says what to do

    def look(self) -> None:
        """Use what the files hold now if they changed. What cannot be used is told once, and the old stays."""
        signature = _signature(self._files)
        if signature == self._seen:
            return
        self._seen = signature
        try:
            self._context = make_context(self._files)
        except TlsError as error:
            log.error("the new certificate is not used, the old one stays: %s", error)  # noqa: TRY400  # as above
        else:
            log.warning("the certificate in %s is used for new connections", self._files.certificate)

    def _watch(self) -> None:
        due = time.monotonic() + RENEW_LOOK_S
        while not self._stopping.wait(LOOK_S):
            if time.monotonic() >= due:
                due = time.monotonic() + RENEW_LOOK_S
                self.renew()
            self.look()


def make_context(files: TlsFiles) -> ssl.SSLContext:
    """A context for servers: TLS 1.2 and newer.

    Raises:
        TlsError: a file is missing, is no PEM, or key and certificate do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    for file in files.all():
        _require_readable(file)
    try:
        context.load_cert_chain(files.certificate, files.key, _no_passphrase)
    except (ssl.SSLError, ValueError) as error:
        key = files.key or files.certificate
        raise TlsError(
            f"{files.certificate} with the key in {key} cannot be used: {error}; expected PEM: a certificate with its "
            "chain, and the key that belongs to it, without a passphrase"
        ) from error
    if files.client_ca is not None:
        try:
            context.load_verify_locations(files.client_ca)
        except ssl.SSLError as error:
            raise TlsError(f"{files.client_ca} holds no certificate of an authority (PEM): {error}") from error
        context.verify_mode = ssl.CERT_REQUIRED if files.requires_client else ssl.CERT_OPTIONAL
    return context


def _no_passphrase() -> NoReturn:
    raise ValueError("the key has a passphrase")


def _require_readable(file: Path) -> None:
    try:
        with file.open("rb"):
            pass
    except OSError as error:
        raise TlsError(f"{file}: {error.strerror}") from error


def _signature(files: TlsFiles) -> _Signature:
    """Changes when a file does, also when another takes its name."""
    found = []
    for file in files.all():
        try:
            state = file.stat()
        except OSError:
            found.append((0, 0, 0))
        else:
            found.append((state.st_mtime_ns, state.st_ino, state.st_size))
    return tuple(found)


class _Hsts:
    """Adds Strict-Transport-Security where the server is called by a name that is not this machine's for itself.

    A browser applies it to every port of the name, so `localhost` must not get it; to addresses it does not apply
    (RFC 6797 8.1.1).
    """

    def __init__(self, application: Application, seconds: int) -> None:
        self._application = application
        self._field = ("Strict-Transport-Security", f"max-age={seconds}")

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        host = environ.get("HTTP_HOST", "").lower()
        bare = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0].rstrip(".")
        if not bare or bare == "localhost" or bare.endswith(".localhost") or plain_address(bare):
            return self._application(environ, start_response)

        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            return start_response(status, [*headers, self._field], *error)

        return self._application(environ, start)

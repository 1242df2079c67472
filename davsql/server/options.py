"""What can be set about the HTTP side; config.py fills it from the file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Limits, timeouts and sizes of the HTTP server. The defaults suit a small office on one machine."""

    threads: int = 16  # always there
    threads_max: int = 256  # more are started while all others wait for slow clients
    queue_size: int = 512  # connections with a request that may wait for a thread; beyond: 503
    connections_max: int = 2000  # open at one time, also bounded by the descriptors of the process; beyond: 503
    keep_alive_connections: int = 1000  # idle ones; beyond: closed after the answer
    backlog: int = 512
    timeout_s: float = 75.0  # idle between two requests of one connection
    header_timeout_s: float = 20.0  # from the first byte of a request, or from accept, to the end of its head
    stall_timeout_s: float = 20.0  # without one byte of a body, or without the client taking one of the answer
    rate_min: int = 500  # bytes a second of a body or an answer, on average over the time waited for the client
    rate_grace_s: float = 20.0  # before the rate counts
    shutdown_timeout_s: float = 10.0  # for running requests when the server stops
    header_limit: int = 64 * 1024  # bytes of request line and header; beyond: 431
    header_lines_limit: int = 256
    target_limit: int = 16 * 1024  # bytes of the request target; beyond: 414
    drain_limit: int = 256 * 1024  # bytes of an unread body that are read away to keep the connection
    drain_timeout_s: float = 2.0


TlsMode = Literal["off", "auto", "files"]


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """Whether and how the server speaks TLS; config.py fills it from the file."""

    tls: TlsMode = "off"  # "auto": a certificate of our own authority; "files": one that somebody else looks after
    tls_folder: Path | None = None  # of "auto"; None: davsql-tls beside the configuration
    tls_certificate: Path | None = None  # of "files": PEM, with the chain up to the authority
    tls_key: Path | None = None  # None: it is in the same file
    tls_client_ca: Path | None = None  # whose certificates log clients in; None: they are not asked for one
    tls_client_certificates: Literal["required", "optional"] = "required"  # if there is tls_client_ca
    hsts_days: int = 180  # that browsers shall insist on https; 0: they are not told

    def __post_init__(self) -> None:
        if self.tls == "files" and self.tls_certificate is None:
            raise ValueError('tls_certificate: needed with tls = "files"; or let davsql make one: tls = "auto"')


ADMIN_PORT = 8079


@dataclass(frozen=True, slots=True)
class AdminOptions:
    """Where health and metrics can be asked for; config.py fills it from the file."""

    host: str = "127.0.0.1"
    port: int | None = None  # None: 8079 if it is free, else none; 0: off
    allow_remote: bool = False  # accept a host that other machines reach

    @property
    def is_on(self) -> bool:
        """False: nobody is to be answered."""
        return self.port != 0

    @property
    def wanted_port(self) -> int:
        """Where to listen if it is on."""
        return ADMIN_PORT if self.port is None else self.port

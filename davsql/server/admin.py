"""What operators and their monitors ask: /health, /health/live, /health/ready, /metrics, on a port of its own.

Nobody is asked for a password here, so it listens on loopback addresses unless the configuration says otherwise.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from davsql import __version__
from davsql.maintenance.health import ServerHealth, Status, Watched
from davsql.metrics import make_registry
from davsql.server.http import HttpServer
from davsql.server.options import ServerOptions

if TYPE_CHECKING:
    from wsgiref.types import StartResponse

# A few monitors, each with a short question.
SERVER_OPTIONS = ServerOptions(
    threads=2,
    threads_max=8,
    queue_size=32,
    connections_max=64,
    keep_alive_connections=16,
    backlog=32,
    header_limit=16 * 1024,
    shutdown_timeout_s=1.0,
)

Answer = tuple[str, str, bytes]  # status, content type, body


class Observed(Collector, Protocol):
    """What is asked about; it is also where the metrics come from. Threads: any."""

    def health(self) -> ServerHealth:
        """Look at everything."""


class OneProcess(Collector):
    """The stores of this process, and its server if it has one."""

    def __init__(self, watched: Watched, server: HttpServer | None) -> None:
        self._watched = watched
        self._server = server
        self._registry = make_registry(watched, server)

    def collect(self) -> Iterable[Metric]:
        """All metrics."""
        return self._registry.collect()

    def health(self) -> ServerHealth:
        """Look at everything."""
        return ServerHealth(self._server is not None and self._server.ready, self._watched.health())


class AdminServer:
    """Answers about stores and servers from threads of its own."""

    def __init__(self, address: tuple[str, int], observed: Observed) -> None:
        self._http = HttpServer(address, AdminApplication(observed), SERVER_OPTIONS)
        self._thread = threading.Thread(target=self._http.serve, name="davsql-admin", daemon=True)

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens, once it was started."""
        host, port = self._http.bind_addr[:2]
        return str(host), int(port)

    def start(self) -> None:
        """Listen and answer.

        Raises:
            OSError: the address cannot be used.
        """
        self._http.prepare()
        self._thread.start()

    def stop(self) -> None:
        """End; harmless when never started."""
        self._http.stop()
        if self._thread.ident is not None:
            self._thread.join()


class AdminApplication:
    """The WSGI application. Threads: any."""

    def __init__(self, observed: Observed) -> None:
        self._observed = observed
        self._registry = CollectorRegistry()
        self._registry.register(observed)
        self._started = time.monotonic()

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """WSGI."""
        status, content_type, body = self._answer(environ)
        headers = [
            ("Content-Type", content_type),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
        ]
        if status.startswith("405"):
            headers.append(("Allow", "GET, HEAD"))
        start_response(status, headers)
        return () if environ["REQUEST_METHOD"] == "HEAD" else (body,)

    def _answer(self, environ: dict[str, Any]) -> Answer:
        answers = {"/health": self._live, "/health/live": self._live, "/health/ready": self._ready}
        path = environ["PATH_INFO"]
        if path not in answers and path != "/metrics":
            known = ", ".join([*answers, "/metrics"])
            return "404 Not Found", "text/plain; charset=utf-8", f"There are {known}.\n".encode()
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return "405 Method Not Allowed", "text/plain; charset=utf-8", b"Only GET and HEAD.\n"
        if path == "/metrics":
            encode, content_type = choose_encoder(environ.get("HTTP_ACCEPT", ""))
            return "200 OK", content_type, encode(self._registry)
        return answers[path]()

    def _live(self) -> Answer:
        """Cheap: that this is answered is what is asked."""
        return _json(Status.HEALTHY, {"status": "alive", **self._process()})

    def _ready(self) -> Answer:
        """503 only where requests would fail; degraded is still able to work."""
        found = self._observed.health()
        shares = {share: each.as_json() for share, each in found.shares.items()}
        state = {"status": str(found.status), "is_serving": found.is_serving, **self._process(), "shares": shares}
        return _json(found.status, state)

    def _process(self) -> dict[str, Any]:
        return {"version": __version__, "pid": os.getpid(), "uptime_s": round(time.monotonic() - self._started, 1)}


def _json(status: Status, content: Mapping[str, Any]) -> Answer:
    body = json.dumps(content, indent=2).encode() + b"\n"
    return "503 Service Unavailable" if status is Status.UNHEALTHY else "200 OK", "application/json", body

"""A real server on a free port: in a thread of the test's process, or `davsql serve` in processes of its own."""

from __future__ import annotations

import atexit
import functools
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from wsgiref.types import WSGIApplication

from davsql.certificates.authority import Authority
from davsql.dav.application import make_application
from davsql.dav.quotas import ShareQuotas
from davsql.dav.request import DavOptions
from davsql.server.http import HttpServer
from davsql.server.options import ServerOptions
from davsql.server.tls import Tls
from davsql.store.store import Store
from tests import http_client
from tests.tls.tls_steps import make_authority, tls_of, trusting

ROOT = Path(__file__).parents[1]
STOP_TIMEOUT_S = 30


@dataclass(frozen=True)
class Served:
    """Where a running server is and how to talk to it."""

    address: tuple[str, int]

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`, without a slash at the end."""
        host, port = self.address
        return f"{self.scheme}://{host}:{port}"

    @property
    def scheme(self) -> str:
        """`http` or `https`."""
        return "http"

    @property
    def trust(self) -> ssl.SSLContext | None:
        """With what our own clients come; None: without TLS."""
        return None

    def client(self, *, timeout_s: float = http_client.TIMEOUT_S) -> http_client.Client:
        """A keep-alive connection; use it in a `with` statement."""
        return http_client.Client(self.address, timeout_s=timeout_s, context=self.trust)

    def request(
        self, method: str, target: str, body: http_client.Body = None, headers: http_client.Headers = ()
    ) -> http_client.Reply:
        """One request on a connection of its own."""
        with self.client() as client:
            return client.request(method, target, body, headers)

    def connect(self) -> socket.socket:
        """A connection for raw bytes; use it in a `with` statement."""
        return http_client.connect(self.address, context=self.trust)

    def exchange(self, *parts: bytes, half_close: bool = False) -> bytes:
        """Raw bytes out, raw bytes back; see `http_client.exchange`."""
        return http_client.exchange(self.address, *parts, half_close=half_close, context=self.trust)


@dataclass(frozen=True)
class LiveServer(Served):
    """In this process."""

    http: HttpServer
    context: ssl.SSLContext | None = None

    @property
    def trust(self) -> ssl.SSLContext | None:
        """As in `Served`."""
        return self.context

    @property
    def scheme(self) -> str:
        """`http` or `https`."""
        return "http" if self.http.tls is None else "https"


@dataclass(frozen=True)
class ServerProcesses(Served):
    """`davsql serve` with workers."""

    supervisor: subprocess.Popen[str]
    admin: tuple[str, int]
    log: Path

    def pids(self, name: str) -> list[int]:
        """The processes of one kind that run now: "worker" or "keeper". On Linux only."""
        pid = self.supervisor.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        return [int(each) for each in children if _name_of(each).startswith(f"davsql-{name}")]


def _name_of(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="ascii")
    except OSError:  # it has just ended
        return ""


@contextmanager
def serving_processes(store: Path, workers: int, more: str = "") -> Iterator[ServerProcesses]:
    """Run `davsql serve` over one store at "/" until the block ends; `more` is of its configuration."""
    config, log = store.with_suffix(".toml"), store.with_suffix(".log")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        admin = "127.0.0.1", int(free.getsockname()[1])
    config.write_text(
        f"[server]\nport = 0\nworkers = {workers}\nshutdown_timeout_s = 1\n[admin]\nport = {admin[1]}\n"
        f"[log]\nfile = {str(log)!r}\n[[share]]\nname = '/'\ndb = {str(store)!r}\n{more}",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "davsql", "serve", "--config", str(config)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, bufsize=1) as supervisor:
        try:
            assert supervisor.stdout is not None
            said = ""
            for line in supervisor.stdout:
                said += line
                if "Ctrl-C" in line:
                    break
            told = re.search(r"serving .* on http://([\d.]+):(\d+)/", said)
            assert told, said + log.read_text(encoding="utf-8")
            yield ServerProcesses((told[1], int(told[2])), supervisor, admin, log)
        finally:
            supervisor.terminate()
            supervisor.communicate(timeout=STOP_TIMEOUT_S)


@contextmanager
def serving(
    application: WSGIApplication, options: ServerOptions | None = None, tls: Tls | None = None
) -> Iterator[LiveServer]:
    """Run `application` under the real server until the block ends; with DAVSQL_TEST_TLS everything is over TLS."""
    context = None
    if tls is None and "DAVSQL_TEST_TLS" in os.environ:
        authority = _authority_for_all()
        tls, context = tls_of(authority), trusting(authority)
    http = HttpServer(("127.0.0.1", 0), application, options or ServerOptions(), tls=tls)
    http.expiration_interval = 0.01  # how soon it notices that it is to stop
    http.prepare()
    thread = threading.Thread(target=http.serve, name="live-server", daemon=True)
    thread.start()
    try:
        host, port = http.bind_addr[:2]
        yield LiveServer((str(host), int(port)), http, context)
    finally:
        http.stop()
        thread.join(STOP_TIMEOUT_S)
    assert not thread.is_alive(), "the server did not stop"


@functools.cache
def _authority_for_all() -> Authority:
    """One is enough for a process, and is removed at its end."""
    folder = tempfile.mkdtemp(prefix="davsql-test-tls-")
    atexit.register(shutil.rmtree, folder)
    return make_authority(Path(folder))


@contextmanager
def serving_shares(
    shares: Mapping[str, Store],
    *,
    dav: DavOptions | None = None,
    options: ServerOptions | None = None,
    quotas: Mapping[str, ShareQuotas] | None = None,
    tls: Tls | None = None,
) -> Iterator[LiveServer]:
    """Serve stores by their mount paths ("/" or "/name") until the block ends."""
    with serving(make_application(shares, dav or DavOptions(), quotas=quotas), options, tls) as server:
        yield server

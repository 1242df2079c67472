"""The HTTP server: cheroot's listener and selector around our connections and threads."""

from __future__ import annotations

import errno
import logging
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from cheroot.server import HTTPServer

from davsql.counters import HttpTally, PerThread
from davsql.server.access_log import AccessLog
from davsql.server.connection import Connection, as_connection
from davsql.server.environ import base_environ
from davsql.server.options import ServerOptions
from davsql.server.pool import WorkerPool
from davsql.server.response import Application
from davsql.server.tls import Tls

if sys.platform != "win32":
    import resource

log = logging.getLogger(__name__)

REFUSALS_MAX = 100  # connections that wait for their 503; beyond, they are closed without one
BUSY_LINGER_S = 0.1  # for the last one who waits: in a crowd nobody may be kept waiting
NO_DESCRIPTOR_PAUSE_S = 0.2


class HttpServer(HTTPServer):
    """Serves a WSGI application: `prepare()`, then `serve()`, which returns after `stop()` from another thread."""

    ConnectionClass = Connection
    nodelay = True
    expiration_interval = 0.1
    _unservicable_conns: queue.Queue[Any]

    def __init__(
        self,
        bind: tuple[str, int] | socket.socket,
        application: Application,
        options: ServerOptions | None = None,
        access_log: AccessLog | None = None,
        tls: Tls | None = None,
    ) -> None:
        """Nothing is opened.

        Args:
            bind: the address; or a socket that is bound already, which others may have too.
            access_log: gets a line for each request.
            tls: makes it https. cheroot's adapters shake hands in the thread that accepts, and work on sockets: so
                they are not used.
        """
        self.options = options or ServerOptions()
        self._listener = bind if isinstance(bind, socket.socket) else None
        super().__init__(bind.getsockname()[:2] if isinstance(bind, socket.socket) else bind, None, minthreads=1)
        self.access_log = access_log
        self.tls = tls
        self.application = application if tls is None else tls.with_hsts(application)
        self.requests = WorkerPool(self)
        self.timeout = self.options.timeout_s  # type: ignore[assignment]  # the stubs want int
        self.request_queue_size = self.options.backlog
        self.keep_alive_conn_limit = self.options.keep_alive_connections
        self.shutdown_timeout = self.options.shutdown_timeout_s  # type: ignore[assignment]
        self.connections_open: set[Connection] = set()
        self.connections_max, self._refusals_max = _within_descriptors(self.options.connections_max)
        self.base_environ: dict[str, Any] = {}
        self.tallies = PerThread(HttpTally)
        self._stop_lock = threading.Lock()

    def prepare(self) -> None:
        """Bind, listen and start the threads; `bind_addr` is the real address afterwards.

        Raises:
            OSError: the address cannot be used.
        """
        super().prepare()
        if self._listener is not None:
            self._listener.settimeout(0)  # who else has it may take the connection that both were woken for
        self.base_environ = base_environ(self.bind_addr, "http" if self.tls is None else "https")
        if self.tls is not None:
            self.tls.start()

    def bind(self, family: int, type: int, proto: int = 0) -> socket.socket:  # noqa: A002  # cheroot's name
        """Take the socket that was given, or make one."""
        bound: socket.socket = self._listener or super().bind(family, type, proto)
        self.socket = bound
        return bound

    @staticmethod
    def bind_socket(socket_: socket.socket, bind_addr: tuple[str, int]) -> socket.socket:
        """Bind; cheroot leaves the socket of an address that is taken to the garbage collector."""
        try:
            socket_.bind(bind_addr)
        except BaseException:
            socket_.close()
            raise
        return socket_

    def stop(self) -> None:
        """Stop accepting, end idle connections, give running requests their time, cut what is left, join the threads.

        A body whose reading is cut gives IncompleteBody. Returns within `shutdown_timeout_s` and a few seconds.
        A second caller waits for the first.
        """
        with self._stop_lock:
            if not self.ready:
                return
            super().stop()
            if self.tls is not None:
                self.tls.stop()
            for connection in tuple(self.connections_open):
                connection.close()
            self.requests.round.close()

    def hurry(self) -> None:
        """Make a `stop()` that is under way, or to come, cut running requests at once."""
        self.requests.hurry()

    def interrupt_connections(self) -> None:
        """Cut all connections, so that the threads that serve them end."""
        for connection in tuple(self.connections_open):
            connection.interrupt()

    def process_conn(self, conn: Connection) -> None:
        """Give a connection to a thread: called for new ones, and when the selector sees bytes."""
        if conn.is_new:
            conn.is_new = False
            if len(self.connections_open) > self.connections_max:
                self._refuse(conn)
            elif conn.peek():
                self.put_conn(conn)  # to a thread if a request is there, else to the selector
            else:
                conn.close()
        elif self._unservicable_conns.qsize() > self._refusals_max and self.requests.qsize >= self.options.queue_size:
            conn.close()
        else:
            super().process_conn(conn)

    def put_conn(self, conn: Connection) -> None:
        """Wait for what a connection sends next; while the server stops, it may be closed already."""
        if self.ready and conn.is_at_work:
            self._put(conn, self.requests.round.add)
        else:
            self.requests.round.forget(conn)
            self._put(conn, super().put_conn)

    def put_idle(self, conn: Connection) -> None:
        """Give a connection whose client is not at work to the selector."""
        if self.can_add_keepalive_connection:
            self._put(conn, super().put_conn)
        else:
            conn.close()

    def _put(self, conn: Connection, put: Callable[[Connection], object]) -> None:
        try:
            put(conn)
        except (OSError, ValueError, KeyError, AttributeError, RuntimeError):
            if self.ready:
                log.exception("a connection could not be put back")
            conn.close()

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
        """What cheroot has to say, to the log."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            log.error("no file descriptor is left for a new connection")
            time.sleep(NO_DESCRIPTOR_PAUSE_S)  # cheroot would try again at once, and for ever
            return
        log.log(level, "%s", msg, exc_info=error if traceback else None)

    def _refuse(self, conn: Connection) -> None:
        if self._unservicable_conns.qsize() > self._refusals_max:
            conn.close()
        else:
            self._unservicable_conns.put(conn)

    def _serve_unservicable(self) -> None:
        """cheroot runs this in a thread of its own for the connections that found no place."""
        while self.ready:
            connection = as_connection(self._unservicable_conns.get())
            if connection is None:
                return
            connection.refuse_busy(0.0 if self._unservicable_conns.qsize() else BUSY_LINGER_S)


def _within_descriptors(wanted: int) -> tuple[int, int]:
    """Connections to serve and connections to refuse at one time: the process may have so many descriptors, and the
    store needs some.
    """
    if sys.platform == "win32":
        return wanted, REFUSALS_MAX
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return wanted, REFUSALS_MAX
    reserve = max(32, limit // 4)
    return max(1, min(wanted, limit - reserve)), min(REFUSALS_MAX, reserve // 4)

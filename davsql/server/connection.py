"""One client's connection: what cheroot's threads and selector work with.

A connection occupies a thread only while a request is being served. Waiting for a request, or for the rest of a head,
happens in cheroot's selector, so idle and dripping clients cost no thread.
"""

from __future__ import annotations

import itertools
import logging
import math
import time
from typing import TYPE_CHECKING, Any

from cheroot.server import HTTPConnection

from davsql import requestid
from davsql.server.body import open_body
from davsql.server.environ import make_environ
from davsql.server.errors import RequestError
from davsql.server.head import Fields, HeadReader, RequestHead
from davsql.server.response import Response, error_answer
from davsql.server.wire import RECEIVE_BYTES, ClientGoneError, Wire

if TYPE_CHECKING:
    import socket

    from davsql.server.http import HttpServer

log = logging.getLogger(__name__)

NEXT_REQUEST_WAIT_S = 0.004  # a client that is at work sends its next request within this
SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS", "PROPFIND", "REPORT"))  # RFC 9110 9.2.1: they wait for no commit
PROMPT_NS = 2_000_000  # an answer that takes longer waits for a disk, say: the next one is not to keep others waiting
REQUESTS_IN_A_ROW = 8  # of one connection, while others wait for a thread: changing is dear


class Connection(HTTPConnection):
    """Reads heads, hands requests to the application, decides what becomes of the connection."""

    def __init__(self, server: HttpServer, sock: socket.socket, makefile: object = None) -> None:
        del makefile  # cheroot's buffered files; a wire takes their place
        self._options = server.options
        self._wire = Wire(sock, server.options) if server.tls is None else server.tls.wire(sock, server.options)
        self._wire.before_wait = server.requests.round.leave
        super().__init__(server, sock, lambda _sock, mode, _size: self._wire if mode == "rb" else None)
        self.is_new = True  # accepted, and never given to a thread
        self.is_at_work = False  # the next request may come soon, and need not have a thread that waits for it
        self._server = server
        self._reader: HeadReader | None = None  # of a head that is not complete
        self._fields: Fields | None = None  # of the last request
        self._deadline = time.monotonic() + server.options.header_timeout_s
        server.connections_open.add(self)

    # --- what cheroot's ConnectionManager uses --------------------------------------------------------------------

    @property
    def last_used(self) -> float:
        """Compared with the wall clock by cheroot; answers by the monotonic one, which nobody can set back."""
        return 0.0 if time.monotonic() > self._deadline else math.inf

    @last_used.setter
    def last_used(self, _now: float) -> None:
        if self._reader is None and self.requests_seen:
            self._deadline = time.monotonic() + self._options.timeout_s

    def close(self) -> None:
        """Close the socket; a client that was too slow with its head is told so."""
        if self._wire.closed:
            return
        if self._reader is not None and time.monotonic() > self._deadline:
            self._wire.try_send(error_answer("408 Request Timeout", "the request head did not come in time"))
            self._count("", "408")
        self._server.requests.round.forget(self)
        if self._wire.is_interrupted:
            self._wire.reset()  # what was sent of an answer must not look whole
        self._wire.close()
        self._server.connections_open.discard(self)

    # --- what the server uses -------------------------------------------------------------------------------------

    def interrupt(self) -> None:
        """Make the thread that serves this connection end; from any thread."""
        self._wire.interrupt()

    def peek(self) -> bool:
        """Take in what has come without waiting. False: the client is gone already."""
        try:
            data = self._wire.receive_if_there()
        except OSError:
            return False
        if data:
            self._wire.prepend(data)
        return data != b""

    def refuse_busy(self, linger_s: float) -> None:
        """Answer 503 without reading the request, and close after the client has had this time to read it."""
        retry = "Retry-After: 2\r\n"
        self._wire.try_send(error_answer("503 Service Unavailable", "too many requests at the moment", extra=retry))
        self._count("", "503")
        if linger_s:
            self._wire.linger(linger_s)
        self.close()

    def communicate(self) -> bool:
        """Serve requests as long as they come quickly; True: give the connection back to the selector."""
        try:
            return self._serve()
        except OSError as error:
            if not isinstance(error, ClientGoneError):
                log.debug("connection from %s: %s", self.remote_addr, error)
        except Exception:  # a fault of this package: the client must not take what it got for whole
            log.exception("connection from %s failed", self.remote_addr)
        except BaseException:
            self._wire.reset()
            raise
        self._wire.reset()
        return False

    # --- requests -------------------------------------------------------------------------------------------------

    def _serve(self) -> bool:
        for served in itertools.count(1):
            try:
                head = self._read_head()
            except RequestError as refusal:
                self._refuse(refusal)
                return False
            except EOFError:
                return False
            if head is None:
                return self._may_wait()
            self.requests_seen += 1
            if not self._answer(head):
                return False
            if self.is_at_work and not self._wire.has_data():
                return self._server.ready
            self.is_at_work = False
            if served >= REQUESTS_IN_A_ROW and self._server.requests.qsize:
                break
        return self._may_wait()

    def _may_wait(self) -> bool:
        """Whether the connection may go (back) to the selector."""
        is_served = self._reader is None and self.requests_seen > 0  # else it waits for a head, or a handshake
        return self._server.ready and (not is_served or self._server.can_add_keepalive_connection)

    def _read_head(self) -> RequestHead | None:
        """The next head, None when it is not complete yet.

        Raises:
            EOFError: the client ended the connection.
            RequestError: what came is no request that may be handled.
        """
        wire = self._wire
        may_wait = self._reader is None  # once for a new head: one that drips is left to the selector
        while True:
            data = wire.take_buffered(RECEIVE_BYTES) if wire.has_data() else None
            if data is None:
                data = wire.receive(RECEIVE_BYTES, 0.0 if self.is_at_work else NEXT_REQUEST_WAIT_S)
            if data is None and not self.requests_seen and time.monotonic() > self._deadline:
                data = b""  # a handshake that drips
            if data is None:
                return None
            if not data:
                self._reader = None
                raise EOFError
            reader = self._reader
            if reader is None:
                reader = HeadReader(self._options, self._fields)
            head, rest = reader.feed(data)
            if head is not None:
                self._reader = None
                self._fields = head.fields
                if rest:
                    wire.prepend(rest)
                return head
            self._note_partial_head(reader)
            if not may_wait:
                return None
            may_wait = False

    def _note_partial_head(self, reader: HeadReader) -> None:
        now = time.monotonic()
        self.is_at_work = False
        if self._reader is None:
            self._reader = reader
            self._deadline = now + self._options.header_timeout_s
        elif now > self._deadline:
            self._reader = None
            raise RequestError("408 Request Timeout", "the request head did not come in time")

    def _answer(self, head: RequestHead) -> bool:
        """Let the application answer; True when another request may follow."""
        options, wire = self._options, self._wire
        if head.method not in SAFE_METHODS:
            wire.before_wait()
        requestid.begin()
        body = open_body(head, wire, options)
        response = Response(head, body, wire, options)
        response.keeps_alive = head.keeps_alive and self._server.ready
        peer = (self.remote_addr or "", self.remote_port or 0)
        tally = self._server.tallies.mine()
        tally.begun += 1
        began_ns = time.monotonic_ns()
        environ = make_environ(self._server.base_environ, head, body, peer)
        environ.update(wire.variables)
        try:
            response.run(self._server.application, environ)
        finally:
            tally.ended += 1
            tally.cut += response.is_cut
            took_ns = time.monotonic_ns() - began_ns
            self.is_at_work = head.method in SAFE_METHODS and took_ns < PROMPT_NS
            tally.request_ns.add(took_ns)
            if self._server.access_log is not None:
                self._server.access_log.add(head, environ, response, self._wire.sent_bytes, took_ns)
            self._count(head.method, response.code)
            requestid.end()
        if response.is_cut:
            return False
        if response.keeps_alive and body.drain(options.drain_limit, options.drain_timeout_s):
            return self._server.ready
        if not body.is_complete or wire.has_data():
            wire.linger(options.drain_timeout_s)
        return False

    def _refuse(self, refusal: RequestError) -> None:
        log.info("request from %s refused: %s: %s", self.remote_addr, refusal.status, refusal)
        self._wire.send(error_answer(refusal.status, str(refusal)))
        self._count("", refusal.status[:3])
        self._wire.linger(self._options.drain_timeout_s)

    def _count(self, method: str, code: str) -> None:
        tally = self._server.tallies.mine()
        tally.requests[method, code] += 1
        tally.received_bytes += self._wire.received_bytes
        tally.sent_bytes += self._wire.sent_bytes
        self._wire.received_bytes = self._wire.sent_bytes = 0


def as_connection(item: Any) -> Connection | None:
    """Queues of cheroot hold connections and its own signals."""
    return item if isinstance(item, Connection) else None

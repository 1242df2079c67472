"""Answers: from what a WSGI application returns to bytes that a client cannot misread.

Rule: an answer that cannot be sent whole is cut so that it shows (RST; no last chunk; fewer bytes than Content-Length).
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable
from email.utils import formatdate
from functools import lru_cache
from types import TracebackType
from typing import Any

from davsql.errors import DavsqlError, IncompleteBody, MalformedBody
from davsql.requestid import HEADER, current
from davsql.server.body import Body
from davsql.server.head import RequestHead
from davsql.server.options import ServerOptions
from davsql.server.wire import ClientGoneError, Wire

log = logging.getLogger(__name__)

ExcInfo = tuple[type[BaseException], BaseException, TracebackType]
Headers = list[tuple[str, str]]
# what wsgiref.types calls WSGIApplication, without its protocol for start_response
Application = Callable[[dict[str, Any], Any], Iterable[bytes]]

LAST_CHUNK = b"0\r\n\r\n"
STATUS = re.compile(r"[2-5][0-9][0-9] [\t \x21-\x7e\x80-\xff]*")
FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
SPECIAL = frozenset(("connection", "content-length", "date", "keep-alive", "server", "transfer-encoding", "upgrade"))
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class Response:
    """One answer on its way. After `run`, `keeps_alive` tells whether another request may follow on the connection."""

    def __init__(self, head: RequestHead, body: Body, wire: Wire, options: ServerOptions) -> None:
        self.keeps_alive = head.keeps_alive
        self.code = ""  # the status that was sent
        self.is_started = False  # bytes of it were sent
        self.is_cut = False  # it must not look whole
        self.head_end = 0  # bytes that were sent on the connection with its head; those beyond are its body
        self._head = head
        self._body = body
        self._wire = wire
        self._options = options
        self._status = ""
        self._headers: Headers | None = None
        self._has_body = False
        self._is_chunked = False
        self._is_overlong = False
        self._left: int | None = None  # of Content-Length

    def run(self, application: Application, environ: dict[str, Any]) -> None:
        """Let the application answer.

        Raises:
            ClientGoneError: nothing more can be sent.
        """
        chunks: Iterable[bytes] | None = None
        try:
            chunks = application(environ, self.start_response)
            self._send_all(chunks)
        except ClientGoneError:
            raise
        except (IncompleteBody, MalformedBody) as error:
            log.info("request body of %s %s: %s", self._head.method, self._head.target, error)
            self._answer_error("400 Bad Request", "the request body is incomplete or malformed")
        except DavsqlError as error:  # it says what happened: damaged content that was being sent, say
            log.error("%s %s: %s", self._head.method, self._head.target, error)  # noqa: TRY400
            self._answer_error("500 Internal Server Error", "internal server error")
        except (Exception, SystemExit):  # whatever the application raises ends here
            log.exception("%s %s failed", self._head.method, self._head.target)
            self._answer_error("500 Internal Server Error", "internal server error")
        finally:
            self._close(chunks)

    def start_response(
        self, status: str, headers: Headers, exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], object]:
        """PEP 3333's start_response."""
        if exc_info is not None:
            try:
                if self.is_started:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self._headers is not None:
            raise RuntimeError("start_response was called twice")
        self._status, self._headers = status, list(headers)
        return self._write

    def _write(self, data: bytes) -> None:
        self._send_chunk(data)

    # --- the application's chunks ---------------------------------------------------------------------------------

    def _send_all(self, chunks: Iterable[bytes]) -> None:
        sole = chunks[0] if isinstance(chunks, (list, tuple)) and len(chunks) == 1 else None
        if sole is not None and not self.is_started and self._headers is not None:
            self._send_head(sole, size=len(sole))
        else:
            for chunk in chunks:
                if chunk:
                    self._send_chunk(chunk)
                    if self._left != 0:
                        self._wire.before_wait()  # there may be much more
                if self.is_started and (not self._has_body or self._is_overlong):
                    break  # HEAD, 204, 304, or more than Content-Length: whatever follows is not sent
        if not self.is_started:
            self._send_head(b"", size=0)
        self._finish()

    def _send_chunk(self, data: bytes) -> None:
        if not self.is_started:
            self._send_head(data, size=None)
        elif self._has_body and data:
            self._wire.send(*self._framed(data))

    def _framed(self, data: bytes) -> tuple[bytes, ...]:
        """What goes over the wire for these bytes of the body."""
        if self._is_chunked:
            return (b"%x\r\n" % len(data), data, b"\r\n")
        if self._left is None:
            return (data,)
        if len(data) > self._left:
            log.error("%s %s: answer longer than its Content-Length", self._head.method, self._head.target)
            self.keeps_alive = False
            self._is_overlong = True
            data = data[: self._left]
        self._left -= len(data)
        return (data,)

    def _finish(self) -> None:
        if not self._has_body:
            return
        if self._is_chunked:
            self._wire.send(LAST_CHUNK)
        elif self._left:
            log.error("%s %s: answer shorter than its Content-Length", self._head.method, self._head.target)
            self._cut()

    # --- the head -------------------------------------------------------------------------------------------------

    def _send_head(self, data: bytes, size: int | None) -> None:
        """Send the head and the first bytes together; `size` is the whole body's if it is known by now."""
        if self._headers is None:
            raise RuntimeError("the application did not call start_response")
        check_status(self._status)
        self.code = code = self._status[:3]
        lines, length = self._render_headers(self._headers, is_bodiless=code == "204")
        self._has_body = self._head.method != "HEAD" and code not in ("204", "304")
        self._left = length
        if self._has_body and length is None:
            if size is not None:
                self._left = size
                lines.append(f"Content-Length: {size}")
            elif self._head.version == "1.1":
                self._is_chunked = True
                lines.append("Transfer-Encoding: chunked")
            else:
                self.keeps_alive = False
                self._wire.is_answer_ended_by_close = True
        self._add_connection(lines)
        if request_id := current():
            lines.append(f"{HEADER}: {request_id}")
        framed = self._framed(data) if self._has_body and data else ()
        text = f"HTTP/1.1 {self._status}\r\n" + "\r\n".join(lines) + "\r\n\r\n"
        encoded = text.encode("latin-1")
        self.is_started = True
        self.head_end = self._wire.sent_bytes + len(encoded)
        self._wire.send(encoded, *framed)

    def _render_headers(self, headers: Headers, *, is_bodiless: bool) -> tuple[list[str], int | None]:
        """Header lines, and Content-Length if the application gave it."""
        lines: list[str] = []
        length: int | None = None
        special = set()
        for name, value in headers:
            key, line = header_line(name, value)
            if key not in SPECIAL:
                lines.append(line)
                continue
            special.add(key)
            if key == "connection":
                self.keeps_alive = self.keeps_alive and "close" not in value.lower()
                continue
            if key == "content-length":
                if length is not None or not (value.isascii() and value.isdigit()):
                    raise ValueError(f"bad Content-Length {value!r}")
                length = int(value)
                if is_bodiless:
                    continue  # RFC 9110 8.6: not in a 204
            if key in ("transfer-encoding", "keep-alive", "upgrade"):
                raise ValueError(f"{name} is not the application's business")
            lines.append(line)
        if "date" not in special:
            lines.append(date_line(int(time.time())))
        if "server" not in special:
            lines.append("Server: davsql")
        return lines, length

    def _add_connection(self, lines: list[str]) -> None:
        source = self._body.source
        if source.awaits_continue:  # RFC 9110 10.1.1: after a final status nobody can tell whether the body comes
            source.awaits_continue = False
            source.fail(IncompleteBody("answered before the body was asked for"))
        # What is left of the body is read away first: a promise to keep the connection must not be broken afterwards.
        if self.keeps_alive and not self._body.drain(self._options.drain_limit, self._options.drain_timeout_s):
            self.keeps_alive = False
        if not self.keeps_alive:
            lines.append("Connection: close")
        elif self._head.version == "1.0":
            lines.append("Connection: keep-alive")

    # --- the end --------

    def _close(self, chunks: Iterable[bytes] | None) -> None:
        close = getattr(chunks, "close", None)
        if close is None:
            return
        try:
            close()
        except Exception:  # the answer is out; all that is left is to tell the log
            log.exception("%s %s: closing the answer failed", self._head.method, self._head.target)

    def _answer_error(self, status: str, text: str) -> None:
        self.keeps_alive = False
        if self.is_started:
            self._cut()
        else:
            self.is_started = True
            self.code = status[:3]
            extra = f"{HEADER}: {current()}\r\n"
            self._wire.send(error_answer(status, text, is_head=self._head.method == "HEAD", extra=extra))

    def _cut(self) -> None:
        self.keeps_alive = False
        self.is_cut = True
        self._wire.reset()


def error_answer(status: str, text: str, *, is_head: bool = False, extra: str = "") -> bytes:
    """A whole answer made by the server itself; the connection is closed after it."""
    body = text.encode("utf-8") + b"\n"
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
        f"{date_line(int(time.time()))}\r\nServer: davsql\r\n{extra}Connection: close\r\n\r\n"
    )
    return head.encode("latin-1") + (b"" if is_head else body)


@lru_cache(maxsize=2)
def date_line(second: int) -> str:
    """The Date field, an IMF-fixdate (RFC 9110 5.6.7), made once a second."""
    return f"Date: {formatdate(second, usegmt=True)}"


@lru_cache(maxsize=64)
def check_status(status: str) -> None:
    """Raise ValueError unless `status` is a code and a reason."""
    if STATUS.fullmatch(status) is None:
        raise ValueError(f"bad status {status!r}")


# Most fields of most answers are the same.
@lru_cache(maxsize=1024)
def header_line(name: str, value: str) -> tuple[str, str]:
    """The name in lower case, and the whole field.

    Raises:
        ValueError: the name is none, or the value would not stay within its line.
    """
    if FIELD_NAME.fullmatch(name) is None:
        raise ValueError(f"bad header name {name!r}")
    if CONTROL.search(value) is not None:
        raise ValueError(f"control character in the value of {name}")
    return name.lower(), f"{name}: {value}"

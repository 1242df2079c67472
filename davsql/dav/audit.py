"""The audit log's place before the application: what was done is recorded before its answer goes out."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote

from davsql.audit.chain import Entry
from davsql.audit.log import AuditLog
from davsql.dav.destination import split_target
from davsql.dav.errors import as_http_error, error_response
from davsql.dav.provider import METHODS
from davsql.dav.responses import deliver
from davsql.errors import StoreUnavailable
from davsql.requestid import current

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication

READS = frozenset(("GET", "HEAD", "OPTIONS", "PROPFIND", "REPORT"))
WRITES = frozenset(METHODS) - READS

NOBODY = (401, 429)  # nobody was let in; a login that failed is a row of its own
TEXT_MAX = 16 * 1024


class Audited:
    """A WSGI application of which every change, and if wanted every read, is recorded. Threads: any.

    The row of a change is committed before its answer is sent; while that cannot be done changes are refused. The row
    of a read follows within a second.
    """

    def __init__(self, application: WSGIApplication, log: AuditLog, *, with_reads: bool) -> None:
        self._application = application
        self._log = log
        self._methods = WRITES | READS if with_reads else WRITES

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """WSGI."""
        method = environ["REQUEST_METHOD"]
        if method not in self._methods:
            return self._application(environ, start_response)
        is_write = method in WRITES
        if is_write:
            try:
                self._log.require()
            except StoreUnavailable as error:
                return deliver(error_response(as_http_error(error, None)), method, start_response)
        target = environ["REQUEST_URI"]
        body = environ["wsgi.input"] = _Counted(environ["wsgi.input"])
        answer = _Answer(start_response)
        chunks = self._application(environ, answer)
        if answer.status not in NOBODY:
            entry = _entry(environ, target, answer.status, body.size if is_write else answer.length)
            (self._log.append if is_write else self._log.note)(entry)
        return chunks


class _Answer:
    """A start_response that hears what is answered; nothing is sent before the application has returned."""

    __slots__ = ("_start_response", "length", "status")

    def __init__(self, start_response: StartResponse) -> None:
        self._start_response = start_response
        self.status: int | None = None
        self.length: int | None = None

    def __call__(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Any:
        self.status = int(status[:3])
        for name, value in headers:
            if name == "Content-Length":
                self.length = int(value)
        return self._start_response(status, headers, exc_info)


class _Input(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class _Counted:
    """A body that counts what was taken of it."""

    __slots__ = ("_body", "size")

    def __init__(self, body: _Input) -> None:
        self._body = body
        self.size = 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._body.read(size)
        self.size += len(data)
        return data


def _entry(environ: dict[str, Any], target: str, status: int | None, size: int | None) -> Entry:
    destination = environ.get("HTTP_DESTINATION")
    return Entry(
        time.time_ns(),
        environ.get("REMOTE_USER"),
        environ["REMOTE_ADDR"],
        environ["REQUEST_METHOD"],
        _path(target),
        None if destination is None else _path(destination),
        status,
        size,
        current(),
    )


def _path(target: str) -> str:
    """A target or URL as people read it: without its host, which may hold a password, and without its query."""
    path = split_target(target)[0].partition("?")[0]
    return (unquote(path, errors="backslashreplace") if "%" in path else path)[:TEXT_MAX]

"""XML answers, put together from strings: no tree is built, so a listing costs about as much as its bytes.

Everything stands under one declared prefix, D for DAV:, without white space between elements (what Windows reads).
Fragments that come from the store (dead properties, owners of locks) declare what they need themselves.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from davsql.dav.responses import Response
from davsql.model import Lock

DAV = "DAV:"
NS_PER_S = 1_000_000_000

CONTENT_TYPE = ("Content-Type", "application/xml; charset=utf-8")
_NO_SNIFFING = ("X-Content-Type-Options", "nosniff")
_DECLARATION = '<?xml version="1.0" encoding="utf-8"?>'
MULTISTATUS_OPEN = f'{_DECLARATION}<D:multistatus xmlns:D="DAV:">'
MULTISTATUS_CLOSE = "</D:multistatus>"
WHOLE_BODY_BYTES = 8 * 1024 * 1024  # up to here an answer is put together whole and has a Content-Length

PROPSTAT_OPEN = "<D:propstat><D:prop>"
_REASONS = {
    200: "OK",
    403: "Forbidden",
    404: "Not Found",
    409: "Conflict",
    423: "Locked",
    424: "Failed Dependency",
    507: "Insufficient Storage",
}


_SPECIAL = re.compile('[&<>"]')


def escape(text: str) -> str:
    """Text as XML, for content and for attributes in double quotes."""
    if _SPECIAL.search(text) is None:
        return text
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


def escape_all(texts: Sequence[str]) -> Sequence[str]:
    """Many texts as XML."""
    return texts if _SPECIAL.search("\n".join(texts)) is None else list(map(escape, texts))


def status_line(status: int) -> str:
    """The content of DAV:status (RFC 4918 14.28)."""
    return f"HTTP/1.1 {status} {_REASONS[status]}"


def propstat_close(status: int, condition: str | None = None) -> str:
    """What follows the properties of one status, with the precondition that failed (RFC 4918 14.5, 14.22)."""
    error = "" if condition is None else f"<D:error><D:{condition}/></D:error>"
    return f"</D:prop><D:status>{status_line(status)}</D:status>{error}</D:propstat>"


def propstat(status: int, properties: str, condition: str | None = None) -> str:
    """Properties, already XML, that share a status."""
    return f"{PROPSTAT_OPEN}{properties}{propstat_close(status, condition)}"


def response(href: str, propstats: str) -> str:
    """What is said about one resource; `href` is percent-encoded and escaped."""
    return f"<D:response><D:href>{href}</D:href>{propstats}</D:response>"


def response_status(href: str, status: int, condition: str | None = None) -> str:
    """A status for one resource as a whole (RFC 4918 14.24)."""
    error = "" if condition is None else f"<D:error><D:{condition}/></D:error>"
    return f"<D:response><D:href>{href}</D:href><D:status>{status_line(status)}</D:status>{error}</D:response>"


def empty_element(namespace: str, name: str) -> str:
    """The name of a property as an element without content."""
    if namespace == DAV:
        return f"<D:{name}/>"
    # There is no default namespace around it, so a name in no namespace needs no declaration.
    return f'<x:{name} xmlns:x="{escape(namespace)}"/>' if namespace else f"<{name}/>"


def multistatus(responses: Iterable[str]) -> Response:
    """207 with these responses: whole, or streamed from WHOLE_BODY_BYTES on."""
    return Response(207, [CONTENT_TYPE, _NO_SNIFFING], _body(responses))


def prop_body(properties: str) -> bytes:
    """The DAV:prop document with which LOCK answers (RFC 4918 9.10.1)."""
    return f'{_DECLARATION}<D:prop xmlns:D="DAV:">{properties}</D:prop>'.encode()


def error_body(condition: str, hrefs: Sequence[str]) -> bytes:
    """The DAV:error document that names a failed condition, and the resources it is about (RFC 4918 14.5, 16)."""
    inside = "".join(f"<D:href>{escape(href)}</D:href>" for href in hrefs)
    element = f"<D:{condition}>{inside}</D:{condition}>" if inside else f"<D:{condition}/>"
    return f'{_DECLARATION}<D:error xmlns:D="DAV:">{element}</D:error>'.encode()


def active_lock(lock: Lock, root_href: str, now: int, principal: str) -> str:
    """One DAV:activelock; the timeout is what remains (RFC 4918 14.1, 14.29).

    Only who made the lock is shown its token; nobody else could use it (RFC 4918 6.4, 15.8).
    """
    token = f"<D:locktoken><D:href>{escape(lock.token)}</D:href></D:locktoken>" if lock.principal == principal else ""
    depth = "infinity" if lock.is_depth_infinity else "0"
    remaining_s = max(0, math.ceil((lock.expires_at - now) / NS_PER_S))
    return (
        f"<D:activelock><D:locktype><D:write/></D:locktype><D:lockscope><D:{lock.scope.value}/></D:lockscope>"
        f"<D:depth>{depth}</D:depth>{lock.owner_xml or ''}<D:timeout>Second-{remaining_s}</D:timeout>"
        f"{token}<D:lockroot><D:href>{escape(root_href)}</D:href></D:lockroot></D:activelock>"
    )


def _body(responses: Iterable[str]) -> bytes | Iterator[bytes]:
    pieces = (piece.encode() for piece in chain([MULTISTATUS_OPEN], responses, [MULTISTATUS_CLOSE]))
    first: list[bytes] = []
    size_bytes = 0
    for piece in pieces:
        first.append(piece)
        size_bytes += len(piece)
        if size_bytes > WHOLE_BODY_BYTES:
            return chain([b"".join(first)], pieces)
    return b"".join(first)

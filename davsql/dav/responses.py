"""What a method handler gives back, the one exception by which it gives up, and the way both go out through WSGI."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsgiref.types import StartResponse

_STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}
_WITHOUT_CONTENT = (204, 304)


@dataclass(slots=True)
class Response:
    """An answer before WSGI sees it.

    A body of bytes gets its Content-Length from `deliver`; an iterable brings the header itself or is sent chunked.
    """

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes | Iterable[bytes] = b""


class HttpError(Exception):
    """A request that ends with an error status.

    Args:
        status: HTTP status code.
        message: a sentence for the person who reads the body.
        condition: local name of the precondition element of the DAV: namespace (RFC 4918 16), if there is one.
        hrefs: what the condition names, e.g. the locked resources of lock-token-submitted.
        headers: further headers of the answer, e.g. Allow.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        condition: str | None = None,
        hrefs: tuple[str, ...] = (),
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.condition = condition
        self.hrefs = hrefs
        self.headers = headers


def deliver(response: Response, method: str, start_response: StartResponse) -> Iterable[bytes]:
    """Start the answer and return its body; a HEAD gets the headers of the GET and no body (RFC 9110 9.3.2)."""
    headers, body = response.headers, response.body
    if not isinstance(body, bytes):
        start_response(_STATUS_LINES[response.status], headers)
        return body
    if response.status not in _WITHOUT_CONTENT and (method != "HEAD" or not _has_length(headers)):
        headers.append(("Content-Length", str(len(body))))
    start_response(_STATUS_LINES[response.status], headers)
    return (body,) if body and method != "HEAD" else ()


def _has_length(headers: list[tuple[str, str]]) -> bool:
    return any(name == "Content-Length" for name, _ in headers)

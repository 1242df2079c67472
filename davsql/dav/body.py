"""Bodies of requests that carry content: how long they are said to be, and their bytes as they come."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from davsql.dav.quotas import MIB
from davsql.dav.request import OC_MTIME, Request
from davsql.dav.responses import HttpError, Response
from davsql.errors import FileTooLarge, IncompleteBody, QuotaExceeded

if TYPE_CHECKING:
    from davsql.model import PutResult
    from davsql.store.upload import Upload

BLOCK_BYTES = 256 * 1024


def require_identity(request: Request) -> None:
    """Raise HttpError 415 for a coded body: kept without its coding, the file would be another one (RFC 9110 8.4)."""
    if (request.header("Content-Encoding") or "identity").strip().lower() != "identity":
        raise HttpError(415, "Send the file itself: a Content-Encoding is not kept.")


def body_lengths(request: Request) -> tuple[int | None, int | None]:
    """Content-Length, and how long the body must be: of a chunked one Finder says it in X-Expected-Entity-Length."""
    declared = _number(request, "Content-Length")
    announced = _number(request, "X-Expected-Entity-Length")
    if declared is not None and announced is not None and declared != announced:
        raise HttpError(400, "Content-Length and X-Expected-Entity-Length differ.")
    return declared, announced if declared is None else declared


def size_limit(request: Request) -> float:
    """How many bytes a file may have."""
    return request.share.options.max_file_size_mb * MIB or math.inf


def receive(upload: Upload, blocks: Iterable[bytes], limit: float, room: int | None) -> None:
    """Stage a body.

    Args:
        limit: how many bytes a file may have.
        room: how many there is room for; None: any number.

    Raises:
        FileTooLarge, QuotaExceeded: of a chunked body nobody knew it before; IncompleteBody; StoreError.
    """
    for block in blocks:
        upload.write(block)
        if upload.size > limit:
            raise FileTooLarge(f"more than {limit} bytes")
        if room is not None and upload.size > room:
            raise QuotaExceeded(f"more than {room} bytes")


def stored(result: PutResult, modified_at: int | None) -> Response:
    """The answer when content is stored; `modified_at` is the time that the client had set."""
    headers = [("ETag", result.node.etag or "")]
    if modified_at is not None:
        headers.append((OC_MTIME, "accepted"))
    return Response(201 if result.created else 204, headers)


def _number(request: Request, name: str) -> int | None:
    text = request.header(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise HttpError(400, f"{name} must be a number of bytes.")
    return int(text)


def body_blocks(request: Request, content_length: int | None) -> Iterator[bytes]:
    """The body in blocks of bounded size.

    Raises:
        IncompleteBody: it ended before its declared length.
    """
    read = request.environ["wsgi.input"].read
    if content_length is None:  # chunked, or none; the server knows its end
        while block := read(BLOCK_BYTES):
            yield block
        return
    remaining = content_length
    while remaining:
        # After a short block only up to where the next one begins: chunks that are one block need no copying.
        block = read(min(BLOCK_BYTES - (content_length - remaining) % BLOCK_BYTES, remaining))
        if not block:
            raise IncompleteBody(f"{remaining} bytes of the body never came")
        remaining -= len(block)
        yield block

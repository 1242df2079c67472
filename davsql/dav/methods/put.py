"""PUT (RFC 9110 9.3.4, RFC 4918 9.7): the new content whole, or the old content untouched."""

from __future__ import annotations

import math
from collections.abc import Iterator

from davsql.dav.content import accepted_content_type
from davsql.dav.digests import verification_of
from davsql.dav.request import OC_MTIME, Request
from davsql.dav.responses import HttpError, Response
from davsql.errors import FileTooLarge, IncompleteBody, QuotaExceeded

BLOCK_BYTES = 256 * 1024
SMALL_BYTES = 64 * 1024
MIB = 1024 * 1024


def handle(request: Request) -> Response:
    """Stage the body, compare it with everything that was said about it, then commit once.

    What can be refused is refused before the body is read: with Expect: 100-continue it is then never sent. A small
    body is on its way anyway; there the check in the writing transaction is enough.
    """
    if "HTTP_CONTENT_RANGE" in request.environ:
        # RFC 9110 14.4: to store a part as if it were the whole would lose the rest.
        raise HttpError(400, "A part of a file cannot be stored with PUT and Content-Range.")
    if (request.header("Content-Encoding") or "identity").strip().lower() != "identity":
        # RFC 9110 8.4: kept without its coding, the file would be another one for whoever reads it.
        raise HttpError(415, "Send the file itself: a Content-Encoding is not kept.")
    content_length, expected = _lengths(request)
    modified_at, verification = request.modified_at, verification_of(request)
    guard, room = request.guard, None
    limit = request.share.options.max_file_size_mb * MIB or math.inf
    if expected is not None and expected > limit:
        raise FileTooLarge(f"{expected} bytes")
    if content_length is None or content_length > SMALL_BYTES or "HTTP_EXPECT" in request.environ:
        room = request.store.check_put(request.path, guard, expected or 0)
    with request.store.upload() as upload:
        for block in _blocks(request, content_length):
            upload.write(block)
            verification.update(block)
            if upload.size > limit:
                raise FileTooLarge(f"more than {limit} bytes")
            if room is not None and upload.size > room:  # of a chunked body nobody knew it before
                raise QuotaExceeded(f"more than {room} bytes")
        if expected is not None and upload.size != expected:
            raise IncompleteBody(f"{upload.size} bytes came, {expected} were announced")
        verification.require()
        content_type = accepted_content_type(request.header("Content-Type"))
        result = upload.commit(request.path, content_type=content_type, guard=guard, modified_at=modified_at)
    headers = [("ETag", result.node.etag or "")]
    if modified_at is not None:
        headers.append((OC_MTIME, "accepted"))
    return Response(201 if result.created else 204, headers)


def _lengths(request: Request) -> tuple[int | None, int | None]:
    """Content-Length, and how long the body must be: of a chunked one Finder says it in X-Expected-Entity-Length."""
    declared = _number(request, "Content-Length")
    announced = _number(request, "X-Expected-Entity-Length")
    if declared is not None and announced is not None and declared != announced:
        raise HttpError(400, "Content-Length and X-Expected-Entity-Length differ.")
    return declared, announced if declared is None else declared


def _number(request: Request, name: str) -> int | None:
    text = request.header(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise HttpError(400, f"{name} must be a number of bytes.")
    return int(text)


def _blocks(request: Request, content_length: int | None) -> Iterator[bytes]:
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
        block = read(min(BLOCK_BYTES, remaining))
        if not block:
            raise IncompleteBody(f"{remaining} bytes of the body never came")
        remaining -= len(block)
        yield block

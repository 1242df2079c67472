"""PUT (RFC 9110 9.3.4, RFC 4918 9.7): the new content whole, or the old content untouched."""

from __future__ import annotations

from davsql.dav.body import body_blocks, body_lengths, receive, require_identity, size_limit, stored
from davsql.dav.content import accepted_content_type
from davsql.dav.digests import verification_of
from davsql.dav.methods.patch import append
from davsql.dav.request import Request
from davsql.dav.responses import Response
from davsql.errors import FileTooLarge, IncompleteBody

SMALL_BYTES = 64 * 1024


def handle(request: Request) -> Response:
    """Stage the body, compare it with everything that was said about it, then commit once.

    What can be refused is refused before the body is read: with Expect: 100-continue it is then never sent. A small
    body is on its way anyway; there the check in the writing transaction is enough.
    """
    if "HTTP_CONTENT_RANGE" in request.environ:
        return append(request)  # RFC 9110 14.4: to store a part as if it were the whole would lose the rest
    require_identity(request)
    content_length, expected = body_lengths(request)
    modified_at, verification = request.modified_at, verification_of(request)
    guard, room = request.guard, None
    limit = size_limit(request)
    if expected is not None and expected > limit:
        raise FileTooLarge(f"{expected} bytes")
    if content_length is None or content_length > SMALL_BYTES or "HTTP_EXPECT" in request.environ:
        room = request.store.check_put(request.path, guard, expected or 0)
    with request.store.upload() as upload:
        receive(upload, verification.passing(body_blocks(request, content_length)), limit, room)
        if expected is not None and upload.size != expected:
            raise IncompleteBody(f"{upload.size} bytes came, {expected} were announced")
        verification.require()
        content_type = accepted_content_type(request.header("Content-Type"))
        upload.checksums = verification.checksums()
        result = upload.commit(request.path, content_type=content_type, guard=guard, modified_at=modified_at)
    return stored(result, modified_at)

"""MKCOL (RFC 4918 9.3)."""

from __future__ import annotations

from davsql.dav.request import OC_MTIME, Request
from davsql.dav.responses import Response


def handle(request: Request) -> Response:
    """Make an empty collection; no kind of body is understood (RFC 4918 9.3.1: 415)."""
    request.refuse_body()
    modified_at = request.modified_at
    request.store.make_collection(request.path, request.guard, modified_at=modified_at)
    return Response(201, [] if modified_at is None else [(OC_MTIME, "accepted")])

"""MKCOL (RFC 4918 9.3)."""

from __future__ import annotations

from davsql.dav.request import Request
from davsql.dav.responses import Response


def handle(request: Request) -> Response:
    """Make an empty collection; no kind of body is understood (RFC 4918 9.3.1: 415)."""
    request.refuse_body()
    request.store.make_collection(request.path, request.guard)
    return Response(201)

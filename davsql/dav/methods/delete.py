"""DELETE (RFC 4918 9.6): a file, or a collection with everything in it, or nothing."""

from __future__ import annotations

from davsql.dav.conditions import parse_depth
from davsql.dav.request import Request
from davsql.dav.responses import HttpError, Response


def handle(request: Request) -> Response:
    """Delete in one transaction, so that there is never a part of it to report in a 207."""
    require_infinite_depth(request)
    request.refuse_body()
    request.store.delete(request.path, request.guard)
    return Response(204)


def require_infinite_depth(request: Request) -> None:
    """Refuse a Depth other than infinity for a collection; it means nothing for a file (RFC 4918 9.6.1, 9.9.2)."""
    if (
        parse_depth(request, "infinity") != "infinity"
        and request.store.node(request.path, request.access).is_collection
    ):
        raise HttpError(400, f"{request.method} of a collection takes no Depth but infinity.")

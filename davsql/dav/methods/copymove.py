"""COPY and MOVE (RFC 4918 9.8, 9.9). Each is one transaction: all of it happens, or nothing."""

from __future__ import annotations

from davsql.dav.conditions import parse_depth, parse_overwrite
from davsql.dav.destination import parse_destination
from davsql.dav.methods.delete import require_infinite_depth
from davsql.dav.request import Request
from davsql.dav.responses import HttpError, Response
from davsql.paths import DavPath


def handle_copy(request: Request) -> Response:
    """Copy a resource; a collection with its members unless Depth is 0 (RFC 4918 9.8.3)."""
    destination = parse_destination(request)
    overwrite = parse_overwrite(request)
    depth = parse_depth(request, "infinity")
    if depth == "1":
        raise HttpError(400, "COPY takes Depth 0 or infinity.")
    request.refuse_body()
    is_created = request.store.copy(
        request.path, destination, depth_infinity=depth == "infinity", overwrite=overwrite, guard=request.guard
    )
    return _answer(request, destination, is_created=is_created)


def handle_move(request: Request) -> Response:
    """Move a resource with all it holds; what was at the destination is replaced in the same step."""
    destination = parse_destination(request)
    overwrite = parse_overwrite(request)
    require_infinite_depth(request)
    request.refuse_body()
    is_created = request.store.move(request.path, destination, overwrite=overwrite, guard=request.guard)
    return _answer(request, destination, is_created=is_created)


def _answer(request: Request, destination: DavPath, *, is_created: bool) -> Response:
    if not is_created:
        return Response(204)
    # What was created is not the request's target, so it is named (RFC 9110 15.3.2), the slash as sent.
    has_slash = request.environ["HTTP_DESTINATION"].rstrip().endswith("/")
    return Response(201, [("Location", request.share.href(destination, is_collection=has_slash))])

"""OPTIONS, and what is allowed where (RFC 4918 10.1, 18; RFC 9110 9.3.7, 10.2.1)."""

from __future__ import annotations

from davsql.dav.request import Request
from davsql.dav.responses import Response
from davsql.errors import NotFound
from davsql.model import Node

# Windows gives up on a DAV header value of more than 63 characters.
CLASSES = "1, 2, 3"
CLASSES_READ_ONLY = "1, 3"  # Finder mounts read-only what has no class 2

_READ = ("OPTIONS", "GET", "HEAD", "PROPFIND")
_FILE = (*_READ, "PUT", "DELETE", "COPY", "MOVE", "PROPPATCH", "LOCK", "UNLOCK")
_COLLECTION = (*_READ, "DELETE", "COPY", "MOVE", "PROPPATCH", "LOCK", "UNLOCK")
_ROOT = (*_READ, "COPY", "PROPPATCH", "LOCK", "UNLOCK")
_UNMAPPED = ("OPTIONS", "PUT", "MKCOL", "LOCK")


def handle(request: Request) -> Response:
    """Always 200 with an empty body: clients probe URLs that are not mapped yet."""
    headers = [
        ("Allow", allowed_methods(request)),
        ("DAV", CLASSES_READ_ONLY if request.store.options.read_only else CLASSES),
        ("MS-Author-Via", "DAV"),
    ]
    return Response(200, headers)


def allowed_methods(request: Request) -> str:
    """The value of Allow for the request's resource as it is now."""
    try:
        node: Node | None = request.store.node(request.path)
    except NotFound:
        node = None
    if request.store.options.read_only:
        return ", ".join(_READ if node is not None else ("OPTIONS",))
    if node is None:
        return ", ".join(_UNMAPPED)
    if not node.is_collection:
        return ", ".join(_FILE)
    return ", ".join(_ROOT if request.path.is_root else _COLLECTION)

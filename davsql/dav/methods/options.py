"""OPTIONS, and what is allowed where (RFC 4918 10.1, 18; RFC 9110 9.3.7, 10.2.1)."""

from __future__ import annotations

from davsql.access import Right
from davsql.dav.methods.patch import PATCH_TYPE
from davsql.dav.request import Request
from davsql.dav.responses import Response
from davsql.errors import NotFound
from davsql.model import Node

# Windows gives up on a DAV header value of more than 63 characters.
CLASSES = "1, 2, 3, sabredav-partialupdate"
CLASSES_READ_ONLY = "1, 3"  # Finder mounts read-only what has no class 2

_READ = ("OPTIONS", "GET", "HEAD", "PROPFIND")
_FILE = (*_READ, "PUT", "PATCH", "DELETE", "COPY", "MOVE", "PROPPATCH", "LOCK", "UNLOCK")
_COLLECTION = (*_READ, "REPORT", "DELETE", "COPY", "MOVE", "PROPPATCH", "LOCK", "UNLOCK")
_ROOT = (*_READ, "REPORT", "COPY", "PROPPATCH", "LOCK", "UNLOCK")
_UNMAPPED = ("OPTIONS", "PUT", "MKCOL", "LOCK")

_NEEDED = {
    **dict.fromkeys(("PUT", "PATCH", "MKCOL", "PROPPATCH", "LOCK", "UNLOCK"), Right.WRITE),
    **dict.fromkeys(("DELETE", "MOVE"), Right.DELETE),
}


def handle(request: Request) -> Response:
    """Always 200 with an empty body: clients probe URLs that are not mapped yet."""
    headers = [
        ("Allow", allowed_methods(request)),
        ("DAV", CLASSES if _is_writable(request) else CLASSES_READ_ONLY),
        ("MS-Author-Via", "DAV"),
        ("Accept-Patch", PATCH_TYPE),  # RFC 5789 3.1
    ]
    return Response(200, headers)


def _is_writable(request: Request) -> bool:
    """Whether there is a path in the share that the principal may change."""
    return not request.store.options.read_only and request.access.may_anywhere(Right.WRITE)


def allowed_methods(request: Request) -> str:
    """The value of Allow for the request's resource as it is now."""
    try:
        node: Node | None = request.store.node(request.path, request.access)
    except NotFound:
        node = None
    methods: tuple[str, ...]
    if node is None:
        methods = _UNMAPPED
    elif not node.is_collection:
        methods = _FILE
    else:
        methods = _ROOT if request.path.is_root else _COLLECTION
    if not _is_writable(request):
        return ", ".join(name for name in methods if name in (*_READ, "REPORT"))
    rights = request.access.rights(request.path)
    return ", ".join(name for name in methods if _NEEDED.get(name, Right.NONE) in rights)

"""What file managers leave behind, with `dav.junk = "drop"`: accepted, so that they go on, and forgotten at once.

Only what is not in the store is dropped: what was stored before stays a file like any other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from uuid import uuid4

from davsql.access import Right
from davsql.dav.methods import lock, proppatch
from davsql.dav.request import Request
from davsql.dav.responses import Response
from davsql.dav.xmlbody import parse_lockinfo, read_body
from davsql.errors import NotAllowed, NotFound, ParentMissing, StoreReadOnly
from davsql.model import Inode, Lock, LockResult
from davsql.paths import DavPath

_NAMES = frozenset({".ds_store", "thumbs.db", "desktop.ini"})
_BLOCK_BYTES = 64 * 1024
_APPLE_DOUBLE = "._"  # with the name of a file: what macOS keeps beside it


def is_junk(path: DavPath) -> bool:
    """Whether the last name is one that only the file manager that wrote it cares for."""
    return path.name.startswith(_APPLE_DOUBLE) or path.name.lower() in _NAMES


def answer(request: Request) -> Response | None:
    """The answer to a change of junk that is not in the store; None for all else.

    Raises:
        HttpError: 400, 413.
        NotAllowed, ParentMissing, StoreReadOnly.
    """
    forget = _METHODS.get(request.method)
    if forget is None or request.share.options.junk == "store" or not is_junk(request.path):
        return None
    with request.store.snapshot(request.access) as view:
        if view.node(request.path) is not None:
            return None
        parent = view.node(DavPath(request.path.names[:-1]))
    if request.store.options.read_only:
        raise StoreReadOnly("the share is read-only")
    if not request.access.may(Right.WRITE, request.path):
        raise NotAllowed(f"{request.path} may not be written")
    if parent is None or not parent.is_collection:
        raise ParentMissing(f"{request.path} has no collection to lie in")
    return forget(request)


def _put(request: Request) -> Response:
    while request.environ["wsgi.input"].read(_BLOCK_BYTES):
        pass
    return Response(201)


def _lock(request: Request) -> Response:
    """A lock on nothing: nobody else is kept from anything, and there is nothing to keep anybody from."""
    body = read_body(request)
    if not body:
        raise NotFound(f"{request.path} does not exist")
    info = parse_lockinfo(body)
    timeout_s = lock.timeout_s(request)
    made = Lock(
        token=f"urn:uuid:{uuid4()}",
        inode=Inode(0),
        root=request.path,
        is_collection=False,
        scope=info.scope,
        is_depth_infinity=False,
        owner_xml=info.owner_xml,
        principal=request.principal.name or "",
        timeout_s=timeout_s,
        expires_at=time.time_ns() + timeout_s * 1_000_000_000,
    )
    return lock.made(request, LockResult(made, (), created=True))


def _proppatch(request: Request) -> Response:
    return proppatch.accepted(request, proppatch.steps_of(request))


def _gone(request: Request) -> Response:
    request.refuse_body()
    return Response(204)


_METHODS: Mapping[str, Callable[[Request], Response]] = {
    "PUT": _put,
    "LOCK": _lock,
    "UNLOCK": _gone,
    "PROPPATCH": _proppatch,
    "DELETE": _gone,
}

"""LOCK (RFC 4918 9.10): a new lock, or more time for one."""

from __future__ import annotations

import re
import time

from davsql.dav.conditions import parse_depth
from davsql.dav.multistatus import CONTENT_TYPE, active_lock, prop_body
from davsql.dav.request import Request
from davsql.dav.responses import HttpError, Response
from davsql.dav.xmlbody import parse_lockinfo, read_body
from davsql.errors import PreconditionFailed
from davsql.model import LockRequest, LockResult

_SECONDS = re.compile(r"second-([0-9]{1,10})", re.IGNORECASE)


def handle(request: Request) -> Response:
    """Make a lock when there is a body, else refresh the one whose token the If header submits.

    Raises:
        HttpError: 400; 412 for a refresh without a matching lock; 413.
        LockConflict, ParentMissing, PreconditionFailed, Locked, TooManyLocks, LockNotOwned.
    """
    body = read_body(request)
    return _new(request, body) if body else _refresh(request)


def _new(request: Request, body: bytes) -> Response:
    depth = parse_depth(request, "infinity")  # RFC 4918 9.10.3; Windows sends none
    if depth == "1":
        raise HttpError(400, "The Depth of a lock is 0 or infinity.")
    info = parse_lockinfo(body)
    wanted = LockRequest(info.scope, depth == "infinity", info.owner_xml, timeout_s(request))
    result = request.store.lock(request.path, wanted, request.guard)
    return made(request, result)


def made(request: Request, result: LockResult) -> Response:
    """The answer that tells of a new lock."""
    return _answer(request, result, 201 if result.created else 200, [("Lock-Token", f"<{result.lock.token}>")])


def _refresh(request: Request) -> Response:
    # RFC 4918 9.10.2: no body, one token in the If header; Depth means nothing.
    if request.preconditions.state_lists is None:
        raise HttpError(400, "LOCK needs a lockinfo document, or an If header with the token of the lock to refresh.")
    if len(request.preconditions.tokens) != 1:
        raise HttpError(400, "A refresh needs exactly one lock token in the If header.")
    try:
        result = request.store.refresh_lock(request.path, timeout_s(request), request.guard)
    except PreconditionFailed as error:
        # RFC 4918 9.10.6
        raise HttpError(
            412, "No lock with this token covers the resource.", condition="lock-token-matches-request-uri"
        ) from error
    return _answer(request, result, 200, [])


def _answer(request: Request, result: LockResult, status: int, headers: list[tuple[str, str]]) -> Response:
    """The lockdiscovery of the resource, this lock first: clients take the first one for theirs."""
    now, principal = time.time_ns(), request.principal.name or ""
    shown = "".join(
        active_lock(each, request.share.href(each.root, is_collection=each.is_collection), now, principal)
        for each in (result.lock, *result.others)
    )
    body = prop_body(f"<D:lockdiscovery>{shown}</D:lockdiscovery>")
    return Response(status, [CONTENT_TYPE, *headers], body)


def timeout_s(request: Request) -> int:
    """The first time in the Timeout header that can be understood, within bounds (RFC 4918 10.7)."""
    options = request.share.options
    for wish in (request.header("Timeout") or "").split(","):
        if wish.strip().lower() == "infinite":
            return options.lock_timeout_max_s
        if (seconds := _SECONDS.fullmatch(wish.strip())) is not None:
            return min(max(int(seconds[1]), 1), options.lock_timeout_max_s)
    return options.lock_timeout_default_s

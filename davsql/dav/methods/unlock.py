"""UNLOCK (RFC 4918 9.11)."""

from __future__ import annotations

import re

from davsql.dav.request import Request
from davsql.dav.responses import HttpError, Response

# RFC 4918 10.5: a Coded-URL; some clients leave out the angle brackets (Windows through proxies).
_LOCK_TOKEN = re.compile(r"<([A-Za-z][A-Za-z0-9+.-]*:[^<>\s]+)>|([A-Za-z][A-Za-z0-9+.-]*:[^<>\s]+)")


def handle(request: Request) -> Response:
    """End the lock that Lock-Token names; it must cover the resource, from there or from above.

    Raises:
        HttpError: 400; 415 for a body (RFC 4918 8.4).
        NotAllowed, NotFound, LockTokenMismatch, LockNotOwned.
    """
    request.refuse_body()
    match = _LOCK_TOKEN.fullmatch((request.header("Lock-Token") or "").strip())
    if match is None:
        raise HttpError(400, "UNLOCK needs the header Lock-Token: <token>.")
    request.store.unlock(request.path, match[1] or match[2], request.guard)
    return Response(204)

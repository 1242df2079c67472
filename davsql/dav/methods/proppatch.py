"""PROPPATCH (RFC 4918 9.2): all steps are applied in one transaction, or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from davsql.dav.multistatus import DAV, empty_element, escape, multistatus, propstat, response
from davsql.dav.properties import LASTMODIFIED, is_of_windows, is_settable, is_time, modified_at_of
from davsql.dav.request import Request
from davsql.dav.responses import HttpError, Response
from davsql.dav.xmlbody import PropertyName, parse_proppatch, read_body
from davsql.errors import TooManyProperties
from davsql.model import PropertyUpdate

_PROTECTED = "cannot-modify-protected-property"


def handle(request: Request) -> Response:
    """Set and remove dead properties, and the time of the last change; 207 says what became of each (RFC 4918 9.2.1).

    Raises:
        HttpError: 400, 413.
        NotFound, Locked, PreconditionFailed.
    """
    updates, guard = steps_of(request), request.guard
    if all(map(is_of_windows, updates)):
        # Office sets them under its lock, and does not name its token.
        guard = replace(guard, has_own_tokens=True)
    names = list(dict.fromkeys((update.namespace, update.name) for update in updates))
    times = {update: modified_at_of(update) for update in updates if is_time(update)}
    set_times = {(update.namespace, update.name) for update in times}
    refused = {name: 403 for name in names if name not in set_times and not is_settable(*name)}
    refused |= {(update.namespace, update.name): 409 for update, time in times.items() if time is None}
    if refused:
        # Nothing is changed, but whether the client may change this resource at all comes first.
        request.store.set_properties(request.path, (), guard)
        return _answer(request, {name: refused.get(name, 424) for name in names})
    dead = [update for update in updates if update.namespace != DAV or update.name != LASTMODIFIED]
    last = next(reversed(times.values()), None)
    try:
        request.store.set_properties(request.path, dead, guard, modified_at=last)
    except TooManyProperties:
        kept = {(update.namespace, update.name) for update in updates if update.xml is not None}
        return _answer(request, {name: 507 if name in kept else 424 for name in names})
    return accepted(request, updates)


def steps_of(request: Request) -> list[PropertyUpdate]:
    """The steps that the body asks for; HttpError 400, 413."""
    body = read_body(request)
    if not body:
        raise HttpError(400, "PROPPATCH needs a propertyupdate document.")
    return parse_proppatch(body)


def accepted(request: Request, updates: Sequence[PropertyUpdate]) -> Response:
    """The answer that says that all is done."""
    return _answer(request, {(update.namespace, update.name): 200 for update in updates})


def _answer(request: Request, statuses: Mapping[PropertyName, int]) -> Response:
    by_status: dict[int, list[str]] = {}
    for name, status in statuses.items():
        by_status.setdefault(status, []).append(empty_element(*name))
    propstats = "".join(
        propstat(status, "".join(elements), _PROTECTED if status == 403 else None)
        for status, elements in by_status.items()
    )
    # The slash of a collection is left as the client wrote it: to know better would need another query.
    has_slash = request.environ["REQUEST_URI"].partition("?")[0].endswith("/")
    return multistatus([response(escape(request.share.href(request.path, is_collection=has_slash)), propstats)])

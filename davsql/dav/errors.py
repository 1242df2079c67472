"""Errors of the store and of parsing as HTTP statuses: one table, once."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from davsql import errors
from davsql.access import FULL_ACCESS, Access
from davsql.dav.multistatus import error_body
from davsql.dav.responses import HttpError, Response

if TYPE_CHECKING:
    from davsql.dav.request import Share


class Rule(NamedTuple):
    """What an error becomes."""

    status: int
    message: str | None  # None: the error's own words, which speak of the request and of nothing inside
    condition: str | None = None  # RFC 4918 16, RFC 4331 6
    headers: tuple[tuple[str, str], ...] = ()


_CLOSE = (("Connection", "close"),)  # nobody knows where the next request would begin
_INTERNAL_MESSAGE = "The server could not do this because of an error of its own."
_INTERNAL = Rule(500, _INTERNAL_MESSAGE)

RULES: dict[type[errors.DavsqlError], Rule] = {
    errors.LoginRefused: Rule(401, "Name or password is wrong, or missing."),
    errors.LoginBlocked: Rule(429, "Too many logins have failed; wait before the next one."),
    errors.LoginBusy: Rule(503, "Too many are logging in at this moment; try again."),
    errors.InvalidPath: Rule(400, None),
    errors.NameTooLong: Rule(403, None),
    errors.PathTooLong: Rule(414, None),
    errors.PathTooDeep: Rule(403, None),
    errors.FileTooLarge: Rule(413, "The file is larger than this server takes; nothing was changed."),
    errors.IncompleteBody: Rule(400, "The body ended early; nothing was changed.", None, _CLOSE),
    errors.MalformedBody: Rule(400, "The chunked body is malformed; nothing was changed.", None, _CLOSE),
    errors.NotFound: Rule(404, "There is no such resource."),
    errors.ParentMissing: Rule(409, "The collection that should hold this resource does not exist."),
    errors.AlreadyExists: Rule(405, "There is a resource already."),
    errors.OverwriteRefused: Rule(412, "The destination exists and Overwrite is F."),
    errors.IsCollection: Rule(405, "This is a collection."),
    errors.NotAllowed: Rule(403, "You are not allowed to do this here."),
    errors.ForbiddenTarget: Rule(403, "The root stays, and nothing goes onto or into itself."),
    errors.ContentChanged: Rule(409, "The file was changed at the same time; nothing of this change was stored."),
    errors.PreconditionFailed: Rule(412, "A condition of the request does not hold."),
    errors.Locked: Rule(423, "A lock protects this resource.", "lock-token-submitted"),
    errors.LockConflict: Rule(423, "A lock is held that does not go with the new one.", "no-conflicting-lock"),
    errors.LockTokenMismatch: Rule(409, "No such lock covers this resource.", "lock-token-matches-request-uri"),
    errors.LockNotOwned: Rule(403, "The lock belongs to somebody else."),
    errors.SyncTokenInvalid: Rule(403, "Ask without a sync-token for all there is.", "valid-sync-token"),
    errors.TooManyProperties: Rule(507, "The limit on properties of this resource is reached."),
    errors.TooManyLocks: Rule(507, "The limit on locks is reached."),
    errors.QuotaExceeded: Rule(507, "The quota is used up; nothing was changed.", "quota-not-exceeded"),
    errors.StoreReadOnly: Rule(403, "This share is read-only."),
    errors.StoreBusy: Rule(503, "The server is busy; nothing was changed."),
    errors.StoreFull: Rule(507, "No space is left; nothing was changed.", "sufficient-disk-space"),
    errors.StoreUnavailable: Rule(503, "The store cannot be used at the moment."),
    errors.StoreDamaged: _INTERNAL,
    errors.StoreVersionError: _INTERNAL,
    errors.NotAStore: _INTERNAL,
}


def as_http_error(error: errors.DavsqlError, share: Share | None, access: Access = FULL_ACCESS) -> HttpError:
    """The HTTP error that `error` means for a request to `share`, told to whoever has `access`."""
    rule = next((RULES[kind] for kind in type(error).__mro__ if kind in RULES), _INTERNAL)
    hrefs: tuple[str, ...] = ()
    if isinstance(error, errors.Locked) and share is not None:
        # Who may write where he may not read learns that there is a lock, and not on what.
        hrefs = tuple(
            share.href(lock.root, is_collection=lock.is_collection)
            for lock in error.locks
            if access.shows(lock.root, is_collection=lock.is_collection)
        )
    message = str(error) if rule.message is None else rule.message
    headers = rule.headers
    if error.retry_after_s is not None:
        headers = (*headers, ("Retry-After", str(error.retry_after_s)))
    return HttpError(rule.status, message, condition=rule.condition, hrefs=hrefs, headers=headers)


def internal_error() -> HttpError:
    """What a client learns of an error nobody expected."""
    return HttpError(_INTERNAL.status, _INTERNAL_MESSAGE)


def error_response(error: HttpError) -> Response:
    """An error as it goes out: a DAV:error document when a condition has a name (RFC 4918 16), else a line of text."""
    if error.condition is not None:
        content_type, body = "application/xml; charset=utf-8", error_body(error.condition, error.hrefs)
    else:
        content_type, body = "text/plain; charset=utf-8", f"{error.message}\n".encode("utf-8", "backslashreplace")
    headers = [("Content-Type", content_type), ("X-Content-Type-Options", "nosniff"), *error.headers]
    return Response(error.status, headers, body)

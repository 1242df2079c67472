from __future__ import annotations

from collections.abc import Iterator

import pytest
from lxml import etree

from davsql import errors
from davsql.dav.errors import RULES, as_http_error, error_response, internal_error
from davsql.dav.responses import HttpError
from davsql.model import Inode, Lock, LockScope
from davsql.paths import DavPath
from tests.dav.parsed import make_request

ABSTRACT = {errors.StoreError, errors.LockError, errors.KeyFailed}
NOT_OF_REQUESTS = {
    errors.AccountError,
    errors.BadKey,
    errors.Cancelled,
    errors.ConfigError,
    errors.InsecureFile,
    errors.KeyMissing,
    errors.ListenError,
    errors.ReplicaError,
    errors.SourceChanged,
    errors.TlsError,
    errors.WorkerFailed,
    errors.WrongKey,
}
INSIDE = "/var/lib/davsql/secret.db"


def subclasses(kind: type[errors.DavsqlError]) -> Iterator[type[errors.DavsqlError]]:
    for each in kind.__subclasses__():
        yield each
        yield from subclasses(each)


def lock_on(name: str, *, is_collection: bool) -> Lock:
    inode = Inode(len(name))
    return Lock("urn:x", inode, DavPath((name,)), is_collection, LockScope.SHARED, False, None, "", 1, 1)  # noqa: FBT003


def make_error(kind: type[errors.DavsqlError]) -> errors.DavsqlError:
    if issubclass(kind, errors.Locked):
        return kind([lock_on("a b", is_collection=False), lock_on("c", is_collection=True)])
    return kind(INSIDE)


def test_rules__cover_every_error_that_a_request_can_meet() -> None:
    ours = {kind for kind in subclasses(errors.DavsqlError) if kind.__module__ == errors.__name__}
    assert ours - ABSTRACT - NOT_OF_REQUESTS == set(RULES)


@pytest.mark.parametrize("kind", RULES, ids=lambda kind: kind.__name__)
def test_as_http_error__never_tells_of_what_is_inside(kind: type[errors.DavsqlError]) -> None:
    is_about_the_path = kind in (errors.InvalidPath, errors.NameTooLong, errors.PathTooLong, errors.PathTooDeep)
    response = error_response(as_http_error(make_error(kind), make_request().share))
    assert isinstance(response.body, bytes)
    assert 400 <= response.status < 600
    assert (INSIDE.encode() in response.body) is is_about_the_path


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (errors.LoginRefused, 401),
        (errors.LoginBlocked, 429),
        (errors.LoginBusy, 503),
        (errors.InvalidPath, 400),
        (errors.NameTooLong, 403),
        (errors.PathTooLong, 414),
        (errors.PathTooDeep, 403),
        (errors.IncompleteBody, 400),
        (errors.MalformedBody, 400),
        (errors.NotFound, 404),
        (errors.ParentMissing, 409),
        (errors.AlreadyExists, 405),
        (errors.OverwriteRefused, 412),
        (errors.IsCollection, 405),
        (errors.ForbiddenTarget, 403),
        (errors.PreconditionFailed, 412),
        (errors.Locked, 423),
        (errors.LockConflict, 423),
        (errors.LockTokenMismatch, 409),
        (errors.LockNotOwned, 403),
        (errors.TooManyProperties, 507),
        (errors.TooManyLocks, 507),
        (errors.StoreReadOnly, 403),
        (errors.StoreBusy, 503),
        (errors.StoreFull, 507),
        (errors.StoreUnavailable, 503),
        (errors.StoreDamaged, 500),
    ],
)
def test_as_http_error__gives_the_status(kind: type[errors.DavsqlError], status: int) -> None:
    assert as_http_error(make_error(kind), None).status == status


def test_as_http_error__a_kind_of_its_own_is_its_bases() -> None:
    class Gone(errors.NotFound):
        pass

    class Odd(errors.StoreError):
        pass

    assert as_http_error(Gone(), None).status == 404
    assert as_http_error(Odd(INSIDE), None).status == 500


@pytest.mark.parametrize(
    ("error", "condition"),
    [
        (errors.Locked([lock_on("a b", is_collection=False)]), "lock-token-submitted"),
        (errors.LockConflict([lock_on("a b", is_collection=True)]), "no-conflicting-lock"),
    ],
)
def test_error_response__names_locked_resources_as_clients_know_them(error: errors.DavsqlError, condition: str) -> None:
    response = error_response(as_http_error(error, make_request(mount="/share").share))
    assert isinstance(response.body, bytes)
    root = etree.fromstring(response.body)
    assert root.tag == "{DAV:}error"
    assert [child.tag for child in root] == [f"{{DAV:}}{condition}"]
    slash = "/" if condition == "no-conflicting-lock" else ""
    assert [href.text for href in root.iter("{DAV:}href")] == ["/share/a%20b" + slash]


def test_error_response__without_a_condition_is_a_line_of_text() -> None:
    response = error_response(HttpError(404, "<b>no", headers=(("X-Y", "z"),)))
    assert response.body == b"<b>no\n"
    assert ("Content-Type", "text/plain; charset=utf-8") in response.headers
    assert ("X-Content-Type-Options", "nosniff") in response.headers
    assert ("X-Y", "z") in response.headers


def test_error_response__words_that_are_no_unicode_do_no_harm() -> None:
    assert error_response(HttpError(400, "\ud800")).body == b"\\ud800\n"


def test_errors__say_when_to_close_and_when_to_come_again() -> None:
    assert ("Connection", "close") in as_http_error(errors.IncompleteBody(), None).headers
    assert ("Connection", "close") in as_http_error(errors.MalformedBody(), None).headers
    assert ("Retry-After", "2") in as_http_error(errors.StoreBusy(), None).headers
    assert ("Retry-After", "7") in as_http_error(errors.LoginBlocked("", 7), None).headers
    assert internal_error().status == 500

"""One share as a WsgiDAV provider: WsgiDAV brings a request here, our method handlers answer it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from wsgidav.dav_provider import DAVProvider

from davsql.access import FULL_ACCESS
from davsql.dav import nextcloud
from davsql.dav.errors import as_http_error, error_response, internal_error
from davsql.dav.homes import Homes
from davsql.dav.methods import (
    chunks,
    copymove,
    delete,
    get,
    junk,
    lock,
    mkcol,
    options,
    patch,
    propfind,
    proppatch,
    put,
    report,
    unlock,
)
from davsql.dav.request import Request, Share
from davsql.dav.resources import StoreLocks, make_resource
from davsql.dav.responses import HttpError, Response, deliver
from davsql.errors import DavsqlError, InvalidPath, NameTooLong, StoreDamaged
from davsql.paths import DavPath

if TYPE_CHECKING:
    from wsgiref.types import StartResponse

log = logging.getLogger(__name__)

# the environ key by which the application tells its providers
PATH_KEY = "davsql.path"  # DavPath within the share, parsed once from the raw request target
SHARE_KEY = "davsql.share"  # the Share under the name that the client uses, where that is another one

METHODS: dict[str, Callable[[Request], Response]] = {
    "OPTIONS": options.handle,
    "GET": get.handle_get,
    "HEAD": get.handle_head,
    "PUT": put.handle,
    "PATCH": patch.handle,
    "DELETE": delete.handle,
    "MKCOL": mkcol.handle,
    "COPY": copymove.handle_copy,
    "MOVE": copymove.handle_move,
    "PROPFIND": propfind.handle,
    "PROPPATCH": proppatch.handle,
    "REPORT": report.handle,
    "LOCK": lock.handle,
    "UNLOCK": unlock.handle,
}


class AnsweringProvider(DAVProvider):  # type: ignore[misc]  # WsgiDAV has no types
    """A provider that answers every method itself; WsgiDAV's own handlers never run.

    Attributes:
        share: what hrefs in errors begin with; None where there is no share.
    """

    share: Share | None = None

    def handle(self, environ: dict[str, Any]) -> Response:
        """The answer to a request; HttpError or DavsqlError when there is none."""
        raise NotImplementedError

    def allowed_methods(self, environ: dict[str, Any]) -> str:
        """The value of Allow for the request's resource."""
        raise NotImplementedError

    def answer(self, environ: dict[str, Any]) -> Response:
        """The answer to a request: errors become answers here, and those of our own are logged, once."""
        try:
            return self.handle(environ)
        except HttpError as error:
            return error_response(self._with_allow(error, environ))
        except DavsqlError as error:
            if isinstance(error, StoreDamaged):
                log.error("%s %s: %s", environ["REQUEST_METHOD"], environ[PATH_KEY], error)  # noqa: TRY400
            access = FULL_ACCESS if self.share is None else self.share.access_of(environ)
            return error_response(
                self._with_allow(as_http_error(error, environ.get(SHARE_KEY, self.share), access), environ)
            )
        except Exception:
            log.exception("%s %r failed", environ["REQUEST_METHOD"], environ[PATH_KEY])
            return error_response(internal_error())

    def is_readonly(self) -> bool:
        """False, or WsgiDAV would answer 405 itself; who writes where is decided by `handle`."""
        return False

    def custom_request_handler(
        self, environ: dict[str, Any], start_response: StartResponse, default_handler: object
    ) -> Iterable[bytes]:
        """WsgiDAV's way in, after authentication."""
        del default_handler
        return deliver(self.answer(environ), environ["REQUEST_METHOD"], start_response)

    def _with_allow(self, error: HttpError, environ: dict[str, Any]) -> HttpError:
        """RFC 9110 15.5.6: a 405 says what is possible instead."""
        if error.status == 405 and all(name != "Allow" for name, _ in error.headers):
            try:
                allowed = self.allowed_methods(environ)
            except DavsqlError:  # busy or gone: the status matters more than the list
                allowed = "OPTIONS"
            error.headers = (*error.headers, ("Allow", allowed))
        return error


class StoreProvider(AnsweringProvider):
    """One store under its mount path.

    Attributes:
        elsewhere: answers those who may do nothing here as if there were no such share; None: there is nothing else.
    """

    share: Share
    elsewhere: AnsweringProvider | None = None

    def __init__(self, share: Share) -> None:
        super().__init__()
        self.share = share
        self._homes = Homes(share.store)

    def __repr__(self) -> str:
        return f"StoreProvider({str(self.share.store.file)!r})"

    def answer(self, environ: dict[str, Any]) -> Response:
        """See AnsweringProvider."""
        if self.elsewhere is None or not self.share.access_of(environ).is_empty:
            return super().answer(environ)
        environ[PATH_KEY] = DavPath((self.share.name, *environ[PATH_KEY].names))
        return self.elsewhere.answer(environ)

    def handle(self, environ: dict[str, Any]) -> Response:
        """Run the method's handler."""
        request, files = self._request(environ)
        handler = METHODS.get(request.method)
        if handler is None:
            raise HttpError(405, f"{request.method} is not possible here.")
        if request.access.homes:
            self._homes.make(request)
        if files is not None:
            return chunks.handle(request, files)
        return junk.answer(request) or handler(request)

    def _request(self, environ: dict[str, Any]) -> tuple[Request, Share | None]:
        """The request, and where the file goes if it is about an upload in parts."""
        request = Request(environ, self.share, environ[PATH_KEY])
        if self.share.options.nextcloud_paths:
            found = nextcloud.locate(self.share, request.path, request.principal)
            if found is not None:
                environ[SHARE_KEY] = found.files or found.share
                return Request(environ, found.share, found.path), found.files
        return request, None

    def allowed_methods(self, environ: dict[str, Any]) -> str:
        """As OPTIONS says it."""
        request, files = self._request(environ)
        return options.allowed_methods(request) if files is None else chunks.ALLOW

    # --- what WsgiDAV and its middleware may ask -----------------------------------------------------------------

    def set_lock_manager(self, lock_manager: object) -> None:
        """Locks are the store's: WsgiDAV's manager is not used."""
        del lock_manager
        self.lock_manager = StoreLocks(self)

    def get_resource_inst(self, path: str, environ: dict[str, Any]) -> object | None:
        """A read-only view of the node at a decoded path within the share; None when there is none."""
        try:
            where = DavPath.from_text(path)
        except (InvalidPath, NameTooLong):
            return None
        with self.share.store.snapshot(self.share.access_of(environ)) as view:
            node = view.node(where)
        return None if node is None else make_resource(self, where, node, environ)

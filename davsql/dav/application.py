"""The WSGI application: WsgiDAV's shell around our shares.

WsgiDAV maps a request to its provider, authenticates it and catches what nobody else caught. Everything that decides
what a request means is ours: the path is parsed once, from the raw request target, before WsgiDAV sees the request.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from wsgidav.error_printer import ErrorPrinter
from wsgidav.http_authenticator import HTTPAuthenticator
from wsgidav.mw.base_mw import BaseMiddleware
from wsgidav.request_resolver import RequestResolver
from wsgidav.wsgidav_app import WsgiDAVApp

from davsql.dav.destination import is_own_origin, split_target
from davsql.dav.errors import as_http_error, error_response
from davsql.dav.methods.options import CLASSES
from davsql.dav.provider import BODY_KEY, FAILURE_KEY, METHODS, PATH_KEY, AnsweringProvider, StoreProvider
from davsql.dav.request import DavOptions, Share
from davsql.dav.responses import NO_LENGTH, HttpError, Response, deliver
from davsql.dav.roots import RootsProvider
from davsql.errors import ConfigError, DavsqlError, InvalidPath
from davsql.paths import DavPath, lookup_key

if TYPE_CHECKING:
    from collections.abc import Callable
    from wsgiref.types import StartResponse, WSGIApplication

    from davsql.store.store import Store

_SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS", "PROPFIND"))

# WsgiDAV's loggers only repeat what we answer or log ourselves; its errors are worth having.
logging.getLogger("wsgidav").setLevel(logging.ERROR)


def make_application(shares: Mapping[str, Store], options: DavOptions) -> WSGIApplication:
    """The application that serves stores by their mount paths, "/" or "/name".

    Raises:
        ConfigError: there is no share, a mount path is no name, or "/" stands beside others.
        InvalidPath, NameTooLong: a name that no resource can have.
    """
    if not shares:
        raise ConfigError("there is no share to serve")
    providers: dict[str, AnsweringProvider] = {}
    for mount, store in shares.items():
        path = DavPath.from_text(mount)
        if not mount.startswith("/") or len(path.names) > 1 or (path.is_root and len(shares) > 1):
            raise ConfigError(f"the mount path {mount!r} must be /name, or / for the only share")
        share = Share(path.href().rstrip("/"), store, options)
        key = "/" + "".join(path.keys)
        if key in providers:
            raise ConfigError(f"two shares are named {mount!r}")
        providers[key] = StoreProvider(share)
    if "/" not in providers:
        providers["/"] = RootsProvider([each.share for each in providers.values() if isinstance(each, StoreProvider)])
    return StoreApplication(providers)


class AnyMethod(BaseMiddleware):  # type: ignore[misc]  # WsgiDAV has no types
    """Takes to the provider what WsgiDAV would answer itself: methods that it does not know, and all without locks."""

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        provider: AnsweringProvider = environ["wsgidav.provider"]
        if environ["REQUEST_METHOD"] not in METHODS or provider.lock_manager is None:
            return provider.custom_request_handler(environ, start_response, None)
        below: Iterable[bytes] = self.next_app(environ, start_response)
        return below


class StoreApplication(WsgiDAVApp):  # type: ignore[misc]  # WsgiDAV has no types
    """WsgiDAV's application with exact paths. Threads: any."""

    def __init__(self, providers: dict[str, AnsweringProvider]) -> None:
        super().__init__(
            {
                "provider_mapping": providers,
                "middleware_stack": [ErrorPrinter, HTTPAuthenticator, AnyMethod, RequestResolver],
                "http_authenticator": {"accept_basic": True, "accept_digest": False, "default_to_digest": False},
                "simple_dc": {"user_mapping": {"*": True}},  # everybody is anonymous
                "hotfixes": {"re_encode_path_info": False},  # PATH_INFO is text already, see _locate
                "lock_storage": None,
                "property_manager": None,
                "verbose": 1,
                "logging": {"enable": False},
            }
        )

    def resolve_provider(self, path: str) -> tuple[str, AnsweringProvider]:
        """The share of a decoded path: by its whole first name, case and all; WsgiDAV takes lower-cased prefixes."""
        share = "/" + lookup_key(path.split("/", 2)[1])
        if share not in self.provider_map:
            share = "/"
        return share, self.provider_map[share]

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """WSGI. Paths that cannot be are refused before WsgiDAV normalises them."""
        # The server drains or closes; WsgiDAV would read whole bodies into memory, or close every connection.
        environ["wsgidav.some_input_read"] = environ["wsgidav.all_input_read"] = 1
        try:
            early = self._locate(environ)
        except HttpError as error:
            early = error_response(error)
        except DavsqlError as error:
            early = error_response(as_http_error(error, None))
        if early is None:
            return self._through_wsgidav(environ, start_response)
        return deliver(early, environ["REQUEST_METHOD"], _LengthAsIs(start_response))

    def _locate(self, environ: dict[str, Any]) -> Response | None:
        """Parse the request target and put its path into `environ`; a response when that is all there is to do."""
        target, authority = split_target(environ["REQUEST_URI"])
        if target == "*" and environ["REQUEST_METHOD"] == "OPTIONS":
            return Response(200, [("Allow", ", ".join(METHODS)), ("DAV", CLASSES), ("MS-Author-Via", "DAV")])
        if authority is not None:
            environ["HTTP_HOST"] = authority  # RFC 9112 3.2.2
        raw = target.partition("?")[0]
        if "#" in raw:
            raise InvalidPath("a request target has no fragment")
        path = DavPath.parse(raw)
        if environ["REQUEST_METHOD"] not in _SAFE_METHODS:
            _refuse_foreign_page(environ)
        share = self.resolve_provider(str(path))[0]
        within = environ[PATH_KEY] = path if share == "/" else DavPath(path.names[1:])
        # WsgiDAV finds the share again and cuts off as many characters: its name must stand there as it is configured.
        environ["PATH_INFO"] = str(within) if share == "/" else share + str(within)
        return None

    def _through_wsgidav(self, environ: dict[str, Any], start_response: StartResponse) -> Iterator[bytes]:
        try:
            yield from super().__call__(environ, _LengthAsIs(start_response))
        finally:
            close = getattr(environ.get(BODY_KEY), "close", None)
            if close is not None:
                close()
        if FAILURE_KEY in environ:
            raise environ[FAILURE_KEY]  # the server ends the connection, so that nobody takes a part for the whole


class _LengthAsIs:
    """start_response without the stand-in that WsgiDAV needs where there is no Content-Length."""

    __slots__ = ("_start_response",)

    def __init__(self, start_response: StartResponse) -> None:
        self._start_response = start_response

    def __call__(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None, /
    ) -> Callable[[bytes], object]:
        if NO_LENGTH in headers:
            headers.remove(NO_LENGTH)
        if exc_info is None:
            return self._start_response(status, headers)
        return self._start_response(status, headers, exc_info)


def _refuse_foreign_page(environ: Mapping[str, Any]) -> None:
    """Refuse to change anything on behalf of a page of another site that is open in somebody's browser.

    Origins of other schemes are applications and browser extensions, which act for their user.
    """
    origin = environ.get("HTTP_ORIGIN")
    if origin is None:
        is_foreign = environ.get("HTTP_SEC_FETCH_SITE") in ("cross-site", "same-site")
    else:
        is_web = origin == "null" or origin.lower().startswith(("http://", "https://"))
        is_foreign = is_web and not is_own_origin(environ, origin)
    if is_foreign:
        raise HttpError(403, "A page of another site must not change anything here.")

"""The WSGI application: WsgiDAV's shell around our shares.

WsgiDAV holds the providers and runs its middleware, authentication above all, in front of them. Everything that decides
what a request means is ours: the path is parsed once, from the raw request target, before WsgiDAV sees the request, and
the provider answers every method.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from wsgidav.mw.base_mw import BaseMiddleware
from wsgidav.wsgidav_app import WsgiDAVApp

from davsql.dav.access import OpenShare, ShareRules
from davsql.dav.assets import asset_response
from davsql.dav.authentication import GATE_KEY, Authentication
from davsql.dav.cors import Cors
from davsql.dav.destination import is_own_origin, split_target
from davsql.dav.errors import as_http_error, error_response
from davsql.dav.methods.options import CLASSES
from davsql.dav.peer import Peers, ProxyOptions, href_of_base
from davsql.dav.provider import METHODS, PATH_KEY, AnsweringProvider, StoreProvider
from davsql.dav.quotas import ShareQuotas
from davsql.dav.request import DavOptions, Share
from davsql.dav.responses import HttpError, Response, deliver
from davsql.dav.roots import RootsProvider
from davsql.errors import ConfigError, DavsqlError, InvalidPath
from davsql.paths import DavPath, lookup_key

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication

    from davsql.accounts.gate import Gate
    from davsql.store.store import Store

_SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS", "PROPFIND", "REPORT"))

# WsgiDAV's loggers only repeat what we answer or log ourselves; its errors are worth having.
logging.getLogger("wsgidav").setLevel(logging.ERROR)


def make_application(
    shares: Mapping[str, Store],
    options: DavOptions,
    *,
    rules: Mapping[str, ShareRules] | None = None,
    quotas: Mapping[str, ShareQuotas] | None = None,
    gate: Gate | None = None,
    proxy: ProxyOptions | None = None,
) -> WSGIApplication:
    """The application that serves stores by their mount paths, "/" or "/name".

    Args:
        rules: who may do what in each share; None: there are no accounts, and everybody may do everything.
        quotas: how much may be held in each share; None: as much as there is room for.
        gate: lets in who has an account; None: everybody is anonymous.

    Raises:
        ConfigError: there is no share, a mount path is no name, or "/" stands beside others.
        InvalidPath, NameTooLong: a name that no resource can have.
    """
    if not shares:
        raise ConfigError("there is no share to serve")
    proxy = proxy or ProxyOptions()
    providers: dict[str, AnsweringProvider] = {}
    for mount, store in shares.items():
        path = DavPath.from_text(mount)
        if not mount.startswith("/") or len(path.names) > 1 or (path.is_root and len(shares) > 1):
            raise ConfigError(f"the mount path {mount!r} must be /name, or / for the only share")
        share = Share(
            href_of_base(proxy.base) + path.href().rstrip("/"),
            store,
            options,
            OpenShare() if rules is None else rules[mount],
            ShareQuotas() if quotas is None else quotas[mount],
        )
        key = "/" + "".join(path.keys)
        if key in providers:
            raise ConfigError(f"two shares are named {mount!r}")
        providers[key] = StoreProvider(share)
    if "/" not in providers:
        of_shares = [each for each in providers.values() if isinstance(each, StoreProvider)]
        providers["/"] = RootsProvider([each.share for each in of_shares])
        for each in of_shares:
            each.elsewhere = providers["/"]
    peers = Peers(proxy, is_open=gate is None and rules is None)
    return StoreApplication(providers, gate, peers, Cors(options.cors_origins, tuple(METHODS)))


class ToProvider(BaseMiddleware):  # type: ignore[misc]  # WsgiDAV has no types
    """The end of WsgiDAV's stack: a request that authentication let through goes to its provider, whatever its method;
    parts of the page for browsers belong to no provider.

    Stands where WsgiDAV's own handlers would.
    """

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        asset = asset_response(environ)
        if asset is not None:
            return deliver(asset, environ["REQUEST_METHOD"], start_response)
        provider: AnsweringProvider = environ["wsgidav.provider"]
        return provider.custom_request_handler(environ, start_response, None)


class StoreApplication(WsgiDAVApp):  # type: ignore[misc]  # WsgiDAV has no types
    """WsgiDAV's application with exact paths. Threads: any."""

    def __init__(self, providers: dict[str, AnsweringProvider], gate: Gate | None, peers: Peers, cors: Cors) -> None:
        self._peers = peers
        self._cors = cors
        super().__init__(
            {
                "provider_mapping": providers,
                "middleware_stack": [ToProvider] if gate is None else [Authentication, ToProvider],
                GATE_KEY: gate,
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
        """WSGI. Leads into WsgiDAV's middleware; WsgiDAV's own method would normalise paths and mend answers."""
        self._peers.settle(environ)
        start_response = self._cors.opened(environ, start_response)
        try:
            early = self._locate(environ)
            if early is None:
                answer: Iterable[bytes] = self.application(environ, start_response)
                return answer
        except HttpError as error:
            early = error_response(error)
        except DavsqlError as error:
            early = error_response(as_http_error(error, None))
        return deliver(early, environ["REQUEST_METHOD"], start_response)

    def _locate(self, environ: dict[str, Any]) -> Response | None:
        """Parse the request target and put into `environ` what providers and WsgiDAV's middleware look for.

        Returns:
            A response when that is all there is to do.
        """
        target, authority = split_target(environ["REQUEST_URI"])
        if target == "*" and environ["REQUEST_METHOD"] == "OPTIONS":
            return Response(200, [("Allow", ", ".join(METHODS)), ("DAV", CLASSES), ("MS-Author-Via", "DAV")])
        if authority is not None:
            environ["HTTP_HOST"] = authority  # RFC 9112 3.2.2
        self._peers.require_host(environ)
        preflight = self._cors.preflight(environ)
        if preflight is not None:
            return preflight
        raw = target.partition("?")[0]
        if "#" in raw:
            raise InvalidPath("a request target has no fragment")
        path = self._peers.path_within(DavPath.parse(raw))
        if environ["REQUEST_METHOD"] not in _SAFE_METHODS and not self._cors.lets_in(environ):
            _refuse_foreign_page(environ)
        text = str(path)
        share, environ["wsgidav.provider"] = self.resolve_provider(text)
        if share != "/":
            path = DavPath(path.names[1:])
            text = str(path)
            environ["SCRIPT_NAME"] += share
        environ[PATH_KEY] = path
        environ["PATH_INFO"] = text
        environ["wsgidav.app"] = self
        environ["wsgidav.config"] = self.config
        environ["wsgidav.verbose"] = self.verbose
        return None


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

"""Authentication: a middleware in the place of WsgiDAV's, which answers malformed credentials with 500, lets a query
log people out, and believes a header with a user's name from anybody.

Basic (RFC 7617) and Bearer (RFC 6750). No Digest: it would need passwords stored in a form that opens the door, and is
MD5 with nonces that WsgiDAV never checks.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from wsgidav.mw.base_mw import BaseMiddleware

from davsql.accounts.gate import Credentials, Gate
from davsql.dav.errors import as_http_error
from davsql.dav.methods.options import CLASSES
from davsql.dav.peer import PROXIED_KEY, is_private
from davsql.dav.request import PRINCIPAL_KEY
from davsql.dav.responses import HttpError, Response, deliver
from davsql.errors import LoginRefused, StoreError
from davsql.model import Principal

if TYPE_CHECKING:
    from wsgiref.types import StartResponse

log = logging.getLogger(__name__)

GATE_KEY = "davsql.gate"  # of WsgiDAV's configuration

# UTF-8 is what we understand first; clients without opinion send what their system has (RFC 7617 2.1).
_BASIC = 'Basic realm="davsql", charset="UTF-8"'
_BEARER = 'Bearer realm="davsql", error="invalid_token"'

_NOT_IN_THE_CLEAR = (
    "Passwords are not accepted over plain HTTP from other machines: use https://. (For whoever runs this server: set "
    '[server] tls = "auto", or put a proxy with TLS in front and name it in [server] trusted_proxies, or set '
    "[accounts] allow_plain_http = true.)"
)

# Browsers have no way to forget a password but to be given another one that is accepted. SIGN_OUT accepts this name
# only, which no account can have; everywhere else it means that nobody is logged in.
SIGN_OUT = "signout"  # the query
SIGNED_OUT = "-signed-out-"  # the name

_NO_ACCOUNT = "The certificate that you show is of no account here, or of one that is disabled."


class Authentication(BaseMiddleware):  # type: ignore[misc]  # WsgiDAV has no types
    """Lets in who is known, and says who it is in `environ`: PRINCIPAL_KEY and REMOTE_USER. Threads: any."""

    def __init__(self, wsgidav_app: object, next_app: object, config: dict[str, Any]) -> None:
        super().__init__(wsgidav_app, next_app, config)
        self._gate: Gate = config[GATE_KEY]
        options = self._gate.options
        self._allows_plain_http = options.allow_plain_http
        header = options.trusted_user_header
        self._user_key = None if header is None else "HTTP_" + header.upper().replace("-", "_")

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """WSGI; HttpError or DavsqlError when the request is not let in."""
        try:
            if environ.get("QUERY_STRING") == SIGN_OUT:
                return _sign_out(environ, start_response)
            principal = self._principal(environ)
        except LoginRefused as error:
            refusal = as_http_error(error, None)
            refusal.headers = (*refusal.headers, *_challenge(environ))
            raise refusal from None
        except StoreError as error:
            log.error("nobody can log in: %s", error)  # noqa: TRY400  # the message says what to do
            raise
        environ[PRINCIPAL_KEY] = principal
        environ["REMOTE_USER"] = principal.name
        below: Iterable[bytes] = self.next_app(environ, start_response)
        return below

    def _principal(self, environ: dict[str, Any]) -> Principal:
        """Who sends the request; HttpError or DavsqlError when that is not to be found out."""
        if self._user_key is not None and environ[PROXIED_KEY]:
            name = environ.get(self._user_key)
            if name:
                return self._gate.vouched(_text(name.encode("latin-1")))
        if environ.get("SSL_CLIENT_VERIFY") == "SUCCESS":
            return self._certified(environ)
        if not self._allows_plain_http and not is_private(environ):
            raise HttpError(403, _NOT_IN_THE_CLEAR)  # not 401: that would ask for the password
        raw = environ.get("HTTP_AUTHORIZATION")
        if raw is None:
            raise LoginRefused("no credentials")
        principal = self._gate.recall(raw)
        if principal is None:
            credentials = parse_credentials(raw)
            if credentials.name == SIGNED_OUT:
                raise LoginRefused("signed out")
            principal = self._gate.admit(credentials, raw, environ["REMOTE_ADDR"])
        return principal

    def _certified(self, environ: dict[str, Any]) -> Principal:
        """Who shows the certificate that the TLS connection was made with; a password beside it says nothing."""
        try:
            return self._gate.certified(_certified_names(environ), environ["REMOTE_ADDR"])
        except LoginRefused:
            raise HttpError(403, _NO_ACCOUNT) from None  # not 401: a password would change nothing


def _sign_out(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """Make a browser that asks with SIGNED_OUT keep that instead of a password."""
    if parse_credentials(environ.get("HTTP_AUTHORIZATION", "")).name != SIGNED_OUT:
        raise LoginRefused("the password is to be forgotten")
    return deliver(Response(200, [("Cache-Control", "no-store")]), environ["REQUEST_METHOD"], start_response)


def parse_credentials(header: str) -> Credentials:
    """What an Authorization header holds, as WSGI hands it over.

    Raises:
        LoginRefused: it is malformed, or of a scheme that is not accepted.
    """
    scheme, _, value = header.strip().partition(" ")
    value = value.strip()
    if scheme.lower() == "bearer":
        return Credentials(None, value)
    if scheme.lower() != "basic":
        raise LoginRefused(f"the scheme {scheme!r} is not accepted")
    try:
        decoded = base64.b64decode(value + "=" * (-len(value) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise LoginRefused("malformed Basic credentials") from None
    name, colon, secret = decoded.partition(b":")
    if not colon or b"\0" in decoded:
        raise LoginRefused("malformed Basic credentials")
    return Credentials(_text(name), _text(secret))


def _challenge(environ: dict[str, Any]) -> Iterable[tuple[str, str]]:
    """What a 401 says: how to authenticate, and to Finder that this is a WebDAV server."""
    is_bearer = environ.get("HTTP_AUTHORIZATION", "")[:7].lower() == "bearer "
    yield "WWW-Authenticate", _BEARER if is_bearer else _BASIC
    yield "DAV", CLASSES
    yield "MS-Author-Via", "DAV"


def _certified_names(environ: Mapping[str, Any]) -> Iterator[str]:
    """The common name of the client's certificate, then its mail addresses, as mod_ssl would put them there."""
    keys = (f"SSL_CLIENT_SAN_Email_{number}" for number in itertools.count())
    mails = itertools.takewhile(environ.__contains__, keys)
    for key in ("SSL_CLIENT_S_DN_CN", *mails):
        if key in environ:
            yield _text(environ[key].encode("latin-1"))


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")

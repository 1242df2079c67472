"""URLs in headers, Destination and the tags of If: split before anything is percent-decoded, as a request target is.

What a path means is decided by `DavPath.parse` alone, so that `;`, `%2F`, `%3F` and the like mean the same everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from davsql.dav.peer import PUBLIC_URL_KEY
from davsql.dav.responses import HttpError
from davsql.paths import DavPath

if TYPE_CHECKING:
    from davsql.dav.request import Request

# RFC 3986 3; only URIs with an authority can name a resource of an HTTP server (RFC 9110 4.2.1).
_ABSOLUTE_URI = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]+)(?P<rest>.*)", re.DOTALL)
# KIO 6, by which KDE speaks WebDAV, leaves its own names for http and https in Destination.
_DEFAULT_PORTS = {"http": ":80", "https": ":443", "webdav": ":80", "webdavs": ":443"}


def parse_destination(request: Request) -> DavPath:
    """The path within the request's share that the Destination header names (RFC 4918 10.3).

    Raises:
        HttpError: 400 when it is missing or malformed; 502 when it lies on another server or share (RFC 4918 9.8.5).
        InvalidPath, NameTooLong, PathTooLong.
    """
    text = request.environ.get("HTTP_DESTINATION")
    if not text:
        raise HttpError(400, "A Destination header is needed.")
    path = resolve_reference(request, text)
    if path is None:
        raise HttpError(502, "The Destination is not in this share, and nothing is copied between servers or shares.")
    return path


def resolve_reference(request: Request, text: str) -> DavPath | None:
    """The path within the request's share of an absolute URI or absolute path; None when it is elsewhere.

    Raises:
        HttpError: 400 when it is neither, or has a query or a fragment, which no resource here has.
        InvalidPath, NameTooLong, PathTooLong.
    """
    raw = text.strip(" \t")
    if raw.startswith("//"):  # a network-path reference: it names a host (RFC 3986 4.2)
        return None
    if not raw.startswith("/"):
        match = _ABSOLUTE_URI.fullmatch(raw)
        if match is None:
            raise HttpError(400, "A URL in a header must be an absolute URI or an absolute path.")
        if not _is_own_site(request.environ, match):
            return None
        raw = match["rest"] or "/"
    if "?" in raw or "#" in raw:
        raise HttpError(400, "A URL in a header must have no query and no fragment.")
    return request.share.path_within(DavPath.parse(raw))


def split_target(target: str) -> tuple[str, str | None]:
    """The path, with its query, and the authority if there is one, of a request target (RFC 9112 3.2.1, 3.2.2)."""
    match = None if target.startswith("/") else _ABSOLUTE_URI.fullmatch(target)
    if match is None:
        return target, None
    rest = match["rest"]
    return rest if rest.startswith("/") else "/" + rest, match["authority"]


def is_own_origin(environ: Mapping[str, Any], origin: str) -> bool:
    """True when an Origin header (RFC 6454 7) names this server."""
    match = _ABSOLUTE_URI.fullmatch(origin)
    return match is not None and _is_own_site(environ, match)


def _is_own_site(environ: Mapping[str, Any], uri: re.Match[str]) -> bool:
    """True when the URI's authority is the one by which the client called this server, or that of its public URL.

    http and https are the same here: behind a proxy that ends TLS, clients say https where this server sees http.
    """
    scheme = uri["scheme"].lower()
    if scheme not in _DEFAULT_PORTS:
        return False
    site = _site(uri["authority"], scheme)
    own = environ.get("HTTP_HOST") or f"{environ.get('SERVER_NAME')}:{environ.get('SERVER_PORT')}"
    if site == _site(own, environ.get("wsgi.url_scheme", "http")):
        return True
    public = _ABSOLUTE_URI.fullmatch(environ.get(PUBLIC_URL_KEY) or "")
    return public is not None and site == _site(public["authority"], public["scheme"])


def _site(authority: str, scheme: str) -> str:
    """Host and port in lower case, without user information and without the scheme's default port."""
    site = authority.rpartition("@")[2].lower()
    return site.removesuffix(_DEFAULT_PORTS[scheme]).removesuffix(":")

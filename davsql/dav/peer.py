"""Who is at the other end of a request, told by the connection, or by a proxy that the configuration trusts.

`settle` writes it into `environ` under the usual keys once, before anything looks at them: REMOTE_ADDR is the client's
address, wsgi.url_scheme and HTTP_HOST are what the client used. What an untrusted peer says of others is ignored.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from davsql.dav.responses import HttpError
from davsql.errors import DavsqlError
from davsql.networks import Networks, checked_networks, is_local, plain_address
from davsql.paths import ROOT, DavPath
from davsql.requestid import adopt

log = logging.getLogger(__name__)

PROXIED_KEY = "davsql.is_proxied"  # environ key: the connection comes from a trusted proxy
UNNAMED_KEY = "davsql.is_unnamed"  # environ key: a trusted proxy speaks for a client and does not say which
PUBLIC_URL_KEY = "davsql.public_url"
BASE_KEY = "davsql.base"  # environ key: what every path begins with, percent-encoded and without a slash at its end

_FORWARDED_PAIR = re.compile(r'[ \t]*([A-Za-z]+)=("(?:[^"\\]|\\.)*"|[^\s;,"]*)[ \t]*(?:;|\Z)')
_FORWARDING = ("HTTP_FORWARDED", "HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO")
_HOST = re.compile(r"[A-Za-z0-9._~-]+(:\d{1,5})?|\[[0-9A-Fa-f:.]+\](:\d{1,5})?")
_PUBLIC_URL = re.compile(rf"https?://(?P<host>{_HOST.pattern})(?P<path>/[^?#]*)?")
_PORT = re.compile(r":\d*$")
_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")


@dataclass(frozen=True, slots=True)
class ProxyOptions:
    """Which proxies are trusted, and with what; config.py fills it from the file."""

    trusted_proxies: tuple[str, ...] = ()
    # A proxy sets one of both and passes the other on as the client sent it: so only one can be believed.
    forwarded_header: Literal["X-Forwarded-For", "Forwarded"] = "X-Forwarded-For"
    # How clients call this server, where the proxy does not hand on the host, or where it is not all of the host.
    public_url: str | None = None
    hosts: tuple[str, ...] = ()  # the names and addresses by which it may be called; empty: see Peers.require_host

    def __post_init__(self) -> None:
        checked_networks("trusted_proxies", self.trusted_proxies)
        try:
            _ = self.base
        except ValueError as error:
            wanted = "something like 'https://dav.example.org' or 'https://example.org/files'"
            raise ValueError(f"public_url: expected {wanted}, found {self.public_url!r}") from error
        for host in self.hosts:
            if not _NAME.fullmatch(host.lower()) and plain_address(host.strip("[]")) is None:
                raise ValueError(f"hosts: expected names or addresses without scheme and port, found {host!r}")

    @property
    def base(self) -> DavPath:
        """The path of the public URL: what is served lies below it. ValueError: there is no such URL."""
        if self.public_url is None:
            return ROOT
        match = _PUBLIC_URL.fullmatch(self.public_url)
        if match is None:
            raise ValueError("no URL")
        try:
            return DavPath.parse(match["path"] or "/")
        except DavsqlError as error:
            raise ValueError(str(error)) from error


class _Hop(NamedTuple):
    """What a proxy says of its peer; None: nothing."""

    address: str | None
    scheme: str | None = None
    host: str | None = None


class Peers:
    """Settles who the client is. Threads: any."""

    def __init__(self, options: ProxyOptions, *, is_open: bool = False) -> None:
        """Args: is_open: whoever can send a request may do everything."""
        public = _PUBLIC_URL.fullmatch(options.public_url or "")
        self._hosts = {_bare(host) for host in options.hosts}
        if self._hosts and public is not None:
            self._hosts.add(_bare(public["host"]))
        self._is_open = is_open
        self._trusted = Networks(options.trusted_proxies)
        self._takes_forwarded = options.forwarded_header == "Forwarded"
        self._public_url = options.public_url
        self._base = options.base
        self._base_href = href_of_base(options.base)
        self._has_warned = False

    def settle(self, environ: dict[str, Any]) -> None:
        """Put the truth about the client into `environ`."""
        told = environ.get("REMOTE_ADDR", "")
        peer = plain_address(told) or told
        environ["REMOTE_ADDR"] = peer
        environ[PUBLIC_URL_KEY] = self._public_url
        environ[BASE_KEY] = self._base_href
        environ[PROXIED_KEY] = is_proxied = peer in self._trusted
        environ[UNNAMED_KEY] = False
        if not is_proxied:
            self._warn_of_untrusted(environ, peer)
            return
        adopt(environ.get("HTTP_X_REQUEST_ID", ""))
        hop = self._client(self._hops(environ))
        if hop.address is not None:
            environ["REMOTE_ADDR"] = hop.address
        else:
            environ[UNNAMED_KEY] = any(key in environ for key in _FORWARDING)
        if hop.scheme in ("http", "https"):
            environ["wsgi.url_scheme"] = hop.scheme
        if hop.host is not None and _HOST.fullmatch(hop.host):
            environ["HTTP_HOST"] = hop.host

    def require_host(self, environ: Mapping[str, Any]) -> None:
        """Refuse a request that calls this server by a name that is not its own (421).

        Names that the configuration lists are its own. Without such a list all are, but where there are no accounts
        only addresses and localhost: anybody can give a name of his this machine's address, and then his page, open
        in a browser here, would be one of this server's (DNS rebinding).
        """
        if not self._hosts and not self._is_open:
            return
        host = _bare(environ.get("HTTP_HOST") or "")
        if self._hosts:
            is_own = host in self._hosts
        else:
            is_local_name = host in ("", "localhost") or host.endswith(".localhost")
            is_own = is_local_name or environ[PROXIED_KEY] or plain_address(host) is not None
        if not is_own:
            raise HttpError(421, f"This server is not called {host!r}; [server] hosts says how it is called.")

    def path_within(self, path: DavPath) -> DavPath:
        """A path of a request, below the path of the public URL.

        The proxy hands paths on as they came: one that takes its prefix away decodes them, or cannot be told from one
        that does not.

        Raises:
            HttpError: 404.
        """
        if not path.is_within(self._base):
            raise HttpError(404, f"There is nothing here: this server begins at {self._base_href}/.")
        return DavPath(path.names[len(self._base.names) :]) if self._base.names else path

    def _hops(self, environ: Mapping[str, Any]) -> list[_Hop]:
        """What the trusted proxy's header says, the nearest hop last."""
        if self._takes_forwarded:
            return list(_forwarded(environ.get("HTTP_FORWARDED", "")))
        scheme = _last(environ, "HTTP_X_FORWARDED_PROTO")
        host = _last(environ, "HTTP_X_FORWARDED_HOST")
        addresses = [each.strip() for each in environ.get("HTTP_X_FORWARDED_FOR", "").split(",")]
        return [_Hop(_address(each), scheme and scheme.lower(), host) for each in addresses]

    def _client(self, hops: Sequence[_Hop]) -> _Hop:
        """The last hop that is no trusted proxy itself: what stands before it, anybody can have written."""
        for hop in reversed(hops):
            if hop.address is None or hop.address not in self._trusted:
                return hop
        return hops[0] if hops else _Hop(None)

    def _warn_of_untrusted(self, environ: Mapping[str, Any], peer: str) -> None:
        if self._has_warned or not is_local(peer):
            return
        if "HTTP_X_FORWARDED_FOR" in environ or "HTTP_FORWARDED" in environ:
            self._has_warned = True
            log.warning(
                "a proxy at %s names its clients, but [server] trusted_proxies does not name it: all of them count as "
                "one client",
                peer,
            )


def href_of_base(base: DavPath) -> str:
    """What hrefs begin with; "" where that is nothing."""
    return "" if base.is_root else base.href()


def is_private(environ: Mapping[str, Any]) -> bool:
    """Whether nobody can listen between the client and this server, as far as it can be told here."""
    is_here = is_local(environ["REMOTE_ADDR"]) and not environ[UNNAMED_KEY]
    return is_here or environ.get("wsgi.url_scheme") == "https"


def _bare(host: str) -> str:
    """A host as it is compared: without port and brackets."""
    bare = host.lower()
    if bare.startswith("[") or bare.count(":") == 1:
        bare = _PORT.sub("", bare)
    bare = bare.strip("[]").rstrip(".")
    return plain_address(bare) or bare


def _last(environ: Mapping[str, Any], key: str) -> str | None:
    return environ.get(key, "").rpartition(",")[2].strip() or None


def _forwarded(text: str) -> Iterator[_Hop]:
    """The elements of a Forwarded header (RFC 7239 4); one that cannot be read tells nothing.

    A comma ends an element even in quotes, where no address, scheme or host has one: else a client could open a quote
    that swallows what the proxy writes after it.
    """
    for element in text.split(","):
        pairs = _pairs(element)
        scheme = pairs.get("proto")
        yield _Hop(_address(pairs.get("for", "")), scheme and scheme.lower(), pairs.get("host"))


def _pairs(element: str) -> dict[str, str]:
    """Names and values of one element; none where anything in it is malformed."""
    pairs: dict[str, str] = {}
    position = 0
    while position < len(element):
        match = _FORWARDED_PAIR.match(element, position)
        if match is None:
            return {}
        value = match[2]
        pairs[match[1].lower()] = re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
        position = match.end()
    return pairs


def _address(text: str) -> str | None:
    """The address of `203.0.113.9`, `203.0.113.9:4711`, `2001:db8::9` or `[2001:db8::9]:4711`."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    return plain_address(text)

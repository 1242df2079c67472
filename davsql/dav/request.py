"""One WebDAV request, as the method handlers see it: parsed once, nothing left to interpret twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qs

from davsql.access import Access
from davsql.dav.access import OpenShare, ShareRules
from davsql.dav.conditions import parse_preconditions
from davsql.dav.cors import checked_origins
from davsql.dav.dates import parse_unix_time
from davsql.dav.quotas import ShareQuotas
from davsql.dav.responses import HttpError
from davsql.model import ANONYMOUS, Guard, Preconditions, Principal
from davsql.paths import DavPath

if TYPE_CHECKING:
    from davsql.store.store import Store

PRINCIPAL_KEY = "davsql.principal"  # environ key of the model.Principal that authentication found; absent: ANONYMOUS
_QUERY_FIELDS_MAX = 1000

OC_MTIME = "X-OC-Mtime"  # of ownCloud and Nextcloud; clients believe it only if the answer says `accepted`


@dataclass(frozen=True, slots=True)
class DavOptions:
    """Limits and switches of the WebDAV side; config.py fills them from the file."""

    propfind_infinity_limit: int = 10_000  # resources in one answer of Depth: infinity; 0 refuses it
    xml_body_limit: int = 1024 * 1024  # bytes
    lock_timeout_default_s: int = 600
    lock_timeout_max_s: int = 3600
    ranges_limit: int = 16  # ranges in one request
    cors_origins: tuple[str, ...] = ()  # whose pages may use this server from a browser

    def __post_init__(self) -> None:
        checked_origins(self.cors_origins)

    nextcloud_paths: bool = False  # dav/nextcloud.py
    max_file_size_mb: int = 0  # MiB; 0: any size
    junk: Literal["store", "drop"] = "store"  # what becomes of ._*, .DS_Store, Thumbs.db, desktop.ini
    macos_quota: bool = False  # Finder is told of quotas


@dataclass(frozen=True, slots=True)
class Share:
    """One store under its mount path."""

    mount: str  # what its hrefs begin with, percent-encoded: "", "/name", or that below the path of the public URL
    store: Store
    options: DavOptions
    rules: ShareRules | OpenShare = field(default_factory=OpenShare)
    quotas: ShareQuotas = field(default_factory=ShareQuotas)

    def access_of(self, environ: Mapping[str, Any]) -> Access:
        """What who asks may do here."""
        return self.rules.access_of(principal_of(environ))

    def href(self, path: DavPath, *, is_collection: bool = False) -> str:
        """The percent-encoded absolute path of a resource, as clients use it."""
        return self.mount + path.href(is_collection=is_collection)

    @property
    def name(self) -> str:
        """The last name of the mount as people read it; "" for the root of a host."""
        return DavPath.parse(self.mount or "/").name

    def path_within(self, absolute: DavPath) -> DavPath | None:
        """The path within this share of a path on the server; None when that lies in another share."""
        if not self.mount:
            return absolute
        mount = DavPath.parse(self.mount)
        return DavPath(absolute.names[len(mount.names) :]) if absolute.is_within(mount) else None


def principal_of(environ: Mapping[str, Any]) -> Principal:
    """Who asks, as authentication found out."""
    principal: Principal = environ.get(PRINCIPAL_KEY, ANONYMOUS)
    return principal


class Request:
    """Method, path and headers of a request to one share."""

    def __init__(self, environ: Mapping[str, Any], share: Share, path: DavPath) -> None:
        self.environ = environ
        self.share = share
        self.store = share.store
        self.path = path
        self.principal = principal_of(environ)
        self.access = share.rules.access_of(self.principal)
        self.method: str = environ["REQUEST_METHOD"]
        self._preconditions: Preconditions | None = None

    def header(self, name: str) -> str | None:
        """The value of a header by its usual name (`If-Match`); None when it was not sent."""
        key = name.upper().replace("-", "_")
        if key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            return self.environ.get(key) or None
        value = self.environ.get("HTTP_" + key)
        return None if value is None else str(value)

    @property
    def preconditions(self) -> Preconditions:
        """The conditional headers; HttpError 400 when they are malformed."""
        # Not a cached_property: Python 3.11's takes a lock each time.
        if self._preconditions is None:
            self._preconditions = parse_preconditions(self)
        return self._preconditions

    @property
    def guard(self) -> Guard:
        """What the store must find true inside the writing transaction."""
        limits = self.share.quotas.limits_of(self.principal)
        return Guard(self.preconditions, self.principal.name or "", self.access, limits)

    @property
    def modified_at(self) -> int | None:
        """When what is sent was modified, in nanoseconds, of clients that say so (X-OC-Mtime); HttpError 400."""
        text = self.header(OC_MTIME)
        modified_at = None if text is None else parse_unix_time(text)
        if text is not None and modified_at is None:
            raise HttpError(400, f"{OC_MTIME} must be a time in seconds since 1970.")
        return modified_at

    @property
    def query(self) -> dict[str, list[str]]:
        """The fields of the query; HttpError 400 when they are too many. It says nothing about which resource."""
        try:
            return parse_qs(self.environ.get("QUERY_STRING", ""), max_num_fields=_QUERY_FIELDS_MAX)
        except ValueError:
            raise HttpError(400, "The query has too many fields.") from None

    def refuse_body(self) -> None:
        """Refuse a body where the method has none: to ignore it could do other than what was asked.

        Raises:
            HttpError: 415.
        Source: RFC 4918 8.4.
        """
        declared = self.environ.get("CONTENT_LENGTH")
        is_chunked = not declared and "HTTP_TRANSFER_ENCODING" in self.environ
        if (declared and declared.strip("0")) or (is_chunked and self.environ["wsgi.input"].read(1)):
            raise HttpError(415, f"A {self.method} request has no body.")

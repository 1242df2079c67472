"""Paths of resources within a share: parsed once, checked once, the same for request targets and Destination.

A path is a tuple of names. A name is kept as the client sent it and looked up by its NFC form, so that a client
that sends NFD (macOS) finds what another stored. There is no `.`, no `..` and no empty name in a path, so nothing
is left to normalise after authorisation.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from urllib.parse import quote, unquote_to_bytes

from davsql.errors import InvalidPath, NameTooLong, PathTooLong

MAX_NAME_BYTES = 255  # UTF-8; what common file systems take, so that an export always works
MAX_PATH_BYTES = 4096

# What a name may not hold: "/" ends it; controls (C0, DEL, C1) spoil terminals and logs, and XML 1.0 cannot hold
# most of them, nor U+FFFE and U+FFFF; lone surrogates are no text at all.
_FORBIDDEN = re.compile("[/\x00-\x1f\x7f-\x9f\ufffe\uffff\ud800-\udfff]")
_TO_ESCAPE = re.compile("[^A-Za-z0-9_.~()/-]+")  # what RFC 3986 2.3 reserves, but for the parentheses
_BAD_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")


def lookup_key(name: str) -> str:
    """The form under which a name is looked up: NFC (Unicode Standard Annex 15)."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def checked_name(name: str) -> str:
    """Return `name` if a node may have it.

    Raises:
        InvalidPath: it is empty, `.`, `..` or holds a forbidden character.
        NameTooLong: it has more than MAX_NAME_BYTES bytes, as sent or in NFC.
    """
    if name in ("", ".", ".."):
        raise InvalidPath(f"a name cannot be {name!r}")
    if (found := _FORBIDDEN.search(name)) is not None:
        raise InvalidPath(f"a name cannot hold the character U+{ord(found.group()):04X}")
    if len(name) * 4 > MAX_NAME_BYTES:
        size_bytes = max(len(name.encode()), len(lookup_key(name).encode()))
        if size_bytes > MAX_NAME_BYTES:
            raise NameTooLong(f"a name of {size_bytes} bytes: at most {MAX_NAME_BYTES} are possible")
    return name


class DavPath:
    """Where a resource is within its share. Equal and hashed by lookup keys; immutable."""

    __slots__ = ("_keys", "names")

    def __init__(self, names: Iterable[str] = ()) -> None:
        """Args: names: already checked (see `checked_name`), from the root down."""
        self.names = tuple(names)
        self._keys: tuple[str, ...] | None = None

    @classmethod
    def parse(cls, raw: str) -> DavPath:
        """Parse the path of a URL: percent-encoded, absolute, without query and fragment.

        A trailing slash says nothing about the resource and is dropped; slashes in a row count as one, because clients
        glue a base that ends with one to a path that begins with one.

        Raises:
            InvalidPath, NameTooLong, PathTooLong.
        Source: RFC 3986 3.3; RFC 4918 5.2 for the trailing slash.
        """
        if not raw.startswith("/"):
            raise InvalidPath("a path begins with a slash")
        if len(raw) > 3 * MAX_PATH_BYTES:
            raise PathTooLong(f"a path of more than {MAX_PATH_BYTES} bytes")
        path = cls(_decoded(segment) for segment in raw.split("/") if segment)
        if len(raw) > MAX_PATH_BYTES and sum(len(name.encode()) + 1 for name in path.names) > MAX_PATH_BYTES:
            raise PathTooLong(f"a path of more than {MAX_PATH_BYTES} bytes")
        return path

    @classmethod
    def from_text(cls, text: str) -> DavPath:
        """Parse a path as people write it (`/Photos/2026 summer`): no percent-encoding, slashes between names."""
        return cls(checked_name(name) for name in text.split("/") if name)

    @property
    def keys(self) -> tuple[str, ...]:
        """The names in lookup form."""
        if self._keys is None:  # not a cached_property: Python 3.11's takes a lock
            self._keys = tuple([lookup_key(name) for name in self.names])
        return self._keys

    @property
    def is_root(self) -> bool:
        return not self.names

    @property
    def name(self) -> str:
        """The last name; "" for the root."""
        return self.names[-1] if self.names else ""

    @property
    def parent(self) -> DavPath:
        """The path of the collection that holds this one; the root is its own parent."""
        return DavPath(self.names[:-1])

    def child(self, name: str) -> DavPath:
        """The path of a member; `name` is already checked."""
        return DavPath((*self.names, name))

    def is_within(self, other: DavPath) -> bool:
        """True when this is `other` or below it."""
        return self.keys[: len(other.keys)] == other.keys

    def href(self, *, is_collection: bool = False) -> str:
        """Percent-encoded absolute path within the share; a collection's ends with a slash (RFC 4918 5.2)."""
        if not self.names:
            return "/"
        path = "".join("/" + encoded_name(name) for name in self.names)
        return path + "/" if is_collection else path

    def __str__(self) -> str:
        return "/" + "/".join(self.names)

    def __repr__(self) -> str:
        return f"DavPath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DavPath) and self.keys == other.keys

    def __hash__(self) -> int:
        return hash(self.keys)


ROOT = DavPath()


def encoded_name(name: str) -> str:
    """Percent-encode one name for an href: upper-case escapes, `()` as they are (GVFS and KDE compare them so)."""
    return quote(name, safe="()")


def encoded_names(names: Sequence[str]) -> Sequence[str]:
    """The same for many names, at once: a listing has thousands."""
    joined = "/".join(names)
    if _TO_ESCAPE.search(joined) is None and joined.count("/") == len(names) - 1:
        return names
    found = _TO_ESCAPE.sub(_escape, joined).split("/")
    return found if len(found) == len(names) else [encoded_name(name) for name in names]  # damage can put a slash there


def _escape(found: re.Match[str]) -> str:
    return quote(found[0])


def _decoded(segment: str) -> str:
    """One segment of a URL's path as a checked name. `segment` holds bytes as WSGI hands them over (latin-1)."""
    if "%" not in segment and segment.isascii():
        return checked_name(segment)
    if _BAD_ESCAPE.search(segment):
        raise InvalidPath("a percent sign must be followed by two hexadecimal digits")
    try:
        return checked_name(unquote_to_bytes(segment.encode("latin-1")).decode("utf-8"))
    except UnicodeError:
        raise InvalidPath("a path must be UTF-8 (RFC 3986 2.5)") from None

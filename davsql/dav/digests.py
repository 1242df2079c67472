"""Checksums of content: those that come with it are compared (OC-Checksum, RFC 9530), and ours is told to who asks.

A digest that came and does not fit is 400, and nothing is stored. Algorithms that are not known here are passed over,
as both sources want it.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

from davsql.dav.request import OC_MTIME, Request
from davsql.dav.responses import HttpError
from davsql.model import Checksums, Node
from davsql.store.download import Download


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


class _Adler32:
    """zlib.adler32 (RFC 1950 8) as a hash object."""

    def __init__(self) -> None:
        self._value = 1

    def update(self, data: bytes) -> None:
        self._value = zlib.adler32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


_HASHES: Mapping[str, Callable[[], _Hash]] = {
    "adler32": _Adler32,
    "md5": lambda: hashlib.md5(usedforsecurity=False),
    "sha1": lambda: hashlib.sha1(usedforsecurity=False),
    "sha256": hashlib.sha256,
    "sha512": hashlib.sha512,
}
_RFC_9530 = {"sha-256": "sha256", "sha-512": "sha512"}  # the names that are active in its registry, and ours

# RFC 8941 3.2: a dictionary whose values are byte sequences, or the whole numbers of Want-Repr-Digest.
_BYTES_MEMBER = re.compile(r"[ \t]*([a-z*][a-z0-9_.*-]*)=:([A-Za-z0-9+/=]*):[ \t]*")
_WANTED_SHA_256 = re.compile(r"(?:^|,)[ \t]*sha-256=(?:[1-9]|10)[ \t]*(?:,|$)")


class Verification:
    """Hashes content as it comes, and compares it with what was said about it."""

    def __init__(self, expected: Mapping[str, bytes], kept: Iterable[str] = ()) -> None:
        """Args: kept: what is also hashed, to be kept."""
        self._expected = expected
        self._hashes = {name: _HASHES[name]() for name in {*expected, *kept}}

    def update(self, data: bytes) -> None:
        """Take the next bytes."""
        for each in self._hashes.values():
            each.update(data)

    @property
    def is_needed(self) -> bool:
        """Whether anything was said; else whoever has the content already need not read it."""
        return bool(self._expected)

    def passing(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """Take the blocks as they pass by."""
        for block in blocks:
            self.update(block)
            yield block

    def require(self) -> None:
        """Compare, at the end.

        Raises:
            HttpError: 400.
        """
        for name, digest in self._expected.items():
            if self._hashes[name].digest() != digest:
                raise HttpError(400, f"The {name} of what came is another than the request says; nothing was changed.")

    def checksums(self) -> Checksums | None:
        """What is to be kept, at the end."""
        found = [self._hashes[name].digest() for name in Checksums._fields if name in self._hashes]
        return Checksums(*found) if len(found) == len(Checksums._fields) else None


def verification_of(request: Request) -> Verification:
    """What the headers of a PUT say about its content; without a Content-Encoding, both of RFC 9530 mean the same.

    Raises:
        HttpError: 400, a digest that cannot be read, or two that differ.
    """
    expected: dict[str, bytes] = {}
    said = _owncloud(request.header("OC-Checksum") or "")
    for header in ("Content-Digest", "Repr-Digest"):
        said += _structured(header, request.header(header) or "")
    for name, digest in said:
        if len(digest) != len(_HASHES[name]().digest()) or expected.setdefault(name, digest) != digest:
            raise HttpError(400, f"The {name} of the request is malformed, or there are two.")
    # Clients of ownCloud and Nextcloud compare SHA-1 or MD5 later; for nobody else are they worth their time.
    is_compared_later = any(request.header(name) is not None for name in ("OC-Checksum", OC_MTIME))
    return Verification(expected, Checksums._fields if is_compared_later else ())


def checksum_of(download: Download, name: str) -> tuple[str, Checksums]:
    """The checksum of a stored file in the form of OC-Checksum, and those to be kept; all of it is read.

    Raises:
        HttpError: 400, the algorithm is not known here.
    """
    if name.lower() not in _HASHES:
        raise HttpError(400, f"The algorithms are {', '.join(_HASHES)}.")
    hashes = {each: _HASHES[each]() for each in {name.lower(), *Checksums._fields}}
    for data in download.chunks():
        for hashed in hashes.values():
            hashed.update(data)
    kept = Checksums(*(hashes[each].digest() for each in Checksums._fields))
    return f"{name.upper()}:{hashes[name.lower()].digest().hex()}", kept


def repr_digest(request: Request, node: Node) -> list[tuple[str, str]]:
    """The header Repr-Digest of a file for who wants it (RFC 9530 3, 4): SHA-256, which the store has."""
    wanted = request.environ.get("HTTP_WANT_REPR_DIGEST")
    if wanted is None or node.digest is None or _WANTED_SHA_256.search(wanted) is None:
        return []
    return [("Repr-Digest", f"sha-256=:{b64encode(node.digest).decode()}:")]


def _owncloud(text: str) -> list[tuple[str, bytes]]:
    """`SHA1:hex MD5:hex`, of ownCloud and Nextcloud; in any case and order."""
    found = []
    for each in text.split():
        name, _, digest = each.lower().partition(":")
        if name in _HASHES:
            try:
                found.append((name, bytes.fromhex(digest)))
            except ValueError as error:
                raise HttpError(400, "OC-Checksum cannot be read.") from error
    return found


def _structured(header: str, text: str) -> list[tuple[str, bytes]]:
    found = []
    for member in text.split(",") if text else ():
        match = _BYTES_MEMBER.fullmatch(member)
        if match is None:
            raise HttpError(400, f"{header} cannot be read.")
        if match[1] in _RFC_9530:
            try:
                found.append((_RFC_9530[match[1]], b64decode(match[2], validate=True)))
            except ValueError as error:
                raise HttpError(400, f"{header} cannot be read.") from error
    return found

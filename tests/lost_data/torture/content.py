"""Bodies that say what they are, so that a truncation or a mixture shows."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from itertools import count
from random import Random
from threading import Lock

CHUNK_BYTES = 256 * 1024  # of the store: blocks on its bounds are shared between bodies
_BLOCKS = [Random(number).randbytes(CHUNK_BYTES) for number in range(4)]  # noqa: S311


@dataclass(frozen=True, slots=True)
class Content:
    """One body that was sent, or will be."""

    name: str  # under which it was sent first
    version: int  # no two bodies have the same; 0 is the empty one
    length: int
    digest: str  # SHA-256 of all of it

    def __str__(self) -> str:
        return f"version {self.version} of {self.name} ({self.length} bytes)"


EMPTY = Content("", 0, 0, hashlib.sha256().hexdigest())


class Bodies:
    """Makes contents and knows all that were ever made. Threads: any."""

    def __init__(self) -> None:
        self._versions = count(1)
        self._known = {EMPTY.digest: EMPTY}
        self._etags: dict[str, str] = {}
        self._lock = Lock()

    def new(self, name: str, length: int) -> Content:
        """A content that never was; a little longer if the length is too short for what it says of itself."""
        version = next(self._versions)
        data = _made(name, version, length)
        content = Content(name, version, len(data), hashlib.sha256(data).hexdigest())
        with self._lock:
            self._known[content.digest] = content
        return content

    def identified(self, data: bytes) -> Content | None:
        """The content that these bytes are, None when they were never sent so."""
        return self._known.get(hashlib.sha256(data).hexdigest())

    def is_one_tag(self, content: Content, etag: str | None) -> bool:
        """Whether the entity tag is the one that this content has always had."""
        with self._lock:
            return etag is not None and self._etags.setdefault(content.digest, etag) == etag


def data_of(content: Content) -> bytes:
    """The bytes."""
    return _made(content.name, content.version, content.length) if content.version else b""


def description(data: bytes) -> str:
    """What bytes that were never sent so say of themselves, for the report."""
    head, _, rest = data.partition(b"\n")
    try:
        said = json.loads(head)
        is_same = hashlib.sha256(rest).hexdigest() == said["sha256"]
    except (ValueError, KeyError, TypeError):
        return f"{len(data)} bytes without a head"
    what = "whole" if is_same else f"not what the head says ({said['length']} bytes)"
    return f"version {said['version']} of {said['name']}, {len(data)} bytes, {what}"


def _made(name: str, version: int, length: int) -> bytes:
    said = {"name": name, "version": version, "length": length, "sha256": "0" * 64}
    head_bytes = len(json.dumps(said)) + 1
    first = Random(version).randbytes(max(0, min(length, CHUNK_BYTES) - head_bytes))  # noqa: S311
    blocks = [_BLOCKS[(version + number) % len(_BLOCKS)] for number in range(length // CHUNK_BYTES + 1)]
    rest = (first + b"".join(blocks))[: max(0, length - head_bytes)]
    said["sha256"] = hashlib.sha256(rest).hexdigest()
    return json.dumps(said).encode() + b"\n" + rest

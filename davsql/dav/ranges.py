"""The Range header and the answers that it leads to: 206 with one part or several, 416, or the whole (RFC 9110 14)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

_UNIT = re.compile(r"bytes=(.*)", re.IGNORECASE | re.DOTALL)
# More digits than any position has would only cost time.
_SPEC = re.compile(r"(?P<first>[0-9]{1,30})-(?P<last>[0-9]{0,30})|-(?P<suffix>[0-9]{1,30})")
_RAW_SPECS_LIMIT = 1000


class Span(NamedTuple):
    """A satisfiable range: the bytes from `start` up to, not including, `stop`."""

    start: int
    stop: int

    def content_range(self, size: int) -> str:
        """The value of Content-Range (RFC 9110 14.4)."""
        return f"bytes {self.start}-{self.stop - 1}/{size}"


def parse_ranges(header: str, size: int, limit: int) -> list[Span] | None:
    """The ranges of a file of `size` bytes to send, in the order asked for; [] when none is satisfiable.

    None means that the header is ignored and the whole file sent: another unit, a syntax error, an empty file (many
    clients always ask for `bytes=0-`), or more than `limit` ranges when those that overlap or touch are put together
    (RFC 9110 14.2, 17.15).
    """
    match = _UNIT.fullmatch(header.strip())
    if match is None or size == 0:
        return None
    texts = match[1].split(",", _RAW_SPECS_LIMIT)
    if len(texts) > _RAW_SPECS_LIMIT:
        return None
    specs = [text.strip(" \t") for text in texts]
    spans = []
    for spec in filter(None, specs):
        found = _SPEC.fullmatch(spec)
        if found is None or (found["last"] and int(found["last"]) < int(found["first"])):
            return None
        span = _span(found, size)
        if span is not None:
            spans.append(span)
    if not any(specs):
        return None
    spans = _coalesced(spans)
    return spans if len(spans) <= limit else None


def _span(spec: re.Match[str], size: int) -> Span | None:
    """RFC 9110 14.1.2; None when unsatisfiable."""
    if spec["suffix"] is not None:
        start, stop = max(size - int(spec["suffix"]), 0), size
    else:
        start, stop = int(spec["first"]), min(int(spec["last"]) + 1, size) if spec["last"] else size
    return Span(start, stop) if start < stop else None


def _coalesced(spans: list[Span]) -> list[Span]:
    """The same bytes without overlaps; the order asked for is kept when there are none (RFC 9110 15.3.7.2)."""
    in_order = sorted(spans)
    if all(left.stop < right.start for left, right in pairwise(in_order)):
        return spans
    merged = in_order[:1]
    for span in in_order[1:]:
        if span.start <= merged[-1].stop:
            merged[-1] = Span(merged[-1].start, max(merged[-1].stop, span.stop))
        else:
            merged.append(span)
    return merged


class Multipart:
    """The framing of a multipart/byteranges body (RFC 9110 14.6)."""

    def __init__(self, spans: Sequence[Span], size: int, content_type: str, boundary: str) -> None:
        self.spans = spans
        self.content_type = f"multipart/byteranges; boundary={boundary}"
        start = f"\r\n--{boundary}\r\nContent-Type: {content_type}\r\nContent-Range: "
        self.heads = [f"{start}{span.content_range(size)}\r\n\r\n".encode("latin-1") for span in spans]
        self.end = f"\r\n--{boundary}--\r\n".encode("ascii")

    @property
    def length(self) -> int:
        """The Content-Length of the whole body."""
        return sum(map(len, self.heads)) + sum(span.stop - span.start for span in self.spans) + len(self.end)

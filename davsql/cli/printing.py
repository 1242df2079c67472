"""How the commands write names, sizes and times: nothing from a store or a disk reaches a terminal raw."""

from __future__ import annotations

import re
from datetime import UTC, datetime

# Controls move the cursor or end a line, lone surrogates (names that are no UTF-8) cannot be encoded, and the
# bidirectional overrides make a name look like another.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")


def printable(text: object) -> str:
    """`text` on one line, with whatever a terminal might act upon escaped (`\\x1b`)."""
    return _UNPRINTABLE.sub(_escaped, str(text))


def human_size(size_bytes: int) -> str:
    """A size as people read it: `17 bytes`, `3.4 MiB`."""
    size = float(size_bytes)
    for unit in _UNITS:
        if size < 1024 or unit == _UNITS[-1]:
            break
        size /= 1024
    return counted(size_bytes, "byte") if unit == "bytes" else f"{size:,.1f} {unit}"


def iso_time(time_ns: int) -> str:
    """A time in UTC, to the second (RFC 3339)."""
    try:
        return datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):  # outside the years 1 to 9999
        return f"{time_ns // 1_000_000_000}s"


def counted(number: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _escaped(found: re.Match[str]) -> str:
    return found.group().encode("unicode_escape", "surrogatepass").decode("ascii")

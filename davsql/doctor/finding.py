"""What a check found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["pass", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's report."""

    check: str
    status: Status
    found: str
    remedy: str = ""  # "" where nothing is to be done


def passed(check: str, found: str) -> Finding:
    """All is well."""
    return Finding(check, "pass", found)


def warned(check: str, found: str, remedy: str) -> Finding:
    """It works, and will not always."""
    return Finding(check, "warn", found, remedy)


def failed(check: str, found: str, remedy: str) -> Finding:
    """Data or service are in danger now."""
    return Finding(check, "fail", found, remedy)


def human_bytes(size: float) -> str:
    """`512 MiB`, `1.5 GiB`."""
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:,.0f} {unit}"
        size /= 1024
    return f"{size:,.1f} GiB"


def human_age(seconds: float) -> str:
    """`40 s`, `5 minutes`, `3 hours`, `12 days`."""
    for limit, length, unit in ((120, 1, "s"), (7200, 60, "minutes"), (172_800, 3600, "hours")):
        if seconds < limit:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86_400:,.0f} days"

"""Checks of the certificate with which the server speaks TLS."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from davsql.certificates.reading import read_certificate
from davsql.doctor.finding import Finding, failed, passed, warned
from davsql.errors import TlsError

# Less than what davsql renews its own at (authority.RENEW_DAYS), and than what others usually do.
SOON_DAYS = 14


@dataclass(frozen=True, slots=True)
class TlsPlace:
    """Where a server's certificate and its key are."""

    certificate: Path
    key: Path
    authority: Path | None = None  # the certificate of our own one; None: somebody else looks after it


def check_certificate(place: TlsPlace) -> Iterator[Finding]:
    """Its time, that of the authority, and who can read the key."""
    if place.authority is not None and not place.certificate.exists():
        yield passed("certificate", "none yet: davsql serve makes one")
        return
    remedy = "get a new one from where it came from" if place.authority is None else "davsql cert renew"
    yield _time_of("certificate", place.certificate, remedy)
    if place.authority is not None:
        yield _time_of("authority", place.authority, "davsql cert renew --new-ca, and tell every device")
    yield _privacy_of(place.key)


def _time_of(check: str, file: Path, remedy: str) -> Finding:
    try:
        found = read_certificate(file)
    except TlsError as error:
        return failed(check, str(error), remedy)
    now = datetime.now(UTC)
    days = found.left(now).days
    told = f"until {found.ends_at:%Y-%m-%d}, {days} days"
    if days < 0:
        return failed(check, f"ended on {found.ends_at:%Y-%m-%d}", remedy)
    if found.begins_at > now:
        return failed(check, f"begins on {found.begins_at:%Y-%m-%d}: is the clock right?", remedy)
    return passed(check, told) if days >= SOON_DAYS else warned(check, told, remedy)


def _privacy_of(key: Path) -> Finding:
    try:
        mode = stat.S_IMODE(key.stat().st_mode)
    except OSError as error:
        return failed("key of TLS", f"{key}: {error.strerror}", "see server.tls_key")
    if os.name == "posix" and mode & 0o007:
        return failed("key of TLS", f"{key}: everybody on this machine can read it", f"chmod 600 {key}")
    return passed("key of TLS", "private")

"""What can be set about accounts; config.py fills it from the file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from davsql.networks import checked_networks


@dataclass(frozen=True, slots=True)
class AccountOptions:
    """Where accounts are kept, and how strict davsql is about passwords."""

    file: Path | None = None  # None: nobody is asked for a password
    cache_s: float = 60.0  # that a verified password is remembered after its last use
    allow_plain_http: bool = False  # passwords in the clear, from other machines
    trusted_user_header: str | None = None  # names the user; believed from trusted proxies only
    never_blocked: tuple[str, ...] = ()  # networks whose failed logins are not counted

    def __post_init__(self) -> None:
        checked_networks("never_blocked", self.never_blocked)
        header = self.trusted_user_header
        if header is not None and not re.fullmatch(r"[A-Za-z0-9-]+", header):
            raise ValueError(f"trusted_user_header: expected the name of a header, found {header!r}")

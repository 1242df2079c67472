"""What can be set about the audit log; config.py fills it from the file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Level = Literal["off", "writes", "all"]

DEFAULT_NAME = "davsql-audit.db"


@dataclass(frozen=True, slots=True)
class AuditOptions:
    """What is recorded, and where."""

    level: Level | None = None  # None: "writes" where there are accounts, else "off"
    file: Path | None = None  # None: DEFAULT_NAME beside the account file, else beside the configuration
    key_file: Path | None = None  # None: beside `file`, with the suffix .key
    rotate_mb: int = 64  # MiB of rows, before they go into a compressed file
    keep: int = 0  # compressed files that are kept; 0: all

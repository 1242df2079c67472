"""Audit logs for tests, and what somebody does to them who goes around the triggers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import apsw

from davsql.audit.chain import Entry
from davsql.audit.key import KeyFile
from davsql.audit.log import AuditLog
from davsql.audit.verify import verify


def entry(number: int, path: str = "/a") -> Entry:
    """What ann did."""
    return Entry(10**18 + number, "ann", "192.0.2.7", "PUT", path, None, 201, number, f"id-{number}")


def file_in(folder: Path) -> Path:
    """Where the log is; the key is beside it."""
    return folder / "audit.db"


@contextmanager
def opened(folder: Path, *, rotate_mb: int = 64, keep: int = 0) -> Iterator[AuditLog]:
    """The log of a folder, made if it is missing."""
    with closing(AuditLog(file_in(folder), folder / "audit.key", rotate_mb=rotate_mb, keep=keep)) as log:
        yield log


def write_rows(folder: Path, count: int, *, rotate_mb: int = 64, keep: int = 0) -> None:
    """Append so many rows."""
    with opened(folder, rotate_mb=rotate_mb, keep=keep) as log:
        for number in range(count):
            log.append(entry(number))


def faults(folder: Path) -> tuple[str, ...]:
    """What a verification finds."""
    return verify(file_in(folder), KeyFile(folder / "audit.key")).faults


def tamper(folder: Path, *statements: str, name: str = "audit.db") -> None:
    """Change the file as whoever has it can."""
    with closing(apsw.Connection(str(folder / name))) as connection:
        connection.execute("DROP TRIGGER entries_stay; DROP TRIGGER entries_are_final")
        for each in statements:
            connection.execute(each)

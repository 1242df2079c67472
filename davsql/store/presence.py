"""Marks in a store that say who writes to it, so that the next who opens it knows whether somebody did not close it.

Rule 1: a writer's mark is committed with its first change, and taken away after its last one.
Rule 2: a mark whose process is gone was left by a kill, or by a machine that stopped. It stays until a quick_check
        found nothing.
Rule 3: a mark names its process so that no later one can be taken for it: by boot, number and time of its start. A
        process that cannot be seen, as in another container, counts as gone: that costs a check too many at worst.
Where the system does not tell of processes, a mark counts as left when nobody has the store open.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

from davsql.errors import StoreBusy, StoreError
from davsql.store.exclusion import require_unused
from davsql.store.transaction import ReadTx, WriteTx

PROC = Path("/proc")
_STATE, _START_TIME = 0, 19  # fields 3 and 22 of /proc/PID/stat (proc(5)), counted after the name

DELETE_MARKS = "DELETE FROM meta WHERE key > 'writing ' AND key < 'writing!'"
DELETE_MARK = "DELETE FROM meta WHERE key = ?"


def new_mark() -> tuple[str, str]:
    """Key and value of a mark of this process that nobody else has."""
    return f"writing {uuid4()}", process_name(os.getpid())


def process_name(pid: int) -> str:
    """What only this process was ever called; "" when it does not run, or the system does not tell."""
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        fields = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[_STATE] in "ZX" else f"{boot} {pid} {fields[_START_TIME]}"


MARKS = "SELECT key, value FROM meta WHERE key > 'writing ' AND key < 'writing!'"


def left_marks(tx: ReadTx, *, is_in_use: bool) -> tuple[str, ...]:
    """The keys of the marks of those who did not close the store.

    Args:
        is_in_use: whether somebody else had it open before.
    """
    return tuple(str(key) for key, process in tx.rows(MARKS) if not _is_alive(str(process), is_in_use=is_in_use))


def _is_alive(process: str, *, is_in_use: bool) -> bool:
    if not process:
        return is_in_use
    _, _, rest = process.partition(" ")
    pid, _, _ = rest.partition(" ")
    return pid.isdecimal() and process_name(int(pid)) == process


def forget(tx: WriteTx, left: Sequence[str]) -> None:
    """Take away marks that were left."""
    for mark in left:
        tx.change(DELETE_MARK, (mark,))


def is_in_use(file: Path) -> bool:
    """Whether a connection of this or another process has the store open; ask before opening it."""
    try:
        require_unused(file)
    except StoreBusy:
        return True
    except StoreError:  # whoever opens it next will tell
        return False
    return False

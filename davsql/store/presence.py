"""Marks in a store that say who writes to it, so that the next who opens it knows whether somebody did not close it.

Rule 1: a writer's mark is committed with its first change, and taken away after its last one.
Rule 2: a mark that is there when nobody else has the store open was left by a process that was killed, or by a machine
        that stopped. It stays until a quick_check found nothing.
So several processes may come and go: a mark belongs to one of them, and is judged only when none of them is left. Two
that open a store at the same moment may take each other for somebody who goes on; then the marks wait for the next.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

from davsql.errors import StoreBusy, StoreError
from davsql.store.exclusion import require_unused
from davsql.store.transaction import ReadTx, WriteTx

PREFIX = "writing "
LOOKS = 3  # at whether somebody has the store open: another one that looks is in the way for a moment

DELETE_MARKS = "DELETE FROM meta WHERE key > 'writing ' AND key < 'writing!'"
DELETE_MARK = "DELETE FROM meta WHERE key = ?"


def new_mark() -> str:
    """The key of a mark that nobody else has."""
    return f"{PREFIX}{uuid4()}"


MARKS = "SELECT key FROM meta WHERE key > 'writing ' AND key < 'writing!'"


def marks(tx: ReadTx) -> tuple[str, ...]:
    """The marks of all who write, and of those who did not close the store."""
    return tuple(str(key) for (key,) in tx.rows(MARKS))


def forget(tx: WriteTx, left: Sequence[str]) -> None:
    """Take away marks that were left."""
    for mark in left:
        tx.change(DELETE_MARK, (mark,))


def is_in_use(file: Path) -> bool:
    """Whether a connection of this or another process has the store open; ask before opening it."""
    for _ in range(LOOKS):
        try:
            require_unused(file)
        except StoreBusy:
            time.sleep(random.uniform(0.001, 0.01))  # noqa: S311
        except StoreError:  # whoever opens it next will tell
            return False
        else:
            return False
    return True

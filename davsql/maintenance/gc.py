"""Garbage collection: the order of the steps, and their pace.

Each step is one short command between the writes of users; what may go is decided inside it (store/gc.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from davsql.store import gc
from davsql.store.journal import STEP_ROWS as STEP_CHANGES
from davsql.store.journal import remove_old_changes
from davsql.store.pins import end_stale_pins
from davsql.store.store import Store
from davsql.store.transaction import WriteTx

STEP_ROWS = 500  # of the tree in one command: a few milliseconds of the writer
PIN_EXPIRY_NS = 3600 * 10**9  # holders touch their pins every minute
JOURNAL_DAYS = 30.0  # what is told of to clients that ask for changes
DAY_NS = 24 * 3600 * 10**9
STEP_CHUNKS = 32  # up to 8 MiB of freed pages in one command


def collect_garbage(
    store: Store,
    *,
    grace_s: float,
    upload_expiry_s: float,
    journal_days: float = JOURNAL_DAYS,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> int:
    """Remove what nothing refers to any more.

    Args:
        grace_s: orphaned blobs stay for so long, for downloads that have resolved them and not yet pinned them, and
            for those of other processes.
        upload_expiry_s: uploads without new bytes for so long are given up.
        journal_days: older entries of the journal of changes go; clients that ask less often begin again.
        is_cancelled: asked between steps.

    Returns:
        Rows removed, as a measure of the work.
    """
    grace_ns, expiry_ns = int(grace_s * 1e9), int(upload_expiry_s * 1e9)

    def remove_blobs(tx: WriteTx) -> int:
        return gc.remove_orphaned_blobs(tx, tx.now - grace_ns, store.pins.current(), STEP_ROWS)

    steps: tuple[Callable[[WriteTx], int], ...] = (
        lambda tx: gc.remove_expired_locks(tx, STEP_ROWS),
        lambda tx: gc.end_stale_uploads(tx, tx.now - expiry_ns, STEP_ROWS),
        lambda tx: end_stale_pins(tx, tx.now - PIN_EXPIRY_NS, STEP_ROWS),
        lambda tx: gc.remove_detached(tx, STEP_ROWS),
        remove_blobs,
        lambda tx: gc.remove_orphaned_chunks(tx, STEP_CHUNKS),
        lambda tx: remove_old_changes(tx, tx.now - int(journal_days * DAY_NS), STEP_CHANGES),
    )
    total = 0
    for step in steps:
        while not is_cancelled() and (removed := store.write(step)):
            total += removed
            time.sleep(0.001)  # let commands of users into the queue first
    return total

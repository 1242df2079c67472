"""What maintenance did and when, kept in the store so that a restart, and other processes, know it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Literal, NamedTuple

from davsql.store.transaction import ReadTx, WriteTx

Outcome = Literal["ok", "failed"]

QUICK_CHECK, INTEGRITY_CHECK, SCRUB = "quick_check", "integrity_check", "scrub"


class TaskRecord(NamedTuple):
    """The last run of a maintenance task."""

    name: str
    started_at: int
    finished_at: int | None  # None: interrupted, or still running
    outcome: Outcome | None
    detail: str

    def age_s(self) -> int:
        """Since it ended, or began when it did not end."""
        return round((time.time_ns() - (self.finished_at or self.started_at)) / 1e9)


START_TASK = """
INSERT INTO tasks (name, started_at, detail) VALUES (:name, :now, :detail)
ON CONFLICT (name) DO UPDATE SET
  started_at = excluded.started_at, finished_at = NULL, outcome = NULL, detail = excluded.detail
"""


def start_task(tx: WriteTx, name: str, detail: str = "") -> None:
    """Note that a task has begun; until `finish_task` it counts as interrupted."""
    tx.change(START_TASK, {"name": name, "now": tx.now, "detail": detail})


NOTE_PROGRESS = "UPDATE tasks SET detail = :detail WHERE name = :name"


def note_progress(tx: WriteTx, name: str, detail: str) -> None:
    """Note how far a running task is."""
    tx.change(NOTE_PROGRESS, {"name": name, "detail": detail})


FINISH_TASK = """
INSERT INTO tasks (name, started_at, finished_at, outcome, detail) VALUES (:name, :now, :now, :outcome, :detail)
ON CONFLICT (name) DO UPDATE SET
  finished_at = excluded.finished_at, outcome = excluded.outcome, detail = excluded.detail
"""


def finish_task(tx: WriteTx, name: str, outcome: Outcome, detail: str = "") -> None:
    """Note how a task ended; one that was not noted as begun is noted whole."""
    tx.change(FINISH_TASK, {"name": name, "now": tx.now, "outcome": outcome, "detail": detail})


END_FAILURE = """
UPDATE tasks SET started_at = :now, finished_at = :now, outcome = 'ok', detail = :detail
WHERE name = :name AND outcome = 'failed'
"""


def end_failures(tx: WriteTx, names: Iterable[str], detail: str) -> None:
    """Something else looked at all that these tasks look at, and it is well: what they found is over."""
    for name in names:
        tx.change(END_FAILURE, {"name": name, "now": tx.now, "detail": detail})


ALL_TASKS = "SELECT name, started_at, finished_at, outcome, detail FROM tasks ORDER BY name"


def task_records(tx: ReadTx) -> dict[str, TaskRecord]:
    """The last run of every task that ever ran."""
    return {row[0]: TaskRecord._make(row) for row in tx.rows(ALL_TASKS)}

"""What maintenance did and when, kept in the store so that a restart, and other processes, know it."""

from __future__ import annotations

from typing import Literal, NamedTuple

from davsql.store.transaction import ReadTx, WriteTx

Outcome = Literal["ok", "failed"]


class TaskRecord(NamedTuple):
    """The last run of a maintenance task."""

    name: str
    started_at: int
    finished_at: int | None  # None: interrupted, or still running
    outcome: Outcome | None
    detail: str


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


ALL_TASKS = "SELECT name, started_at, finished_at, outcome, detail FROM tasks ORDER BY name"


def task_records(tx: ReadTx) -> dict[str, TaskRecord]:
    """The last run of every task that ever ran."""
    return {row[0]: TaskRecord._make(row) for row in tx.rows(ALL_TASKS)}

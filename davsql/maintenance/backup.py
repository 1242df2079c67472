"""Backups on a schedule, into a folder, where a rule says how many are kept.

Nothing of the folder is touched but files that have our own kind of name for this store.
"""

from __future__ import annotations

import re
import stat
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from davsql.errors import NotFound, StoreBusy, StoreUnavailable
from davsql.maintenance.retention import Retention, superseded
from davsql.maintenance.schedule import Schedule
from davsql.maintenance.tasks import IsCancelled, Task
from davsql.store.backup import GENTLE_REST, Backup, CopyOptions, back_up, stamp
from davsql.store.connection import sync_folder
from davsql.store.keyfiles import forget_keys
from davsql.store.records import TaskRecord
from davsql.store.store import Store

SUFFIX = ".davsql"
RETRY_AFTER = timedelta(minutes=15)  # a failure
TASK_NAME = "backup"
_STAMP = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True, slots=True)
class BackupOptions:
    """Backups while a store is served; config.py fills it from the file."""

    folder: Path | None = None  # None: no backups
    schedule: str = "daily"  # hourly, daily, weekly or five fields of cron, local time
    keep_hourly: int = 24
    keep_daily: int = 7
    keep_weekly: int = 5
    keep_monthly: int = 12
    verify: bool = True

    def __post_init__(self) -> None:
        """Raise ValueError, with the name of the field first, when the schedule cannot be understood."""
        try:
            Schedule(self.schedule)
        except ValueError as error:
            raise ValueError(f"schedule: {error}") from error

    def make_tasks(self) -> tuple[Task, ...]:
        """What the maintenance of a store has to do for it."""
        return () if self.folder is None else (ScheduledBackup(self.folder, self),)


class ScheduledBackup(Task):
    """Back the store up when it is time to, then remove backups that the retention rule does not keep."""

    name = TASK_NAME

    def __init__(self, folder: Path, options: BackupOptions) -> None:
        self._folder = folder
        self._schedule = Schedule(options.schedule)
        self._retention = Retention(options.keep_hourly, options.keep_daily, options.keep_weekly, options.keep_monthly)
        self._is_verified = options.verify

    def is_due(self, store: Store, last: TaskRecord | None) -> bool:
        del store
        return self.is_due_at(datetime.now(UTC), last)

    def is_due_at(self, now: datetime, last: TaskRecord | None) -> bool:
        """Whether to run at `now`: on schedule, at once after an interruption, soon after a failure."""
        if last is None or last.finished_at is None:
            return True
        started = datetime.fromtimestamp(last.started_at / 1e9, UTC)
        is_retry = last.outcome == "failed" and now - started >= RETRY_AFTER
        return is_retry or self._schedule.is_due(now, started)

    def run(self, store: Store, is_cancelled: IsCancelled) -> str:
        if not self._folder.is_dir():  # never made: it would hide that a disk is not mounted
            raise NotFound(f"the folder for backups {self._folder} does not exist; make it, or mount its disk")
        with suppress(StoreBusy):
            store.checkpoint()  # beside the writer, so that the next one, which stops it, has little to do
            store.checkpoint(truncate=True)  # the WAL cannot start over while the copy is made
        file = self._folder / backup_name(store.file, datetime.now(UTC))
        how = CopyOptions(is_verified=self._is_verified, rest=GENTLE_REST, is_cancelled=is_cancelled)
        backup = back_up(store.file, file, store.options, how)
        removed = remove_superseded(backup.file, store.file, self._retention)
        return describe(backup, how) + (f"; {removed} old removed" if removed else "")


def describe(backup: Backup, how: CopyOptions) -> str:
    """What was done, in a few words."""
    size_mib = backup.snapshot.size_bytes / (1024 * 1024)
    return f"{backup.file}: {size_mib:,.1f} MiB in {backup.duration_s:.1f} s, {how.verified}"


def backup_name(store: Path, now: datetime) -> str:
    """`NAME-YYYYmmddTHHMMSSZ.davsql`: sorted by name is sorted by time."""
    return f"{store.stem}-{stamp(now.timestamp())}{SUFFIX}"


def backups_in(folder: Path, store: Path) -> dict[datetime, Path]:
    """The backups of the store in a folder, by their times; links and folders are none."""
    pattern = re.compile(re.escape(store.stem) + r"-(\d{8}T\d{6}Z)" + re.escape(SUFFIX))
    found: dict[datetime, Path] = {}
    for file in folder.iterdir():
        named = pattern.fullmatch(file.name)
        if named and stat.S_ISREG(file.lstat().st_mode):
            with suppress(ValueError):  # digits that are no time
                found[datetime.strptime(named.group(1), _STAMP).replace(tzinfo=UTC)] = file
    return found


def remove_superseded(newest: Path, store: Path, keep: Retention) -> int:
    """Remove the backups beside `newest` that the rule does not keep; returns how many.

    Args:
        newest: the one just made. It stays, also when another one claims to be of a later time.

    Raises:
        StoreUnavailable: one cannot be removed.
    """
    try:
        found = backups_in(newest.parent, store)
        leaving = [found[time] for time in superseded(found, keep) if found[time].name != newest.name]
        for file in leaving:
            file.unlink()
            forget_keys(file)
        if leaving:
            sync_folder(newest.parent)
    except OSError as error:
        raise StoreUnavailable(f"{newest} was made, but old backups cannot be removed: {error}") from error
    return len(leaving)

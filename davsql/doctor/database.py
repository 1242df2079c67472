"""Checks of what is in the file: its mode, its schema, its records."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from davsql.doctor.finding import Finding, failed, human_age, human_bytes, passed, warned
from davsql.errors import StoreBusy
from davsql.maintenance.backup import TASK_NAME as BACKUP
from davsql.maintenance.backup import BackupOptions
from davsql.maintenance.schedule import Schedule
from davsql.maintenance.tasks import DAY_S
from davsql.maintenance.thread import MaintenanceOptions
from davsql.store.facts import Facts
from davsql.store.migrate import SCHEMA_VERSION
from davsql.store.records import TaskRecord

NS = 1e-9
INCREMENTAL = 2  # auto_vacuum
FREE_SHARE_MAX = 0.25  # the guide's: beyond, a full VACUUM is worth it
FREE_BYTES_MIN = 256 * 1024 * 1024  # below, nobody minds
GARBAGE_AGE_S = DAY_S  # beyond the grace: nobody collects
BACKUP_AGE_S = 7 * DAY_S  # of one made by hand
UNSAVED_S = DAY_S  # that a new store may be without a backup
BACKUP_GRACE = timedelta(hours=2)  # that a scheduled one may be late
CLOCK_BEHIND_S = 60.0

RESTORE = "restore a backup: davsql restore BACKUP"


def check_database(
    facts: Facts, maintenance: MaintenanceOptions, backup: BackupOptions, replica_url: str | None, now_ns: int
) -> Iterator[Finding]:
    """All of them."""
    yield _journal_mode(facts)
    yield _write_lock(facts)
    yield _auto_vacuum(facts)
    yield _schema_version(facts)
    yield _schema_objects(facts)
    yield _indexes(facts)
    yield _free_pages(facts)
    yield _garbage(facts, maintenance, now_ns)
    yield _clock(facts, now_ns)
    yield _integrity(facts, "integrity_check", maintenance.integrity_interval_days, now_ns)
    yield _quick_check(facts)
    yield _integrity(facts, "scrub", maintenance.scrub_interval_days, now_ns)
    yield _backup(facts, backup, replica_url, now_ns)


def _journal_mode(facts: Facts) -> Finding:
    if facts.journal_mode == "wal":
        return passed("WAL mode", "journal_mode is wal")
    found = f"journal_mode is {facts.journal_mode}: readers and the writer block each other"
    return failed("WAL mode", found, "davsql sets it when it opens the store; stop whatever changes it")


def _write_lock(facts: Facts) -> Finding:
    if facts.write_lock is None:
        return passed("write lock", "nobody sits on it")
    if isinstance(facts.write_lock, StoreBusy):
        return warned("write lock", str(facts.write_lock), "see which one: fuser -v FILE; only davsql should write")
    return failed(
        "write lock", str(facts.write_lock), "give the user that runs davsql the file, its folder and the disk"
    )


def _auto_vacuum(facts: Facts) -> Finding:
    if facts.auto_vacuum == INCREMENTAL:
        return passed("auto_vacuum", "incremental")
    found = f"PRAGMA auto_vacuum is {facts.auto_vacuum}: this davsql refuses the file"
    return failed(
        "auto_vacuum", found, "restore a backup; or, with davsql stopped: sqlite3 FILE 'PRAGMA auto_vacuum = 2; VACUUM'"
    )


def _schema_version(facts: Facts) -> Finding:
    found = f"version {facts.schema_version}, this davsql has {SCHEMA_VERSION}"
    if facts.schema_version == SCHEMA_VERSION:
        return passed("schema version", found)
    if facts.schema_version > SCHEMA_VERSION:
        return failed("schema version", found, "install a newer davsql")
    return warned("schema version", found, "davsql migrate")


def _schema_objects(facts: Facts) -> Finding:
    if not facts.missing:
        return passed("schema", "all tables, indexes and triggers are there")
    found = "missing: " + ", ".join(facts.missing[:4]) + (", ..." if len(facts.missing) > 4 else "")
    if facts.schema_version < SCHEMA_VERSION:
        return warned("schema", found, "davsql migrate")
    return failed("schema", found, f"stop davsql and {RESTORE}")


def _indexes(facts: Facts) -> Finding:
    if facts.missing:
        return warned("indexes", "not looked at: the schema is not complete", "see schema")
    if not facts.scanning:
        return passed("indexes", "every query finds its rows by an index")
    return warned("indexes", "; ".join(facts.scanning[:3]), "please report it: the drive gets slow as it grows")


def _free_pages(facts: Facts) -> Finding:
    pages = facts.pages
    found = f"{pages.free_count:,} of {pages.page_count:,} pages, {human_bytes(pages.free_bytes)}"
    if pages.free_share <= FREE_SHARE_MAX or pages.free_bytes < FREE_BYTES_MIN:
        return passed("free pages", found)
    remedy = "set maintenance.keep_free_mb lower, or maintenance.vacuum_window"
    return warned("free pages", f"{found}: the file could be smaller", remedy)


def _garbage(facts: Facts, maintenance: MaintenanceOptions, now_ns: int) -> Finding:
    if facts.oldest_orphan_at is None:
        return passed("garbage", "none")
    age_s = (now_ns - facts.oldest_orphan_at) * NS
    found = f"deleted content waits since {human_age(max(0, age_s))}"
    if age_s <= maintenance.gc_grace_s + GARBAGE_AGE_S:
        return passed("garbage", found)
    return warned("garbage", found, "let davsql serve run: it collects; look for errors in its log")


def _clock(facts: Facts, now_ns: int) -> Finding:
    # Not nodes.modified_at: a client may set that.
    behind_s = (facts.newest_at - now_ns) * NS
    if behind_s <= CLOCK_BEHIND_S:
        return passed("clock", f"{datetime.fromtimestamp(now_ns * NS, UTC):%Y-%m-%d %H:%M:%S} UTC")
    found = f"{human_age(behind_s)} behind what the store has seen: locks and garbage collection go wrong"
    return failed("clock", found, "set the clock; run an NTP client")


def _integrity(facts: Facts, task: str, interval_days: float, now_ns: int) -> Finding:
    name = task.replace("_", " ")
    record = facts.tasks.get(task)
    if record is not None and record.outcome == "failed":
        return failed(name, record.detail, f"davsql check --deep; {RESTORE}")
    if record is None:
        age_s = (now_ns - facts.created_at) * NS
        found = f"not yet; the store is {human_age(max(0, age_s))} old"
    else:
        age_s = (now_ns - (record.finished_at or record.started_at)) * NS
        found = f"{'ok' if record.outcome else 'begun and not ended'}, {human_age(max(0, age_s))} ago"
    if age_s <= 2 * interval_days * DAY_S:
        return passed(name, found)
    return warned(name, found, "let davsql serve run, which does it on its schedule; now: davsql check --deep")


def _quick_check(facts: Facts) -> Finding:
    record = facts.tasks.get("quick_check")
    if record is None or record.outcome == "ok":
        return passed("quick check", "never needed" if record is None else "ok after the last unclean stop")
    if record.outcome == "failed":
        return failed("quick check", record.detail, f"davsql check --deep; {RESTORE}")
    return passed("quick check", "under way, or interrupted; it will be done again")


def _backup(facts: Facts, options: BackupOptions, replica_url: str | None, now_ns: int) -> Finding:
    record = facts.tasks.get(BACKUP)
    if record is not None and record.outcome == "failed":
        return failed(
            "backup", f"the last one failed: {record.detail}", "see the log of davsql serve; davsql backup DEST"
        )
    if options.folder is not None and not options.folder.is_dir():
        return failed("backup", f"{options.folder} does not exist", "make the folder, or mount its disk")
    if record is None or record.finished_at is None:
        return _no_backup(options, replica_url, max(0.0, (now_ns - facts.created_at) * NS))
    age_s = max(0.0, (now_ns - record.finished_at) * NS)
    found = f"{human_age(age_s)} ago: {record.detail}"
    if replica_url is None and _is_overdue(record, options, now_ns):
        return warned("backup", found, "davsql backup DEST; on a schedule: [backup] in the configuration")
    if options.folder is not None and not options.verify:
        return warned("backup", found, "set backup.verify to true: an unread backup is a hope")
    return passed("backup", found)


def _no_backup(options: BackupOptions, replica_url: str | None, age_s: float) -> Finding:
    if replica_url is not None:
        return passed("backup", "a replica is kept")
    is_young = age_s < UNSAVED_S
    if options.folder is not None:
        found = f"none yet; {options.schedule} into {options.folder}"
        return passed("backup", found) if is_young else warned("backup", found, "davsql backup makes one now")
    advice = "davsql backup DEST; on a schedule: [backup] in the configuration"
    if is_young:
        return passed("backup", f"none yet, the store is new; soon: {advice}")
    return warned("backup", f"none was ever made in {human_age(age_s)}", advice)


def _is_overdue(record: TaskRecord, options: BackupOptions, now_ns: int) -> bool:
    if options.folder is None:
        return (now_ns - record.started_at) * NS > BACKUP_AGE_S
    started = datetime.fromtimestamp(record.started_at * NS, UTC)
    latest = datetime.fromtimestamp(now_ns * NS, UTC) - BACKUP_GRACE
    return started < latest and Schedule(options.schedule).is_due(latest, started)

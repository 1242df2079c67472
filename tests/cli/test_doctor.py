"""`davsql doctor`: green on a fresh drive, and every check finds what it is there for."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import apsw
import pytest

from davsql.doctor import host
from davsql.doctor.examination import Settings, examine
from davsql.doctor.finding import human_age, human_bytes
from davsql.maintenance.backup import BackupOptions
from davsql.server.options import ServerOptions
from davsql.store.options import StoreOptions
from davsql.store.records import finish_task, start_task
from davsql.store.replication import leave_checkpoints
from davsql.store.store import Store
from davsql.store.transaction import WriteTx
from tests.cli.conftest import Outcome, RunDavsql
from tests.store_steps import put

TMPFS = Path("/dev/shm")  # noqa: S108
DAY_NS = 24 * 3600 * 1_000_000_000

Report = dict[str, tuple[str, str]]  # check -> status and what was found
Doctor = Callable[..., Report]

pytestmark = pytest.mark.skipif(os.name == "nt", reason="modes and limits of POSIX")


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """A fresh store where `davsql doctor` looks for it."""
    file = tmp_path / "davsql.db"
    Store.open(file, create=True).close()
    return file


@pytest.fixture
def doctor(davsql: RunDavsql) -> Doctor:
    """Runs `davsql doctor --json ARGUMENTS...`; its exit code must fit what it says."""

    def run(*arguments: object) -> Report:
        outcome = davsql("doctor", "--json", *arguments)
        found = json.loads(outcome.out)
        assert outcome.code == int(any(each["status"] == "fail" for each in found))
        assert all(bool(each["remedy"]) == (each["status"] != "pass") for each in found), found
        return {each["check"]: (each["status"], each["found"]) for each in found}

    return run


@contextmanager
def raw(file: Path) -> Iterator[apsw.Connection]:
    """A connection of another program."""
    connection = apsw.Connection(str(file))
    try:
        yield connection
    finally:
        connection.close()


def note(file: Path, command: Callable[[WriteTx], object]) -> None:
    with Store.open(file) as store:
        store.write(command)


def settle(tx: WriteTx, task: str, days_ago: float, outcome: str = "ok", detail: str = "") -> None:
    """Put a record of a task into the past."""
    at = time.time_ns() - int(days_ago * DAY_NS)
    finish_task(tx, task, outcome, detail)  # type: ignore[arg-type]
    tx.change("UPDATE tasks SET started_at = ?1, finished_at = ?1 WHERE name = ?2", (at, task))


def make_old(file: Path, days: float) -> None:
    """As if the store had been made so long ago."""
    created = str(time.time_ns() - int(days * DAY_NS))
    note(file, lambda tx: tx.change("UPDATE meta SET value = ? WHERE key = 'created_at'", (created,)))


def configure(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "davsql.toml"
    file.write_text(text + '\n[[share]]\nname = "/"\ndb = "davsql.db"\n', encoding="utf-8")
    return file


# --- the report -------------------------------------------------------------------------------------------------------


def test_doctor__is_green_on_a_fresh_drive(davsql: RunDavsql, doctor: Doctor) -> None:
    assert davsql("init").code == 0
    found = doctor()
    not_passed = {check: each for check, each in found.items() if each[0] != "pass"}
    assert not_passed.keys() <= {"file system"}, not_passed  # the tests' folder may lie on a tmpfs
    assert found["backup"][1].startswith("none yet, the store is new; soon: davsql backup DEST; ")
    assert len(found) == 30


def test_doctor__prints_a_table(davsql: RunDavsql, db: Path) -> None:
    outcome = davsql("doctor")
    lines = outcome.out.splitlines()
    assert (outcome.code, lines[0]) == (0, "davsql.db")
    assert lines[1].startswith("  pass  store ")
    column = lines[1].index("schema ")
    assert all(line[column - 1] == " " for line in lines[1:-1])
    make_old(db, 2)
    lines = davsql("doctor").out.splitlines()
    assert any(line[:column].strip() == "" and line[column:].startswith("-> davsql backup DEST") for line in lines)
    assert lines[-1].startswith("30 checks: ")
    assert all(len(line) < 140 for line in lines)


def test_doctor__examines_every_share(davsql: RunDavsql, db: Path, tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text('[[share]]\nname = "a"\ndb = "davsql.db"\n[[share]]\nname = "b"\ndb = "none.db"\n')
    outcome = davsql("doctor", "--config", config)
    assert outcome.code == 1
    assert str(tmp_path / "davsql.db") in outcome.out
    assert "does not exist" in outcome.out


def test_doctor__changes_nothing(davsql: RunDavsql, db: Path, tmp_path: Path) -> None:
    before = db.read_bytes(), sorted(each.name for each in tmp_path.iterdir())
    davsql("doctor")
    assert (db.read_bytes(), sorted(each.name for each in tmp_path.iterdir())) == before


def test_doctor__leaves_the_traces_of_a_crash(davsql: RunDavsql, db: Path) -> None:
    """The next start must see that nobody closed the store: it looks for damage then."""
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom davsql.store.store import Store\n"
        "from davsql.paths import DavPath\n"
        "Store.open(Path(sys.argv[1])).make_collection(DavPath.from_text('/c'))\nos._exit(1)\n"
    )
    subprocess.run([sys.executable, "-c", program, db], check=False)
    assert davsql("doctor").code == 0
    with Store.open(db) as store:
        assert not store.was_clean


def test_doctor__while_the_store_is_served_and_written_to(db: Path, doctor: Doctor) -> None:
    stop = threading.Event()

    def write(store: Store) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            put(store, f"/{number % 10}", str(number).encode())

    with Store.open(db) as store:
        thread = threading.Thread(target=write, args=(store,))
        thread.start()
        try:
            assert {check for check, found in doctor().items() if found[0] == "fail"} == set()
        finally:
            stop.set()
            thread.join()


# --- the file ---------------------------------------------------------------------------------------------------------


def test_store__missing(doctor: Doctor) -> None:
    status, found = doctor()["store"]
    assert status == "fail"
    assert "does not exist" in found


def test_store__something_else(doctor: Doctor, db: Path) -> None:
    db.write_bytes(b"no database at all" * 1000)
    assert doctor()["store"][0] == "fail"


def test_store__of_another_program(doctor: Doctor, db: Path) -> None:
    with raw(db) as connection:
        connection.pragma("application_id", 7)
    status, found = doctor()["store"]
    assert status == "fail"
    assert "not a davsql store" in found


def test_wal_mode__was_switched_off(doctor: Doctor, db: Path) -> None:
    with raw(db) as connection:
        connection.pragma("journal_mode", "delete")
    assert doctor()["WAL mode"] == ("fail", "journal_mode is delete: readers and the writer block each other")


def test_write_lock__somebody_sits_on_it(doctor: Doctor, db: Path) -> None:
    with raw(db) as connection:
        connection.execute("BEGIN IMMEDIATE")
        assert doctor()["write lock"] == ("warn", "another process has held the write lock for 2 s")
        connection.execute("ROLLBACK")
    assert doctor()["write lock"][0] == "pass"


@pytest.mark.skipif(os.access("/", os.W_OK), reason="permissions do not hold for this user")
def test_write_lock__the_file_cannot_be_written(doctor: Doctor, db: Path) -> None:
    db.chmod(0o400)
    assert doctor()["write lock"][0] == "fail"


def test_auto_vacuum__was_switched_off(doctor: Doctor, db: Path) -> None:
    with raw(db) as connection:
        connection.pragma("journal_mode", "delete")  # a VACUUM in WAL mode cannot change it
        connection.pragma("auto_vacuum", 0)
        connection.execute("VACUUM")
    status, found = doctor()["auto_vacuum"]
    assert status == "fail"
    assert "refuses the file" in found


@pytest.mark.parametrize(("version", "status"), [(1, "warn"), (99, "fail")])
def test_schema_version__older_or_newer(doctor: Doctor, db: Path, version: int, status: str) -> None:
    with raw(db) as connection:
        connection.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", (str(version),))
    assert doctor()["schema version"][0] == status


def test_schema__of_a_real_older_store_is_to_be_migrated(doctor: Doctor, tmp_path: Path) -> None:
    old = tmp_path / "old.db"
    old.write_bytes((Path(__file__).parent.parent / "data" / "store-v1.db").read_bytes())
    old.chmod(0o600)
    found = doctor("--db", old)
    assert found["schema version"][0] == "warn"
    assert found["schema"][0] == "warn"
    assert "index pins_blob" in found["schema"][1]
    assert not any(status == "fail" for status, _ in found.values()), found
    with raw(old) as connection:
        assert connection.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone() == ("1",)


@pytest.mark.parametrize("what", ["INDEX nodes_blob", "TRIGGER nodes_delete", "TABLE pins"])
def test_schema__something_was_dropped(doctor: Doctor, db: Path, what: str) -> None:
    with raw(db) as connection:
        connection.execute(f"DROP {what}")
    found = doctor()
    kind, name = what.split()
    assert found["schema"][0] == "fail"
    assert f"{kind.lower()} {name}" in found["schema"][1]
    assert found["indexes"][0] == "warn"


def test_indexes__one_is_of_no_use(doctor: Doctor, db: Path) -> None:
    with raw(db) as connection:
        connection.execute(
            "DROP INDEX blob_chunks_chunk; CREATE INDEX blob_chunks_chunk ON blob_chunks (start)"
        ).fetchall()
    status, found = doctor()["indexes"]
    assert status == "warn"
    assert "SCAN" in found


def test_free_pages__many(doctor: Doctor, db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("davsql.doctor.database.FREE_BYTES_MIN", 1_000_000)
    with raw(db) as connection:
        connection.execute(
            "CREATE TABLE filler (data); INSERT INTO filler VALUES (zeroblob(5000000)); DROP TABLE filler"
        ).fetchall()
    status, found = doctor()["free pages"]
    assert status == "warn"
    assert "the file could be smaller" in found


def test_garbage__that_nobody_collects(doctor: Doctor, db: Path) -> None:
    with Store.open(db) as store:
        put(store, "/a", b"1")
        put(store, "/a", b"2")
    assert doctor()["garbage"][0] == "pass"
    note(db, lambda tx: tx.change("UPDATE blobs SET orphaned_at = orphaned_at - ? WHERE refcount = 0", (3 * DAY_NS,)))
    assert doctor()["garbage"] == ("warn", "deleted content waits since 3 days")


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE nodes SET created_at = created_at + ? WHERE inode = (SELECT max(inode) FROM nodes)",
        "UPDATE tasks SET started_at = started_at + ?",
        "UPDATE meta SET value = CAST(value + ? AS TEXT) WHERE key = 'created_at'",
    ],
)
def test_clock__before_what_the_store_has_seen(doctor: Doctor, db: Path, sql: str) -> None:
    note(db, lambda tx: start_task(tx, "scrub"))
    assert doctor()["clock"][0] == "pass"
    note(db, lambda tx: tx.change(sql, (5 * DAY_NS,)))
    status, found = doctor()["clock"]
    assert status == "fail"
    assert found.startswith("5 days behind what the store has seen")


def test_clock__a_time_that_a_client_set_is_none_of_it(doctor: Doctor, db: Path) -> None:
    with Store.open(db) as store:
        put(store, "/future", b"1", modified_at=time.time_ns() + 1000 * DAY_NS)
    assert doctor()["clock"][0] == "pass"


# --- records ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["integrity_check", "scrub"])
def test_integrity__age_and_result(doctor: Doctor, db: Path, task: str) -> None:
    check = task.replace("_", " ")
    note(db, lambda tx: settle(tx, task, 3))
    assert doctor()[check] == ("pass", "ok, 3 days ago")
    note(db, lambda tx: settle(tx, task, 30))
    assert doctor()[check] == ("warn", "ok, 30 days ago")
    note(db, lambda tx: settle(tx, task, 0, "failed", "chunk 7 is damaged"))
    assert doctor()[check] == ("fail", "chunk 7 is damaged")


def test_integrity__never_is_bad_for_an_old_store_only(doctor: Doctor, db: Path) -> None:
    assert doctor()["integrity check"][0] == "pass"
    make_old(db, 40)
    assert doctor()["integrity check"] == ("warn", "not yet; the store is 40 days old")


def test_integrity__begun_and_not_ended(doctor: Doctor, db: Path) -> None:
    note(db, lambda tx: start_task(tx, "integrity_check"))
    note(db, lambda tx: tx.change("UPDATE tasks SET started_at = started_at - ?", (50 * DAY_NS,)))
    assert doctor()["integrity check"] == ("warn", "begun and not ended, 50 days ago")


def test_quick_check__failed(doctor: Doctor, db: Path) -> None:
    note(db, lambda tx: settle(tx, "quick_check", 1))
    assert doctor()["quick check"][0] == "pass"
    note(db, lambda tx: settle(tx, "quick_check", 1, "failed", "page 7"))
    assert doctor()["quick check"] == ("fail", "page 7")


def test_backup__made_by_hand(doctor: Doctor, davsql: RunDavsql, db: Path, tmp_path: Path) -> None:
    assert davsql("backup", tmp_path / "copy.davsql").code == 0
    status, found = doctor()["backup"]
    assert status == "pass"
    assert "copy.davsql" in found
    note(db, lambda tx: settle(tx, "backup", 20, detail="old"))
    assert doctor()["backup"] == ("warn", "20 days ago: old")
    note(db, lambda tx: settle(tx, "backup", 0, "failed", "no space"))
    assert doctor()["backup"] == ("fail", "the last one failed: no space")


@pytest.mark.parametrize(("days", "status"), [(0.9, "pass"), (1.1, "warn")])
@pytest.mark.parametrize("is_scheduled", [False, True])
def test_backup__may_be_missing_for_a_day(
    doctor: Doctor, db: Path, tmp_path: Path, days: float, status: str, is_scheduled: bool
) -> None:
    (tmp_path / "copies").mkdir()
    config = configure(tmp_path, '[backup]\nfolder = "copies"' if is_scheduled else "")
    make_old(db, days)
    found = doctor("--config", config)["backup"]
    assert found[0] == status
    assert found[1].startswith("none ")


def test_backup__on_a_schedule(doctor: Doctor, db: Path, tmp_path: Path) -> None:
    config = configure(tmp_path, '[backup]\nfolder = "copies"\nschedule = "daily"')
    assert doctor("--config", config)["backup"] == ("fail", f"{tmp_path / 'copies'} does not exist")
    (tmp_path / "copies").mkdir()
    assert doctor("--config", config)["backup"][0] == "pass"
    note(db, lambda tx: settle(tx, "backup", 0, detail="fine"))
    assert doctor("--config", config)["backup"] == ("pass", "0 s ago: fine")
    note(db, lambda tx: settle(tx, "backup", 3, detail="late"))
    assert doctor("--config", config)["backup"] == ("warn", "3 days ago: late")


def test_backup__nobody_verifies(doctor: Doctor, db: Path, tmp_path: Path) -> None:
    (tmp_path / "copies").mkdir()
    note(db, lambda tx: settle(tx, "backup", 0))
    config = configure(tmp_path, '[backup]\nfolder = "copies"\nverify = false')
    assert doctor("--config", config)["backup"][0] == "warn"


def test_backup__a_replica_counts(db: Path) -> None:
    findings = examine(db, StoreOptions(), Settings(backup=BackupOptions(), replica_url="file:///mnt/replica"))
    assert {each.check: each.status for each in findings}["backup"] == "pass"


# --- the host ---------------------------------------------------------------------------------------------------------


def test_wal_size__large(doctor: Doctor, db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "WAL_BYTES_DEGRADED", 1_000_000)
    with Store.open(db) as store:
        put(store, "/a", os.urandom(2_000_000))
        status, found = doctor()["WAL size"]
    assert status == "warn"
    assert "checkpoints do not keep up" in found


def test_wal_size__may_be_more_with_a_replica(doctor: Doctor, db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "WAL_BYTES_DEGRADED", 1_000_000)
    with Store.open(db) as store:
        store.write(leave_checkpoints)
        put(store, "/a", os.urandom(2_000_000))
        assert doctor()["WAL size"][0] == "pass"
        monkeypatch.setattr(host, "LEFT_WAL_BYTES_DEGRADED", 1_000_000)
        assert doctor()["WAL size"][0] == "warn"
    assert doctor()["WAL size"][0] == "pass"


def test_disk_space__runs_out(doctor: Doctor, db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "DISK_FREE_MIN", 1 << 60)
    assert doctor()["disk space"][0] == "fail"


def test_disk_space__no_room_for_a_backup(doctor: Doctor, db: Path) -> None:
    os.truncate(db, 1 << 43)  # sparse: more than the disk has
    found = {each.check: each for each in host.check_host(db)}
    assert found["disk space"].status == "warn"


@pytest.mark.parametrize(("mode", "status"), [(0o640, "warn"), (0o604, "warn"), (0o660, "fail"), (0o602, "fail")])
def test_file_mode__open_to_others(doctor: Doctor, db: Path, mode: int, status: str) -> None:
    db.chmod(mode)
    assert doctor()["file mode"][0] == status
    db.chmod(0o600)
    assert doctor()["file mode"][0] == "pass"


def test_file_mode__of_the_wal_counts(doctor: Doctor, db: Path) -> None:
    with Store.open(db) as store:
        put(store, "/a", b"1")
        db.with_name("davsql.db-wal").chmod(0o644)
        status, found = doctor()["file mode"]
    assert status == "warn"
    assert "davsql.db-wal has 0644" in found


@pytest.mark.parametrize(("mode", "status"), [(0o755, "pass"), (0o775, "pass"), (0o1777, "warn"), (0o777, "fail")])
def test_folder_mode__open_to_everybody(doctor: Doctor, db: Path, mode: int, status: str) -> None:
    before = stat.S_IMODE(db.parent.stat().st_mode)
    db.parent.chmod(mode)
    try:
        assert doctor()["folder mode"][0] == status
    finally:
        db.parent.chmod(before)


@pytest.mark.parametrize(
    ("kind", "status"), [("ext4", "pass"), ("xfs", "pass"), ("nfs4", "warn"), ("cifs", "warn"), ("tmpfs", "warn")]
)
def test_file_system__where_sqlite_is_not_safe(
    doctor: Doctor, db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, status: str
) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(
        f"/dev/a / ext4 rw 0 0\n/dev/b {tmp_path} xfs rw 0 0\nserver:/x {tmp_path} {kind} rw 0 0\nproc /proc proc\n"
    )
    monkeypatch.setattr(host, "MOUNTS", mounts)
    assert doctor()["file system"][0] == status


def test_file_system_of__names_with_blanks_and_neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("a / ext4\nb /mnt/my\\040disk nfs\nc /mnt/my cifs\n")
    monkeypatch.setattr(host, "MOUNTS", mounts)
    assert host.file_system_of(Path("/mnt/my disk/a.db")) == "nfs"
    assert host.file_system_of(Path("/mnt/my/a.db")) == "cifs"
    assert host.file_system_of(Path("/mnt/mydisk/a.db")) == "ext4"
    monkeypatch.setattr(host, "MOUNTS", tmp_path / "none")
    assert host.file_system_of(Path("/a.db")) is None


@pytest.mark.skipif(not TMPFS.is_dir(), reason="no tmpfs here")
def test_file_system__of_a_real_tmpfs(doctor: Doctor) -> None:
    file = TMPFS / f"davsql-test-{os.getpid()}.db"
    try:
        Store.open(file, create=True).close()
        found = doctor("--db", file)
    finally:
        file.unlink()
    assert found["file system"] == ("warn", "tmpfs: gone when the machine restarts")
    assert found["folder mode"][0] == "warn"


def test_apsw__is_not_the_one_that_encrypts(doctor: Doctor, db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(apsw, "mc_version")
    assert doctor()["apsw"][0] == "fail"


def test_apsw__both_are_installed(doctor: Doctor, db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "site" / "apsw-3.46.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: apsw\nVersion: 3.46.1\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert doctor()["apsw"][0] == "warn"


def test_sqlite_version__too_old(doctor: Doctor, db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apsw, "sqlite_lib_version", lambda: "3.40.1")
    found = doctor()
    assert found["SQLite version"][0] == "fail"
    assert found["store"][0] == "fail"


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "check"),
    [
        ("[store]\nbusy_timeout_s = 5", "busy timeout"),
        ("[store]\nqueue_size = 100000", "single writer"),
        ("[store]\nreaders = 1024", "reader pool"),
        ("[store]\ncache_mb = 1000000", "memory"),
        ("[store]\nmmap_mb = 256", "mmap"),
        ('[store]\ndurability = "normal"', "durability"),
        ("[admin]\nport = 0", "monitoring"),
    ],
)
def test_settings__that_deserve_a_warning(doctor: Doctor, db: Path, tmp_path: Path, text: str, check: str) -> None:
    assert doctor("--config", configure(tmp_path, text))[check][0] == "warn"
    assert doctor()[check][0] == "pass"


def test_open_files__limited(db: Path) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        findings = {each.check: each for each in examine(db, StoreOptions(), Settings(server=ServerOptions()))}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert findings["open files"].status == "warn"
    assert asdict(findings["open files"])["remedy"].startswith("ulimit -n")


# --- words ------------------------------------------------------------------------------------------------------------


def test_human_words() -> None:
    assert [human_age(each) for each in (0, 119, 120, 7200, 172_800, 1e9)] == [
        "0 s", "119 s", "2 minutes", "2 hours", "2 days", "11,574 days",
    ]  # fmt: skip
    assert [human_bytes(each) for each in (0, 1023, 1024, 1 << 20, 1 << 30, 1 << 42)] == [
        "0 bytes", "1,023 bytes", "1 KiB", "1 MiB", "1.0 GiB", "4,096.0 GiB",
    ]  # fmt: skip


def test_outcome__is_what_the_shell_sees(davsql: RunDavsql, db: Path) -> None:
    db.chmod(0o666)
    outcome: Outcome = davsql("doctor")
    assert outcome.code == 1
    assert "  fail  file mode " in outcome.out
    assert outcome.err == ""

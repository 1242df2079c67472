"""davsql backup, restore and migrate: what they say, refuse and leave."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from davsql.maintenance.backup import backups_in
from davsql.store import migrate
from davsql.store.check import check
from davsql.store.records import task_records
from davsql.store.store import Store
from tests.cli.conftest import RunDavsql
from tests.cli.test_serve import STOP_TIMEOUT_S, serving
from tests.data.make_store import CONTENTS
from tests.http_client import request
from tests.store_steps import put, tree

DATA = Path(__file__).resolve().parents[1] / "data"


@pytest.fixture
def db(tmp_path: Path) -> Path:
    file = tmp_path / "davsql.db"
    with Store.open(file, create=True) as store:
        put(store, "/f", b"content")
    return file


@pytest.fixture
def old_db(tmp_path: Path) -> Path:
    return Path(shutil.copyfile(DATA / "store-v1.db", tmp_path / "old.db"))


def tree_in(file: Path) -> dict[str, bytes | None]:
    with Store.open(file) as store:
        assert check(store) == []
        return tree(store)


def run_in(folder: Path, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    """The command in a process of its own, with its output as bytes."""
    command = [sys.executable, "-m", "davsql", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=60)


# --- backup --------------------------------------------------------------------------------------------------------


def test_backup__to_a_file(davsql: RunDavsql, db: Path, tmp_path: Path) -> None:
    outcome = davsql("backup", "b.davsql")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith(f"backed up davsql.db to {tmp_path / 'b.davsql'}: ")
    assert outcome.out.endswith(", verified\n")
    assert tree_in(tmp_path / "b.davsql") == {"/f": b"content"}
    with Store.open(db) as store, store.read() as tx:
        assert task_records(tx)["backup"].outcome == "ok"


def test_backup__into_a_folder_gets_a_name(davsql: RunDavsql, db: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert davsql("backup", "folder").code == 0
    (file,) = backups_in(tmp_path / "folder", db).values()
    assert tree_in(file) == {"/f": b"content"}


def test_backup__without_destination_uses_the_configured_folder(davsql: RunDavsql, db: Path, tmp_path: Path) -> None:
    (tmp_path / "backups").mkdir()
    (tmp_path / "c.toml").write_text('[backup]\nfolder = "backups"\n')
    assert davsql("backup", "--config", "c.toml").code == 0
    assert len(backups_in(tmp_path / "backups", db)) == 1
    (tmp_path / "backups").rename(tmp_path / "gone")
    outcome = davsql("backup", "--config", "c.toml")
    assert outcome.code == 1
    assert "backups does not exist; make it first" in outcome.err


def test_backup__without_any_destination_is_wrong_usage(davsql: RunDavsql, db: Path) -> None:
    outcome = davsql("backup")
    assert outcome.code == 2
    assert "a file, or a folder" in outcome.err


def test_backup__replaces_nothing_without_force(davsql: RunDavsql, db: Path, tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"precious")
    outcome = davsql("backup", "b")
    assert outcome.code == 1
    assert outcome.err == (
        f"davsql: {tmp_path / 'b'} exists already; choose another name, or replace it with --force\n"
    )
    assert (tmp_path / "b").read_bytes() == b"precious"
    assert davsql("backup", "b", "--force").code == 0
    assert tree_in(tmp_path / "b") == {"/f": b"content"}


def test_backup__without_verifying_says_so(davsql: RunDavsql, db: Path) -> None:
    assert davsql("backup", "b", "--no-verify").out.endswith(", not verified\n")


def test_deep__proves_every_byte_of_backup_and_restore(davsql: RunDavsql, db: Path, tmp_path: Path) -> None:
    assert davsql("backup", "b.davsql", "--deep").out.endswith(" s, every byte verified\n")
    outcome = davsql("restore", "b.davsql", "--deep", "--db", "new.db")
    assert outcome.out.endswith(", all invariants hold, every byte is as it was stored\n")
    with Store.open(db) as store:
        store.write(lambda tx: tx.change("UPDATE chunk_data SET data = zeroblob(length(data))"))
    outcome = davsql("backup", "bad.davsql", "--deep")
    assert outcome.code == 1
    assert "its bytes are not those that were stored; used by /f" in outcome.err
    assert davsql("backup", "bad.davsql").code == 0
    outcome = davsql("restore", "bad.davsql", "--deep", "--db", "newer.db")
    assert outcome.code == 1
    assert "used by /f" in outcome.err
    assert not (tmp_path / "newer.db").exists()


def test_backup__to_standard_output_is_nothing_but_the_backup(db: Path, tmp_path: Path) -> None:
    done = run_in(tmp_path, "backup", "--to", "-")
    assert (done.returncode, done.stderr) == (0, b"")
    (tmp_path / "out.davsql").write_bytes(done.stdout)
    assert tree_in(tmp_path / "out.davsql") == {"/f": b"content"}
    assert sorted(each.name for each in tmp_path.iterdir()) == ["davsql.db", "out.davsql"]


def test_backup__to_standard_output_is_made_where_it_is_told(davsql: RunDavsql, db: Path, tmp_path: Path) -> None:
    done = run_in(tmp_path, "backup", "--to", "-", "--tmp", "missing")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"missing does not exist; make it first" in done.stderr
    (tmp_path / "tmp").mkdir()
    assert run_in(tmp_path, "backup", "--to", "-", "--tmp", "tmp").returncode == 0
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
def test_backup__to_a_pipe_that_is_closed_ends_quietly(db: Path, tmp_path: Path) -> None:
    with Store.open(db) as store:
        put(store, "/large", random.Random(1).randbytes(3_000_000))  # noqa: S311
    command = f"{sys.executable} -m davsql backup --to - | head -c 100 >/dev/null"
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, check=False)
    assert done.stderr == b""
    assert [each.name for each in tmp_path.iterdir()] == ["davsql.db"]


@pytest.mark.parametrize(
    "arguments",
    [["--to", "-", "b"], ["--to", "-", "--force"], ["b", "--tmp", "."], ["--to", "b"], ["b", "c"]],
)
def test_backup__of_contradicting_arguments_is_wrong_usage(davsql: RunDavsql, db: Path, arguments: list[str]) -> None:
    assert davsql("backup", *arguments).code == 2


def test_backup__beside_a_running_server(davsql: RunDavsql, tmp_path: Path) -> None:
    with serving(tmp_path) as (process, [address], _):
        assert request(address, "PUT", "/a", b"acknowledged").status == 201
        assert davsql("backup", "b.davsql").code == 0
        assert request(address, "PUT", "/b", b"later").status == 201
        process.terminate()
        process.communicate(timeout=STOP_TIMEOUT_S)
    assert tree_in(tmp_path / "b.davsql") == {"/a": b"acknowledged"}
    assert tree_in(tmp_path / "davsql.db").keys() == {"/a", "/b"}


def test_backup__of_a_share(davsql: RunDavsql, tmp_path: Path) -> None:
    for name in ("1", "2"):
        with Store.open(tmp_path / f"{name}.db", create=True) as store:
            put(store, f"/{name}")
    (tmp_path / "c.toml").write_text("".join(f'[[share]]\nname = "{n}"\ndb = "{n}.db"\n' for n in (1, 2)))
    assert davsql("backup", "--config", "c.toml", "b").code == 2
    assert davsql("backup", "--config", "c.toml", "--share", "2", "b").code == 0
    assert tree_in(tmp_path / "b") == {"/2": b""}


# --- restore -------------------------------------------------------------------------------------------------------


def test_restore__after_the_disk_died(davsql: RunDavsql, db: Path, tmp_path: Path) -> None:
    assert davsql("backup", "b.davsql").code == 0
    db.unlink()
    outcome = davsql("restore", "b.davsql")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith(f"restored {db} from b.davsql: ")
    assert outcome.out.endswith("2 nodes, all invariants hold\n")
    assert tree_in(db) == {"/f": b"content"}


def test_restore__with_force_keeps_what_it_replaces(davsql: RunDavsql, db: Path, tmp_path: Path) -> None:
    assert davsql("backup", "b.davsql").code == 0
    with Store.open(db) as store:
        put(store, "/later")
    outcome = davsql("restore", "b.davsql")
    assert outcome.code == 1
    assert "--force" in outcome.err
    assert "/later" in tree_in(db)
    outcome = davsql("restore", "b.davsql", "--force")
    assert outcome.code == 0
    (kept,) = tmp_path.glob("davsql.db.replaced-*")
    assert outcome.out.splitlines()[0] == f"what was there is kept as {kept}"
    assert "/later" in tree_in(kept)
    assert tree_in(db) == {"/f": b"content"}


def test_restore__refuses_while_a_server_runs(davsql: RunDavsql, db: Path, tmp_path: Path) -> None:
    assert davsql("backup", "b.davsql").code == 0
    with serving(tmp_path) as (process, [address], _):
        outcome = davsql("restore", "b.davsql", "--force")
        assert outcome.code == 1
        assert outcome.err == (
            f"davsql: {db} is in use; stop the davsql that serves it, and other programs that have it open\n"
        )
        assert request(address, "PUT", "/a", b"goes on").status == 201
        process.terminate()
        process.communicate(timeout=STOP_TIMEOUT_S)
    assert tree_in(db) == {"/f": b"content", "/a": b"goes on"}
    assert davsql("restore", "b.davsql", "--force").code == 0


def test_restore__of_nothing_names_it(davsql: RunDavsql, tmp_path: Path) -> None:
    assert davsql("restore", "missing.davsql") == (1, "", "davsql: there is no backup missing.davsql\n")
    assert list(tmp_path.iterdir()) == []


def test_restore__serves_again(davsql: RunDavsql, db: Path, tmp_path: Path) -> None:
    assert davsql("backup", "b.davsql").code == 0
    assert davsql("restore", "b.davsql", "--db", "new.db").code == 0
    with serving(tmp_path, "--db", "new.db") as (_, [address], said):
        assert "making a new store" not in said
        assert request(address, "GET", "/f").body == b"content"
        assert request(address, "PUT", "/g", b"x").status == 201


# --- migrate -------------------------------------------------------------------------------------------------------


def test_migrate__dry_run_leaves_the_store_as_it_is(davsql: RunDavsql, old_db: Path, tmp_path: Path) -> None:
    before = old_db.read_bytes()
    outcome = davsql("migrate", "--dry-run", "--db", "old.db")
    assert (outcome.code, outcome.err) == (0, "")
    assert f"schema version 1 became {migrate.SCHEMA_VERSION} in " in outcome.out
    assert outcome.out.endswith(" s, all invariants hold\n")
    assert old_db.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["old.db"]


def test_migrate__dry_run_tells_of_what_is_broken(davsql: RunDavsql, db: Path) -> None:
    with Store.open(db) as store:
        store.write(lambda tx: tx.change("UPDATE blobs SET refcount = refcount + 1"))
    outcome = davsql("migrate", "--dry-run")
    assert outcome.code == 1
    assert outcome.out.startswith("rule 6: ")
    assert "1 violation" in outcome.out


def test_migrate__keeps_the_store_as_it_was(davsql: RunDavsql, old_db: Path, tmp_path: Path) -> None:
    outcome = davsql("migrate", "--db", "old.db")
    (kept,) = tmp_path.glob("old.db.before-v1-*")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines() == [
        f"old.db: schema version 1 became {migrate.SCHEMA_VERSION}",
        f"as it was it is kept as {kept}",
    ]
    assert tree_in(old_db) == CONTENTS
    assert davsql("migrate", "--db", "old.db") == (
        0,
        f"old.db has schema version {migrate.SCHEMA_VERSION} already\n",
        "",
    )


def test_migrate__puts_the_backup_where_it_is_told(davsql: RunDavsql, old_db: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    assert davsql("migrate", "--db", "old.db", "--backup-to", "elsewhere").code == 0
    assert len(list((tmp_path / "elsewhere").glob("old.db.before-v1-*"))) == 1
    assert [each.name for each in tmp_path.iterdir() if each.is_file()] == ["old.db"]


def test_other_commands__that_write_tell_that_they_migrated(davsql: RunDavsql, old_db: Path, tmp_path: Path) -> None:
    outcome = davsql("maintain", "gc", "--db", "old.db")
    (kept,) = tmp_path.glob("old.db.before-v1-*")
    assert outcome.code == 0
    assert outcome.err == f"davsql: {old_db} was migrated; as it was it is kept as {kept}\n"
    assert davsql("maintain", "gc", "--db", "old.db").err == ""


# --- the server ----------------------------------------------------------------------------------------------------


def test_serve__makes_backups_as_configured(tmp_path: Path) -> None:
    (tmp_path / "backups").mkdir()
    (tmp_path / "c.toml").write_text('[backup]\nfolder = "backups"\nschedule = "hourly"\n')
    with serving(tmp_path, "--config", "c.toml") as (process, _, _):
        deadline = time.monotonic() + 30
        while not list((tmp_path / "backups").glob("davsql-*.davsql")) and time.monotonic() < deadline:
            time.sleep(0.1)
        process.terminate()
        process.communicate(timeout=STOP_TIMEOUT_S)
    (file,) = backups_in(tmp_path / "backups", tmp_path / "davsql.db").values()
    assert tree_in(file) == {}

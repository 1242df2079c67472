from __future__ import annotations

import json
from pathlib import Path

import apsw
import pytest

from davsql.cli.printing import counted, human_size, iso_time, printable
from davsql.maintenance.health import Status, look_at
from davsql.model import Guard
from davsql.store.records import finish_task, start_task
from davsql.store.store import Store
from tests.cli.conftest import RunDavsql
from tests.store_steps import at, put

OLD_NS = 978_307_200_123_456_789


@pytest.fixture(autouse=True)
def db(tmp_path: Path) -> Path:
    file = tmp_path / "davsql.db"
    with Store.open(file, create=True) as store:
        store.make_collection(at("/Photos"))
        put(store, "/Photos/b", b"bb", modified_at=OLD_NS)
        put(store, "/a\u202etxt.exe", b"a")
        put(store, "/z", b"bb")
    return file


def test_ls__lists_the_root(davsql: RunDavsql) -> None:
    assert davsql("ls") == (0, "Photos/\na\\u202etxt.exe\nz\n", "")


def test_ls__lists_a_collection_and_a_file(davsql: RunDavsql) -> None:
    assert davsql("ls", "/Photos/").out == "b\n"
    assert davsql("ls", "Photos/b").out == "b\n"
    assert davsql("ls", "-l", "/Photos/b").out == "              2  2001-01-01T00:00:00Z  b\n"


def test_ls__recursive_shows_paths(davsql: RunDavsql) -> None:
    assert davsql("ls", "-R").out.splitlines() == ["Photos/", "Photos/b", "a\\u202etxt.exe", "z"]


def test_ls__json_is_one_object_a_line(davsql: RunDavsql) -> None:
    lines = [json.loads(line) for line in davsql("ls", "-R", "--json").out.splitlines()]
    assert [line["path"] for line in lines] == ["/Photos", "/Photos/b", "/a\u202etxt.exe", "/z"]
    assert lines[0]["type"] == "collection"
    assert lines[1]["size"] == 2
    assert lines[1]["modified_ns"] == OLD_NS


def test_ls__missing_path_is_named(davsql: RunDavsql) -> None:
    assert davsql("ls", "/no") == (1, "", "davsql: /no does not exist\n")


def test_ls__many_members_come_in_pages(davsql: RunDavsql, db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(db) as store:
        for number in range(25):
            put(store, f"/Photos/{number:02}")
    monkeypatch.setattr("davsql.cli.ls.PAGE", 5)
    assert davsql("ls", "/Photos").out.split() == [*(f"{number:02}" for number in range(25)), "b"]


def test_stats__counts(davsql: RunDavsql) -> None:
    found = json.loads(davsql("stats", "--json").out)
    assert (found["files"], found["logical_bytes"], found["stored_bytes"]) == (3, 5, 3)
    lines = dict(line.rsplit("  ", 1) for line in davsql("stats").out.split("\n\n")[0].splitlines())
    assert {name.strip(): value for name, value in lines.items()}["stored"] == "3 bytes"


def test_stats__tell_who_holds_how_much(davsql: RunDavsql, db: Path) -> None:
    assert "users who hold" not in davsql("stats").out
    with Store.open(db) as store:
        put(store, "/anns", b"x" * 100, guard=Guard(principal="ann"))
    found = json.loads(davsql("stats", "--json").out)["holders"]
    assert found[0] == {"owner": "ann", "nodes": 1, "size_bytes": 100}
    assert (found[1]["owner"], found[1]["size_bytes"]) == ("", 5)
    lines = davsql("stats").out.split("users who hold the most\n")[1].splitlines()
    assert [line.split()[-6:] for line in lines[:2]] == [
        ["bytes", "ann,", "1", "files", "and", "folders"],
        ["bytes", "(nobody),", str(found[1]["nodes"]), "files", "and", "folders"],
    ]


def test_stats__tell_the_last_checks_and_their_age(davsql: RunDavsql, db: Path) -> None:
    assert davsql("maintain", "quick-check").code == 0
    with Store.open(db) as store:
        store.write(lambda tx: start_task(tx, "scrub"))
    checks = {each["name"]: each for each in json.loads(davsql("stats", "--json").out)["checks"]}
    assert (checks["quick_check"]["outcome"], checks["integrity_check"]["outcome"]) == ("ok", "never")
    assert 0 <= checks["quick_check"]["age_s"] < 60
    lines = [line.split("  ") for line in davsql("stats").out.splitlines()]
    shown = {line[0]: line[-1].strip() for line in lines}
    assert shown["quick check"].startswith("ok, ")
    assert shown["quick check"].endswith(" s ago")
    assert shown["integrity check"] == "never"
    assert shown["scrub"].startswith("unfinished, ")


@pytest.mark.parametrize(("arguments", "left"), [((), {"scrub", "backup"}), (("--deep",), {"backup"})])
def test_check__that_is_clean_ends_what_maintenance_found(
    davsql: RunDavsql, db: Path, arguments: tuple[str, ...], left: set[str]
) -> None:
    with Store.open(db) as store:
        for task in ("quick_check", "integrity_check", "scrub", "backup"):
            store.write(lambda tx, task=task: finish_task(tx, task, "failed", "found something"))  # type: ignore[misc]
        assert davsql("check", *arguments).code == 0  # beside a server
        health = look_at(store)
    assert {name for name, record in health.tasks.items() if record.outcome == "failed"} == left
    assert health.status is Status.DEGRADED


def test_check__that_finds_something_ends_nothing(davsql: RunDavsql, db: Path) -> None:
    with Store.open(db) as store:
        store.write(lambda tx: finish_task(tx, "integrity_check", "failed", "found something"))
        store.write(lambda tx: tx.change("UPDATE blobs SET refcount = refcount + 1 WHERE size = 1"))
        assert davsql("check").code == 1
        assert look_at(store).status is Status.UNHEALTHY


def test_check__says_that_all_is_well(davsql: RunDavsql) -> None:
    assert davsql("check") == (0, "davsql.db: all invariants hold\n", "")
    assert davsql("check", "--deep") == (0, "davsql.db: all invariants hold, every byte is as it was stored\n", "")


def test_check__lists_what_is_broken(davsql: RunDavsql, db: Path) -> None:
    database = apsw.Connection(str(db))
    database.execute("UPDATE blobs SET refcount = refcount + 1 WHERE size = 1")
    database.close()
    outcome = davsql("check")
    assert outcome.code == 1
    assert outcome.out.startswith("rule 6: ")
    assert outcome.err == "davsql.db: 1 violation\n"


def test_check__deep_finds_changed_bytes(davsql: RunDavsql, db: Path) -> None:
    database = apsw.Connection(str(db))
    database.execute("UPDATE chunk_data SET data = x'00' WHERE length(data) = 1")
    database.close()
    assert davsql("check").code == 0
    outcome = davsql("check", "--deep")
    assert outcome.code == 1
    assert {line.split(":")[0] for line in outcome.out.splitlines()} == {"rule 15"}


def test_printable__escapes_what_acts_on_a_terminal() -> None:
    assert printable("a\x1b[2J\n\u2028\udcff\u202e caf\u00e9 \U0001f600") == (
        "a\\x1b[2J\\n\\u2028\\udcff\\u202e caf\u00e9 \U0001f600"
    )


def test_human_size__has_the_right_unit() -> None:
    assert [human_size(size) for size in (0, 1, 1023, 1024, 1_572_864, 2**60, 2**70)] == [
        "0 bytes",
        "1 byte",
        "1,023 bytes",
        "1.0 KiB",
        "1.5 MiB",
        "1,024.0 PiB",
        "1,048,576.0 PiB",
    ]


def test_iso_time__never_fails() -> None:
    assert iso_time(OLD_NS) == "2001-01-01T00:00:00Z"
    assert iso_time(-1) == "1969-12-31T23:59:59Z"
    assert iso_time(2**62 * 100) == f"{2**62 * 100 // 10**9}s"


def test_counted__knows_one() -> None:
    assert [counted(number, "file") for number in (0, 1, 2000)] == ["0 files", "1 file", "2,000 files"]

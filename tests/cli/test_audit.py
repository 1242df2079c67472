"""`davsql audit`: what it shows, and its verdict."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from davsql.audit.chain import Entry
from davsql.audit.log import AuditLog
from tests.audit.audit_steps import entry, tamper
from tests.cli.conftest import RunDavsql
from tests.cli.test_serve import STOP_TIMEOUT_S, serving
from tests.cli.test_user_commands import add_user
from tests.http_client import request


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The audit log of the current folder, with three rows."""
    file = tmp_path / "davsql-audit.db"
    audit = AuditLog(file, tmp_path / "davsql-audit.key")
    audit.append(entry(1, "/drive/a"))
    audit.append(entry(10**9, "/drive/b\x1b")._replace(user="bob", method="MOVE", destination="/drive/c/d"))
    audit.append(Entry(10**18 + 2 * 10**9, None, "::1", "PUT", "/other", None, 404, 0, "x"))
    audit.close()
    return file


@pytest.mark.parametrize(
    ("arguments", "rows"),
    [
        ([], [1, 2, 3]),
        (["--user", "Bob"], [2]),
        (["--path", "/drive"], [1, 2]),
        (["--path", "/drive/c/"], [2]),
        (["--path", "/driv"], []),
        (["--since", "2001-09-09T01:46:41Z"], [2, 3]),
        (["--until", "2001-09-09T01:46:40.5Z"], [1]),
        (["--since", "1h"], []),
    ],
)
def test_audit__shows_what_was_asked_for(davsql: RunDavsql, log: Path, arguments: list[str], rows: list[int]) -> None:
    outcome = davsql("audit", "--json", *arguments)
    assert outcome.code == 0, outcome.err
    assert [json.loads(line)["seq"] for line in outcome.out.splitlines()] == rows


def test_audit__writes_lines_that_a_terminal_bears(davsql: RunDavsql, log: Path) -> None:
    assert davsql("audit").out.splitlines() == [
        "2001-09-09T01:46:40.000Z ann 192.0.2.7 201 PUT /drive/a (1 byte)",
        "2001-09-09T01:46:41.000Z bob 192.0.2.7 201 MOVE /drive/b\\x1b -> /drive/c/d (1,000,000,000 bytes)",
        "2001-09-09T01:46:42.000Z - ::1 404 PUT /other",
    ]


def test_verify__has_an_exit_code(davsql: RunDavsql, log: Path, tmp_path: Path) -> None:
    assert davsql("audit", "verify").out == "3 rows, the last one is 3: all as they were written\n"
    log.unlink()
    assert davsql("audit", "verify").code == 1
    (tmp_path / "davsql-audit.key.head").unlink()
    AuditLog(log, tmp_path / "davsql-audit.key").close()
    assert davsql("audit", "verify").out == "0 rows, the last one is 0: all as they were written\n"


def test_verify__says_what_is_wrong(davsql: RunDavsql, log: Path, tmp_path: Path) -> None:
    (tmp_path / "davsql-audit.key.head").unlink()
    outcome = davsql("audit", "verify")
    assert outcome.code == 1
    assert "nobody can tell whether the end is missing" in outcome.out
    assert outcome.err == "davsql-audit.db is not what was written: 1 fault\n"


def test_commands__that_change_accounts_are_recorded(davsql: RunDavsql, monkeypatch: pytest.MonkeyPatch) -> None:
    add_user(davsql, monkeypatch, "ann", "--group", "family")
    davsql("user", "groups", "ann", "--add", "x", "--remove", "family")
    davsql("user", "groups", "ann")
    davsql("token", "create", "ann", "--name", "laptop", "--read-only")
    davsql("token", "revoke", "laptop")
    davsql("user", "disable", "ann")
    davsql("user", "disable", "nobody")
    davsql("user", "remove", "ann")
    found = [json.loads(line) for line in davsql("audit", "--json").out.splitlines()]
    assert [(each["method"], each["path"], each["destination"]) for each in found] == [
        ("user add", "ann", "groups: family"),
        ("user groups", "ann", "+x -family"),
        ("token create", "ann", "1: ann, laptop, read-only, never used"),
        ("token revoke", "ann", "1: ann, laptop, read-only, never used"),
        ("user disable", "ann", None),
        ("user remove", "ann", None),
    ]
    assert {each["address"] for each in found} == {"local"}


def test_commands__do_nothing_that_cannot_be_recorded(davsql: RunDavsql, monkeypatch: pytest.MonkeyPatch) -> None:
    add_user(davsql, monkeypatch, "ann")
    Path("davsql-audit.db").write_bytes(b"something else")
    outcome = davsql("user", "remove", "ann")
    assert outcome.code == 1
    assert "davsql-audit.db is no audit file of davsql" in outcome.err
    assert davsql("user", "list").out.startswith("ann")


def test_doctor__looks_at_accounts_and_audit(davsql: RunDavsql, monkeypatch: pytest.MonkeyPatch) -> None:
    def statuses() -> dict[str, str]:
        return {each["check"]: each["status"] for each in json.loads(davsql("doctor", "--json").out)}

    names = ("account file", "audit key", "audit log")
    add_user(davsql, monkeypatch, "ann")
    assert [statuses()[name] for name in names] == ["pass", "pass", "pass"]
    tamper(Path(), "DELETE FROM entries", name="davsql-audit.db")
    assert statuses()["audit log"] == "fail"
    Path("davsql-audit.key").unlink()
    assert statuses()["audit key"] == "fail"
    Path("davsql-accounts.db").write_bytes(b"something else")
    assert statuses()["account file"] == "fail"


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_serve__has_recorded_what_it_answered_when_all_are_killed(davsql: RunDavsql, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(
        "[log]\naccess = 'json'\naccess_file = 'access.log'\n[audit]\nlevel = 'writes'\nkey_file = 'keys/audit.key'\n",
        encoding="utf-8",
    )
    (tmp_path / "keys").mkdir(mode=0o700)
    ids = []
    with serving(tmp_path, "--config", "c.toml", "--workers", 2) as (process, [address], _):
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii").split()
        ids = [request(address, "PUT", f"/{number}", b"x").header("X-Request-ID") for number in range(20)]
        for pid in (process.pid, *map(int, children)):
            os.kill(pid, signal.SIGKILL)
        process.communicate(timeout=STOP_TIMEOUT_S)
    rows = [json.loads(line) for line in davsql("audit", "--config", "c.toml", "--json").out.splitlines()]
    assert [each["request_id"] for each in rows] == ids
    assert davsql("audit", "verify", "--config", "c.toml").code == 0
    lines = [json.loads(line) for line in (tmp_path / "access.log").read_text(encoding="ascii").splitlines()]
    assert {each["request_id"] for each in lines} >= set(ids[:-1]), "the last line may come after its answer"

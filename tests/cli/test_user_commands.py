"""`davsql user` and `davsql token`, and a server in another process that must follow them at once."""

from __future__ import annotations

import io
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from davsql.accounts.file import open_accounts
from tests.accounts.account_steps import PASSWORD, add_account, basic, bearer
from tests.cli.conftest import Outcome, RunDavsql
from tests.cli.test_serve import STOP_TIMEOUT_S, serving
from tests.http_client import request

AUDIT = ["davsql-audit.db", "davsql-audit.key", "davsql-audit.key.head"]


def add_user(davsql: RunDavsql, monkeypatch: pytest.MonkeyPatch, name: str, *arguments: str) -> Outcome:
    """`davsql user add` with PASSWORD on standard input."""
    monkeypatch.setattr("sys.stdin", io.StringIO(PASSWORD + "\n"))
    return davsql("user", "add", name, "--password-stdin", *arguments)


def test_user_add__makes_a_private_file_and_lists_what_is_in_it(
    davsql: RunDavsql, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    outcome = add_user(davsql, monkeypatch, "ann", "--group", "family", "--group", "admins")
    assert (outcome.code, outcome.out) == (0, "added ann\n")
    assert "made an account file: davsql-accounts.db" in outcome.err
    file = tmp_path / "davsql-accounts.db"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 or os.name == "nt"
    assert sorted(each.name for each in tmp_path.iterdir()) == [file.name, *AUDIT]
    assert davsql("user", "list").out == "ann, groups: admins family, never logged in\n"
    again = add_user(davsql, monkeypatch, "Ann")
    assert again.code == 1
    assert again.err.startswith("davsql: there is an account ann already; ")


@pytest.mark.parametrize(
    ("name", "password", "reason"),
    [
        ("ann", "short", "at least 8 characters"),
        ("ann", "", "at least 8 characters"),
        ("a:b", PASSWORD, "is no name for an account"),
    ],
)
def test_user_add__says_what_is_wrong(
    davsql: RunDavsql, monkeypatch: pytest.MonkeyPatch, name: str, password: str, reason: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(password))
    outcome = davsql("user", "add", name, "--password-stdin")
    assert outcome.code == 1
    assert reason in outcome.err
    assert len(outcome.err.splitlines()) <= 2
    assert password == "" or password not in outcome.err
    assert not Path("davsql-accounts.db").exists()


def test_user_add__takes_no_password_as_argument_and_needs_a_terminal(davsql: RunDavsql) -> None:
    assert davsql("user", "add", "ann", PASSWORD).code == 2
    outcome = davsql("user", "add", "ann")  # pytest has no terminal
    assert outcome.code == 2
    assert "--password-stdin" in outcome.err


@pytest.mark.skipif(os.name == "nt", reason="terminals of POSIX")
def test_user_add__asks_twice_and_shows_nothing(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "davsql", "user", "add", "ann"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as process:
        os.close(theirs)
        shown = b""
        for prompt, typed in (
            (b"Password for ann: ", PASSWORD),
            (b"Repeat for confirmation: ", "wrong horse"),
            (b"do not match.\r\nPassword for ann: ", PASSWORD),
            (b"Repeat for confirmation: ", PASSWORD),
        ):
            seen = b""
            while prompt not in seen:
                seen += os.read(ours, 1000)
            shown += seen
            os.write(ours, typed.encode() + b"\n")
        assert process.wait(timeout=60) == 0
        shown += os.read(ours, 1000)
    os.close(ours)
    assert b"added ann" in shown
    assert b"horse" not in shown


def test_commands__change_accounts(davsql: RunDavsql, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    add_user(davsql, monkeypatch, "ann", "--accounts", "a.db")
    assert davsql("user", "groups", "ann", "--add", "b", "--add", "a", "--accounts", "a.db").out == "a b\n"
    assert davsql("user", "groups", "ann", "--remove", "b", "--accounts", "a.db").out == "a\n"
    assert davsql("user", "disable", "ANN", "--accounts", "a.db").out == "disabled ann\n"
    assert davsql("user", "list", "--accounts", "a.db").out.startswith("ann, disabled, groups: a, ")
    assert davsql("user", "enable", "ann", "--accounts", "a.db").out == "enabled ann\n"
    monkeypatch.setattr("sys.stdin", io.StringIO("another password\n"))
    changed = davsql("user", "passwd", "ann", "--password-stdin", "--accounts", "a.db")
    assert changed.out == "changed the password of ann\n"
    assert davsql("user", "remove", "ann", "--accounts", "a.db").out == "removed ann and 0 tokens\n"
    assert davsql("user", "remove", "ann", "--accounts", "a.db").code == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.db", *AUDIT]


def test_account_file__is_that_of_the_configuration(
    davsql: RunDavsql, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "sub").mkdir()
    config = tmp_path / "sub" / "davsql.toml"
    config.write_text("[accounts]\nfile = 'who.db'\n")
    assert add_user(davsql, monkeypatch, "ann", "--config", str(config)).code == 0
    assert (tmp_path / "sub" / "who.db").exists()
    config.write_text("")
    outcome = davsql("user", "list", "--config", config)
    assert outcome.code == 1
    assert 'accounts.file is missing; set [accounts] file = "davsql-accounts.db"' in outcome.err


@pytest.mark.parametrize("command", [["user", "list"], ["token", "list"], ["user", "disable", "x"], ["serve"]])
def test_account_file__that_is_missing_or_open_to_others_is_refused(
    davsql: RunDavsql, tmp_path: Path, command: list[str]
) -> None:
    missing = davsql(*command, "--accounts", "no.db")
    assert (missing.code, len(missing.err.splitlines())) == (1, 1)
    assert "`davsql user add NAME --accounts no.db` makes it" in missing.err
    assert not (tmp_path / "no.db").exists()
    if os.name != "nt":
        (tmp_path / "open.db").touch(mode=0o644)
        assert "chmod 600" in davsql(*command, "--accounts", "open.db").err


def test_token__is_shown_once_listed_and_revoked(davsql: RunDavsql, monkeypatch: pytest.MonkeyPatch) -> None:
    add_user(davsql, monkeypatch, "ann")
    made = davsql("token", "create", "ann", "--name", "laptop", "--read-only", "--share", "p", "--path", "/x/y")
    assert re.fullmatch(r"davsql_[\w-]{43}\n", made.out)
    davsql("token", "create", "ann", "--name", "short", "--expires", "2020-01-01")
    davsql("token", "create", "ann", "--name", "long", "--expires", "90d")
    listed = davsql("token", "list", "ann").out.splitlines()
    assert listed[0] == "1: ann, laptop, read-only, share p, path /x/y, never used"
    assert listed[1] == "2: ann, short, expired 2020-01-01T00:00:00Z, never used"
    assert ", expires 2" in listed[2]
    assert made.out.strip() not in davsql("token", "list").out
    assert davsql("token", "revoke", "1").out == "revoked laptop of ann\n"
    assert davsql("token", "revoke", "long").out == "revoked long of ann\n"
    assert len(davsql("token", "list").out.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["create", "eve", "--name", "x"], 1),
        (["create", "ann"], 2),
        (["create", "ann", "--name", "a b"], 1),
        (["create", "ann", "--name", "x", "--expires", "soon"], 2),
        (["create", "ann", "--name", "x", "--path", "/../x"], 1),
        (["revoke", "x"], 1),
        (["list", "eve"], 1),
    ],
)
def test_token__says_what_is_wrong(
    davsql: RunDavsql, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int
) -> None:
    add_user(davsql, monkeypatch, "ann")
    outcome = davsql("token", *arguments)
    assert (outcome.code, outcome.out) == (code, "")
    assert "Traceback" not in outcome.err
    assert davsql("token", "list").out == ""


# --- a server in another process ----------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_serve__follows_changes_of_accounts_at_once(
    davsql: RunDavsql, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    add_user(davsql, monkeypatch, "ann")
    token = davsql("token", "create", "ann", "--name", "laptop").out.strip()
    with serving(tmp_path, "--workers", 2) as (process, [address], said):  # the file is found where `user add` made it
        assert "accounts: davsql-accounts.db\n" in said
        assert "curl -u NAME -T FILE" in said

        def status(headers: dict[str, str]) -> int:
            return request(address, "GET", "/", headers=headers).status

        assert status({}) == 401
        assert [status(basic("ann", PASSWORD)) for _ in range(2)] == [200, 200]
        assert [status(bearer(token)) for _ in range(2)] == [200, 200]
        davsql("token", "revoke", "laptop")
        assert (status(bearer(token)), status(basic("ann", PASSWORD))) == (401, 200)
        davsql("user", "disable", "ann")
        assert status(basic("ann", PASSWORD)) == 401
        davsql("user", "enable", "ann")
        assert status(basic("ann", PASSWORD)) == 200
        accounts = open_accounts(tmp_path / "davsql-accounts.db")
        add_account(accounts, "bob")
        accounts.close()
        assert status(basic("bob", PASSWORD)) == 200
        davsql("user", "remove", "ann")
        assert status(basic("ann", PASSWORD)) == 401
        guesses = [status(basic("carol", f"guess {number}")) for number in range(11)]
        assert guesses == [401] * 10 + [429], "both processes count together"
        assert status(basic("bob", PASSWORD)) == 200
        process.terminate()
        _, err = process.communicate(timeout=STOP_TIMEOUT_S)
    assert "Traceback" not in err
    assert PASSWORD not in err
    assert "login failed: address=127.0.0.1 user=ann" in err
    assert sorted(file.name for file in tmp_path.iterdir()) == ["davsql-accounts.db", *AUDIT, "davsql.db"]


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_serve__with_accounts_listens_where_others_come_from(
    davsql: RunDavsql, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    add_user(davsql, monkeypatch, "ann")
    with serving(tmp_path, "--workers", 1, "--host", "0.0.0.0") as (_, [(_, port)], said):  # noqa: S104  # the point
        assert "Other machines cannot log in yet" in said
        assert request(("127.0.0.1", port), "GET", "/", headers=basic("ann", PASSWORD)).status == 200


def test_serve__without_a_user_says_how_to_add_one(
    davsql: RunDavsql, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    add_user(davsql, monkeypatch, "ann")
    davsql("user", "remove", "ann")
    outcome = davsql("serve", "--port", "0")
    assert outcome.code == 1
    assert "make one: davsql user add NAME --accounts davsql-accounts.db" in outcome.err
    (tmp_path / "c.toml").write_text("[accounts]\ntrusted_user_header = 'X-User'\n")
    refused = davsql("serve", "--config", "c.toml", "--host", "0.0.0.0")  # noqa: S104  # must be refused
    assert "refusing to listen" in refused.err, "a header alone makes no accounts"

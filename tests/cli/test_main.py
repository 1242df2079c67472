from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import apsw
import pytest

from davsql import __version__
from davsql.cli.main import COMMANDS
from tests.cli.conftest import RunDavsql

PROJECT = Path(__file__).parents[2]
NO_STORE = {"audit", "cert", "key", "token", "user"}  # what they are about is another file
NEED_A_STORE = sorted(
    COMMANDS.keys() - {"doctor", "init", "restore", "serve"} - NO_STORE
)  # the doctor finds it missing


def arguments_of(command: str, folder: Path) -> list[object]:
    """A command with the arguments it must have."""
    needed: dict[str, list[object]] = {
        "backup": [folder / "out"],
        "export": ["/", folder / "out"],
        "import": [folder],
        "maintain": ["gc"],
    }
    return [command, *needed.get(command, [])]


def test_version__is_that_of_the_package(davsql: RunDavsql) -> None:
    with (PROJECT / "pyproject.toml").open("rb") as file:
        assert tomllib.load(file)["project"]["version"] == __version__
    assert davsql("--version").out == f"davsql {__version__}\n"


def test_help__lists_every_command(davsql: RunDavsql) -> None:
    outcome = davsql("--help")
    assert outcome.code == 0
    assert [name for name in COMMANDS if f"\n  {name} " not in outcome.out] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_help__has_examples_and_says_where_the_store_is(davsql: RunDavsql, command: str) -> None:
    outcome = davsql(command, "--help")
    assert outcome.code == 0
    assert f"Examples:\n    davsql {command}" in outcome.out.replace("\n      ", "\n    ")
    if command not in NO_STORE:
        assert "--db PATH" in outcome.out
        assert "--config FILE" in outcome.out


@pytest.mark.parametrize(
    "arguments", [["--nope"], ["nope"], ["ls", "--nope"], ["export", "/"], ["serve", "--port", "x"]]
)
def test_wrong_usage__is_2(davsql: RunDavsql, arguments: list[str]) -> None:
    outcome = davsql(*arguments)
    assert outcome.code == 2
    assert "Usage: davsql" in outcome.err


@pytest.mark.parametrize("command", NEED_A_STORE)
def test_missing_store__is_named_with_the_remedy(davsql: RunDavsql, tmp_path: Path, command: str) -> None:
    outcome = davsql(*arguments_of(command, tmp_path), "--db", "no.db")
    assert outcome.code == 1
    assert outcome.err.startswith("davsql: ")
    assert "no.db does not exist" in outcome.err
    assert "davsql init" in outcome.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"no database" * 100])
@pytest.mark.parametrize("command", NEED_A_STORE)
def test_file_that_is_no_store__is_named_and_kept(
    davsql: RunDavsql, tmp_path: Path, command: str, content: bytes
) -> None:
    (tmp_path / "other.db").write_bytes(content)
    outcome = davsql(*arguments_of(command, tmp_path), "--db", "other.db")
    assert outcome.code == 1
    assert "other.db is not" in outcome.err
    assert (tmp_path / "other.db").read_bytes() == content


def test_newer_store__is_refused(davsql: RunDavsql) -> None:
    assert davsql("init").code == 0
    database = apsw.Connection("davsql.db")
    database.execute("UPDATE meta SET value = '999' WHERE key = 'schema_version'")
    database.close()
    outcome = davsql("ls")
    assert outcome.code == 1
    assert "999" in outcome.err
    assert "Traceback" not in outcome.err


def test_init__makes_an_empty_store(davsql: RunDavsql) -> None:
    assert davsql("init", "--db", "new.db").code == 0
    assert davsql("ls", "--db", "new.db").out == ""
    assert davsql("check", "--deep", "--db", "new.db").code == 0


def test_init__refuses_a_file_that_exists(davsql: RunDavsql, tmp_path: Path) -> None:
    (tmp_path / "a.db").write_bytes(b"mine")
    outcome = davsql("init", "--db", "a.db")
    assert (outcome.code, outcome.out) == (1, "")
    assert "a.db exists already" in outcome.err
    assert (tmp_path / "a.db").read_bytes() == b"mine"


def test_init__names_a_folder_that_is_missing(davsql: RunDavsql) -> None:
    outcome = davsql("init", "--db", "no/a.db")
    assert outcome.code == 1
    assert "no/a.db cannot be created: its folder does not exist" in outcome.err


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions do not hold for this user")
def test_init__names_a_folder_that_cannot_be_written(davsql: RunDavsql, tmp_path: Path) -> None:
    (tmp_path / "sealed").mkdir(mode=0o500)
    outcome = davsql("init", "--db", "sealed/a.db")
    assert outcome.code == 1
    assert "sealed/a.db cannot be created: Permission denied" in outcome.err


def test_config__chooses_the_store(davsql: RunDavsql, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "c.toml").write_text('[[share]]\nname = "one"\ndb = "one.db"\n')
    assert davsql("init", "--config", "etc/c.toml").code == 0
    assert (tmp_path / "etc" / "one.db").exists()


def test_config__several_shares_want_a_choice(davsql: RunDavsql, tmp_path: Path) -> None:
    shares = "".join(f'[[share]]\nname = "{name}"\ndb = "{name}.db"\n' for name in ("one", "two"))
    (tmp_path / "c.toml").write_text(shares)
    outcome = davsql("init", "--config", "c.toml")
    assert outcome.code == 2
    assert "--share: one, two" in outcome.err
    assert davsql("init", "--config", "c.toml", "--share", "two").code == 0
    assert not (tmp_path / "one.db").exists()
    assert (tmp_path / "two.db").exists()
    outcome = davsql("ls", "--config", "c.toml", "--share", "three")
    assert outcome.code == 1
    assert "no share is called 'three'; there are: one, two" in outcome.err
    assert davsql("ls", "--config", "c.toml", "--db", "one.db").code == 2


def test_config__its_errors_are_said_once(davsql: RunDavsql, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[server]\nprot = 1\n")
    outcome = davsql("ls", "--config", "c.toml")
    assert outcome == (1, "", "davsql: c.toml: server.prot: unknown key; did you mean port?\n")


def test_share__wants_a_configuration(davsql: RunDavsql) -> None:
    assert davsql("ls", "--share", "x").code == 2


def test_reader_that_goes_away__ends_the_command_quietly(davsql: RunDavsql, tmp_path: Path) -> None:
    davsql("init")
    (tmp_path / "many").mkdir()
    for number in range(3000):
        (tmp_path / "many" / f"{'long' * 20}-{number}").touch()
    assert davsql("import", "many").code == 0
    command = [sys.executable, "-m", "davsql", "ls", "-R"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1

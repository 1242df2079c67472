"""docs/encryption.md, run as written: turning it on, several keys, a lost key, a leaked key, backups."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from davsql.cli import unlocking
from davsql.store.cipher import PLAIN_HEADER, first_bytes
from tests.cli.conftest import RunDavsql
from tests.live_server import ROOT

PAGE = ROOT / "docs" / "encryption.md"
RECOVERY_KEY = re.compile(r"DAVSQL-KEY-[A-Z2-7-]+")


def commands(heading: str) -> list[list[str]]:
    """The lines of the blocks below a heading; who serves or asks for a passphrase is tested elsewhere."""
    section = PAGE.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    blocks = re.findall(r"^```\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if "--db" in line or "key new" in line]
    assert lines
    return [shlex.split(line)[1:] for line in lines if not line.startswith("davsql serve")]


def run(davsql: RunDavsql, heading: str) -> str:
    """What all commands of a section say."""
    said = ""
    for command in commands(heading):
        unlocking._known.clear()  # noqa: SLF001  # as if each were a process of its own
        outcome = davsql(*command)
        assert outcome.code == 0, (command, outcome.err)
        said += outcome.out
    return said


def is_opened(davsql: RunDavsql, key: str, db: str = "photos.db") -> bool:
    unlocking._known.clear()  # noqa: SLF001
    return davsql("ls", "--key-file", key, "--db", db).out == "f\n"


def keep_recovery_key(folder: Path, said: str, name: str) -> None:
    found = RECOVERY_KEY.search(said)
    assert found is not None
    (folder / name).write_text(found[0], encoding="ascii")
    (folder / name).chmod(0o600)


@pytest.fixture
def folder(davsql: RunDavsql, tmp_path: Path) -> Path:
    """A plain store that was encrypted as the page says; its recovery key is kept."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "f").write_bytes(b"content")
    davsql("init", "--db", "photos.db")
    davsql("import", "in", "--db", "photos.db")
    keep_recovery_key(tmp_path, run(davsql, "Turning it on"), "recovery.key")
    assert first_bytes(tmp_path / "photos.db") != PLAIN_HEADER
    assert is_opened(davsql, "photos.key")
    assert is_opened(davsql, "recovery.key")
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_page__several_keys(davsql: RunDavsql) -> None:
    davsql("key", "new", "new.key")
    assert "ann" in run(davsql, "Several keys")
    assert [is_opened(davsql, f"{name}.key") for name in ("new", "photos", "ann")] == [True, False, False]


def test_page__a_key_is_lost(davsql: RunDavsql, folder: Path) -> None:
    (folder / "photos.key").rename(folder / "found-by-somebody.key")
    assert "photos.db is opened by the key new\n" in run(davsql, "A key is lost")
    assert is_opened(davsql, "new.key")
    assert not is_opened(davsql, "found-by-somebody.key")


def test_page__a_key_has_leaked(davsql: RunDavsql, folder: Path) -> None:
    old = (folder / "photos.db.keys").read_bytes()
    keep_recovery_key(folder, run(davsql, "A key has leaked"), "later.key")
    for name, is_right in (("new", True), ("later", True), ("photos", False), ("recovery", False)):
        assert is_opened(davsql, f"{name}.key") == is_right
        assert is_opened(davsql, f"{name}.key", "safe.davsql") == is_right
    (folder / "photos.db.keys").write_bytes(old)
    assert not is_opened(davsql, "photos.key")


@pytest.mark.usefixtures("folder")
def test_page__backups(davsql: RunDavsql) -> None:
    run(davsql, "Backups")
    assert is_opened(davsql, "photos.key", "trial.db")

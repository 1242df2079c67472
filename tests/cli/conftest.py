"""What the tests of commands share: one command line run in this process, in a folder of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from davsql.cli.main import run


class Outcome(NamedTuple):
    """What became of a command line."""

    code: int
    out: str
    err: str


RunDavsql = Callable[..., Outcome]


@pytest.fixture
def davsql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunDavsql:
    """Run `davsql ARGUMENTS...` with `tmp_path` as the current folder."""
    monkeypatch.chdir(tmp_path)

    def run_davsql(*arguments: object) -> Outcome:
        code = run([str(each) for each in arguments])
        return Outcome(code, *capsys.readouterr())

    return run_davsql

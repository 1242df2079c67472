"""The table of scale can be made. No figure is judged."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from tests.benchmark import scale


def test_scale__prints_a_table_of_nodes_and_one_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"MEMBERS": 10, "COMMAND_FILES": 5, "REPEATS": 2, "PERIOD_MIB": 1}.items():
        monkeypatch.setattr(scale, name, value)
    result = CliRunner().invoke(scale.main, ["--nodes", "100", "--mib", "10"], catch_exceptions=False)
    assert result.exit_code == 0
    nodes, files = result.output.strip().split("\n\n")
    assert nodes.startswith("| Files | 10 | 100 | grows |\n")
    assert files.startswith("| File of | 1 MiB | 10 MiB | grows |\n")
    for lines in (nodes.splitlines(), files.splitlines()):
        assert len(lines) > 10
        assert {line.count("|") for line in lines} == {5}

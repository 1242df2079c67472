"""`davsql maintain`."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from davsql.cli.maintain import WORK, maintain
from davsql.store.store import Store
from tests.store_steps import at, put


@pytest.mark.parametrize("work", WORK)
def test_maintain__does_each_kind_of_work(tmp_path: Path, work: str) -> None:
    db = tmp_path / "drive.db"
    with Store.open(db, create=True) as store:
        put(store, "/f", b"x" * 100_000)
    result = CliRunner().invoke(maintain, [work, "--db", str(db)])
    assert result.exit_code == 0, result.output
    assert f"{work} is done" in result.output


def test_maintain__gc_keeps_to_the_configured_grace_period(tmp_path: Path) -> None:
    db, config = tmp_path / "drive.db", tmp_path / "davsql.toml"
    with Store.open(db, create=True) as store:
        put(store, "/f", b"x" * 100_000)
        store.delete(at("/f"))
    for grace_s, kept in ((3600, 1), (0, 0)):
        config.write_text(f"[maintenance]\ngc_grace_s = {grace_s}\n[[share]]\nname = '/'\ndb = '{db}'\n")
        result = CliRunner().invoke(maintain, ["gc", "--config", str(config)])
        assert result.exit_code == 0, result.output
        with Store.open(db) as store, store.read() as tx:
            assert tx.value("SELECT count(*) FROM blobs") == kept


def test_maintain__of_something_else_is_wrong_usage(tmp_path: Path) -> None:
    result = CliRunner().invoke(maintain, ["tidy", "--db", str(tmp_path / "drive.db")])
    assert result.exit_code == 2

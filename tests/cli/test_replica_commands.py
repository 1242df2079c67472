"""The configuration of replicas, and `davsql restore --from-replica`."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from davsql.cli.replicas import open_share
from davsql.config import Config, load
from davsql.errors import ConfigError, ReplicaError
from davsql.store.store import Store
from tests.cli.conftest import RunDavsql
from tests.store_steps import put, tree

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Litestream is not for Windows")


def configured(folder: Path, url: str) -> Config:
    file = folder / "davsql.toml"
    file.write_text(f'[replica]\nurl = "{url}"\ninterval_s = 0.1\n[[share]]\nname = "a b"\ndb = "store.db"\n')
    return load(file)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "replica").mkdir()
    return configured(tmp_path, f"file://{tmp_path}/replica")


def replicate(config: Config, **files: bytes) -> None:
    with ExitStack() as stack:
        store, replica = open_share(stack, config.shares[0], config)
        assert replica is not None
        for name, content in files.items():
            put(store, f"/{name}", content)


def test_config__url_that_cannot_be_used_names_the_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"davsql\.toml: replica\.url: expected file:///FOLDER"):
        configured(tmp_path, "ftp://somewhere")


def test_open_share__ends_the_store_before_its_replica(config: Config, davsql: RunDavsql, tmp_path: Path) -> None:
    replicate(config, x=b"1", y=b"2")
    assert (tmp_path / "replica" / "a b" / "ltx").is_dir()
    done = davsql("restore", "--from-replica", "--config", "davsql.toml", "--db", "new.db")
    assert done.code == 2, "--db and shares of a configuration exclude each other"
    done = davsql("restore", "--from-replica", f"file://{tmp_path}/replica/a%20b", "--db", "new.db")
    assert (done.code, done.err) == (0, "")
    assert f"new.db from file://{tmp_path}/replica/a%20b: " in done.out
    assert ", last change 20" in done.out
    with Store.open(tmp_path / "new.db") as store:
        assert tree(store) == {"/x": b"1", "/y": b"2"}


def test_open_share__without_its_replica_takes_checkpoints_back(config: Config, tmp_path: Path) -> None:
    replicate(config, x=b"1")
    (tmp_path / "plain.toml").write_text('[[share]]\nname = "a"\ndb = "store.db"\n')
    plain = load(tmp_path / "plain.toml")
    with ExitStack() as stack:
        store, replica = open_share(stack, plain.shares[0], plain)
        assert replica is None
        assert not store.options.leaves_checkpoints
    assert not (tmp_path / "store.db-wal").exists()
    replicate(config, y=b"2")
    with Store.open(tmp_path / "store.db") as store:
        assert store.options.leaves_checkpoints


def test_open_share__what_cannot_be_replicated_is_not_opened(tmp_path: Path) -> None:
    config = configured(tmp_path, f"file://{tmp_path}/nowhere")
    with ExitStack() as stack, pytest.raises(ReplicaError, match="make it, or mount its disk"):
        open_share(stack, config.shares[0], config)
    assert not (tmp_path / "store.db").exists()


def test_restore__force_keeps_what_was_there(config: Config, davsql: RunDavsql, tmp_path: Path) -> None:
    replicate(config, x=b"1")
    with Store.open(tmp_path / "store.db") as store:
        put(store, "/unreplicated", b"2")
    refused = davsql("restore", "--from-replica", "--config", "davsql.toml")
    assert refused.code == 1
    assert "--force" in refused.err
    done = davsql("restore", "--from-replica", "--config", "davsql.toml", "--force")
    assert (done.code, done.err) == (0, "")
    (kept,) = tmp_path.glob("store.db.replaced-*[0-9Z]")
    with Store.open(tmp_path / "store.db") as store:
        assert tree(store) == {"/x": b"1"}
    with Store.open(kept) as store:
        assert "/unreplicated" in tree(store)
    replicate(config, y=b"3")
    again = davsql("restore", "--from-replica", f"file://{tmp_path}/replica/a%20b", "--db", "again.db")
    assert again.code == 0, again.err
    with Store.open(tmp_path / "again.db") as store:
        assert tree(store) == {"/x": b"1", "/y": b"3"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Missing argument 'BACKUP'"),
        (("--from-replica",), "--from-replica needs a URL, or a --config that has replica.url"),
        (("--from-replica", "ftp://x"), "url: expected file:///FOLDER"),
        (("--at", "2026-01-01", "x.davsql"), "--at needs --from-replica"),
        (("--from-replica", "--at", "yesterday"), "'yesterday' is no time such as"),
    ],
)
def test_restore__wrong_usage(davsql: RunDavsql, arguments: tuple[str, ...], message: str) -> None:
    outcome = davsql("restore", *arguments)
    assert outcome.code == 2
    assert message in outcome.err


def test_restore__from_before_the_replica_began(config: Config, davsql: RunDavsql, tmp_path: Path) -> None:
    replicate(config, x=b"1")
    url = f"file://{tmp_path}/replica/a%20b"
    outcome = davsql("restore", "--from-replica", url, "--db", "new.db", "--at", "2020-01-01T00:00:00Z")
    assert outcome.code == 1
    assert outcome.err.startswith(f"davsql: {url} cannot be restored as it was at 20")
    assert outcome.err.endswith(": no matching backup files available\n")
    assert not (tmp_path / "new.db").exists()

"""restic, which reaches the drive through rclone: what it backed up is checked and comes back byte for byte."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from davsql.model import ROOT_INODE
from davsql.store.store import Store
from tests.clients.programs import Finished, Program, find_program
from tests.clients.rclones import remote
from tests.clients.trees import BIG_BYTES, make_odd_tree, tree_in_store, tree_on_disk
from tests.live_server import LiveServer

REPOSITORY = ("-r", "rclone:drive:backups", "--no-cache", "--json")


@pytest.fixture
def restic(folder: Path, server: LiveServer) -> Program:
    settings = remote(server.url, "owncloud") | {"RESTIC_PASSWORD": "secret"}
    rclone = find_program("rclone", folder).path  # of the same Debian
    return find_program("restic", folder, settings | {"PATH": f"{Path(rclone).parent}:/usr/bin:/bin"})


def run(restic: Program, *arguments: str | Path) -> Finished:
    return restic.succeed(*REPOSITORY, *arguments)


def snapshots(restic: Program) -> Sequence[str]:
    return [each["id"] for each in json.loads(run(restic, "snapshots").out)]


def size_of_files(store: Store) -> int:
    with store.snapshot() as view:
        return sum(node.size for node in view.descendants(ROOT_INODE, 10_000) or ())


def restored(restic: Program, snapshot: str, source: Path) -> dict[str, bytes | None]:
    target = restic.folder / f"restored {snapshot}"
    run(restic, "restore", snapshot, "--target", target)
    return tree_on_disk(target / source.relative_to("/"))


def test_backup__is_sound_and_comes_back(restic: Program, store: Store) -> None:
    source = restic.folder / "source"
    make_odd_tree(source)
    first = tree_on_disk(source)
    run(restic, "init")
    run(restic, "backup", source)
    (source / "later.bin").write_bytes(random.Random(6).randbytes(2_000_000))  # noqa: S311  # content, no secret
    (source / "big.bin").unlink()
    second = tree_on_disk(source)
    run(restic, "backup", source)
    run(restic, "check", "--read-data")
    before, after = snapshots(restic)
    assert restored(restic, before, source) == first

    stored = size_of_files(store)
    run(restic, "forget", "--keep-last", "1", "--prune")
    assert snapshots(restic) == [after]
    assert size_of_files(store) < stored - BIG_BYTES / 2
    assert tree_in_store(store, "/backups/locks/") == {}
    run(restic, "check", "--read-data")
    assert restored(restic, "latest", source) == second

"""What a power cut leaves of a store, by the promise of each durability."""

from __future__ import annotations

import os
import random
from pathlib import Path

import apsw
import pytest

from davsql.keys.envelope import DataKey, new_data_key
from davsql.keys.secret import GivenKey, new_key_text
from davsql.store import connection
from davsql.store.backup import CopyOptions, verify_copy
from davsql.store.check import check
from davsql.store.convert import convert, part_of
from davsql.store.options import StoreOptions
from davsql.store.rewrite import rewrite
from davsql.store.store import Store
from tests.faults.disk import Disk, Operation, restore
from tests.faults.power_cuts import MODES, Mode, Summary, cut_many, is_as_promised
from tests.store_steps import put, tree

CUTS = 100
CUTS_OF_A_COPY = 30


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("is_encrypted", [False, True], ids=["plain", "encrypted"])
def test_power_cut__loses_no_more_than_the_durability_says(mode: Mode, *, is_encrypted: bool) -> None:
    seed = random.randrange(2**32)  # noqa: S311
    summary = cut_many(mode, CUTS, seed, is_encrypted=is_encrypted)
    print(f"{mode} seed {seed}: {summary.cuts_with_loss} of {summary.cuts} cuts lost {summary.lost} commands")  # noqa: T201
    assert summary.cuts == CUTS
    assert is_as_promised(mode, summary), summary


def test_is_as_promised__tells_a_loss() -> None:
    assert not is_as_promised("full", Summary(cuts=1, cuts_with_loss=1, lost=1))
    assert not is_as_promised("normal", Summary(cuts=1, troubles=("check: ...",)))
    assert not is_as_promised("off", Summary(cuts=1))


def test_disk__keeps_what_was_synced_and_any_sectors_of_the_rest(tmp_path: Path) -> None:
    disk = Disk("test-disk")
    try:
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_MAIN_DB
        file = disk.xOpen(str(tmp_path / "f.db"), [flags, 0])
        file.xWrite(b"a" * 1024, 0)
        with disk.in_charge_of_folders():
            connection.sync_folder(tmp_path)
        file.xSync(2)
        file.xWrite(b"b" * 1024, 0)
        seen = {disk.cut(random.Random(seed))["f.db"] for seed in range(100)}  # noqa: S311
        file.xClose()
    finally:
        disk.unregister()
    assert seen == {one * 512 + other * 512 for one in (b"a", b"b") for other in (b"a", b"b")}
    restore({"g": b"content"}, tmp_path)
    assert (tmp_path / "g").read_bytes() == b"content"


@pytest.mark.parametrize("is_encrypted", [False, True], ids=["decrypt", "encrypt"])
def test_power_cut__in_a_copy_under_another_key_leaves_what_can_be_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_encrypted: bool
) -> None:
    monkeypatch.setattr("davsql.store.rewrite.STEP_BYTES", 1)
    seed = random.randrange(1 << 32)  # noqa: S311
    print(f"seed {seed}")  # noqa: T201
    rng = random.Random(seed)  # noqa: S311
    keys = [new_data_key(8192, [("key", GivenKey(new_key_text()))]), None]
    old, new = reversed(keys) if is_encrypted else keys
    file = tmp_path / "store.db"
    with Store.open(file, StoreOptions(key=old), create=True) as store:
        for number in range(20):
            put(store, f"/{number}", rng.randbytes(70_000))
        expected = tree(store)
    lefts = lefts_of_cuts(file, old, new, rng)
    reused = set()
    for number, left in enumerate(rng.sample(lefts, min(len(lefts), CUTS_OF_A_COPY))):
        folder = tmp_path / str(number)
        folder.mkdir()
        restore(left | {file.name: file.read_bytes()}, folder)
        copy, part = folder / file.name, part_of(folder / file.name)
        made = rewrite(copy, part, StoreOptions(key=old), new, CopyOptions())
        verify_copy(part, made.snapshot, StoreOptions(key=new), CopyOptions(is_deep=True))
        reused.add(made.reused_bytes)
        convert(copy, StoreOptions(key=old), new)
        with Store.open(copy, StoreOptions(key=new)) as store:
            assert check(store) == []
            assert tree(store) == expected
    assert len(reused) > 5, "cut at many moments"


def lefts_of_cuts(file: Path, old: DataKey | None, new: DataKey | None, rng: random.Random) -> list[dict[str, bytes]]:
    """What power cuts may leave of a copy, at random moments of its making."""
    lefts: list[dict[str, bytes]] = []
    disk = Disk(f"copy-{os.getpid()}-{new is None}")

    def maybe_cut(operation: Operation) -> None:
        if rng.random() < (0.02 if operation.kind == "write" else 0.2):
            lefts.append({name: content for name, content in disk.cut(rng).items() if name != file.name})

    disk.before = maybe_cut
    try:
        with disk.in_charge_of_folders():
            options = StoreOptions(vfs=disk.encrypting_vfs_name, key=old)
            rewrite(file, part_of(file), options, new, CopyOptions())
    finally:
        disk.unregister()
    return lefts

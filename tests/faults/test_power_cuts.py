"""What a power cut leaves of a store, by the promise of each durability."""

from __future__ import annotations

import random
from pathlib import Path

import apsw
import pytest

from davsql.store import connection
from tests.faults.disk import Disk, restore
from tests.faults.power_cuts import MODES, Mode, Summary, cut_many, is_as_promised

CUTS = 100


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

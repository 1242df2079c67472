"""Writes, syncs and truncations that fail, at places drawn by lot; `scripts/faults` tries every place."""

from __future__ import annotations

import random
import tempfile
from functools import cache
from pathlib import Path

import apsw
import pytest

from davsql.errors import StoreUnavailable
from davsql.store import space
from davsql.store.check import check
from davsql.store.checkpointer import REMEDY
from davsql.store.options import StoreOptions
from davsql.store.store import Store
from tests.faults.disk import MEMORY, Disk, Operation, injected, restore
from tests.faults.fault_sweep import FAULTS, Fault, Pass, Result
from tests.faults.openings import OPENINGS, Opening
from tests.faults.workload import CHUNK_BYTES, small_pieces
from tests.store_steps import at, put, tree

PASSES = 2
OPENINGS_STRIDE = 11
BEYOND = 10**9  # a place that is never reached


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault__is_answered_truthfully_and_harms_nothing(fault: Fault, folder: Path) -> None:
    seed = random.randrange(2**32)  # noqa: S311
    print(f"seed {seed}")  # noqa: T201
    places = _places(fault._replace(name="none", is_lasting=False))
    total = Result()
    for number in random.Random(seed).sample(range(1, places + 1), min(PASSES, places)):  # noqa: S311
        place = folder / str(number)
        place.mkdir()
        total += Pass(place, fault, number).go()
    assert total.troubles == ()
    assert total.hits == total.passes


@pytest.mark.parametrize("seed", range(4))
def test_sync__that_failed_in_a_large_upload_takes_nothing_that_came_later(folder: Path, seed: int) -> None:
    disk = Disk(f"sync-in-upload-{seed}", seed)
    left = folder / "left"
    left.mkdir()
    options = StoreOptions(vfs=disk.vfs_name)
    try:
        with (
            small_pieces(),
            disk.in_charge_of_folders(),
            Store.open(folder / "s.db", options, create=True) as store,
            store.upload() as upload,
        ):
            for _ in range(5):
                upload.write(random.Random(seed).randbytes(CHUNK_BYTES))  # noqa: S311
            disk.before = _fail_to_sync
            with pytest.raises(StoreUnavailable):
                upload.commit(at("/refused"))
            disk.before = lambda _operation: None
            put(store, "/told", b"content")
            restore(disk.cut(random.Random(seed)), left)  # noqa: S311
    finally:
        disk.unregister()
    with Store.open(left / "s.db", StoreOptions()) as store:
        assert tree(store) == {"/told": b"content"}
        assert check(store, deep=True) == []


@pytest.mark.parametrize("seed", range(4))
def test_checkpoint__that_failed_is_made_good_by_a_vacuum(
    folder: Path, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Disk(f"sync-in-checkpoint-{seed}", seed)
    left = folder / "left"
    left.mkdir()
    told = {f"/{number}": bytes([number]) * 3000 for number in range(20)}
    try:
        with (
            disk.in_charge_of_folders(),
            Store.open(folder / "s.db", StoreOptions(vfs=disk.vfs_name), create=True) as store,
        ):
            for path, data in told.items():
                put(store, path, data)
            with store.read() as tx:  # so that the checkpoint cannot copy all, and does not sync what it copies
                assert tx.value("SELECT count(*) FROM nodes") == 1 + len(told)
                put(store, "/last", b"")
                copied = store.checkpoint()
                assert copied[1] < copied[0]
            disk.before = _fail_to_sync_the_database
            with pytest.raises(StoreUnavailable):
                store.checkpoint()
            disk.before = lambda _operation: None
            assert REMEDY in caplog.text
            space.vacuum(store)
            store.checkpoint()
            put(store, "/later", b"")
            restore(disk.cut(random.Random(seed)), left)  # noqa: S311
    finally:
        disk.unregister()
    with Store.open(left / "s.db", StoreOptions()) as store:
        assert tree(store) == {**told, "/last": b"", "/later": b""}
        assert check(store, deep=True) == []


def _fail_to_sync(operation: Operation) -> None:
    if operation.kind == "sync":
        raise injected(apsw.IOError, apsw.SQLITE_IOERR_FSYNC, operation)


def _fail_to_sync_the_database(operation: Operation) -> None:
    if operation.file.endswith(".db"):
        _fail_to_sync(operation)


@cache
def _places(fault: Fault) -> int:
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        sound = Pass(Path(name), fault, BEYOND)
        assert sound.go().troubles == ()
        return sound.seen


@pytest.mark.parametrize("opening", OPENINGS, ids=lambda opening: opening.name)
def test_opening__that_fails_can_be_repeated(opening: Opening, folder: Path) -> None:
    first = random.randint(1, OPENINGS_STRIDE)  # noqa: S311
    for number in range(first, 10_000, OPENINGS_STRIDE):
        place = folder / str(number)
        place.mkdir()
        result = opening.run(place, number)
        assert result.troubles == ()
        if not result.is_hit:
            assert number > OPENINGS_STRIDE
            return
    raise AssertionError("the fault never ends")

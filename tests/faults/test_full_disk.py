"""A file system that is really full, or really read-only, under a store and a server."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from davsql.errors import StoreFull, StoreReadOnly, StoreUnavailable
from davsql.maintenance.gc import collect_garbage
from davsql.store.check import check
from davsql.store.options import StoreOptions
from davsql.store.store import Store
from tests.faults.full_disk import run_cycles
from tests.faults.small_disk import (
    MIB,
    ext4,
    fill_up,
    free_bytes,
    mount_again,
    only_root_mounts,
    tmpfs,
    turn_read_only,
)
from tests.live_server import serving_shares
from tests.store_steps import at, mkcol, put, read, tree

RESERVE_MB = 16


def noise(number: int) -> bytes:
    """A MiB that shares no chunk with another."""
    return random.Random(number).randbytes(MIB)  # noqa: S311


NOISE = noise(-1)


@only_root_mounts
def test_full_disk__refuses_puts_while_deletes_make_room(tmp_path: Path) -> None:
    with tmpfs(tmp_path, 40) as folder:
        cycles = run_cycles(folder, 2, random.randrange(2**32))  # noqa: S311
    assert all(each.free_bytes > RESERVE_MB * MIB // 2 for each in cycles)
    assert all(each.stored_bytes > (40 - RESERVE_MB) * MIB * 0.5 for each in cycles), cycles


@only_root_mounts
def test_full_disk__without_reserve_shows_what_the_reserve_is_for(tmp_path: Path) -> None:
    with tmpfs(tmp_path, 40) as folder, pytest.raises(StoreFull):
        run_cycles(folder, 4, 1, reserve_mb=0)


@only_root_mounts
def test_server__on_a_full_disk_answers_507_and_goes_on(tmp_path: Path) -> None:
    with tmpfs(tmp_path, 40) as folder, Store.open(folder / "store.db", create=True) as store:
        with serving_shares({"/": store}) as server:
            assert server.request("PUT", "/kept", NOISE).status == 201
            answers = [server.request("PUT", f"/{n}", noise(n)).status for n in range(40)]
            assert answers == sorted(answers)
            assert set(answers) == {201, 507}
            assert server.request("PUT", "/kept", noise(-3)).status == 507
            assert server.request("GET", "/kept").body == NOISE
            assert server.request("PROPFIND", "/", headers={"Depth": "1"}).status == 207
            assert server.request("MKCOL", "/c").status == 201
            assert server.request("MOVE", "/kept", headers={"Destination": "/c/kept"}).status == 201
            for number in range(0, answers.count(201), 2):
                assert server.request("DELETE", f"/{number}").status == 204
            collect_garbage(store, grace_s=0, upload_expiry_s=0)
            assert server.request("PUT", "/again", noise(-2)).status == 201
            assert server.request("GET", "/c/kept").body == NOISE
        assert check(store, deep=True) == []


@only_root_mounts
def test_disk__filled_up_by_somebody_else_refuses_writes_and_recovers(tmp_path: Path) -> None:
    ballast = tmp_path / "ballast"
    with tmpfs(tmp_path, 40) as folder:
        with Store.open(folder / "store.db", create=True) as store:
            put(store, "/kept", NOISE)
            fill_up(ballast)
            assert free_bytes(folder) == 0
            for number in range(20):  # into what the WAL has already, then no more
                try:
                    put(store, f"/{number}", NOISE[number : number + 100_000])
                except StoreFull:
                    break
            else:
                raise AssertionError("the disk is full and takes everything")
            expected = tree(store)
            assert expected["/kept"] == NOISE
            with pytest.raises(StoreFull):
                put(store, "/kept", NOISE[1:])
            assert tree(store) == expected
            ballast.unlink()
            put(store, "/kept", NOISE[1:])
            mkcol(store, "/c")
            assert read(store, "/kept") == NOISE[1:]
        with Store.open(folder / "store.db") as store:
            assert check(store, deep=True) == []
            assert tree(store) == {**expected, "/kept": NOISE[1:], "/c": None}


@only_root_mounts
def test_disk__that_turns_read_only_is_read_on(tmp_path: Path) -> None:
    image, folder = tmp_path / "image", tmp_path / "mounted"
    folder.mkdir()
    options = StoreOptions(readers=2, cache_mb=1)
    with ext4(image, folder, 64):
        with Store.open(folder / "store.db", options, create=True) as store:
            put(store, "/kept", NOISE)
            turn_read_only(folder)
            for _ in range(3):
                with pytest.raises((StoreUnavailable, StoreReadOnly)):
                    put(store, "/refused", NOISE[1:])
                with pytest.raises((StoreUnavailable, StoreReadOnly)):
                    store.delete(at("/kept"))
            with pytest.raises((StoreUnavailable, StoreReadOnly)):
                store.checkpoint()
            assert tree(store) == {"/kept": NOISE}
        mount_again(image, folder)
        with Store.open(folder / "store.db", options) as store:
            assert check(store, deep=True) == []
            assert tree(store) == {"/kept": NOISE}
            put(store, "/again", b"")

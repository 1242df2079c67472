"""rclone: trees of odd names up, down and around, compared byte for byte."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from davsql.store.store import Store
from tests.clients.programs import Program
from tests.clients.rclones import counts
from tests.clients.trees import BIG_BYTES, ODD_NAMES, brief, make_odd_tree, tree_in_store, tree_on_disk
from tests.store_steps import mkcol, put, read

KEEP_EMPTY_FOLDERS = "--create-empty-src-dirs"


@pytest.fixture
def source(folder: Path) -> Path:
    """A folder full of odd names."""
    top = folder / "source"
    make_odd_tree(top)
    return top


def size_of_files(top: Path) -> int:
    return sum(path.stat().st_size for path in top.rglob("*") if path.is_file())


def test_sync__up_and_down_again(rclone: Program, store: Store, source: Path) -> None:
    expected = tree_on_disk(source, "/tree")
    files = sum(content is not None for content in expected.values())

    up = counts(rclone, "sync", source, "drive:tree", KEEP_EMPTY_FOLDERS)
    assert (up["transfers"], up["bytes"]) == (files, size_of_files(source))
    assert tree_in_store(store) == {"/tree": None} | expected

    again = counts(rclone, "sync", source, "drive:tree", KEEP_EMPTY_FOLDERS)
    assert (again["transfers"], again["deletes"], again["checks"]) == (0, 0, files)

    target = rclone.folder / "target"
    assert counts(rclone, "sync", "drive:tree", target, KEEP_EMPTY_FOLDERS)["transfers"] == files
    assert tree_on_disk(target, "/tree") == expected
    assert counts(rclone, "sync", "drive:tree", target, KEEP_EMPTY_FOLDERS)["transfers"] == 0


def test_sync__brings_over_what_changed(rclone: Program, store: Store, source: Path) -> None:
    rclone.succeed("sync", source, "drive:tree", KEEP_EMPTY_FOLDERS)
    (source / "files" / ODD_NAMES[0]).write_text("longer than before")
    (source / "files" / ODD_NAMES[1]).unlink()
    (source / "new #.txt").write_text("new")
    (source / "empty #1" / "empty; too").rmdir()
    stats = counts(rclone, "sync", source, "drive:tree", KEEP_EMPTY_FOLDERS)
    assert (stats["transfers"], stats["deletes"], stats["deletedDirs"]) == (2, 1, 1)
    assert tree_in_store(store) == {"/tree": None} | tree_on_disk(source, "/tree")


def test_check__compares_every_byte(rclone: Program, store: Store, source: Path) -> None:
    rclone.succeed("sync", source, "drive:tree", KEEP_EMPTY_FOLDERS)
    files = len([path for path in source.rglob("*") if path.is_file()])
    finished = rclone.succeed("check", "--download", source, "drive:tree")
    assert "0 differences found" in finished.err
    assert f"{files} matching files" in finished.err

    changed = bytearray(read(store, "/tree/big.bin"))
    changed[BIG_BYTES // 2] ^= 1
    put(store, "/tree/big.bin", bytes(changed))
    finished = rclone.run("check", "--download", source, "drive:tree")
    assert finished.code == 1
    assert "1 differences found" in finished.err


def test_lsf__names_sizes_and_times(rclone: Program, store: Store) -> None:
    for name in ODD_NAMES:
        put(store, f"/{name}", name.encode(), modified_at=1_700_000_000_000_000_000)
    mkcol(store, "/folder #1")
    listed = rclone.succeed("lsf", "drive:", "--format", "stp", "--separator", "\t").out.splitlines()
    files = {f"{len(name.encode())}\t2023-11-14 22:13:20\t{name}" for name in ODD_NAMES}
    assert {line for line in listed if not line.endswith("/")} == files
    assert [line.split("\t")[2] for line in listed if line.endswith("/")] == ["folder #1/"]


def test_move_and_purge(rclone: Program, store: Store, source: Path) -> None:
    expected = tree_on_disk(source, "/moved é#")
    rclone.succeed("copy", source, "drive:tree", KEEP_EMPTY_FOLDERS)
    moved = counts(rclone, "move", "drive:tree", "drive:moved é#")  # one MOVE of the whole
    assert moved["bytes"] == 0
    assert tree_in_store(store) == {"/moved é#": None} | expected
    rclone.succeed("purge", "drive:moved é#")
    assert tree_in_store(store) == {}


def test_copyto_and_moveto__happen_on_the_server(rclone: Program, store: Store) -> None:
    for name in ODD_NAMES[4:10]:
        put(store, "/a.txt", name.encode())
        rclone.succeed("copyto", "drive:a.txt", f"drive:copies/{name}")
        rclone.succeed("moveto", f"drive:copies/{name}", f"drive:moved/2 {name}")
    moved = {f"/moved/2 {name}": name.encode() for name in ODD_NAMES[4:10]}
    last = ODD_NAMES[9].encode()
    assert tree_in_store(store) == {"/a.txt": last, "/copies": None, "/moved": None} | moved


def test_rcat_and_cat__stream(rclone: Program, store: Store) -> None:
    data = random.Random(2).randbytes(3_000_000)  # noqa: S311  # content, no secret
    rclone.succeed("rcat", "drive:stream.bin", stdin=data)
    assert brief(read(store, "/stream.bin")) == brief(data)
    put(store, "/text.txt", b"hello world")
    assert rclone.succeed("cat", "drive:text.txt", "--offset", "3", "--count", "5").out == "lo wo"


def test_about__says_what_the_store_says(rclone: Program, store: Store) -> None:
    put(store, "/big.bin", random.Random(3).randbytes(BIG_BYTES))  # noqa: S311  # content, no secret
    about = json.loads(rclone.succeed("about", "--json", "drive:").out)
    space = store.space()
    assert about["used"] == space.used_bytes
    assert about["free"] == pytest.approx(space.available_bytes, rel=0.05)  # others write to this disk, too


def test_missing__is_said_so(rclone: Program, store: Store) -> None:
    mkcol(store, "/here")
    for arguments in (("lsf", "drive:nowhere"), ("purge", "drive:nowhere"), ("cat", "drive:here/no.txt")):
        finished = rclone.run(*arguments)
        assert finished.code != 0
        assert "not found" in finished.err.lower()
    assert tree_in_store(store) == {"/here": None}

"""rclone as it talks to each kind of server: times, checksums, both directions, uploads in parts and in a stream."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from davsql.model import ROOT_INODE, Nodes
from davsql.store.store import Store
from tests.clients.programs import Program, wait_until
from tests.clients.rclones import USER, at_remote, counts, find_rclone, remote
from tests.clients.trees import brief, tree_in_store, tree_on_disk
from tests.live_server import LiveServer
from tests.store_steps import at, mkcol, put

FILES_MANY = int(os.environ.get("DAVSQL_TEST_FILES", "200"))
STREAM_BYTES = 300 * 1024 * 1024
PART_BYTES = 1024 * 1024
WITH_TIMES = ["owncloud", "nextcloud"]
UPLOADS = f"/remote.php/dav/uploads/{USER}"


def nodes(store: Store) -> Nodes:
    """All there is, with times and revisions."""
    with store.snapshot() as view:
        found = view.descendants(ROOT_INODE, 10 * FILES_MANY)
    assert found is not None
    return found


@pytest.mark.parametrize("vendor", WITH_TIMES)
def test_sync__with_times_transfers_nothing_again(
    rclone: Program, cloud: LiveServer, store: Store, vendor: str
) -> None:
    clever = at_remote(rclone, cloud.url, vendor, pacer_min_sleep="0")  # 10 ms a request otherwise; 1.60 stays so
    source = rclone.folder / "many"
    for number in range(FILES_MANY):
        file = source / f"d{number % 10}" / f"{number}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"content of {number}")
        os.utime(file, (1_600_000_000 + number, 1_600_000_000 + number))
    first = counts(clever, "sync", source, "drive:many", timeout_s=60 + FILES_MANY / 10)
    assert first["transfers"] == FILES_MANY
    assert store.node(at("/many/d7/7.txt")).modified_at == 1_600_000_007 * 10**9
    before = nodes(store)
    again = counts(clever, "sync", source, "drive:many")
    assert (again["transfers"], again["checks"], again["deletes"]) == (0, FILES_MANY, 0)
    assert nodes(store) == before

    checked = clever.succeed("check", "--checksum", source, "drive:many").err
    assert f"{FILES_MANY} matching files" in checked
    assert "hashes could not be checked" not in checked
    sha1 = hashlib.sha1((source / "d7" / "17.txt").read_bytes(), usedforsecurity=False).hexdigest()
    assert f"{sha1}  17.txt" in clever.succeed("hashsum", "sha1", "drive:many/d7").out
    (source / "d7" / "7.txt").write_text("content of x")
    differing = clever.run("check", "--checksum", source, "drive:many")
    assert (differing.code, "1 differences found" in differing.err) == (1, True)


@pytest.mark.parametrize("vendor", WITH_TIMES)
def test_sync__finds_what_was_renamed_by_its_checksum(
    rclone: Program, cloud: LiveServer, store: Store, vendor: str
) -> None:
    clever = at_remote(rclone, cloud.url, vendor)
    source = rclone.folder / "source"
    source.mkdir()
    (source / "a.bin").write_bytes(random.Random(1).randbytes(100_000))  # noqa: S311  # content, no secret
    clever.succeed("sync", source, "drive:tree")
    inode = store.node(at("/tree/a.bin")).inode
    (source / "renamed").mkdir()
    (source / "a.bin").rename(source / "renamed" / "b.bin")
    counts(clever, "sync", "--track-renames", source, "drive:tree")
    assert store.node(at("/tree/renamed/b.bin")).inode == inode
    assert tree_in_store(store) == {"/tree": None} | tree_on_disk(source, "/tree")


def test_move__up_and_down_leaves_nothing_behind(rclone_of_cloud: Program, store: Store) -> None:
    source = rclone_of_cloud.folder / "source"
    for number in range(20):
        file = source / f"d{number % 3}" / f"{number} é#.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"content of {number}")
    expected = tree_on_disk(source)
    counts(rclone_of_cloud, "move", source, "drive:", "--delete-empty-src-dirs")
    assert tree_in_store(store) == expected
    assert tree_on_disk(source) == {}
    counts(rclone_of_cloud, "move", "drive:", source, "--delete-empty-src-dirs")
    assert tree_on_disk(source) == expected
    assert tree_in_store(store) == {}


@pytest.mark.parametrize(
    ("version", "vendor"),  # 1.60 needs times
    [("Debian", "owncloud"), ("newest", "other"), ("newest", "owncloud"), ("newest", "nextcloud")],
)
def test_bisync__brings_over_the_changes_of_both_sides(
    folder: Path, cloud: LiveServer, store: Store, version: str, vendor: str
) -> None:
    rclone = find_rclone(version, folder, remote(cloud.url, vendor))
    here = folder / "here"
    here.mkdir()
    for name in ("a", "b", "c", "d", "e", "f"):
        (here / f"{name}.txt").write_text(f"{name} at first")
        os.utime(here / f"{name}.txt", (1_600_000_000, 1_600_000_000))  # times are told in seconds
    mkcol(store, "/there")
    command = ("bisync", here, "drive:there", "--workdir", folder / "listings", "-v")
    rclone.succeed(*command, "--resync")
    assert tree_in_store(store) == {"/there": None} | tree_on_disk(here, "/there")

    (here / "a.txt").write_text("a, changed here")
    (here / "b.txt").unlink()
    (here / "g é#.txt").write_text("new here")
    put(store, "/there/c.txt", b"c, changed there")
    store.delete(at("/there/d.txt"))
    put(store, "/there/h é#.txt", b"new there")
    rclone.succeed(*command)
    expected = {
        "/there/a.txt": b"a, changed here",
        "/there/c.txt": b"c, changed there",
        "/there/e.txt": b"e at first",
        "/there/f.txt": b"f at first",
        "/there/g é#.txt": b"new here",
        "/there/h é#.txt": b"new there",
    }
    assert tree_in_store(store) == {"/there": None} | expected
    assert tree_on_disk(here, "/there") == expected

    before = nodes(store)
    assert "No changes found" in rclone.succeed(*command).err
    assert nodes(store) == before


def in_parts(folder: Path, cloud: LiveServer) -> Program:
    """rclone as Nextcloud's, which sends more than `PART_BYTES` in parts; 1.60 cannot."""
    settings = remote(cloud.url, "nextcloud", nextcloud_chunk_size=f"{PART_BYTES}B")
    return find_rclone("newest", folder, settings)


@pytest.mark.parametrize("size", [3 * PART_BYTES, 5 * PART_BYTES + 1234], ids=["to the byte", "and some more"])
def test_nextcloud__large_files_come_in_parts(folder: Path, cloud: LiveServer, store: Store, size: int) -> None:
    rclone = in_parts(folder, cloud)
    file = rclone.folder / "large é#.bin"
    file.write_bytes(random.Random(size).randbytes(size))  # noqa: S311  # content, no secret
    os.utime(file, (1_600_000_000, 1_600_000_000))
    put(store, f"/{file.name}", b"old")
    assert "chunked upload strategy" in rclone.succeed("copy", file, "drive:", "-vv").err
    assert tree_in_store(store) == {f"/{file.name}": brief(file.read_bytes())}
    assert store.node(at(f"/{file.name}")).modified_at == 1_600_000_000 * 10**9
    assert counts(rclone, "copy", file, "drive:")["transfers"] == 0
    checked = rclone.succeed("check", "--checksum", file, "drive:").err
    assert "1 matching files" in checked
    assert "could not be checked" not in checked


def test_nextcloud__an_upload_in_parts_that_was_killed_is_begun_again(
    folder: Path, cloud: LiveServer, store: Store
) -> None:
    rclone = in_parts(folder, cloud)
    file = rclone.folder / "large.bin"
    file.write_bytes(random.Random(4).randbytes(8 * PART_BYTES))  # noqa: S311  # content, no secret
    put(store, "/large.bin", b"old")
    upload = f"{UPLOADS}/rclone-chunked-upload-{hashlib.md5(b'large.bin', usedforsecurity=False).hexdigest()}"
    with rclone.running("copy", file, "drive:", "--bwlimit", "2M") as process:
        wait_until(lambda: b"000000000000000-" in cloud.request("PROPFIND", upload, headers={"Depth": "1"}).body)
        process.kill()
    assert tree_in_store(store) == {"/large.bin": b"old"}
    assert counts(rclone, "copy", file, "drive:")["transfers"] == 1
    assert tree_in_store(store) == {"/large.bin": brief(file.read_bytes())}


def blocks(size: int) -> Iterator[bytes]:
    """Random content, made as it goes."""
    source = random.Random(size)  # noqa: S311  # content, no secret
    for _ in range(size // PART_BYTES):
        yield source.randbytes(PART_BYTES)


def test_rcat__streams_300_mb(folder: Path, cloud: LiveServer, store: Store) -> None:
    rclone = find_rclone("newest", folder, remote(cloud.url, "owncloud"))
    sent, received = hashlib.sha256(), hashlib.sha256()
    with rclone.running("rcat", "drive:stream.bin") as process:
        assert process.stdin is not None
        for block in blocks(STREAM_BYTES):
            sent.update(block)
            process.stdin.write(block)
        assert tree_in_store(store) == {}  # nothing before the end
    assert process.returncode == 0
    with store.open_download(at("/stream.bin")) as download:
        for chunk in download.chunks():
            received.update(chunk)
    assert (store.node(at("/stream.bin")).size, received.digest()) == (STREAM_BYTES, sent.digest())
    told = json.loads(rclone.succeed("lsjson", "--hash", "drive:stream.bin").out)
    assert told[0]["Size"] == STREAM_BYTES

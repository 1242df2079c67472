"""The drive mounted by rclone: what programs do to files there is in the store."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from davsql.store.store import Store
from tests.clients.davfs2 import Mount, require_mounting, shell
from tests.clients.programs import Program, wait_until
from tests.clients.rclones import at_remote
from tests.clients.trees import brief, make_odd_tree, tree_in_store, tree_on_disk
from tests.live_server import LiveServer
from tests.store_steps import put, read

BIG = random.Random(9).randbytes(3_000_000)  # noqa: S311  # content, no secret


@contextmanager
def mounted(rclone: Program, *options: str) -> Iterator[Program]:
    """A shell in the drive, mounted until the block ends.

    As with davfs2, nothing in this process may touch the mounted folder.
    """
    require_mounting()
    mount = Mount(rclone.folder / "mount")
    mount.point.mkdir()
    with rclone.running("mount", "drive:", mount.point, *options):
        try:
            wait_until(lambda: mount.is_mounted)
            yield shell(mount.point)
        finally:
            subprocess.run(["fusermount3", "-u", "-z", mount.point], check=False)


def test_mount__writes_reads_renames_and_lists(rclone_of_cloud: Program, store: Store, folder: Path) -> None:
    make_odd_tree(folder / "source")
    (folder / "big.bin").write_bytes(BIG)
    put(store, "/there.txt", b"there")
    with mounted(rclone_of_cloud) as here:
        assert here.succeed("-c", "cat there.txt").out == "there"
        here.succeed("-c", "mkdir 'new folder' && cp ../big.bin 'new folder' && cmp ../big.bin 'new folder/big.bin'")
        assert read(store, "/new folder/big.bin") == BIG  # copied when `cp` ends
        here.succeed("-c", "mv 'new folder' 'é #%' && mv 'é #%/big.bin' 'é #%/large.bin' && mv there.txt 'é #%'")
        assert here.succeed("-c", "ls; ls 'é #%'; stat -c %s 'é #%/large.bin'").out == (
            f"é #%\nlarge.bin\nthere.txt\n{len(BIG)}\n"
        )
        assert tree_in_store(store) == {"/é #%": None, "/é #%/large.bin": brief(BIG), "/é #%/there.txt": b"there"}
        here.succeed("-c", "rm -r 'é #%' && cp -r ../source . && diff -r ../source source")
    assert tree_in_store(store) == {"/source": None} | tree_on_disk(folder / "source", "/source")


def test_mount__editors_save_in_their_ways(rclone: Program, server: LiveServer, store: Store) -> None:
    put(store, "/a.txt", b"one\n")
    put(store, "/b.txt", b"old")
    # What is renamed while it is uploaded is lost by rclone as vendor `other`, so not at once, and with checksums.
    caching = ("--vfs-cache-mode", "writes", "--vfs-write-back", "1s")
    with mounted(at_remote(rclone, server.url, "owncloud"), *caching) as here:
        here.succeed("-c", "echo two >>a.txt && printf X | dd of=a.txt bs=1 seek=4 conv=notrunc status=none")
        here.succeed("-c", "cp b.txt b.txt~ && echo new >.b.txt.swp && mv .b.txt.swp b.txt && echo z >c && rm c")
        assert here.succeed("-c", "cat a.txt b.txt").out == "one\nXwo\nnew\n"
        expected = {"/a.txt": b"one\nXwo\n", "/b.txt": b"new\n", "/b.txt~": b"old"}
        wait_until(lambda: tree_in_store(store) == expected)
    assert tree_in_store(store) == expected

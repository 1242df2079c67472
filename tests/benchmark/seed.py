"""The data that every server serves: one tree, made from a seed, and large files whose content never repeats."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

SEED = 20261123
SMALL_BYTES = 4096
MEMBER_BYTES = 100
BLOCK_BYTES = 4 * 1024 * 1024
BIG = "big.bin"


@dataclass(frozen=True, slots=True)
class Size:
    """How much data there is."""

    small_files: int = 1000  # that are read, and as many that are overwritten
    members: tuple[int, int, int] = (100, 1000, 10000)  # of the collections that are listed
    deep: tuple[int, int] = (50, 99)  # collections, and files in each, that are listed with depth infinity
    tree: tuple[int, int, int] = (20, 100, 16384)  # collections, files in each and their bytes: copied, moved, deleted
    big_bytes: int = 1024 * 1024 * 1024
    part_bytes: int = 256 * 1024 * 1024  # of each large file that is sent at the same time as others
    sync_files: int = 5000


def big_blocks(key: int, size_bytes: int) -> Iterator[bytes]:
    """`size_bytes` of content in which nothing repeats: the key stream of AES-CTR under `key`."""
    cipher = Cipher(algorithms.AES(key.to_bytes(16, "big")), modes.CTR(bytes(16)))
    encryptor, zeros = cipher.encryptor(), bytes(BLOCK_BYTES)
    for start in range(0, size_bytes, BLOCK_BYTES):
        yield encryptor.update(zeros[: min(BLOCK_BYTES, size_bytes - start)])


def write_big(path: Path, key: int, size_bytes: int) -> None:
    """Make a large file."""
    with path.open("wb") as file:
        for block in big_blocks(key, size_bytes):
            file.write(block)


def make_tree(root: Path, size: Size) -> None:
    """Make what is served, in a new folder."""
    source = random.Random(SEED)  # noqa: S311 - it must be the same each time, not secret
    for name in ("small", "over"):
        _fill(root / name, size.small_files, SMALL_BYTES, source)
    for members in size.members:
        _fill(root / f"list{members}", members, MEMBER_BYTES, source)
    folders, files = size.deep
    for index in range(folders):
        _fill(root / "deep" / f"d{index:02d}", files, MEMBER_BYTES, source)
    folders, files, size_bytes = size.tree
    for index in range(folders):
        _fill(root / "tree" / f"d{index:02d}", files, size_bytes, source)
    write_big(root / BIG, SEED, size.big_bytes)
    os.sync()


def make_sync_source(root: Path, size: Size) -> None:
    """Make the folder that a client synchronises: files of 1 to 8 KiB, 100 in each folder."""
    source = random.Random(SEED + 1)  # noqa: S311
    for index in range(size.sync_files):
        folder = root / f"s{index // 100:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"f{index:05d}.bin").write_bytes(source.randbytes(source.randint(1024, 8192)))


def copy_tree(root: Path, to: Path, owner: str | None) -> None:
    """A copy of the tree for one server to write in, as its `owner`'s; the large file is shared, for nobody changes it.

    Hard links keep its pages in memory once.
    """
    shutil.copytree(root, to, ignore=shutil.ignore_patterns(BIG))
    os.link(root / BIG, to / BIG)
    if owner is not None:
        for path in (to, *to.rglob("*")):
            shutil.chown(path, owner)


def _fill(folder: Path, files: int, size_bytes: int, source: random.Random) -> None:
    folder.mkdir(parents=True)
    for index in range(files):
        (folder / f"f{index:05d}.bin").write_bytes(source.randbytes(size_bytes))

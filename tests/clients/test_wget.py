"""wget: folders by the links of their pages, what has changed since, and the rest of a file."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from davsql.store.store import Store
from tests.clients.programs import Program, find_program
from tests.clients.trees import brief, make_odd_tree, put_tree, tree_on_disk
from tests.live_server import LiveServer
from tests.store_steps import mkcol, put

BIG = random.Random(7).randbytes(2_000_000)  # noqa: S311  # content, no secret
AFTER_ONE_PAGE = 1001

# Pages are read for their links and not kept.
MIRROR = ("-nv", "-r", "-l", "inf", "-np", "-nH", "-R", "index.html*")


@pytest.fixture
def wget(folder: Path) -> Program:
    return find_program("wget", folder)


def test_wget__fetches_a_folder_and_nothing_else(
    wget: Program, server: LiveServer, store: Store, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    make_odd_tree(source)
    (source / "files" / "%41 is not A.txt").unlink()  # wget decodes names twice
    mkcol(store, "/a folder")
    put_tree(store, source, "/a folder")
    put(store, "/beside.txt", b"not asked for")
    finished = wget.succeed(*MIRROR, "--cut-dirs=1", "-P", "mirror", f"{server.url}/a%20folder/")
    assert tree_on_disk(wget.folder / "mirror") == tree_on_disk(source)
    assert "?download" not in finished.err  # all of it once more, for each folder


def test_wget__follows_the_pages_of_a_large_folder(wget: Program, server: LiveServer, store: Store) -> None:
    for number in range(AFTER_ONE_PAGE):
        put(store, f"/{number:04}.txt", b"%d" % number)
    first_and_last = r"/$|[?]after=|/(0000|1000)\.txt$"
    wget.succeed(*MIRROR, "--accept-regex", first_and_last, "-P", "mirror", f"{server.url}/")
    assert tree_on_disk(wget.folder / "mirror") == {"/0000.txt": b"0", "/1000.txt": b"1000"}


def test_wget__fetches_again_what_has_changed(wget: Program, server: LiveServer, store: Store) -> None:
    put(store, "/a.txt", b"one", modified_at=1_700_000_000_000_000_000)
    put(store, "/b.txt", b"same", modified_at=1_700_000_000_000_000_000)
    first = wget.succeed(*MIRROR, "-N", f"{server.url}/").err
    assert first.count(".txt [") == 2
    assert (wget.folder / "a.txt").stat().st_mtime == 1_700_000_000
    put(store, "/a.txt", b"two", modified_at=1_700_000_001_000_000_000)
    second = wget.succeed(*MIRROR, "-N", f"{server.url}/").err
    assert (second.count("/a.txt ["), second.count("/b.txt [")) == (1, 0)
    assert (wget.folder / "a.txt").read_bytes() == b"two"


def test_wget__goes_on_where_it_stopped(wget: Program, server: LiveServer, store: Store) -> None:
    put(store, "/big.bin", BIG)
    (wget.folder / "big.bin").write_bytes(BIG[:777_777])
    finished = wget.succeed("-nv", "-c", "-S", f"{server.url}/big.bin")
    assert "HTTP/1.1 206 Partial Content" in finished.err
    assert brief((wget.folder / "big.bin").read_bytes()) == brief(BIG)

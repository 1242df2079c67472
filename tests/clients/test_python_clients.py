"""webdav4 and webdavclient3, by which Python programs (DVC, Airflow and others) reach the drive."""

from __future__ import annotations

import io
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from webdav4.client import (
    Client,
    ResourceAlreadyExists,
    ResourceConflict,
    ResourceLocked,
    ResourceNotFound,
)

from davsql.store.store import Store
from tests.clients.trees import ODD_NAMES, brief, make_odd_tree, tree_in_store, tree_on_disk
from tests.dav.locking import lock_of
from tests.live_server import LiveServer
from tests.store_steps import mkcol, put, read, tree

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # an escape in its source that is none
    import webdav3.client
    import webdav3.exceptions

BIG = random.Random(8).randbytes(3_000_000)  # noqa: S311  # content, no secret


# --- webdav4 ------------------------------------------------------------------------------------------------------


@pytest.fixture
def webdav4(server: LiveServer) -> Iterator[Client]:
    client = Client(server.url)
    with closing(client.http):
        yield client


def test_webdav4__brings_and_fetches(webdav4: Client, store: Store, folder: Path) -> None:
    # It leaves what has a meaning in URLs as it is: such names it cannot send.
    names = [name for name in ODD_NAMES if not set(name) & set("%#?")]
    webdav4.mkdir("c")
    for name in names:
        webdav4.upload_fileobj(io.BytesIO(name.encode()), f"c/{name}")
    assert tree(store) == {"/c": None} | {f"/c/{name}": name.encode() for name in names}
    (folder / "big.bin").write_bytes(BIG)
    webdav4.upload_file(folder / "big.bin", "big.bin")
    webdav4.download_file("big.bin", folder / "back.bin")
    assert brief((folder / "back.bin").read_bytes()) == brief(BIG)
    with webdav4.open("big.bin", "rb") as file:
        file.seek(1_000_000)
        assert file.read(10) == BIG[1_000_000:1_000_010]


def test_webdav4__lists_and_tells(webdav4: Client, store: Store) -> None:
    mkcol(store, "/c é")
    tag = put(store, "/c é/a #%?.txt", b"content", modified_at=1_700_000_000_000_000_000).node.etag
    assert webdav4.ls("", detail=False) == ["c é"]
    (told,) = webdav4.ls("c é")
    assert (told["name"], told["type"], told["content_length"], told["etag"]) == ("c é/a #%?.txt", "file", 7, tag)
    assert told["modified"] == datetime.fromtimestamp(1_700_000_000, UTC)
    assert (webdav4.isdir("c é"), webdav4.isfile("c é"), webdav4.exists("nothing")) == (True, False, False)


def test_webdav4__moves_copies_and_removes(webdav4: Client, store: Store) -> None:
    mkcol(store, "/c")
    put(store, "/c/a.txt", b"a")
    webdav4.copy("c", "d")
    webdav4.move("c/a.txt", "d/b.txt")
    webdav4.move("d/b.txt", "d/a.txt", overwrite=True)
    webdav4.remove("c")
    assert tree(store) == {"/d": None, "/d/a.txt": b"a"}


def test_webdav4__knows_why_something_failed(webdav4: Client, store: Store) -> None:
    mkcol(store, "/c")
    put(store, "/a", b"a")
    put(store, "/c/locked", b"b")
    lock_of(store, "/c/locked")
    attempts: list[tuple[type[Exception], Callable[[], object]]] = [
        (ResourceAlreadyExists, lambda: webdav4.mkdir("c")),
        (ResourceConflict, lambda: webdav4.mkdir("no/no")),
        (ResourceNotFound, lambda: webdav4.ls("no")),
        (ResourceAlreadyExists, lambda: webdav4.move("a", "c/locked")),
        (ResourceLocked, lambda: webdav4.move("a", "c/locked", overwrite=True)),
        (ResourceLocked, lambda: webdav4.remove("c")),
    ]
    for error, attempt in attempts:
        with pytest.raises(error):
            attempt()
    assert tree(store) == {"/c": None, "/a": b"a", "/c/locked": b"b"}


# --- webdavclient3 ------------------------------------------------------------------------------------------------


@pytest.fixture
def webdav3_client(server: LiveServer) -> Iterator[webdav3.client.Client]:
    client = webdav3.client.Client({"webdav_hostname": server.url})
    with closing(client.session):
        yield client


def test_webdavclient3__brings_and_fetches_a_tree(
    webdav3_client: webdav3.client.Client, store: Store, folder: Path
) -> None:
    source = folder / "source"
    make_odd_tree(source)
    (source / "files" / "back\\slash.txt").unlink()  # it leaves the backslash out
    webdav3_client.upload_sync("tree", str(source))
    assert tree_in_store(store) == {"/tree": None} | tree_on_disk(source, "/tree")
    webdav3_client.download_sync("tree", str(folder / "back"))
    assert tree_on_disk(folder / "back") == tree_on_disk(source)


def test_webdavclient3__moves_copies_lists_and_tells(webdav3_client: webdav3.client.Client, store: Store) -> None:
    webdav3_client.mkdir("c é")
    put(store, "/a.txt", b"content")
    webdav3_client.copy("a.txt", "c é/b #%?.txt")
    webdav3_client.move("a.txt", "c é/d.txt")
    assert sorted(webdav3_client.list("c é")) == ["b #%?.txt", "d.txt"]
    assert webdav3_client.info("c é/b #%?.txt")["size"] == "7"
    assert webdav3_client.free() == pytest.approx(store.space().available_bytes, rel=0.05)  # others write to it, too
    told = {"namespace": "urn:example", "name": "color"}
    webdav3_client.set_property("c é/d.txt", told | {"value": "<red> & é"})
    assert webdav3_client.get_property("c é/d.txt", told) == "<red> & é"
    webdav3_client.clean("c é/b #%?.txt")
    assert tree(store) == {"/c é": None, "/c é/d.txt": b"content"}
    assert not webdav3_client.check("c é/b #%?.txt")


def test_webdavclient3__writes_under_a_lock(webdav3_client: webdav3.client.Client, store: Store, folder: Path) -> None:
    put(store, "/a.txt", b"old")
    (folder / "new").write_bytes(b"new")
    # Else it asks for the parent with the token in If, which is none of the parent's (RFC 4918 10.4): 412.
    webdav3_client.webdav.disable_check = True
    with webdav3_client.lock("a.txt", timeout=60) as locked:
        with pytest.raises(webdav3.exceptions.ResourceLocked):
            webdav3_client.upload_sync("a.txt", str(folder / "new"))
        locked.upload_sync("a.txt", str(folder / "new"))
    assert (read(store, "/a.txt"), store.stats().locks) == (b"new", 0)

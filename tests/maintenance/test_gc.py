"""collect_garbage: all steps in their order, until nothing is left, between the writes of users."""

from __future__ import annotations

import threading

import pytest

from davsql.maintenance import gc
from davsql.maintenance.gc import collect_garbage
from davsql.store.blobs import CHUNK_BYTES
from davsql.store.store import Store
from tests.store_steps import at, mkcol, put, read, tree


def rows(store: Store) -> dict[str, int]:
    """Rows that are there for content and tree."""
    with store.read() as tx:
        return {
            table: tx.value(f"SELECT count(*) FROM {table}")  # noqa: S608
            for table in ("nodes", "blobs", "chunks", "chunk_data", "blob_chunks", "uploads", "locks", "properties")
        }


def fill_and_delete(store: Store) -> None:
    mkcol(store, "/c")
    mkcol(store, "/c/d")
    for number in range(30):
        put(store, f"/c/d/f{number}", b"%d" % number * 1000)
    put(store, "/c/large", b"".join(bytes([number]) * CHUNK_BYTES for number in range(40)))
    store.delete(at("/c"))


def test_collect_garbage__leaves_nothing_of_what_is_deleted(store: Store) -> None:
    empty = rows(store)
    fill_and_delete(store)
    assert collect_garbage(store, grace_s=0, upload_expiry_s=0) > 100
    assert rows(store) == empty
    assert collect_garbage(store, grace_s=0, upload_expiry_s=0) == 0


@pytest.mark.parametrize("step_rows", [1, 7])
def test_collect_garbage__in_tiny_steps_ends_the_same(
    store: Store, step_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = rows(store)
    monkeypatch.setattr(gc, "STEP_ROWS", step_rows)
    monkeypatch.setattr(gc, "STEP_CHUNKS", step_rows)
    fill_and_delete(store)
    put(store, "/kept", b"5" * 1000)
    collect_garbage(store, grace_s=0, upload_expiry_s=0)
    assert tree(store) == {"/kept": b"5" * 1000}
    store.delete(at("/kept"))
    collect_garbage(store, grace_s=0, upload_expiry_s=0)
    assert rows(store) == empty


def test_collect_garbage__keeps_content_for_the_grace_and_uploads_for_their_expiry(store: Store) -> None:
    put(store, "/f", b"x")
    store.delete(at("/f"))
    upload = store.upload()
    upload.write(bytes(5 * 1024 * 1024))
    collect_garbage(store, grace_s=60, upload_expiry_s=60)
    left = rows(store)
    assert (left["nodes"], left["uploads"]) == (1, 1)
    assert left["blobs"] == 2
    collect_garbage(store, grace_s=0, upload_expiry_s=0)
    assert rows(store)["blobs"] == 0


def test_collect_garbage__stops_when_told(store: Store) -> None:
    fill_and_delete(store)
    assert collect_garbage(store, grace_s=0, upload_expiry_s=0, is_cancelled=lambda: True) == 0
    answers = iter([False, True])
    collect_garbage(store, grace_s=0, upload_expiry_s=0, is_cancelled=lambda: next(answers, True))
    assert rows(store)["blobs"] > 0


def test_collect_garbage__spares_what_a_download_reads(store: Store) -> None:
    data = b"".join(bytes([number]) * CHUNK_BYTES for number in range(10))
    put(store, "/f", data)
    with store.open_download(at("/f")) as download:
        store.delete(at("/f"))
        collect_garbage(store, grace_s=0, upload_expiry_s=0)
        assert b"".join(download.chunks()) == data
    collect_garbage(store, grace_s=0, upload_expiry_s=0)
    assert rows(store)["chunks"] == 0


def test_collect_garbage__beside_writers_loses_nothing(store: Store) -> None:
    stopping = threading.Event()
    errors: list[BaseException] = []

    def sweep() -> None:
        try:
            while not stopping.is_set():
                collect_garbage(store, grace_s=0, upload_expiry_s=3600)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    contents = [b"%d" % number * 500 for number in range(4)]
    for turn in range(150):
        data = contents[turn % 4]
        put(store, "/f", data)
        assert read(store, "/f") == data
        store.copy(at("/f"), at(f"/copy{turn % 3}"))
        if turn % 5 == 0:
            store.delete(at("/f"))
    stopping.set()
    sweeper.join()
    assert errors == []
    expected = tree(store)
    assert set(expected.values()) <= set(contents)

"""Pins in the store: a long download is seen by every process, and lets go."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest

from davsql.errors import StoreUnavailable
from davsql.maintenance.gc import collect_garbage
from davsql.store import download, pins
from davsql.store.blobs import CHUNK_BYTES
from davsql.store.store import Store
from tests.store.engine_steps import Clock, count
from tests.store_steps import at, put

LARGE = random.Random(1).randbytes(12 * CHUNK_BYTES)  # noqa: S311
TIMEOUT_S = 10


def sweep(store: Store) -> None:
    collect_garbage(store, grace_s=0, upload_expiry_s=0)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Downloads are worth a pin in the store as soon as they have begun."""
    monkeypatch.setattr(download, "TOUCH_EVERY_S", 0.0)


@pytest.mark.usefixtures("at_once")
def test_download__that_lasts_is_spared_by_gc_of_another_process(store: Store) -> None:
    put(store, "/f", LARGE)
    with Store.open(store.file) as other, store.open_download(at("/f")) as opened:
        received = next(chunks := opened.chunks())
        store.pins.keep()
        assert count(store, "pins") == 1
        other.delete(at("/f"))
        sweep(other)
        put(other, "/f", LARGE[::-1])
        sweep(other)
        assert received + b"".join(chunks) == LARGE
        opened.close()
        store.pins.keep()
        assert count(store, "pins") == 0
        sweep(other)
        assert store.stats().blobs == 1


@pytest.mark.usefixtures("at_once")
def test_download__whose_client_takes_nothing_is_pinned_meanwhile(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "LOOK_EVERY_S", 0.01)
    put(store, "/f", LARGE)
    with store.open_download(at("/f")) as opened:
        next(opened.chunks())
        until(lambda: count(store, "pins") == 1)
    until(lambda: count(store, "pins") == 0)


def test_close__takes_away_the_pins_of_downloads_that_are_cut(store: Store) -> None:
    put(store, "/f", LARGE)
    with Store.open(store.file) as other:
        opened = other.open_download(at("/f"))
        other.pins._due = dict.fromkeys(other.pins.current(), 0.0)  # noqa: SLF001
        other.pins.keep()
        assert count(store, "pins") == 1
    opened.close()
    assert count(store, "pins") == 0


def test_download__that_is_short_never_writes(store: Store) -> None:
    put(store, "/f", LARGE)
    with store.open_download(at("/f")) as opened:
        assert b"".join(opened.chunks()) == LARGE
        assert count(store, "pins") == 0
    with store.read() as tx:
        assert tx.value("SELECT count(*) FROM sqlite_sequence WHERE name = 'pins'") == 0


def test_pins__count_as_references(store: Store) -> None:
    blob_id = put(store, "/f", b"x").node.blob_id
    assert blob_id is not None
    pin_id = store.write(lambda tx: pins.pin_blob(tx, blob_id))
    store.delete(at("/f"))
    sweep(store)
    assert store.stats().orphaned_blobs == 0
    assert store.write(lambda tx: pins.unpin(tx, pin_id))
    assert not store.write(lambda tx: pins.unpin(tx, pin_id))
    sweep(store)
    assert count(store, "blobs") == 0


def test_pins__of_what_is_gone_are_refused(store: Store) -> None:
    blob_id = put(store, "/f", b"x").node.blob_id
    assert blob_id is not None
    store.delete(at("/f"))
    sweep(store)
    with pytest.raises(StoreUnavailable):
        store.write(lambda tx: pins.pin_blob(tx, blob_id))


def test_pins__that_nobody_touches_end(store: Store, clock: Clock) -> None:
    blob_id = put(store, "/f", b"x").node.blob_id
    assert blob_id is not None
    stale = store.write(lambda tx: pins.pin_blob(tx, blob_id))
    clock.advance(10)
    fresh = store.write(lambda tx: pins.pin_blob(tx, blob_id))
    assert store.write(lambda tx: pins.end_stale_pins(tx, tx.now - 1, 10)) == 1
    with pytest.raises(StoreUnavailable):
        store.write(lambda tx: pins.touch_pin(tx, stale))
    store.write(lambda tx: pins.touch_pin(tx, fresh))
    clock.advance(10)
    for _ in range(5):
        store.write(lambda tx: pins.pin_blob(tx, blob_id))
    clock.advance(1)
    for expected in (4, 2, 0):
        assert store.write(lambda tx: pins.end_stale_pins(tx, tx.now, 4)) == expected


@pytest.mark.usefixtures("at_once")
def test_download__whose_pin_was_ended_goes_on_while_the_content_is_there(store: Store) -> None:
    put(store, "/f", LARGE)
    with store.open_download(at("/f")) as opened:
        received = next(chunks := opened.chunks())
        store.pins.keep()
        store.write(lambda tx: pins.end_stale_pins(tx, tx.now, 10))
        store.pins.keep()
        for _ in range(5):
            received += next(chunks)
        assert count(store, "pins") == 1  # pinned again
        assert received + b"".join(chunks) == LARGE

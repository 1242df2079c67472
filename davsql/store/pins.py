"""Pins: what is in use though no node says so, kept in the store so that GC in every process sees it.

Whoever holds a pin touches it now and then; GC ends those that nobody touched for long (their process is gone).
"""

from __future__ import annotations

from contextlib import suppress
from typing import NewType

from davsql.errors import StoreUnavailable
from davsql.model import BlobId, Inode
from davsql.store.transaction import WriteTx

PinId = NewType("PinId", int)

TOUCH_EVERY_S = 60.0  # how often a holder touches its pin; also how long a download goes without one
LOOK_EVERY_S = 15.0  # for what is due
GRACE_S_MIN = 120.0  # of GC, where other processes download: until their pins are in the store, and what waiting takes

PIN_BLOB = "INSERT INTO pins (blob_id, touched_at) VALUES (:blob_id, :now)"


def pin_blob(tx: WriteTx, blob_id: BlobId) -> PinId:
    """Keep a blob."""
    return PinId(tx.insert(PIN_BLOB, {"blob_id": blob_id, "now": tx.now}))


PIN_TREE = "INSERT INTO pins (inode, touched_at) VALUES (:inode, :now)"


def pin_tree(tx: WriteTx, top: Inode) -> PinId:
    """Keep a detached tree."""
    return PinId(tx.insert(PIN_TREE, {"inode": top, "now": tx.now}))


TOUCH_PIN = "UPDATE pins SET touched_at = :now WHERE pin_id = :pin_id"


def touch_pin(tx: WriteTx, pin_id: PinId) -> None:
    """Say that the holder is alive.

    Raises:
        StoreUnavailable: GC took the pin for stale.
    """
    if tx.change(TOUCH_PIN, {"now": tx.now, "pin_id": pin_id}) != 1:
        raise StoreUnavailable("this took too long and was given up; try again")


def keep_pinned(tx: WriteTx, blob_id: BlobId, pin_id: PinId | None) -> PinId:
    """Touch a pin, or make another one where there is none, or GC took it for stale."""
    if pin_id is not None:
        with suppress(StoreUnavailable):
            touch_pin(tx, pin_id)
            return pin_id
    return pin_blob(tx, blob_id)


UNPIN = "DELETE FROM pins WHERE pin_id = ?"


def unpin(tx: WriteTx, pin_id: PinId) -> bool:
    """Let go; False when the pin was gone already."""
    return tx.change(UNPIN, (pin_id,)) == 1


END_STALE_PINS = "DELETE FROM pins WHERE pin_id IN (SELECT pin_id FROM pins WHERE touched_at < :before LIMIT :limit)"


def end_stale_pins(tx: WriteTx, before: int, limit: int) -> int:
    """End pins that nobody touched since `before`."""
    return tx.change(END_STALE_PINS, {"before": before, "limit": limit})

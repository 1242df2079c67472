"""The mark in a store that says who lets its WAL start over: davsql, or Litestream, which replicates it.

Litestream copies frames out of the WAL. When the WAL starts over while Litestream is not running, and does so again
before it runs, frames can be gone that it never saw; it notices only where the WAL is shorter than it was, or where
the last frame it copied was written over (`verify` in its db.go). So with the mark:

Rule 1: no connection of davsql, in whatever process, checkpoints, neither on its own nor when it closes.
Rule 2: the exception is TRUNCATE, which leaves nothing of the old WAL: Litestream notices, and copies the whole store.
Rule 3: Litestream is started only on a WAL that is known: that had the mark without interruption since it was empty.
"""

from __future__ import annotations

from dataclasses import replace

import apsw

from davsql.store.migrate import GET_META, SET_META
from davsql.store.options import StoreOptions
from davsql.store.transaction import ReadTx, WriteTx, translated

KEY = "checkpoints"
LEFT = "left"  # to Litestream; what happened to the WAL before is not known
KNOWN = "left, WAL known"
DELETE_META = "DELETE FROM meta WHERE key = ?"


def leaves_checkpoints(tx: ReadTx) -> bool:
    """Whether the store has the mark."""
    return tx.value(GET_META, (KEY,)) is not None


def is_wal_known(tx: ReadTx) -> bool:
    """Whether Litestream may go on from where it was."""
    return bool(tx.value(GET_META, (KEY,)) == KNOWN)


def leave_checkpoints(tx: WriteTx) -> None:
    """Set the mark. Processes that have the store open obey it when they open it again."""
    tx.change(SET_META, (KEY, LEFT))


def note_wal_is_known(tx: WriteTx) -> None:
    """The WAL was emptied after the mark was set."""
    tx.change(SET_META, (KEY, KNOWN))


def take_back_checkpoints(tx: WriteTx) -> None:
    """Remove the mark: the store is not replicated any more."""
    tx.change(DELETE_META, (KEY,))


def obeying_mark(connection: apsw.Connection, options: StoreOptions) -> StoreOptions:
    """The options with which to go on, after looking for the mark through the writer's new connection."""
    with translated():
        if not options.leaves_checkpoints and leaves_checkpoints(ReadTx(connection)):
            options = replace(options, leaves_checkpoints=True)
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    return options

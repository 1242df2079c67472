"""The journal of changes: its entries, and taking the oldest away. Triggers write it, see schema.sql."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple

from davsql.errors import StoreDamaged
from davsql.model import Inode
from davsql.store.transaction import ReadTx, WriteTx

JOURNAL_ROWS = 1_000_000  # at most; some 40 bytes each
STEP_ROWS = 2000  # read, or taken away, at a time


class Entry(NamedTuple):
    """One of these, in this history of this store: a copy that went its own way has others."""

    change_id: int
    changed_at: int

    def __str__(self) -> str:
        return f"{self.change_id}-{self.changed_at}"


BEGINNING = Entry(0, 0)  # before all entries


class Change(NamedTuple):
    """What an entry says."""

    change_id: int
    inode: Inode
    is_collection: int
    has_arrived: int  # 1: it was made, or put where it is
    old_parent: Inode | None  # the place that it left; None: none
    old_name: str | None


NEWEST = "SELECT change_id, changed_at FROM changes WHERE change_id = (SELECT max(change_id) FROM changes)"


def newest(tx: ReadTx) -> Entry:
    """The newest entry.

    Raises:
        StoreDamaged: there is none.
    """
    row = tx.row(NEWEST)
    if row is None:
        raise StoreDamaged("the journal of changes is empty; run `davsql check` and restore a backup")
    return Entry._make(row)


IS_KNOWN = "SELECT EXISTS (SELECT 1 FROM changes WHERE change_id = ? AND changed_at = ?)"


def is_known(tx: ReadTx, entry: Entry) -> bool:
    """Whether it was made in this history of the store, and is still there."""
    return bool(tx.value(IS_KNOWN, entry))


NEXT_CHANGES = """
SELECT
  json_group_array(change_id), json_group_array(inode), json_group_array(node_type = 1), json_group_array(has_arrived),
  json_group_array(old_parent), json_group_array(old_name)
FROM (SELECT * FROM changes WHERE change_id > :after AND change_id <= :until ORDER BY change_id LIMIT :limit)
"""


def changes_between(tx: ReadTx, after: int, until: int, wanted: int) -> Iterator[list[Change]]:
    """The entries above `after` up to `until`, in their order and in batches: small ones first, for about `wanted`."""
    limit = min(wanted, STEP_ROWS)
    while True:
        row = tx.row(NEXT_CHANGES, {"after": after, "until": until, "limit": limit})
        assert row is not None
        found = [Change._make(each) for each in zip(*map(json.loads, row), strict=True)]  # see nodes.in_columns
        if not found:
            return
        limit = min(2 * limit, STEP_ROWS)
        yield found
        if found[-1].change_id <= after:
            raise StoreDamaged("the journal of changes is out of order; run `davsql check` and restore a backup")
        after = found[-1].change_id


CHANGED_AT = "SELECT changed_at FROM changes WHERE change_id = ?"


def entry(tx: ReadTx, change_id: int) -> Entry:
    """The entry of this number, which there is."""
    return Entry(change_id, tx.value(CHANGED_AT, (change_id,)))


HAS_ARRIVED = """
SELECT EXISTS (
  SELECT 1 FROM changes WHERE change_id > :after AND has_arrived AND inode IN (SELECT value FROM json_each(:inodes))
)
"""


def have_arrived(tx: ReadTx, inodes_json: str, after: int) -> bool:
    """Whether one of these nodes was made, or put where it is, since the entry `after`."""
    return bool(tx.value(HAS_ARRIVED, {"inodes": inodes_json, "after": after}))


# No gaps may come of it, so it ends before the first entry that is young, whatever comes after that.
FIRST_KEPT = """
SELECT coalesce(
  (
    SELECT min(change_id) FROM changes
    WHERE change_id < (SELECT min(change_id) + :limit FROM changes)
      AND changed_at >= :before AND change_id > (SELECT max(change_id) FROM changes) - :rows
  ),
  (SELECT min(change_id) + :limit FROM changes)
)
"""
REMOVE_BEFORE = """
DELETE FROM changes WHERE change_id < :first AND change_id < (SELECT max(change_id) FROM changes)
"""


def remove_old_changes(tx: WriteTx, before: int, limit: int) -> int:
    """Take away up to `limit` entries that are older than `before`, or more than JOURNAL_ROWS ago; never the newest."""
    first = tx.value(FIRST_KEPT, {"before": before, "limit": limit, "rows": JOURNAL_ROWS})
    return tx.change(REMOVE_BEFORE, {"first": first})

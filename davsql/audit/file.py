"""The audit file: its rows, the state of its chain, and the compressed files beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from davsql.audit.chain import Entry, Record
from davsql.errors import StoreDamaged
from davsql.store.sidefile import Kind, SideFile
from davsql.store.transaction import ReadTx, WriteTx

VERSION = 1
APPLICATION_ID = 0x44415655  # "DAVU"

PAGE_ROWS = 1000  # read at one time

_ARCHIVE = re.compile(r"-(\d{12,})-(\d{12,})\.jsonl\.gz")


class Start(NamedTuple):
    """Where the rows of the file begin: behind this one."""

    seq: int
    mac: bytes


class Archive(NamedTuple):
    """A compressed file and the rows that its name promises."""

    file: Path
    first: int
    last: int


def open_audit(file: Path) -> SideFile:
    """Open an audit file; raises as `SideFile` does."""
    return SideFile(file, _kind())


def create_audit(file: Path) -> None:
    """Make one without rows; raises as `SideFile.create` does."""
    SideFile.create(file, _kind())


def archives_of(file: Path) -> list[Archive]:
    """The compressed files beside an audit file, in the order of their rows."""
    stem = file.stem
    found = []
    for each in file.parent.iterdir():
        match = _ARCHIVE.fullmatch(each.name.removeprefix(stem)) if each.name.startswith(stem) else None
        if match is not None:
            found.append(Archive(each, int(match[1]), int(match[2])))
    return sorted(found, key=lambda archive: (archive.first, archive.last))


def archive_name(file: Path, first: int, last: int) -> Path:
    """What the compressed file of these rows is called."""
    return file.with_name(f"{file.stem}-{first:012}-{last:012}.jsonl.gz")


SELECT_START = "SELECT start_seq, start_mac FROM state WHERE id = 1"


def start_of(tx: ReadTx) -> Start:
    """Where the rows of the file begin.

    Raises:
        StoreDamaged: it does not say.
    """
    row = tx.row(SELECT_START)
    if row is None:
        raise StoreDamaged("the audit file is damaged: its state is missing")
    return Start(*row)


SELECT_LAST = "SELECT seq, mac FROM entries ORDER BY seq DESC LIMIT 1"


def last_of(tx: ReadTx) -> Start:
    """The last row; where the file begins when it has none."""
    row = tx.row(SELECT_LAST)
    return start_of(tx) if row is None else Start(*row)


SELECT_MAC = "SELECT mac FROM entries WHERE seq = ?"


def mac_at(tx: ReadTx, seq: int) -> bytes | None:
    """The mac of a row; None when it is not here."""
    found: bytes | None = tx.value(SELECT_MAC, (seq,))
    return found


SELECT_PAGE = """
SELECT seq, mac, at, user, address, method, path, destination, status, bytes, request_id
FROM entries WHERE seq > ? ORDER BY seq LIMIT ?
"""


def records_after(tx: ReadTx, seq: int) -> Iterator[Record]:
    """All rows behind `seq`."""
    while rows := tx.rows(SELECT_PAGE, (seq, PAGE_ROWS)):
        for number, mac, *values in rows:
            yield Record(number, Entry(*values), mac)
        seq = rows[-1][0]


INSERT_ENTRY = """
INSERT INTO entries (seq, mac, at, user, address, method, path, destination, status, bytes, request_id)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


def add_records(tx: WriteTx, records: Sequence[Record]) -> None:
    """Append rows."""
    for each in records:
        tx.change(INSERT_ENTRY, (each.seq, each.mac, *each.entry))


SELECT_BYTES = """
SELECT (p.page_count - f.freelist_count) * s.page_size
FROM pragma_page_count AS p, pragma_freelist_count AS f, pragma_page_size AS s
"""


def used_bytes(tx: ReadTx) -> int:
    """What the rows take, with all that goes with them."""
    return int(tx.value(SELECT_BYTES))


CLAIM_ROTATION = "UPDATE state SET rotating_since = :now WHERE id = 1 AND rotating_since < :stale"


def claim_rotation(tx: WriteTx, stale: int) -> bool:
    """Say that this process rotates; False: another one does, since a time after `stale`."""
    return bool(tx.change(CLAIM_ROTATION, {"now": tx.now, "stale": stale}))


DROP_ENTRIES = "DROP TABLE entries"
SET_START = "UPDATE state SET start_seq = ?, start_mac = ?, rotating_since = 0 WHERE id = 1"


def begin_behind(tx: WriteTx, start: Start) -> None:
    """Let the file begin behind a row; those up to it are gone."""
    kept = list(records_after(tx, start.seq))
    tx.change(DROP_ENTRIES)
    tx.change(_sql("entries.sql"))
    tx.change(SET_START, start)
    add_records(tx, kept)


def _kind() -> Kind:
    return Kind("audit file", APPLICATION_ID, VERSION, _sql("schema.sql") + _sql("entries.sql"), is_synced=False)


def _sql(name: str) -> str:
    return files("davsql.audit").joinpath(name).read_text(encoding="utf-8")

"""Reading the audit log back, and whether it is what was written.

Found are rows that were changed, put elsewhere, added or taken away, and an end that was cut off behind the head's row.
Not found: what somebody does who has the key; the loss of the last rows, of about a second, which the head does not
name yet; an old state of log, key and head together.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from davsql.audit.chain import NO_MAC, Record, mac_of
from davsql.audit.file import Start, archives_of, last_of, mac_at, open_audit, records_after, start_of
from davsql.audit.key import Head, KeyFile
from davsql.audit.rotation import read_archive
from davsql.errors import StoreDamaged

FAULTS_MAX = 100

Part = tuple[Start, Iterator[Record]]


class Verdict(NamedTuple):
    """What a verification found."""

    rows: int
    last: int
    faults: tuple[str, ...]  # none: it is what was written


def read(file: Path) -> Iterator[Record]:
    """All rows, those of the compressed files first.

    Raises:
        StoreError: the file cannot be used, or something in it cannot be read.
    """
    seen = 0
    for part in _parts(file):
        if isinstance(part, StoreDamaged):
            raise part
        for record in part[1]:
            if record.seq > seen:
                seen = record.seq
                yield record


def verify(file: Path, key: KeyFile) -> Verdict:
    """Look at every row, while davsql may go on writing.

    Raises:
        StoreError: the file, or the head, cannot be used.
    """
    head = key.head()
    walk = _Walk(key.key, head or Head())
    for part in _parts(file):
        if isinstance(part, StoreDamaged):
            walk.faults.append(str(part))
            continue
        try:
            walk.follow(*part)
        except StoreDamaged as error:
            walk.faults.append(str(error))
        if len(walk.faults) > FAULTS_MAX:
            break
    else:
        walk.end()
    if head is None and walk.rows:
        walk.faults.append(f"there is no {key.head_file}: nobody can tell whether the end is missing")
    return Verdict(walk.rows, walk.at.seq, tuple(walk.faults))


def glance(file: Path, key: KeyFile) -> str | None:
    """What is wrong with the end of the log; None: nothing. Costs next to nothing, unlike `verify`."""
    head = key.head()
    with closing(open_audit(file)) as audit, audit.snapshot() as tx:
        start, last = start_of(tx), last_of(tx)
        if head is None:
            return None if last.seq == 0 else "there is no head beside the key"
        found = start.mac if head.seq == start.seq else mac_at(tx, head.seq)
        if head.seq > last.seq:
            return f"rows {last.seq + 1} to {head.seq} are missing at the end"
        if head.seq >= start.seq and found != head.mac:
            return f"row {head.seq} is missing or not what was written"
    return None


def _parts(file: Path) -> Iterator[Part | StoreDamaged]:
    """The compressed files and the file itself, in the order of their rows."""
    with closing(open_audit(file)) as audit, audit.snapshot() as tx:
        start = start_of(tx)  # before looking for files: a rotation takes nothing away that is in neither
        for archive in archives_of(file):
            if archive.first <= start.seq:
                try:
                    yield read_archive(archive)
                except StoreDamaged as error:
                    yield error
        yield start, records_after(tx, start.seq)


class _Walk:
    """From the first row to the last, with what is found on the way."""

    def __init__(self, key: bytes, head: Head) -> None:
        self.faults: list[str] = []
        self.rows = 0
        self.at = Start(head.first - 1, NO_MAC)
        self._key = key
        self._head = head

    def follow(self, start: Start, records: Iterator[Record]) -> None:
        """Look at the rows of one file."""
        if start.seq > self.at.seq:
            self._miss(start.seq)
        if start.seq >= self.at.seq:
            self.at = start  # its mac is proved by the row behind it
        known = self.at.seq if start.seq < self.at.seq else 0
        for record in records:
            if record.seq > known:
                self._look_at(record)
            elif record.seq == known:  # twice, or to be removed: a rotation was killed
                self.at = Start(known, record.mac)
            if len(self.faults) > FAULTS_MAX:
                return

    def end(self) -> None:
        """Nothing comes any more."""
        if self.at.seq < self._head.seq:
            self._miss(self._head.seq, " at the end")

    def _look_at(self, record: Record) -> None:
        self.rows += 1
        seq = record.seq
        if seq <= self.at.seq:
            self.faults.append(f"row {seq} stands behind row {self.at.seq}")
            return
        if seq > self.at.seq + 1:
            self._miss(seq - 1)
        elif mac_of(self._key, self.at.mac, seq, record.entry) != record.mac:
            self.faults.append(f"row {seq} was changed, or stands in the place of another")
        if seq == self._head.seq and record.mac != self._head.mac:
            self.faults.append(f"row {seq} is not the one that the head beside the key names")
        self.at = Start(seq, record.mac)

    def _miss(self, last: int, where: str = "") -> None:
        first = self.at.seq + 1
        self.faults.append(
            f"row {last} is missing{where}" if first == last else f"rows {first} to {last} are missing{where}"
        )

"""Old rows into compressed files: JSON lines, gzip. The chain goes on from one file to the next.

The compressed file is complete, synced and named before its rows leave the database. Rows that come meanwhile stay.
"""

from __future__ import annotations

import gzip
import json
import logging
import os
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

from davsql.audit.chain import Entry, Record
from davsql.audit.file import (
    Archive,
    Start,
    archive_name,
    archives_of,
    begin_behind,
    claim_rotation,
    last_of,
    records_after,
    start_of,
    used_bytes,
)
from davsql.audit.key import KeyFile
from davsql.errors import StoreDamaged
from davsql.store.backup import place
from davsql.store.sidefile import SideFile

log = logging.getLogger(__name__)

MIB = 1024 * 1024
CLAIM_S = 600  # after which a rotation that has not ended was left by a kill


class Rotation:
    """Moves rows away when there are too many."""

    def __init__(self, file: SideFile, key: KeyFile, rotate_mb: int, keep: int) -> None:
        self._file = file
        self._key = key
        self._limit = rotate_mb * MIB
        self._keep = keep

    def is_due(self) -> bool:
        """Whether the file is too large."""
        with self._file.snapshot() as tx:
            return used_bytes(tx) > self._limit

    def run(self) -> None:
        """Rotate, unless another process does so.

        Raises:
            StoreError, OSError: nothing was moved.
        """
        with self._file.write() as tx:
            if not claim_rotation(tx, tx.now - CLAIM_S * 10**9):
                return
        archive, end = self._compress()
        with self._file.write() as tx:
            begin_behind(tx, end)
        log.info("the audit log went on from row %d; those before are in %s", end.seq, archive.file)
        self._thin_out(archive)

    def _compress(self) -> tuple[Archive, Start]:
        file = self._file.file
        for left in file.parent.glob(f".{file.stem}-*.jsonl.gz.*.davsql-part"):
            left.unlink(missing_ok=True)  # by a kill
        with self._file.snapshot() as tx:
            start, end = start_of(tx), last_of(tx)
            target = archive_name(file, start.seq + 1, end.seq)
            part = target.with_name(f".{target.name}.{token_hex(8)}.davsql-part")
            try:
                _write(part, start, records_after(tx, start.seq))
                place(part, target, may_replace=True)
            finally:
                part.unlink(missing_ok=True)
        return Archive(target, start.seq + 1, end.seq), end

    def _thin_out(self, newest: Archive) -> None:
        """Remove what is too old, after the head says so; and what a kill has left between `_compress` and the end."""
        archives = archives_of(self._file.file)
        superseded = [each for each in archives if each.first == newest.first and each.last != newest.last]
        archives = [each for each in archives if each not in superseded]
        old = archives[: -self._keep] if self._keep else []
        if old:
            with self._file.write():
                head = self._key.head()
                if head is not None:
                    self._key.write_head(head._replace(first=old[-1].last + 1))
        for each in (*superseded, *old):
            with suppress(FileNotFoundError):
                each.file.unlink()


def _write(part: Path, start: Start, records: Iterator[Record]) -> None:
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as raw:
        with gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as out:
            out.write(_line({"after": start.seq, "mac": start.mac.hex()}))
            for each in records:
                out.write(_line(fields_of(each)))
        raw.flush()
        os.fsync(raw.fileno())


def read_archive(archive: Archive) -> tuple[Start, Iterator[Record]]:
    """What a compressed file begins behind, and its rows.

    Raises:
        StoreDamaged: it is no such file; while the rows are read too.
    """
    lines = _lines(archive.file)
    try:
        head = next(lines)
        start = Start(int(str(head["after"])), bytes.fromhex(str(head["mac"])))
    except (StopIteration, KeyError, ValueError, TypeError) as error:
        raise StoreDamaged(f"{archive.file} does not begin as it should") from error
    return start, _records(archive.file, lines)


def fields_of(record: Record) -> dict[str, object]:
    """A row for JSON."""
    return {"seq": record.seq, **record.entry._asdict(), "mac": record.mac.hex()}


def _records(file: Path, lines: Iterator[dict[str, object]]) -> Iterator[Record]:
    for each in lines:
        try:
            seq, mac = int(str(each.pop("seq"))), bytes.fromhex(str(each.pop("mac")))
            entry = Entry(**each)  # type: ignore[arg-type]  # what is wrong with them shows in the mac
        except (KeyError, ValueError, TypeError) as error:
            raise StoreDamaged(f"{file}: a line is no row") from error
        yield Record(seq, entry, mac)


def _lines(file: Path) -> Iterator[dict[str, object]]:
    try:
        with gzip.open(file, "rt", encoding="ascii") as lines:
            for line in lines:
                found = json.loads(line)
                if not isinstance(found, dict):
                    raise StoreDamaged(f"{file}: a line is no row")
                yield found
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise StoreDamaged(f"{file} cannot be read: {error}") from error


def _line(fields: dict[str, object]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode("ascii") + b"\n"

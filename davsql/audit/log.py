"""Appending to the audit log, from many threads and several processes.

Rule 1: `append` returns when its row is committed: a kill does not take it away. A row is on the disk, safe against a
        power cut, when `tend` has run, which happens every second; only then the head beside the key names it.
Rule 2: the chain is one for all processes: its end is read, and rows are added, in one BEGIN IMMEDIATE.
Rule 3: what could not be written waits in memory, and `require` fails until it is written.
Threads: any. One for each process, made after a fork.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from pathlib import Path

from davsql.audit import file as audit_file
from davsql.audit.chain import Entry, Record, link
from davsql.audit.file import Start, create_audit, last_of, mac_at, open_audit, start_of
from davsql.audit.key import Head, KeyFile
from davsql.audit.rotation import Rotation
from davsql.errors import DavsqlError, NotFound, StoreDamaged, StoreError, StoreUnavailable
from davsql.requestid import current
from davsql.store.transaction import ReadTx

log = logging.getLogger(__name__)

TEND_INTERVAL_S = 1.0
WAITING_MAX = 10_000  # rows that nobody waits for; the log tells when more are lost


class _Ticket:
    """A row on its way."""

    __slots__ = ("entry", "is_written")

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.is_written = False


class AuditLog:
    """An open audit log. `start` lets it look after itself; else call `tend` now and then. Close it."""

    def __init__(self, file: Path, key_file: Path, *, rotate_mb: int = 64, keep: int = 0) -> None:
        """Open a log; file and key are made where neither is there.

        Raises:
            InsecureFile: others can read or exchange one of them.
            StoreError: one cannot be used, or they do not belong together; the message says what to do.
        """
        self._key = _key_of(file, key_file)
        self._file = open_audit(file)
        self._rotation = Rotation(self._file, self._key, rotate_mb, keep)
        self._waiting: deque[_Ticket] = deque()
        self._turn = threading.Lock()
        self._tending = threading.Lock()
        self._is_behind = False  # something could not be written
        self._has_cut = False  # it was said
        self._synced = -1  # the last row that is known to be on the disk
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._look_after, name="davsql-audit", daemon=True)
        self._continue_from_head()

    def start(self) -> None:
        """Look after it from a thread of its own."""
        self._thread.start()

    def require(self) -> None:
        """Raise StoreUnavailable while there are rows that could not be written."""
        if self._is_behind:
            raise StoreUnavailable("the audit log cannot be written; nothing is changed until it can")

    def append(self, entry: Entry) -> None:
        """Add a row and return when it is committed, together with those of others who wait.

        If it cannot be written now it is kept for later, and the log says so: what it tells of has happened.
        """
        ticket = _Ticket(entry)
        self._waiting.append(ticket)
        with self._turn:
            if not ticket.is_written and not self._is_behind:
                self._try_to_write()

    def note(self, entry: Entry) -> None:
        """Add a row within a second."""
        if len(self._waiting) < WAITING_MAX:
            self._waiting.append(_Ticket(entry))
        elif not self._is_behind:  # they come faster than once a second takes them
            self.append(entry)

    def append_failed_login(self, name: str, address: str) -> None:
        """Add a row about somebody who was not let in, as `append` does."""
        self.append(Entry(time.time_ns(), name, address, "LOGIN", "", None, 401, None, current()))

    def tend(self) -> None:
        """Write what waits, let the head follow, rotate when it is time."""
        with self._tending:
            with self._turn:
                if self._waiting:
                    self._try_to_write()
            try:
                self._advance_head()
                if self._rotation.is_due():
                    self._rotation.run()
            except (DavsqlError, OSError) as error:
                log.error("the audit log cannot be looked after: %s", error)  # noqa: TRY400  # it says all

    def close(self) -> None:
        """Write what waits and close."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self.tend()
        if self._waiting:
            log.error("%d rows of the audit log could not be written and are lost", len(self._waiting))
        self._file.close()

    def _look_after(self) -> None:
        while not self._stopping.wait(TEND_INTERVAL_S):
            self.tend()

    def _try_to_write(self) -> None:
        """The caller has the turn."""
        batch = [self._waiting.popleft() for _ in range(len(self._waiting))]
        try:
            with self._file.write() as tx:
                seq, mac = last_of(tx)
                records: list[Record] = []
                for ticket in batch:
                    records.append(link(self._key.key, mac, seq := seq + 1, ticket.entry))
                    mac = records[-1].mac
                audit_file.add_records(tx, records)
        except StoreError as error:
            self._waiting.extendleft(reversed(batch))
            if not self._is_behind:
                log.error("the audit log cannot be written, changes are refused until it can: %s", error)  # noqa: TRY400
            self._is_behind = True
            return
        for ticket in batch:
            ticket.is_written = True
        if self._is_behind:
            self._is_behind = False
            log.warning("the audit log can be written again; nothing is missing in it")

    # --- the head -------------------------------------------------------------------------------------------------

    def _advance_head(self) -> None:
        """Sync what is committed, then let the head name it; never past an end that was cut off."""
        with self._file.snapshot() as tx:
            last = last_of(tx)
        if last.seq == self._synced or not self._file.sync():
            return
        before = self._key.head() or Head()
        after = before._replace(seq=last.seq, mac=last.mac)
        with self._key.prepared(after) as part, self._file.write() as tx:  # one process at a time: it only grows
            head = self._key.head() or Head()
            if not _is_in(tx, head):
                self._tell_of_cut(head)
            elif head.first != before.first:
                return  # a rotation came between; the next time will do
            elif last.seq > head.seq:
                part.replace(self._key.head_file)
        self._synced = last.seq

    def _tell_of_cut(self, head: Head) -> None:
        if not self._has_cut:
            self._has_cut = True
            log.error(
                "the audit log is not what it was: row %d is missing or changed; run davsql audit verify", head.seq
            )

    def _continue_from_head(self) -> None:
        """A new file goes on where the old one ended: what is missing then shows. The first one gets a head."""
        with self._file.write() as tx:
            head = self._key.head()
            if last_of(tx).seq:
                return
            if head is None:
                self._key.write_head(Head())
            elif head.seq:
                audit_file.begin_behind(tx, Start(head.seq, head.mac))


def _is_in(tx: ReadTx, head: Head) -> bool:
    start = start_of(tx)
    if head.seq <= start.seq:
        return head.seq < start.seq or head.mac == start.mac
    return mac_at(tx, head.seq) == head.mac


def _key_of(file: Path, key_file: Path) -> KeyFile:
    """The key of a log; a new log gets a new one."""
    is_new = not file.exists()
    try:
        key = KeyFile(key_file)
    except NotFound as error:
        if not is_new:
            raise NotFound(
                f"{error}, so nothing can be added to {file}: bring it back, or move {file} away and begin anew"
            ) from None
        KeyFile.create(key_file)
        key = KeyFile(key_file)
    if is_new:
        try:
            create_audit(file)
        except StoreUnavailable:
            if not file.exists():  # else another process was faster
                raise
    _require_match(file, key)
    return key


def _require_match(file: Path, key: KeyFile) -> None:
    """Raise StoreDamaged when the last row was not written with this key."""
    opened = open_audit(file)
    try:
        with opened.snapshot() as tx:
            last, start = last_of(tx), start_of(tx)
            if last.seq <= start.seq:
                return
            before = start.mac if last.seq == start.seq + 1 else mac_at(tx, last.seq - 1)
            [record] = audit_file.records_after(tx, last.seq - 1)
    finally:
        opened.close()
    if before is None or link(key.key, before, record.seq, record.entry).mac != record.mac:
        raise StoreDamaged(
            f"the end of {file} was not written with the key {key.file}: run davsql audit verify; to begin anew, move "
            f"{file} away"
        )

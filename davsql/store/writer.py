"""Command queue and the one connection that may write.

Rule 1: only this module opens a write transaction.
Rule 2: a caller gets its answer after COMMIT, never before.
Rule 3: an error means that nothing of the command is in the file; a command may run twice before it is answered, so it
        changes nothing but the database.
Threads: `run` and `submit` from any thread; everything else on the writer thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import apsw

from davsql.counters import WriterCounters
from davsql.errors import StoreBusy, StoreError, StoreFull, StoreReadOnly, StoreUnavailable
from davsql.store.checkpointer import Checkpointer
from davsql.store.migrate import SET_META
from davsql.store.options import StoreOptions
from davsql.store.pending import Command, Pending, Result, no_command
from davsql.store.presence import DELETE_MARK, new_mark
from davsql.store.room import Room
from davsql.store.transaction import WriteTx, store_error, translated
from davsql.store.turn import Turn
from davsql.store.wal import Wal

BATCH_COMMANDS = 256  # at most in one COMMIT
BATCH_BYTES = 16 * 1024 * 1024  # of staged content in one COMMIT: WAL suits transactions well below 100 MB
MARK_TIMEOUT_MS = 2000  # for another process's lock when the store is closed

COUNT_FAILED_COMMIT = """
INSERT INTO meta (key, value) VALUES ('failed_commits', '1')
ON CONFLICT (key) DO UPDATE SET value = CAST(value AS INTEGER) + 1
"""

_log = logging.getLogger(__name__)


class _Aborted(Exception):
    """The whole transaction is gone; each command of the batch is to be tried on its own."""


class _Dirty(Exception):
    """A command changed something and failed; the batch is to be tried again with a savepoint for each command."""


_Attempt = Callable[[WriteTx, Pending[Any]], tuple[Any, BaseException | None]]


class Writer:
    """The thread that owns the writing connection."""

    def __init__(self, connection: apsw.Connection, options: StoreOptions, checkpointer: Checkpointer) -> None:
        self._connection = connection
        self._checkpointer = checkpointer
        self._options = options
        self._queue: SimpleQueue[Pending[Any] | None] = SimpleQueue()  # None: stop after what came before
        self._gate = threading.Condition()  # guards _is_closing; waited on for a place in the queue
        self._held: Pending[Any] | None = None  # taken from the queue, for the next batch
        self._waiting = 0  # callers that wait for a place
        self._is_closing = False
        self.counters = WriterCounters()
        self._turn = Turn(Path(connection.filename), is_needed=not options.read_only)
        self._room = Room(Path(connection.filename), options, checkpointer)
        self.wal = Wal(connection, options, checkpointer, self._room, self.counters)
        self._mark = new_mark()
        self._is_marked = False  # with the first commit, presence.py
        self._thread = threading.Thread(target=self._run, name="davsql-writer", daemon=True)
        self._thread.start()

    @property
    def queue_depth(self) -> int:
        """Commands that wait."""
        return self._queue.qsize()

    @property
    def is_alive(self) -> bool:
        """Whether commands are taken; False when the thread has ended, by `close` or by a fault."""
        return self._thread.is_alive()

    def run(self, command: Command[Result]) -> Result:
        """Run one command as one transaction and return its result once it is committed.

        Raises:
            StoreBusy: the queue stayed full for `queue_timeout_s`; the command was not taken.
            StoreError: the command failed; nothing changed.
        """
        return self.submit(command).wait()

    def submit(self, command: Command[Result], size_bytes: int = 0) -> Pending[Result]:
        """Put a command into the queue; the answer comes from `Pending.wait`.

        Args:
            size_bytes: content the command carries, so that a batch stays small.
        """
        return self._put(Pending(command, size_bytes))

    def run_alone(self, statement: Callable[[apsw.Connection], Result]) -> Result:
        """Run what cannot be part of a transaction (VACUUM), between two commits, and return its result.

        Raises:
            StoreError: it failed.
        """
        pending: Pending[Result] = Pending(no_command, 0, statement)
        return self._put(pending).wait()

    def _put(self, pending: Pending[Result]) -> Pending[Result]:
        if self._options.read_only:
            raise StoreReadOnly("this share is read-only")
        with self._gate:
            if self._is_full():
                self._wait_for_place()
            if self._is_closing:
                raise StoreUnavailable("the store is closing")
            self._queue.put(pending)
        return pending

    def _is_full(self) -> bool:
        return self._queue.qsize() >= self._options.queue_size and not self._is_closing

    def _wait_for_place(self) -> None:
        self._waiting += 1  # before looking again: either the writer sees it, or we see the place it made
        try:
            if not self._gate.wait_for(lambda: not self._is_full(), self._options.queue_timeout_s):
                self.counters.refused += 1
                raise StoreBusy("too many writes are waiting; try again in a moment")
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Finish what is queued, then stop and close the connection."""
        with self._gate:
            if not self._is_closing:
                self._is_closing = True
                self._queue.put(None)
                self._gate.notify_all()
        self._thread.join()
        self._connection.close()
        self._turn.close()

    # --- the writer thread ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        batch: list[Pending[Any]] = []
        try:
            while batch := self._next_batch():
                if batch := self._refuse_without_room(batch):
                    self._run_batch(batch)
                self._turn.give()  # already, unless all were refused
                self.wal.keep_short()
            self._remove_mark()
        except BaseException as error:  # noqa: BLE001  # whatever it was, callers must not wait for ever
            _log.critical("the writer stopped; restart davsql", exc_info=error)
            self._turn.give()
            self._refuse_all(batch)

    def _next_batch(self) -> list[Pending[Any]]:
        """Wait for commands, then for our turn, and take as many as one COMMIT may carry; empty when it is to stop."""
        queue = self._queue
        self.counters.began_ns = 0
        pending, self._held = self._held or queue.get(), None
        if pending is not None:
            self._turn.take(self._options.busy_timeout_s)  # what comes meanwhile goes into the same COMMIT
        batch: list[Pending[Any]] = []
        size_bytes = 0
        while pending is not None:
            if batch and pending.alone is not None:
                self._held = pending
                break
            batch.append(pending)
            if pending.alone is not None:
                break
            size_bytes += pending.size_bytes
            if len(batch) >= BATCH_COMMANDS or size_bytes >= BATCH_BYTES or queue.empty():
                break
            pending = queue.get_nowait()  # nobody else takes from the queue
        else:
            if batch:
                queue.put(None)  # stop after this batch
        if self._waiting:
            with self._gate:
                self._gate.notify_all()
        self.counters.take(each.queued_ns for each in batch)
        return batch

    def _refuse_all(self, batch: list[Pending[Any]]) -> None:
        """The writer is dying: take nothing any more, and answer what was taken and not answered."""
        if self._held is not None:
            batch.append(self._held)
        with self._gate:
            self._is_closing = True
            while not self._queue.empty():
                if (pending := self._queue.get_nowait()) is not None:
                    batch.append(pending)
            self._gate.notify_all()
        for pending in batch:
            if not pending.is_answered:
                pending.answer(None, StoreUnavailable("the store's writer has stopped; restart davsql"))

    def _refuse_without_room(self, batch: list[Pending[Any]]) -> list[Pending[Any]]:
        """Answer the commands whose content would take the last room on the disk; returns the others."""
        if self._has_room(sum(pending.size_bytes for pending in batch)):
            return batch
        allowed: list[Pending[Any]] = []
        size_bytes = 0
        for pending in batch:
            if not pending.size_bytes or self._has_room(size_bytes + pending.size_bytes):
                size_bytes += pending.size_bytes
                allowed.append(pending)
            else:
                self.counters.failed += 1
                pending.answer(None, StoreFull("the store's file system is nearly full; delete something first"))
        return allowed

    def _has_room(self, size_bytes: int) -> bool:
        if not size_bytes:
            return True
        try:
            if self._room.allows(self._connection, size_bytes):
                return True
            if not self._checkpointer.wal_bytes or self._options.leaves_checkpoints:
                return False
            self.wal.empty()
            return self._room.allows(self._connection, size_bytes)
        except StoreBusy:  # somebody reads: the WAL stays as long as it is
            return False
        except (apsw.Error, StoreError):  # the command itself will tell
            return True

    def _run_batch(self, batch: list[Pending[Any]]) -> None:
        began_ns = time.monotonic_ns()
        outcomes: list[tuple[Any, BaseException | None]]
        try:
            alone = batch[0].alone
            outcomes = self._commit_together(batch) if alone is None else [self._run_statement(alone)]
            self.counters.hold(began_ns)
        except (_Aborted, StoreError) as error:  # _Aborted only where there are several
            self.counters.hold(began_ns)
            if isinstance(error, StoreError):
                self.counters.fail(error)
            if len(batch) == 1:
                self.counters.failed += 1
                batch[0].answer(None, error)
                return
            if isinstance(error, StoreBusy):  # another process had the lock all the time: not that wait for each
                self.counters.failed += len(batch)
                for pending in batch:
                    pending.answer(None, StoreBusy(str(error)))
                return
            # One command, or the COMMIT, took all the others down: each gets a transaction and an answer of its own.
            for pending in batch:
                self._run_batch([pending])
            return
        self._turn.give()  # before the answers: they wake threads, which want to run
        for pending, (result, failure) in zip(batch, outcomes, strict=True):
            if failure is not None:
                self.counters.failed += 1
            pending.answer(result, failure)

    def _run_statement(self, statement: Callable[[apsw.Connection], Any]) -> tuple[Any, BaseException | None]:
        try:
            with translated():
                return statement(self._connection), None
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001  # it goes to the caller, who waits in another thread
            return None, error
        finally:
            self._roll_back()

    def _commit_together(self, batch: list[Pending[Any]]) -> list[tuple[Any, BaseException | None]]:
        """Run the commands in one transaction and commit; after an exception nothing is committed."""
        try:
            try:
                return self._commit(batch, self._attempt_alone if len(batch) == 1 else self._attempt)
            except _Dirty:
                self._roll_back()
                return self._commit(batch, self._attempt_under_savepoint)
        except apsw.Error as error:
            self._roll_back()
            if isinstance(error, apsw.IOError):
                self._write_over_failed_commit()
            raise store_error(error) from error
        except BaseException:
            self._roll_back()
            raise

    def _commit(self, batch: list[Pending[Any]], attempt: _Attempt) -> list[tuple[Any, BaseException | None]]:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        if not self._is_marked:
            connection.execute(SET_META, self._mark)
        tx = WriteTx(connection)  # one transaction, one moment
        outcomes = [attempt(tx, pending) for pending in batch]
        if connection.in_transaction:
            connection.execute("COMMIT")
            self._is_marked = True
            self.counters.batches.add(len(batch))
        return outcomes

    def _remove_mark(self) -> None:
        """Nothing is written any more; a mark that cannot be taken away only makes the next start look for damage."""
        if not self._is_marked:
            return
        try:
            self._connection.set_busy_timeout(MARK_TIMEOUT_MS)
            self._connection.execute(DELETE_MARK, self._mark[:1])
        except apsw.Error as error:
            _log.warning("the store is not marked as closed, the next start will check it: %s", error)

    def _write_over_failed_commit(self) -> None:
        """A COMMIT whose sync failed may be whole in the WAL: after a crash, recovery would find what was refused.

        Any change will do; one that changes nothing is not written.
        """
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute(COUNT_FAILED_COMMIT)
            self._connection.execute("COMMIT")
        except apsw.Error:  # the disk still fails: the next commit lies over it
            self._roll_back()

    def _attempt_alone(self, tx: WriteTx, pending: Pending[Any]) -> tuple[Any, BaseException | None]:
        try:
            return pending.command(tx), None
        except Exception as error:  # noqa: BLE001  # it goes to the caller, who waits in another thread
            self._roll_back()
            return None, self._failure(error)

    def _attempt(self, tx: WriteTx, pending: Pending[Any]) -> tuple[Any, BaseException | None]:
        """Without a savepoint, which would copy each page that the command changes: few fail, and fewer that late."""
        changes = self._connection.total_changes()
        try:
            return pending.command(tx), None
        except Exception as error:  # it goes to the caller, who waits in another thread
            self._require_transaction(error)
            if self._connection.total_changes() != changes:
                raise _Dirty from error
            return None, self._failure(error)

    def _attempt_under_savepoint(self, tx: WriteTx, pending: Pending[Any]) -> tuple[Any, BaseException | None]:
        connection = self._connection
        connection.execute("SAVEPOINT command")
        try:
            result = pending.command(tx)
        except Exception as error:  # noqa: BLE001  # it goes to the caller, who waits in another thread
            self._require_transaction(error)
            connection.execute("ROLLBACK TO command")
            connection.execute("RELEASE command")
            return None, self._failure(error)
        connection.execute("RELEASE command")
        return result, None

    def _require_transaction(self, error: Exception) -> None:
        # A full disk or an I/O error rolls back the whole transaction, not the savepoint alone
        # (https://www.sqlite.org/lang_transaction.html, "Response To Errors Within A Transaction").
        if not self._connection.in_transaction:
            raise _Aborted from self._failure(error)

    def _failure(self, error: Exception) -> Exception:
        """What the caller of a command is told."""
        if not isinstance(error, apsw.Error):
            return error
        failure = store_error(error)
        failure.__cause__ = error
        self.counters.fail(failure)
        return failure

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

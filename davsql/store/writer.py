"""Command queue and the one connection that may write.

Who finds it idle runs his command himself: to wake a thread and to be woken by it takes a small command a tenth of its
time. What comes meanwhile waits in the queue, for the writer thread; where many come, it runs all of them.

Rule 1: only this module opens a write transaction.
Rule 2: a caller gets its answer after COMMIT, never before.
Rule 3: an error means that nothing of the command is in the file; a command may run twice before it is answered, so it
        changes nothing but the database.
Rule 4: who has set `_is_taken` serves: he uses the connection and takes from the queue, and nobody else does. He runs
        one batch, his own command in it, and lets go.
Threads: `run` and `submit` from any thread; everything else as rule 4 says.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
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
    """The connection that writes, and the thread that serves what waits for it."""

    def __init__(self, connection: apsw.Connection, options: StoreOptions, checkpointer: Checkpointer) -> None:
        self._connection = connection
        self._checkpointer = checkpointer
        self._options = options
        self._gate = threading.Condition(threading.Lock())  # guards what follows; waited on for a place in the queue
        self._queue: deque[Pending[Any]] = deque()
        self._is_taken = False
        self._is_left = False  # it is taken for the thread, with our turn: the WAL is at its limit
        self._is_crowded = False  # the last batch had several commands: the thread makes larger ones
        self._is_closing = False
        self._waiting = 0  # callers that wait for a place
        self._is_broken = False
        self._hints: SimpleQueue[None] = SimpleQueue()  # for the thread: look whether there is something to do
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
        return len(self._queue)

    @property
    def is_alive(self) -> bool:
        """Whether commands are taken; False when the thread has ended, by `close` or by a fault."""
        return self._thread.is_alive()

    def run(self, command: Command[Result], size_bytes: int = 0) -> Result:
        """Run one command as one transaction and return its result once it is committed.

        Args:
            size_bytes: content the command carries, so that a batch stays small.

        Raises:
            StoreBusy: the queue stayed full for `queue_timeout_s`; the command was not taken.
            StoreError: the command failed; nothing changed.
        """
        return self._serve_or_wait(Pending(command, size_bytes))

    def submit(self, command: Command[Result], size_bytes: int = 0) -> Pending[Result]:
        """As `run`, in the writer thread; the answer comes from `Pending.wait`."""
        pending = Pending(command, size_bytes)
        self._put(pending, can_serve=False)
        return pending

    def run_alone(self, statement: Callable[[apsw.Connection], Result]) -> Result:
        """Run what cannot be part of a transaction (VACUUM), between two commits, and return its result.

        Raises:
            StoreError: it failed.
        """
        pending: Pending[Result] = Pending(no_command, 0, statement)
        return self._serve_or_wait(pending)

    def _serve_or_wait(self, pending: Pending[Result]) -> Result:
        # Ctrl-C raises KeyboardInterrupt in the main thread, in the middle of anything.
        if self._put(pending, can_serve=threading.current_thread() is not threading.main_thread()):
            try:
                self._serve()
            finally:
                self._let_go(is_caller=True)
        return pending.wait()

    def _put(self, pending: Pending[Any], *, can_serve: bool) -> bool:
        """Put it into the queue; True when the caller, who can, is to serve now."""
        if self._options.read_only:
            raise StoreReadOnly("this share is read-only")
        with self._gate:
            if self._is_full():
                self._wait_for_place()
            if self._is_closing:
                raise StoreUnavailable("the store is closing")
            self._queue.append(pending)
            if self._is_taken:
                return False
            self._is_taken = can_serve = can_serve and not self._is_crowded
        if not can_serve:
            self._hints.put(None)
        return can_serve

    def _is_full(self) -> bool:
        return len(self._queue) >= self._options.queue_size and not self._is_closing

    def _wait_for_place(self) -> None:
        self._waiting += 1  # before looking again: either who serves sees it, or we see the place he made
        try:
            if not self._gate.wait_for(lambda: not self._is_full(), self._options.queue_timeout_s):
                self.counters.refused += 1
                raise StoreBusy("too many writes are waiting; try again in a moment")
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Finish what is queued, then stop and close the connection."""
        with self._gate:
            self._is_closing = True
            self._gate.notify_all()
        self._hints.put(None)
        self._thread.join()
        self._connection.close()
        self._turn.close()

    def _run(self) -> None:
        """The writer thread: serves what nobody else does."""
        try:
            is_over = False
            while not is_over:
                self._hints.get()
                if self._take():
                    self._keep_wal_short()  # after what callers have committed
                    while self._queue:
                        self._serve()
                        self._keep_wal_short()
                    is_over = self._let_go()
            if not self._is_broken:
                self._remove_mark()
        except BaseException as error:  # noqa: BLE001  # whatever it was, callers must not wait for ever
            self._break(error, [])
            self._turn.give()

    def _take(self) -> bool:
        with self._gate:
            is_free, self._is_taken, self._is_left = self._is_left or not self._is_taken, True, False
        return is_free

    def _let_go(self, *, is_caller: bool = False) -> bool:
        """Leave the rest to the next one, and what may take long to the thread; True when nothing more will come."""
        with self._gate:
            self._is_taken = self._is_left = is_caller and self.wal.is_at_limit
            is_over = self._is_closing and not self._queue
            if self._queue or self._is_closing or (is_caller and self.wal.is_long):
                self._hints.put(None)
        return is_over

    def _keep_wal_short(self) -> None:
        self.wal.keep_short()
        self._turn.give()  # already, unless the WAL was at its limit

    # --- whoever serves ------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        """Run and answer one batch."""
        batch: list[Pending[Any]] = []
        try:
            batch = self._next_batch()
            if allowed := self._refuse_without_room(batch):
                self._run_batch(allowed)
        except BaseException as error:  # noqa: BLE001  # whatever it was, callers must not wait for ever
            self._break(error, batch)
        if not self.wal.is_at_limit:
            self._turn.give()  # already, unless all were refused
        self.counters.began_ns = 0

    def _next_batch(self) -> list[Pending[Any]]:
        """Wait for our turn, and take as many commands as one COMMIT may carry."""
        self._turn.take(self._options.busy_timeout_s)  # what comes meanwhile goes into the same COMMIT
        queue = self._queue
        batch = [queue.popleft()]  # nobody else takes from the queue
        size_bytes = batch[0].size_bytes
        while (
            queue
            and len(batch) < BATCH_COMMANDS
            and size_bytes < BATCH_BYTES
            and batch[0].alone is None
            and queue[0].alone is None
        ):
            batch.append(queue.popleft())
            size_bytes += batch[-1].size_bytes
        if self._waiting:
            with self._gate:
                self._gate.notify_all()
        self._is_crowded = len(batch) > 1
        self.counters.take(each.queued_ns for each in batch)
        return batch

    def _break(self, error: BaseException, batch: list[Pending[Any]]) -> None:
        """The writer is dying: take nothing any more, and answer what was taken and not answered."""
        _log.critical("the writer stopped; restart davsql", exc_info=error)
        with self._gate:
            self._is_broken = self._is_closing = True
            batch += self._queue
            self._queue.clear()
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
        if not self.wal.is_at_limit:
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

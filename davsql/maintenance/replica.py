"""A continuous copy of a store elsewhere: Litestream, started, watched and stopped by us.

Rule 1: one Litestream per store, whoever serves it: the lock file is held by davsql and by the Litestream it started.
Rule 2: Litestream is stopped after the store's last commit, and killed when davsql dies (litestream.replicate_command).
Rule 3: before Litestream starts, the store has the mark that keeps every davsql from the WAL (store/replication.py).
Threads: `start`, `stop` and `status` from any thread; the rest on the thread "davsql-replica".
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from davsql.errors import ReplicaError, StoreBusy, StoreError
from davsql.maintenance import litestream
from davsql.maintenance.litestream import Control, Replicated
from davsql.store.replication import leave_checkpoints, leaves_checkpoints
from davsql.store.store import Store

SYNC_TIMEOUT_S = 30
START_GRACE_S = 30.0  # in which an error of the control socket only means that Litestream is not ready
BACKOFF_S = (1.0, 60.0)  # before Litestream is started again: the first time, and at most
HEALTHY_S = 60.0  # of running, after which the next start counts as the first
LOCK_POLL_S = 1.0
EMPTY_WAL_TIMEOUT_S = 10.0  # for readers to leave the WAL
END_TIMEOUT_S = 10.0  # for Litestream to stop when it has nothing to do
PHANTOM_LOOKS = 3
WAL_HEADER_BYTES, FRAME_HEADER_BYTES = 32, 24  # https://www.sqlite.org/fileformat2.html 4.1

State = Literal["starting", "replicating", "failing", "elsewhere", "stopped"]
_LEVELS = {"DEBUG": logging.DEBUG, "INFO": logging.DEBUG, "WARN": logging.WARNING, "ERROR": logging.ERROR}
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """How far the replica is behind the store."""

    url: str
    state: State  # "elsewhere": another davsql that serves the same store has it replicated
    lag_s: float | None  # all that was committed so long ago is in the replica; None: not known yet
    bytes_behind: int | None  # written to the WAL since then, about
    restarts: int  # of Litestream, after it ended unasked
    error: str  # why it is failing; "" when it is not


class Replica:
    """Has one store replicated."""

    def __init__(self, file: Path, replica: Replicated) -> None:
        """Look whether it can be done; nothing is started.

        Raises:
            ReplicaError: Litestream is missing, or cannot replicate this file to this URL.
        """
        self._file = file.absolute()
        self._url = replica.url
        self._options = replica.options
        self._folder = self._file.with_name(self._file.name + "-replica")
        self._control_path = _control_path(self._folder)
        replica.require_folder()
        litestream.program()
        self._settings = litestream.configuration(self._file, self._folder, self._control_path, replica)
        self._tally = _Tally()
        self._stopping = threading.Event()
        self._must_start_over = False  # what Litestream knows of the WAL cannot be relied on: it copies the whole store
        self._store: Store | None = None
        self._thread: threading.Thread | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._child_lock = threading.Lock()  # against a child that is started while `stop` looks for one

    def start(self, store: Store) -> None:
        """Begin to replicate; returns at once.

        Raises:
            ReplicaError: the store is encrypted, or its folder cannot be written.
        """
        if not store.is_plain():
            raise ReplicaError(
                f"{self._file} is encrypted: Litestream has no key and cannot replicate it; remove replica.url and "
                "use frequent backups"
            )
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            litestream.write_configuration(self._folder / "litestream.yml", self._settings)
        except OSError as error:
            raise ReplicaError(f"{self._folder}: {error.strerror}") from error
        self._store = store
        self._thread = threading.Thread(target=self._run, args=(store,), name="davsql-replica", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Let Litestream copy what is left and stop it; close the store first. Harmless when never started."""
        self._stopping.set()
        with self._child_lock:
            child = self._child
        is_ours = self._thread is not None and self.status().state != "elsewhere"
        if is_ours and not (child is not None and self._copy_what_is_left(child)):
            _log.error("%s: the last changes may not be in the replica; they are in the store", self._file)
        if child is not None:
            child.terminate()
            _wait(child)
        if self._thread is not None:
            self._thread.join()
        if self._control_path.parent != self._folder:
            shutil.rmtree(self._control_path.parent, ignore_errors=True)
        self._tally.note("stopped")

    def _copy_what_is_left(self, child: subprocess.Popen[bytes]) -> bool:
        """Wait until all is in the replica. Litestream would do so itself, but not if it has only just started."""
        control = Control(self._control_path)
        deadline = time.monotonic() + self._options.stop_timeout_s
        while child.poll() is None and (left_s := deadline - time.monotonic()) > 0:
            mark = self._tally.mark(0 if self._store is None else self._store.wal_bytes)
            try:
                control.sync(self._file, int(left_s) + 1)
                self._tally.reached(mark)
                return True
            except (ReplicaError, OSError):
                time.sleep(0.1)
        return False

    def status(self) -> ReplicaStatus:
        """What is known at this moment; waits for nothing."""
        if self._store is not None:
            self._tally.mark(self._store.wal_bytes)
        return self._tally.status(self._url)

    # --- the thread ------------------------------------------------------------------------------------------------

    def _run(self, store: Store) -> None:
        try:
            with self._only_one() as lock:
                if lock is not None:
                    self._keep_running(store, lock)
        except Exception:  # noqa: BLE001  # told in the log and the status; the store works on
            _log.exception("the replica of %s is not kept up any more; restart davsql", self._file)
            self._tally.note("failing", "the thread that watches Litestream failed")

    @contextmanager
    def _only_one(self) -> Iterator[int | None]:
        """Wait until nobody else has this store replicated; None when davsql is to stop before."""
        descriptor = os.open(self._folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            while not self._stopping.is_set():
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if self._tally.note("elsewhere"):
                        _log.info("%s is being replicated by another process", self._file)
                    self._stopping.wait(LOCK_POLL_S)
                else:
                    yield descriptor
                    return
            yield None
        finally:
            os.close(descriptor)

    def _keep_running(self, store: Store, lock: int) -> None:
        pause_s = BACKOFF_S[0]
        while not self._stopping.is_set():
            started = time.monotonic()
            try:
                self._make_ready(store)
                code = self._run_once(store, lock)
                reason = f"Litestream ended with code {code}"
            except (StoreError, OSError) as error:
                reason = f"Litestream was not started: {error}"
            if self._stopping.is_set():
                return
            self._tally.note("failing", reason, is_restart=True)
            if time.monotonic() - started > HEALTHY_S:
                pause_s = BACKOFF_S[0]
            _log.error("%s: %s; started again in %.0f s", self._file, reason, pause_s)
            self._stopping.wait(pause_s)
            pause_s = min(2 * pause_s, BACKOFF_S[1])

    def _make_ready(self, store: Store) -> None:
        """Make sure of rule 3; a store that had no mark gets an empty WAL, since nobody knows what happened to it."""
        with store.read() as tx:
            has_mark = leaves_checkpoints(tx)
        if not has_mark:
            self._must_start_over = True
            store.write(leave_checkpoints)
        if not self._must_start_over:
            return
        deadline = time.monotonic() + EMPTY_WAL_TIMEOUT_S
        while True:
            try:
                store.empty_wal()
                self._must_start_over = False
                return
            except StoreBusy:
                if time.monotonic() > deadline or self._stopping.wait(0.1):
                    raise

    def _run_once(self, store: Store, lock: int) -> int:
        """Start Litestream and watch it until it ends; return its exit code."""
        self._tally.note("starting")
        lifeline, alive = os.pipe()
        try:
            try:
                child = self._spawn(lifeline, lock)
            finally:
                os.close(lifeline)
            if child is None:
                return 0
            threading.Thread(target=_forward, args=(child.stdout,), name="davsql-replica-log", daemon=True).start()
            self._watch(store, child)
            return child.wait()
        finally:
            os.close(alive)
            with self._child_lock:
                self._child = None

    def _spawn(self, lifeline: int, lock: int) -> subprocess.Popen[bytes] | None:
        command = litestream.replicate_command(self._folder / "litestream.yml", lifeline)
        with self._child_lock:
            if self._stopping.is_set():
                return None
            self._child = subprocess.Popen(  # noqa: S603  # our own program, no shell
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[lifeline, lock],
                env=litestream.environment(),
                start_new_session=True,  # Ctrl-C is for davsql, which stops Litestream last
            )
            return self._child

    def _watch(self, store: Store, child: subprocess.Popen[bytes]) -> None:
        control = Control(self._control_path)
        phantom = PhantomWatch(store)
        started = time.monotonic()
        while child.poll() is None and not self._stopping.wait(self._options.interval_s):
            mark = self._tally.mark(store.wal_bytes)
            try:
                control.sync(self._file, SYNC_TIMEOUT_S)
                if phantom.is_there(control.wal_offset(self._file)):
                    _log.warning("%s: a process died while it wrote; the whole store is copied again", self._file)
                    self._must_start_over = True
                    child.kill()
                    return
            except (ReplicaError, OSError) as error:
                is_early = isinstance(error, OSError) and time.monotonic() - started < START_GRACE_S
                if not self._stopping.is_set() and not is_early and self._tally.note("failing", str(error)):
                    _log.warning("%s is not being replicated: %s", self._file, error)
            else:
                if self._tally.reached(mark):
                    _log.info("%s is replicated to %s", self._file, self._url)


class _Tally:
    """What the status is made of. Threads: any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._state: State = "stopped"
        self._error = ""
        self._restarts = 0
        self._written = 0  # bytes that went through the WAL, as far as we looked
        self._wal_bytes = 0
        self._synced: tuple[float, int] | None = None  # when, and how many of `_written`

    def note(self, state: State, error: str = "", *, is_restart: bool = False) -> bool:
        """Take down a new state; True when it is another one than before."""
        with self._lock:
            changed = (state, error) != (self._state, self._error)
            self._state, self._error = state, error
            self._restarts += is_restart
            return changed

    def mark(self, wal_bytes: int) -> tuple[float, int]:
        """This moment: what is committed now will be in the replica when a sync that begins now has ended."""
        with self._lock:
            # A WAL that is smaller than it was has started over in between.
            self._written += wal_bytes - self._wal_bytes if wal_bytes >= self._wal_bytes else wal_bytes
            self._wal_bytes = wal_bytes
            return time.monotonic(), self._written

    def reached(self, mark: tuple[float, int]) -> bool:
        """The sync that began at `mark` succeeded; True when this is news."""
        with self._lock:
            self._synced = mark
        return self.note("replicating")

    def status(self, url: str) -> ReplicaStatus:
        with self._lock:
            synced, written = self._synced, self._written
            return ReplicaStatus(
                url,
                self._state,
                None if synced is None else round(time.monotonic() - synced[0], 3),
                None if synced is None else written - synced[1],
                self._restarts,
                self._error,
            )


class PhantomWatch:
    """Tells when Litestream has copied frames out of the WAL that are not in the WAL-index.

    They are there for the time of an fsync in each COMMIT. They stay when the process that wrote them was killed then
    and others have the store open: SQLite writes over them, and what is written there Litestream skips.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._last: tuple[int, int] | None = None
        self._looks = 0

    def is_there(self, wal_offset: int) -> bool:
        """Look again, after Litestream said how far it has copied."""
        try:
            pages, _ = self._store.checkpoint()  # only tells: checkpoints are left to Litestream
            with self._store.read() as tx:
                page_size = int(tx.value("PRAGMA page_size"))
        except StoreError:  # closed
            return False
        copied = (wal_offset - WAL_HEADER_BYTES) // (page_size + FRAME_HEADER_BYTES)
        found = (copied, pages) if copied > pages else None
        self._looks = self._looks + 1 if found is not None and found == self._last else 0
        self._last = found
        return self._looks >= PHANTOM_LOOKS


def _forward(lines: IO[bytes]) -> None:
    """Litestream's log into ours; what it tells each second is for debugging."""
    with lines:
        for line in lines:
            try:
                record = json.loads(line, object_pairs_hook=lambda pairs: dict(reversed(pairs)))  # "level" comes twice
                level, message = _LEVELS.get(record.pop("level"), logging.WARNING), record.pop("msg")
                record.pop("time", None)
                details = "".join(f" {key}={value}" for key, value in reversed(record.items()))
            except (ValueError, KeyError, AttributeError, TypeError):
                level, message, details = logging.WARNING, line.decode(errors="replace").rstrip(), ""
            _log.log(level, "litestream: %s%s", message, details)


def _wait(child: subprocess.Popen[bytes]) -> None:
    try:
        child.wait(END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        _log.warning("Litestream does not stop and is killed")
        child.kill()
        child.wait()


def _control_path(folder: Path) -> Path:
    path = folder / "control"
    if len(os.fsencode(path)) <= litestream.MAX_SOCKET_PATH_BYTES:
        return path
    return Path(tempfile.mkdtemp(prefix="davsql-")) / "control"

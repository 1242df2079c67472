"""A continuous copy of a store elsewhere: Litestream, started, watched and stopped by us.

Rule 1: one Litestream per store, whoever serves it: the lock file is held by davsql and by the Litestream it started.
Rule 2: Litestream is stopped after the store's last commit, and killed when davsql dies (litestream.replicate_command).
Rule 3: Litestream starts on a WAL that is known, and nobody but it lets that start over (store/replication.py).
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
from pathlib import Path
from typing import IO

from davsql.errors import ReplicaError, StoreBusy, StoreError
from davsql.maintenance import litestream
from davsql.maintenance.litestream import Control, Replicated
from davsql.maintenance.replica_progress import PhantomWatch, Progress, ReplicaStatus
from davsql.store.replication import is_wal_known, leave_checkpoints, note_wal_is_known
from davsql.store.store import Store

START_GRACE_S = 30.0  # in which no answer of the control socket only means that Litestream is not ready
BACKOFF_S = (1.0, 60.0)  # before Litestream is started again: the first time, and at most
HEALTHY_S = 60.0  # of running, after which the next start counts as the first
LOCK_POLL_S = 1.0
EMPTY_WAL_TIMEOUT_S = 10.0  # for readers to leave the WAL
END_TIMEOUT_S = 10.0  # for Litestream to stop, beyond what it gets for the last changes
LOOKS_PER_INTERVAL = 4
WHOLE_CHECK_S = 600.0  # lists the files of the replica

_LEVELS = {"DEBUG": logging.DEBUG, "INFO": logging.DEBUG, "WARN": logging.WARNING, "ERROR": logging.ERROR}
_log = logging.getLogger(__name__)


class Replica:
    """Has one store replicated."""

    def __init__(self, file: Path, replica: Replicated) -> None:
        """Look whether it can be done; nothing is started.

        Raises:
            ReplicaError: Litestream is missing, or cannot replicate this file to this URL.
        """
        self._file = file.absolute()
        self._options = replica.options
        self._folder = self._file.with_name(self._file.name + "-replica")
        self._control_path = _control_path(self._folder)
        replica.require_folder()
        self._control = Control(self._control_path)
        litestream.program()
        self._settings = litestream.configuration(self._file, self._folder, self._control_path, replica)
        self._progress = Progress(replica.url)
        self._stopping = threading.Event()
        self._settled = threading.Event()
        self._next_full_copy = 0.0  # when Litestream may be made to make one again; it can take hours
        self._complaints = 0  # of Litestream
        self._last_words = ""
        self._store: Store | None = None
        self._thread: threading.Thread | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._child_lock = threading.Lock()  # against a child that is started while `stop` looks for one

    def start(self, store: Store) -> None:
        """Begin to replicate; returns when Litestream runs, or it is clear that it does not for now.

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
        self._settled.wait(START_GRACE_S)

    def stop(self) -> None:
        """Let Litestream copy what is left and stop it; close the store first. Harmless when never started."""
        if self._stopping.is_set():
            return
        began = time.monotonic()
        with self._child_lock:
            child = self._child
        if child is not None:
            self._wait_for_a_run(child)
        self._stopping.set()
        is_ours = self._thread is not None and self._progress.status(None).state != "elsewhere"
        complaints = self._complaints
        if child is not None:
            child.terminate()
            _wait(child, self._options.stop_timeout_s + END_TIMEOUT_S)
        if self._thread is not None:
            self._thread.join()
        if child is not None and child.returncode == 0 and complaints == self._complaints:
            self._progress.finish(began)
        elif is_ours:
            _log.error("%s: the last changes may not be in the replica; they are in the store", self._file)
        if self._control_path.parent != self._folder:
            shutil.rmtree(self._control_path.parent, ignore_errors=True)
        self._progress.note("stopped")

    def _wait_for_a_run(self, child: subprocess.Popen[bytes]) -> None:
        """Litestream copies what is left when it stops, but not if it has only just started."""
        deadline = time.monotonic() + self._options.stop_timeout_s
        while child.poll() is None and time.monotonic() < deadline:
            try:
                look = self._control.look(self._file)
            except OSError:
                pass
            else:
                if look.is_copied or look.error:
                    return
            time.sleep(0.05)

    def status(self) -> ReplicaStatus:
        """What is known at this moment; waits for nothing."""
        return self._progress.status(None if self._store is None else self._store.wal_bytes)

    # --- the thread ------------------------------------------------------------------------------------------------

    def _run(self, store: Store) -> None:
        try:
            with self._only_one() as lock:
                if lock is not None:
                    self._keep_running(store, lock)
        except Exception:  # noqa: BLE001  # told in the log and the status; the store works on
            _log.exception("the replica of %s is not kept up any more; restart davsql", self._file)
            self._progress.note("failing", "the thread that watches Litestream failed")

    @contextmanager
    def _only_one(self) -> Iterator[int | None]:
        """Wait until nobody else has this store replicated; None when davsql is to stop before."""
        descriptor = os.open(self._folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            while not self._stopping.is_set():
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    self._settled.set()
                    if self._progress.note("elsewhere"):
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
                reason = f"Litestream ended with code {code}" + (f": {self._last_words}" if self._last_words else "")
            except (StoreError, OSError) as error:
                reason = f"Litestream was not started: {error}"
            if self._stopping.is_set():
                return
            self._settled.set()
            self._progress.note("failing", reason, is_restart=True)
            if time.monotonic() - started > HEALTHY_S:
                pause_s = BACKOFF_S[0]
            _log.error("%s: %s; started again in %.0f s", self._file, reason, pause_s)
            self._stopping.wait(pause_s)
            pause_s = min(2 * pause_s, BACKOFF_S[1])

    def _make_ready(self, store: Store) -> None:
        """Make sure of rule 3: after an empty WAL Litestream copies the whole store."""
        with store.read() as tx:
            if is_wal_known(tx):
                return
        store.write(leave_checkpoints)
        deadline = time.monotonic() + EMPTY_WAL_TIMEOUT_S
        while True:
            try:
                store.empty_wal()
                break
            except StoreBusy:
                if time.monotonic() > deadline or self._stopping.wait(0.1):
                    raise
        store.write(note_wal_is_known)

    def _run_once(self, store: Store, lock: int) -> int:
        """Start Litestream and watch it until it ends; return its exit code."""
        self._progress.note("starting")
        self._last_words = ""
        child: subprocess.Popen[bytes] | None = None
        lifeline, alive = os.pipe()
        try:
            try:
                child = self._spawn(lifeline, lock)
            finally:
                os.close(lifeline)
            self._settled.set()
            if child is None:
                return 0
            threading.Thread(target=self._forward, args=(child.stdout,), name="davsql-replica-log", daemon=True).start()
            self._watch(store, child)
            return child.wait()
        finally:
            os.close(alive)  # kills a Litestream that still runs
            with self._child_lock:
                self._child = None
            if child is not None:
                child.wait()

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
        phantom = PhantomWatch(store)
        started = time.monotonic()
        next_look = started + WHOLE_CHECK_S
        while child.poll() is None and not self._stopping.wait(self._options.interval_s / LOOKS_PER_INTERVAL):
            try:
                look = self._control.look(self._file)
            except OSError as error:
                if time.monotonic() - started > START_GRACE_S:
                    self._complain(str(error))
                continue
            if look.error:
                self._complain(look.error)
            if self._progress.see(look, store.wal_bytes):
                _log.info("%s is replicated to %s", self._file, self.status().url)
            if phantom.is_there(look):
                _log.warning("%s: a process died while it wrote; the whole store is copied again", self._file)
                store.write(leave_checkpoints)
                child.kill()
                return
            if time.monotonic() > next_look and self._progress.status(None).state == "replicating":
                next_look = time.monotonic() + WHOLE_CHECK_S
                if not self._is_whole() and time.monotonic() > self._next_full_copy:
                    self._next_full_copy = time.monotonic() + self._options.snapshot_interval_s
                    child.kill()  # when it starts, it looks which full copies the replica has
                    return

    def _is_whole(self) -> bool:
        """Whether the replica can be restored. A Litestream that runs does not notice that somebody emptied it."""
        try:
            litestream.restore(self._folder / "litestream.yml", self._file, is_dry_run=True)
        except ReplicaError as error:
            self._complain(f"the replica is not whole: {error}")
            return False
        return True

    def _complain(self, error: str) -> None:
        self._complaints += 1
        if self._progress.complain(error):
            _log.warning("%s is not being replicated: %s", self._file, error)

    def _forward(self, lines: IO[bytes]) -> None:
        """Litestream's log into ours; what it tells each second is for debugging."""
        with lines:
            for line in lines:
                level, message = _parsed(line)
                self._last_words = message if level >= logging.WARNING else ""
                _log.log(level, "litestream: %s", message)
                if level >= logging.ERROR:
                    self._complaints += 1
                    self._progress.complain(message)


def _parsed(line: bytes) -> tuple[int, str]:
    try:
        # A record may have "level" twice: the first one is meant.
        record = json.loads(line, object_pairs_hook=lambda pairs: dict(reversed(pairs)))
        level, message = _LEVELS[record.pop("level")], record.pop("msg")
        record.pop("time", None)
        return level, " ".join([message, *(f"{key}={value}" for key, value in reversed(record.items()))])
    except (ValueError, KeyError, AttributeError, TypeError):
        return logging.WARNING, line.decode(errors="replace").rstrip()


def _wait(child: subprocess.Popen[bytes], timeout_s: float) -> None:
    try:
        child.wait(timeout_s)
    except subprocess.TimeoutExpired:
        _log.warning("Litestream does not stop and is killed")
        child.kill()
        child.wait()


def _control_path(folder: Path) -> Path:
    path = folder / "control"
    if len(os.fsencode(path)) <= litestream.MAX_SOCKET_PATH_BYTES:
        return path
    return Path(tempfile.mkdtemp(prefix="davsql-")) / "control"

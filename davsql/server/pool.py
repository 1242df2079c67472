"""The threads that serve requests: cheroot's pool, grown while its threads wait for slow clients, stopped in time."""

from __future__ import annotations

import logging
import queue
import threading
import time
from typing import TYPE_CHECKING, Any

from cheroot.workers.threadpool import _SHUTDOWNREQUEST, ThreadPool, WorkerThread  # type: ignore[attr-defined]

from davsql.server.connection import as_connection
from davsql.server.round import SLOW_S, Round

if TYPE_CHECKING:
    from davsql.server.http import HttpServer

log = logging.getLogger(__name__)

LOOK_INTERVAL_S = 0.2  # a connection that waits longer than this for a thread gets a new one
GROW_STEP = 32
SHRINK_AFTER_LOOKS = 300
INTERRUPTED_TIMEOUT_S = 5.0  # for threads whose connections were cut; they have nothing to wait for any more

_CALL = object()  # in the queue: somebody has to go round


class WorkerPool(ThreadPool):
    """A bounded queue of connections with a request, and the threads that take them."""

    _queue: queue.Queue[Any]
    _threads: list[WorkerThread]

    def __init__(self, server: HttpServer) -> None:
        options = server.options
        super().__init__(
            server,
            min=options.threads,
            max=max(options.threads, options.threads_max),
            # stop() puts one message a thread into the queue; a put never waits: the selector's thread calls it
            accepted_queue_size=max(options.queue_size, options.threads_max, options.threads),
            accepted_queue_timeout=0,
        )
        self.round = Round(self._call, server.put_idle)
        self._has_called = False  # for a thread that goes round, which has not come yet
        self._take = self.get
        self.get = self._next
        self._taken = 0
        self._stopping = threading.Event()
        self._hurry = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="pool keeper", daemon=True)

    def start(self) -> None:
        """Start the threads."""
        super().start()
        self._keeper.start()

    def hurry(self) -> None:
        """Do not wait for running requests when stopping."""
        self._hurry.set()

    def stop(self, timeout: float | None = None) -> None:
        """End all threads: those at work get `timeout` seconds, then their connections are cut."""
        self._stopping.set()
        if self._keeper.is_alive():
            self._keeper.join()
        self.round.look()  # afterwards nobody is within `_call` any more
        self._close_waiting()
        threads = [thread for thread in self._threads if thread is not threading.current_thread()]
        self._threads.clear()
        for _ in threads:
            self._queue.put_nowait(_SHUTDOWNREQUEST)
        self._join(threads, timeout or 0.0, until=self._hurry)
        if any(thread.is_alive() for thread in threads):
            self.server.interrupt_connections()
            self._join(threads, INTERRUPTED_TIMEOUT_S)
        for thread in threads:
            if thread.is_alive():
                log.error("thread %s did not end; it is left behind", thread.name)

    def _join(self, threads: list[WorkerThread], timeout_s: float, until: threading.Event | None = None) -> None:
        deadline = time.monotonic() + timeout_s
        for thread in threads:
            while thread.is_alive() and not (until is not None and until.is_set()):
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    return
                thread.join(min(left_s, 0.1))

    def _close_waiting(self) -> None:
        """Requests that no thread has begun are not begun any more."""
        while True:
            try:
                connection = as_connection(self._queue.get_nowait())
            except queue.Empty:
                return
            if connection is not None:
                connection.close()

    def grow(self, amount: int) -> None:
        """Start up to `amount` more threads; unlike cheroot's this waits no tenth of a second for each."""
        budget = max(int(self.max) - len(self._threads), 0)
        workers = [self._spawn_worker() for _ in range(min(amount, budget))]
        for worker in workers:
            while not worker.ready:
                time.sleep(0.001)
        self._threads.extend(workers)

    def _spawn_worker(self) -> WorkerThread:
        worker = WorkerThread(self.server)  # type: ignore[no-untyped-call]
        worker.name = f"http {worker.name}"
        worker.daemon = True  # one that hangs must not keep the process
        worker.start()
        return worker

    def _next(self) -> object:
        """What a thread is to serve next."""
        while True:
            item = self.round.next(self._waiting) or self._take()
            self._taken += 1  # threads may lose a count to each other; it only has to show movement
            if item is _SHUTDOWNREQUEST:
                self.round.leave()
            if item is not _CALL:
                return item
            self._has_called = False

    def _waiting(self) -> object | None:
        try:
            return self._queue.get_nowait() if self.qsize else None
        except queue.Empty:  # another thread was faster
            return None

    def _call(self) -> None:
        """Wake a thread that has nothing to do, so that it looks whether anybody goes round; others come anyway."""
        has_idle = any(thread.conn is None for thread in self._threads)
        if has_idle and not self._has_called and not self._stopping.is_set():
            self._has_called = True
            try:
                self._queue.put_nowait(_CALL)
            except queue.Full:
                self._has_called = False

    def _keep(self) -> None:
        """Take the round from slow threads, grow while connections wait although time passes, shrink after a quiet
        minute.
        """
        waiting_before, taken_before, quiet_looks = 0, 0, 0
        look_at = 0.0
        while not self._stopping.wait(LOOK_INTERVAL_S if self.round.is_empty else SLOW_S):
            self.round.look()
            if time.monotonic() < look_at:
                continue
            look_at = time.monotonic() + LOOK_INTERVAL_S
            waiting, taken = self.qsize + self.round.left_alone, self._taken
            if waiting and taken - taken_before < waiting_before:
                self.grow(min(GROW_STEP, waiting))
            quiet_looks = quiet_looks + 1 if self.idle > len(self._threads) // 2 else 0
            if quiet_looks > SHRINK_AFTER_LOOKS:
                self.shrink(GROW_STEP)
                quiet_looks = 0
            waiting_before, taken_before = waiting, taken

"""The supervisor: starts the worker processes and the keeper, restarts what dies, replaces and stops them in order.

Workers serve requests. The keeper does what has to be done once: maintenance, replicas, answers to monitoring. It is
started and replaced like a worker, and stopped after them.

Rule 1: the supervisor has one thread and keeps no store open (children.py says why).
Rule 2: who waits here also notices signals and children that end: everything goes through `_wait`.
"""

from __future__ import annotations

import gc
import logging
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from davsql.errors import DavsqlError, WorkerFailed
from davsql.server import systemd
from davsql.server.children import CAUGHT, CUT, STOP, Child, Link, fork
from davsql.server.listening import bind_beside

START_TIMEOUT_S = 120.0  # Litestream may take its time
SETTLED_S = 10.0  # a child that lived so long is started again at once
PAUSES_S = (0.25, 30.0)  # before one that did not: the first time, and at most
CLOSE_LISTENER_FROM_S = 1.0  # with a shorter pause, connections wait for the next worker
STOP_MARGIN_S = 20.0  # beyond shutdown_timeout_s, to finish writing and to close the stores
SIGNALS_THAT_KILL = 3
KEEPER = "keeper"

_log = logging.getLogger(__name__)


class Service(Protocol):
    """What is to run, from one reading of the configuration."""

    @property
    def workers(self) -> int:
        """How many."""

    @property
    def shutdown_timeout_s(self) -> float:
        """What requests get when a worker stops."""

    def work(self, listener: socket.socket, link: Link) -> None:
        """Be a worker until the link says stop."""

    def keep(self, link: Link) -> None:
        """Be the keeper until the link says stop."""


@dataclass(eq=False)
class _Place:
    """Where a child runs, and after it the next one."""

    name: str
    listener: socket.socket | None = None  # of a worker
    child: Child | None = None
    pause_s: float = 0.0
    due: float | None = None  # when the next child starts; None: one runs

    def close(self) -> None:
        if self.listener is not None:
            self.listener.close()
            self.listener = None


@dataclass(eq=False)
class _Told:
    """What signals have asked for."""

    stops: int = 0
    reloads: int = 0


class Supervisor:
    """Owns the children of one `davsql serve`."""

    def __init__(self, first: socket.socket, service: Service, reread: Callable[[], Service]) -> None:
        """Nothing is started.

        Args:
            first: bound where clients connect; from listening.py.
            reread: the service as the configuration describes it now. Raises DavsqlError or OSError.
        """
        self._first = first  # never listens: it holds the port
        self._service = service
        self._reread = reread
        self._keeper = _Place(KEEPER)
        self._places: list[_Place] = []
        self._retiring: list[Child] = []  # told to stop, and replaced
        self._told = _Told()
        self._is_running = False  # all were ready once: what dies is started again
        self._wake, self._wakeup = socket.socketpair()

    def run(self, announce: Callable[[str], None]) -> None:
        """Start everything, call `announce` with what the keeper said, and return when all has stopped.

        Raises:
            WorkerFailed: a child failed before all were ready; all are stopped.
        """
        gc.freeze()  # what is shared with the children is not written to by their collector
        with self._catching_signals():
            try:
                self._start()
                self._is_running = True
                if not self._told.stops:
                    announce(self._keeper.child.detail if self._keeper.child else "")
                    systemd.notify(systemd.READY)
                while not self._told.stops:
                    self._wait(self._restart_due())
                    if self._told.reloads:
                        self._reload()
            finally:
                systemd.notify(systemd.STOPPING)
                self._stop()

    # --- starting ------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._places = [_Place(f"worker {number}") for number in range(1, self._service.workers + 1)]
        for place in self._all_places():
            place.child = self._fork(place)
        for place in self._all_places():
            if place.child is not None and not self._is_ready(place.child) and not self._told.stops:
                raise WorkerFailed(place.child.detail or f"{place.child} {place.child.ending}")
        self._introduce(self._keeper)

    def _all_places(self) -> Iterator[_Place]:
        yield from self._places
        yield self._keeper

    def _fork(self, place: _Place) -> Child:
        if place is self._keeper:
            return fork(place.name, self._service.keep, self._foreign(None))
        if place.listener is None:
            place.listener = bind_beside(self._first)
        listener, service = place.listener, self._service
        return fork(place.name, lambda link: service.work(listener, link), self._foreign(listener))

    def _foreign(self, listener: socket.socket | None) -> list[socket.socket | Child]:
        """What a child must not keep open: it would keep the port, or the links of others, when all else is gone."""
        listeners = [
            place.listener for place in self._places if place.listener is not None and place.listener is not listener
        ]
        children = [place.child for place in self._all_places() if place.child is not None]
        return [self._first, self._wake, self._wakeup, *listeners, *children, *self._retiring]

    def _is_ready(self, child: Child) -> bool:
        """Wait until a child is ready, has ended, takes too long, or all are to stop."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while child.exit_code is None and not child.is_ready and not self._told.stops and time.monotonic() < deadline:
            self._wait(deadline - time.monotonic())
        return child.is_ready and child.exit_code is None

    def _introduce(self, new: _Place) -> None:
        """Bring the keeper and the workers together, where one of them is new."""
        keeper = self._keeper.child
        for place in self._places if new is self._keeper else [new]:
            if keeper is not None and place.child is not None and place.child.exit_code is None:
                keeper.introduce(place.child)

    # --- waiting -------------------------------------------------------------------------------------------------

    def _wait(self, timeout_s: float | None) -> None:
        """Until a signal comes, a child says something or ends, or the time is over; take it down."""
        children = self._children()
        listening = [self._wake, *(each.orders for each in children)]
        select.select(listening, [], [], None if timeout_s is None else max(0.0, timeout_s))
        self._take_signals()
        for child in children:
            child.hear()
            child.look()
        self._retiring = [each for each in self._retiring if each.exit_code is None]
        for place in self._all_places():
            if place.child is not None and place.child.exit_code is not None:
                self._note_end(place, place.child)

    def _children(self) -> list[Child]:
        placed = [place.child for place in self._all_places() if place.child is not None]
        return [each for each in (*placed, *self._retiring) if each.exit_code is None]

    def _take_signals(self) -> None:
        try:
            numbers = self._wake.recv(1024)
        except BlockingIOError:
            return
        for number in numbers:
            if number in (signal.SIGTERM, signal.SIGINT):
                self._told.stops += 1
                _log.warning("%s: stopping", signal.Signals(number).name)
            elif number == signal.SIGHUP:
                self._told.reloads += 1

    def _note_end(self, place: _Place, child: Child) -> None:
        """A child ended that was not told to: its place waits for the next one."""
        if place.due is not None or self._told.stops or not self._is_running:
            return
        is_settled = child.is_ready and time.monotonic() - child.started > SETTLED_S
        place.pause_s = 0.0 if is_settled else min(max(PAUSES_S[0], 2 * place.pause_s), PAUSES_S[1])
        place.due = time.monotonic() + place.pause_s
        if place.pause_s >= CLOSE_LISTENER_FROM_S:
            place.close()  # others get its connections meanwhile
        _log.error("%s %s; started again in %.2f s", child, child.ending, place.pause_s)

    def _restart_due(self) -> float | None:
        """Start what is due; returns the seconds until the next one is, None when nothing waits."""
        for place in self._all_places():
            if place.due is not None and place.due <= time.monotonic():
                try:
                    place.child, place.due = self._fork(place), None
                except OSError as error:  # no memory, no more processes, the port is gone
                    place.due = time.monotonic() + PAUSES_S[1]
                    _log.error("%s cannot be started: %s", place.name, error)
                else:
                    self._introduce(place)
        dues = [place.due for place in self._all_places() if place.due is not None]
        return min(dues) - time.monotonic() if dues else None

    # --- a new configuration -------------------------------------------------------------------------------------

    def _reload(self) -> None:
        """Replace all children, one after another, by ones with the configuration as it is now.

        When it cannot be used, or the first worker with it does not become ready, everything stays as it is.
        """
        self._told.reloads = 0
        _log.warning("SIGHUP: reading the configuration again")
        before = self._service
        try:
            self._service = self._reread()
        except (DavsqlError, OSError) as error:
            _log.error("the configuration is not used, the old one stays: %s", error)
            return
        for place in self._places[: self._service.workers]:
            if not self._replace(place):
                if place is not self._places[0] and not self._told.stops:
                    _log.error("some workers have the new configuration, the others the old one; restart davsql")
                elif not self._told.stops:
                    self._service = before
                return
        self._fit_number()
        self._wait_for_end(self._retiring, time.monotonic() + before.shutdown_timeout_s + STOP_MARGIN_S)
        if not self._told.stops:
            self._replace_keeper()
            _log.warning("the configuration was read again: %d workers use it", len(self._places))

    def _replace(self, place: _Place) -> bool:
        """Put a new child into a place; the old one stops when the new one is ready. False: the old one stays."""
        new = self._fork(place)
        self._retiring.append(new)  # known to `_wait`, and stopped with all others
        if not self._is_ready(new):
            if not self._told.stops:
                _log.error("%s does not replace the old one, which stays: %s", new, new.detail or new.ending)
            new.kill()
            return False
        self._retiring.remove(new)
        old, place.child, place.due, place.pause_s = place.child, new, None, 0.0
        self._introduce(place)
        if old is not None and old.exit_code is None:
            old.tell(STOP)
            self._retiring.append(old)
        return True

    def _fit_number(self) -> None:
        """As many workers as the new configuration wants."""
        for place in self._places[self._service.workers :]:
            place.close()
            if place.child is not None and place.child.exit_code is None:
                place.child.tell(STOP)
                self._retiring.append(place.child)
        del self._places[self._service.workers :]
        for number in range(len(self._places) + 1, self._service.workers + 1):
            self._places.append(_Place(f"worker {number}", due=time.monotonic()))
        self._restart_due()

    def _replace_keeper(self) -> None:
        """After the workers: the old one has the lock of maintenance and the port of monitoring."""
        old = self._keeper.child
        if old is not None and old.exit_code is None:
            self._keeper.child = None
            self._retiring.append(old)
            old.tell(STOP)
            self._wait_for_end([old], None)
        if not self._told.stops:
            self._keeper.due = time.monotonic()
            self._restart_due()

    # --- stopping ------------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        """Workers first, then the keeper: a replica has to see the last commit."""
        self._told.stops = max(1, self._told.stops)  # nothing is started any more
        for place in self._places:
            place.close()
        self._first.close()
        keeper = self._keeper.child
        workers = [each for each in self._children() if each is not keeper]
        for each in workers:
            each.tell(STOP)
        self._wait_for_end(workers, time.monotonic() + self._service.shutdown_timeout_s + STOP_MARGIN_S)
        if keeper is not None and keeper.exit_code is None:
            keeper.tell(STOP)
            self._wait_for_end([keeper], None)

    def _wait_for_end(self, children: Sequence[Child], deadline: float | None) -> None:
        """Until these have ended. A second signal cuts what they do; a third one kills them, as the deadline does."""
        waited, seen = list(children), self._told.stops
        while any(each.exit_code is None for each in waited):
            self._wait(None if deadline is None else deadline - time.monotonic())
            if self._told.stops > seen:
                seen = self._told.stops
                if seen == 1:  # in the middle of a reload: all are to stop
                    return
                for each in waited:
                    each.tell(CUT)
                    if seen >= SIGNALS_THAT_KILL:
                        each.kill()
            if deadline is not None and time.monotonic() >= deadline:
                deadline = None
                for each in waited:
                    if each.exit_code is None:
                        _log.error("%s does not end and is killed", each)
                        each.kill()

    @contextmanager
    def _catching_signals(self) -> Iterator[None]:
        """Signals become bytes to be read: nothing happens in a handler."""
        for end in (self._wake, self._wakeup):
            end.settimeout(0)
        previous = {number: signal.signal(number, lambda _number, _frame: None) for number in CAUGHT}
        fd = signal.set_wakeup_fd(self._wakeup.fileno())
        try:
            yield
        finally:
            signal.set_wakeup_fd(fd)
            for number, handler in previous.items():
                signal.signal(number, handler)
            self._wake.close()
            self._wakeup.close()

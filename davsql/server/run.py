"""Serve until told to stop, then stop in order: listener, requests, and last what they stand on."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from davsql.server import systemd
from davsql.server.http import HttpServer

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from davsql.server.children import Link

log = logging.getLogger(__name__)

# SIGBREAK is Ctrl+Break on Windows, where SIGTERM never comes from outside
SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGBREAK") if hasattr(signal, name)]


def run(server: HttpServer, on_stop: Callable[[], object], announce: Callable[[], object] = lambda: None) -> None:
    """Serve until a signal or `server.stop()`; `on_stop` runs when no request does any more.

    `announce` is called once signals are handled: who reads what it says may stop us at once.

    The first signal lets running requests end, the second cuts them, the third kills the process.
    `server.prepare()` is called if nobody did. Signals are handled if this is the main thread.
    """
    stopper = _Stopper(server)
    with _signals(stopper):
        try:
            if not server.ready:
                server.prepare()
            announce()
            systemd.notify(systemd.READY)
            server.serve()
        finally:
            systemd.notify(systemd.STOPPING)
            stopper.finish()
            on_stop()


def run_worker(server: HttpServer, link: Link, on_stop: Callable[[], object], answer: Callable[[str], object]) -> None:
    """As `run`, where a supervisor says when to stop: `server` was prepared.

    Args:
        answer: what is asked through the link. Called on a thread of its own.
    """
    stopper = _Stopper(server, answer)
    threading.Thread(target=link.follow, args=(stopper,), name="davsql-link", daemon=True).start()
    link.ready()
    try:
        server.serve()
    finally:
        stopper.finish()
        on_stop()


@contextmanager
def _signals(stopper: _Stopper) -> Iterator[None]:
    previous: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        previous = {number: signal.signal(number, stopper.on_signal) for number in SIGNALS}
        if hasattr(signal, "SIGHUP"):
            previous[signal.SIGHUP] = signal.signal(signal.SIGHUP, stopper.on_hangup)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class _Stopper:
    """Stops the server from a thread of its own: who says so must not wait."""

    def __init__(self, server: HttpServer, answer: Callable[[str], object] | None = None) -> None:
        self._server = server
        self._answer = answer
        self._thread = threading.Thread(target=server.stop, name="stop")
        self._is_stopping = False

    def stop(self) -> bool:
        """Let running requests end; said again it changes nothing. They may have to be cut: False."""
        if not self._is_stopping:
            self._is_stopping = True
            self._thread.start()
        return False

    def cut(self) -> None:
        """Do not wait for them any more."""
        self._server.hurry()

    def meet(self, pid: int, connection: Connection) -> None:
        """A worker has nobody to ask."""

    def answer(self, question: str) -> object:
        """What the keeper wants to know."""
        return None if self._answer is None else self._answer(question)

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        if not self._is_stopping:
            log.warning("%s: stopping", signal.Signals(number).name)
            self.stop()
        else:
            log.warning("%s again: running requests are cut", signal.Signals(number).name)
            self.cut()
            for each in SIGNALS:
                signal.signal(each, signal.SIG_DFL)

    def on_hangup(self, number: int, frame: FrameType | None) -> None:
        """A terminal that is closed ends what runs in it; where there is none, somebody wants a reload."""
        if os.isatty(0):
            self.on_signal(number, frame)
        else:
            log.warning("SIGHUP: a server of one process reads its configuration at its start only")

    def finish(self) -> None:
        """Return when the server has stopped."""
        if self._is_stopping:
            self._thread.join()
        self._server.stop()

"""Serve until SIGTERM or SIGINT, then stop in order: listener, requests, and last what they stand on."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from davsql.server.http import HttpServer

log = logging.getLogger(__name__)

# SIGBREAK is Ctrl+Break on Windows, where SIGTERM never comes from outside
SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGBREAK") if hasattr(signal, name)]


def run(server: HttpServer, on_stop: Callable[[], object]) -> None:
    """Serve until a signal or `server.stop()`; `on_stop` runs when no request does any more.

    The first signal lets running requests end, the second cuts them, the third kills the process.
    `server.prepare()` is called if nobody did. Signals are handled if this is the main thread.
    """
    stopper = _Stopper(server)
    previous: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        previous = {number: signal.signal(number, stopper.on_signal) for number in SIGNALS}
    try:
        if not server.ready:
            server.prepare()
        server.serve()
    finally:
        try:
            stopper.finish()
            on_stop()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


class _Stopper:
    """Stops the server from a thread of its own: a signal handler must not wait."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._thread = threading.Thread(target=server.stop, name="stop")
        self._signals_seen = 0

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._signals_seen += 1
        if self._signals_seen == 1:
            log.warning("%s: stopping", signal.Signals(number).name)
            self._thread.start()
        else:
            log.warning("%s again: running requests are cut", signal.Signals(number).name)
            self._server.hurry()
            for each in SIGNALS:
                signal.signal(each, signal.SIG_DFL)

    def finish(self) -> None:
        """Return when the server has stopped."""
        if self._signals_seen:
            self._thread.join()
        self._server.stop()

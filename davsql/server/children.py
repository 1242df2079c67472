"""A child process and the link to it.

Rule 1: a child is forked while this process has one thread and no store open: neither survives a fork
        (https://www.sqlite.org/howtocorrupt.html 2.6). Forked children share the memory of what is imported.
Rule 2: each child holds one end of a link and the supervisor the other one. When the supervisor is gone, however it
        ended, the child reads the end of the link and stops.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import NoReturn, Protocol

from davsql.errors import DavsqlError

STOP, CUT, MEET = "stop", "cut", "meet"  # what the supervisor says; MEET brings a connection to a worker
READY, FAILED = "ready", "failed"  # what a child says
MESSAGE_BYTES = 4096
# SIGHUP too: a terminal that is closed sends it to all processes at once, and the supervisor decides.
CAUGHT = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD) if os.name == "posix" else ()

_log = logging.getLogger(__name__)


class Obedient(Protocol):
    """What a child does when it is told to. Called on the thread that runs `Link.follow`."""

    def stop(self) -> bool:
        """Let what runs end; said again it changes nothing. True: there is nothing more to be told."""

    def cut(self) -> None:
        """Do not wait for it any more."""

    def meet(self, pid: int, connection: Connection) -> None:
        """A worker that can be asked."""

    def answer(self, question: str) -> object:
        """What was asked through the other end of `Link.questions`."""


class Link:
    """The child's end."""

    def __init__(self, orders: socket.socket, questions: Connection) -> None:
        self._orders = orders
        self._questions = questions

    def ready(self, detail: str = "") -> None:
        """Say that the child does its work."""
        self._say(READY, detail)

    def fail(self, reason: str) -> None:
        """Say why it ends."""
        self._say(FAILED, reason)

    def follow(self, child: Obedient) -> None:
        """Do as told, until `stop` returns True or nobody is left who could tell."""
        sources: list[socket.socket | Connection] = [self._orders, self._questions]
        while True:
            for source in wait(sources):
                if source is self._questions:
                    try:
                        self._questions.send(child.answer(self._questions.recv()))
                    except (EOFError, OSError):  # whoever asked is gone
                        sources.remove(self._questions)
                elif self._obey(child):
                    return

    def _obey(self, child: Obedient) -> bool:
        """Take one order; True when it was the last one."""
        message = b""
        descriptors: list[int] = []
        with suppress(OSError):
            message, descriptors, _, _ = socket.recv_fds(self._orders, MESSAGE_BYTES, 1)
        order, _, detail = message.decode().partition(" ")
        if order == MEET:
            child.meet(int(detail), Connection(descriptors[0]))
        elif order == CUT:
            child.cut()
        elif order == STOP:
            return child.stop()
        else:  # the supervisor was killed: whoever starts the next one wants the port now
            child.stop()
            child.cut()
            return True
        return False

    def _say(self, word: str, detail: str) -> None:
        with suppress(OSError):  # the end of the link is noticed by `follow`
            self._orders.send(f"{word} {detail}".encode()[:MESSAGE_BYTES])


class Child:
    """The supervisor's end."""

    def __init__(self, name: str, pid: int, orders: socket.socket, questions: Connection) -> None:
        self.name = name
        self.pid = pid
        self.orders = orders
        self.questions = questions  # for whoever is to ask it
        self.started = time.monotonic()
        self.is_ready = False
        self.detail = ""  # what came with "ready", or why it failed
        self.exit_code: int | None = None  # None while it runs; negative: the signal that ended it

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})"

    def tell(self, order: str) -> None:
        """Give an order; one that is gone already hears nothing."""
        with suppress(OSError):
            self.orders.send(order.encode())

    def introduce(self, worker: Child) -> None:
        """Give it a connection to a worker."""
        with suppress(OSError):
            socket.send_fds(self.orders, [f"{MEET} {worker.pid}".encode()], [worker.questions.fileno()])

    def hear(self) -> None:
        """Take down what it has said."""
        with suppress(OSError):
            while message := self.orders.recv(MESSAGE_BYTES, socket.MSG_DONTWAIT):
                word, _, self.detail = message.decode(errors="replace").partition(" ")
                self.is_ready = word == READY

    def look(self) -> None:
        """Notice that it has ended."""
        if self.exit_code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.hear()  # its last words
                self.exit_code = os.waitstatus_to_exitcode(status)
                self.close()

    def kill(self) -> None:
        """End it at once."""
        if self.exit_code is None:
            os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Let go of the link."""
        self.orders.close()
        self.questions.close()

    @property
    def ending(self) -> str:
        """How it ended, in words."""
        if self.exit_code is not None and self.exit_code < 0:
            return f"was ended by {signal.Signals(-self.exit_code).name}"
        return f"ended with code {self.exit_code}" + ("" if self.is_ready or not self.detail else f": {self.detail}")


def fork(name: str, work: Callable[[Link], object], foreign: Iterable[socket.socket | Connection | Child]) -> Child:
    """Start a child that runs `work` and ends with it.

    Args:
        foreign: what this process has open and the child must not keep open.
    """
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    asking, answering = Pipe()
    sys.stdout.flush()
    # A signal between the fork and `_forget_signals` would run the supervisor's handler in the child.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, CAUGHT)
    pid = os.fork()
    if not pid:
        _forget_signals(before)
        for each in (mine, asking, *foreign):
            each.close()
        _live(Link(theirs, answering), name, work)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()
    answering.close()
    return Child(name, pid, mine, asking)


def _forget_signals(mask: Iterable[int]) -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        # Ctrl-C and systemd send them to all; the supervisor says what to do. Not SIG_IGN, which programs inherit.
        signal.signal(number, lambda _number, _frame: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _live(link: Link, name: str, work: Callable[[Link], object]) -> NoReturn:
    """The whole life of a child; what the supervisor has on its stack is never returned to."""
    code = 1
    with suppress(OSError):  # for ps and top; only Linux has this
        Path("/proc/self/comm").write_text(f"davsql-{name}", encoding="ascii")
    try:
        work(link)
        code = 0
    except (DavsqlError, OSError) as error:
        link.fail(str(error))
    except BaseException as error:  # noqa: BLE001  # nothing of what is above on the stack may run in a child
        _log.exception("%s failed", name)
        link.fail(repr(error))
    finally:
        with suppress(BaseException):
            sys.stdout.flush()
        os._exit(code)

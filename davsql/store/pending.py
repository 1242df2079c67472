"""A command on its way to the writer, and the answer on its way back. Threads: any."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

import apsw

from davsql.store.transaction import WriteTx

Result = TypeVar("Result")
Command = Callable[[WriteTx], Result]


class Pending(Generic[Result]):
    """A command on its way; `wait` gives its result after COMMIT."""

    __slots__ = ("_answered", "_error", "_result", "alone", "command", "is_answered", "queued_ns", "size_bytes")

    def __init__(
        self, command: Command[Result], size_bytes: int, alone: Callable[[apsw.Connection], Result] | None = None
    ) -> None:
        self.command = command
        self.alone = alone  # instead of `command`: not in a transaction of ours
        self.size_bytes = size_bytes
        self.queued_ns = time.monotonic_ns()
        self.is_answered = False
        self._answered = threading.Lock()
        self._answered.acquire()
        self._result: Result | None = None
        self._error: BaseException | None = None

    def answer(self, result: Result | None, error: BaseException | None) -> None:
        self._result, self._error = result, error
        self.is_answered = True
        self._answered.release()

    def wait(self) -> Result:
        """Block until the command is committed or has failed; call once.

        Raises:
            StoreError: the command failed and nothing of it is in the store.
        """
        self._answered.acquire()
        if self._error is not None:
            raise self._error
        return cast(Result, self._result)


def no_command(_tx: WriteTx) -> Any:
    raise AssertionError("a pending statement runs alone")

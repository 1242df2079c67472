"""What clients have done to names that all of them write, and what may therefore be there.

A write that was acknowledged is gone only if another one to the same name began later. A write without an answer
may have happened or not.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from threading import Lock

from tests.lost_data.torture.content import Content


@dataclass(slots=True, eq=False)
class SharedWrite:
    """A content that is put under a shared name, or its removal (None)."""

    name: str
    content: Content | None
    began_ns: int = 0
    ended_ns: int | None = None  # None: no answer yet, or never


class History:
    """The writes of one run of the server, by name. Threads: any."""

    def __init__(self) -> None:
        self._writes: dict[str, list[SharedWrite]] = {}
        self._lock = Lock()

    def start_again(self, found: dict[str, Content | None]) -> None:
        """Forget everything; this is what is there now."""
        now = time.monotonic_ns()
        with self._lock:
            self._writes = {name: [SharedWrite(name, found[name], now, now)] for name in found}

    def begin(self, write: SharedWrite) -> None:
        """Note an intent, before it is sent."""
        with self._lock:
            write.began_ns = time.monotonic_ns()
            self._writes[write.name].append(write)

    def acknowledge(self, write: SharedWrite) -> None:
        """Note that it has happened."""
        with self._lock:
            write.ended_ns = time.monotonic_ns()

    def withdraw(self, write: SharedWrite) -> None:
        """Note that it has not happened and never will."""
        with self._lock:
            self._writes[write.name].remove(write)

    def possible(self, name: str, read_began_ns: int | None = None) -> list[Content | None]:
        """What a read that began then (default: now) could find."""
        with self._lock:
            read_ns = time.monotonic_ns() if read_began_ns is None else read_began_ns
            writes = self._writes[name]
            settled = [write for write in writes if write.ended_ns is not None and write.ended_ns < read_ns]
            last_began_ns = max(write.began_ns for write in settled)
            return [write.content for write in writes if write.ended_ns is None or write.ended_ns >= last_began_ns]

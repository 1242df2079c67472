"""What a process remembers of credentials that it has looked at: nothing that could be used elsewhere, nor for long.

A credential is remembered as a keyed hash with a key that only this process has. What is remembered is true of one
generation of the accounts (schema.sql, rule 2): whoever asks brings the present one.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from dataclasses import dataclass
from typing import Generic, TypeVar

_Answer = TypeVar("_Answer")

MAX_ENTRIES = 10_000
MAX_AGE_S = 3600.0  # even of what is used all the time: passwords are hashed again, with the parameters of today


@dataclass(slots=True)
class _Entry(Generic[_Answer]):
    answer: _Answer
    generation: int
    idle_until: float  # time.monotonic()
    until: float


class Memory(Generic[_Answer]):
    """Answers given lately, by credential. Threads: any."""

    def __init__(self, idle_s: float = MAX_AGE_S) -> None:
        """Args: idle_s: how long an unused answer is kept."""
        self._idle_s = idle_s
        self._key = secrets.token_bytes(32)
        self._entries: dict[bytes, _Entry[_Answer]] = {}
        self._lock = threading.Lock()

    def recall(self, credential: str, generation: int) -> _Answer | None:
        """The answer that was given; None: there is none that is still true."""
        entry = self._entries.get(self._hash(credential))
        if entry is None or entry.generation != generation:
            return None
        now = time.monotonic()
        if now >= entry.idle_until or now >= entry.until:
            return None
        entry.idle_until = now + self._idle_s
        return entry.answer

    def keep(self, credential: str, answer: _Answer, generation: int, age_s: float = MAX_AGE_S) -> None:
        """Remember an answer for `age_s` seconds at most.

        Args:
            generation: read before what the answer was made of.
        """
        now = time.monotonic()
        with self._lock:
            while len(self._entries) >= MAX_ENTRIES:
                del self._entries[next(iter(self._entries))]
            until = now + min(age_s, MAX_AGE_S)
            self._entries[self._hash(credential)] = _Entry(answer, generation, now + self._idle_s, until)

    def _hash(self, credential: str) -> bytes:
        return hashlib.blake2b(credential.encode("utf-8", "surrogatepass"), key=self._key, digest_size=32).digest()

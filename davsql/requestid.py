"""The id of the request that a thread serves: one for its answer, its line in each log, and the proxy in front.

Threads: any; each knows the id of its own request only.
"""

from __future__ import annotations

import re
import threading
from secrets import token_hex

HEADER = "X-Request-ID"

# What proxies make of their own: UUIDs, hex, base64, with the separators that are usual.
_SANE = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


class _Thread(threading.local):
    def __init__(self) -> None:
        self.prefix = token_hex(6)  # no other thread has it, of whatever process
        self.count = 0
        self.current = ""


_thread = _Thread()


def begin() -> None:
    """A request begins: make an id."""
    _thread.count += 1
    _thread.current = f"{_thread.prefix}-{_thread.count:x}"


def adopt(text: str) -> None:
    """Take the id that a trusted proxy has given, if it is one."""
    if _SANE.fullmatch(text):
        _thread.current = text


def current() -> str:
    """The id of the request that this thread serves; "" when it serves none."""
    return _thread.current


def end() -> None:
    """The request is over."""
    _thread.current = ""

"""The access log: one line for each request, in one write, so that the lines of several processes do not mix.

No secrets: neither passwords nor cookies, no query, and of a Referer only what stands before its query.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from davsql.requestid import current

if TYPE_CHECKING:
    from davsql.server.head import RequestHead
    from davsql.server.response import Response

log = logging.getLogger(__name__)

Form = Literal["combined", "json"]

LOOK_INTERVAL_S = 1.0  # between two looks whether the file was renamed

_UNPRINTABLE = re.compile(r"[^ !#-\[\]-~]")  # quotes and backslashes too
_USER_INFORMATION = re.compile(r"//[^/@]*@")


class AccessLog:
    """Appends lines to a file, or to standard error. Threads: any."""

    def __init__(self, form: Form, file: Path | None) -> None:
        """Open it; OSError when that cannot be done."""
        self._render: Callable[[_Access], str] = _as_json if form == "json" else _as_combined
        self._file = file
        self._descriptor = sys.stderr.fileno() if file is None else _open(file)
        self._look_at = time.monotonic() + LOOK_INTERVAL_S
        self._has_failed = False

    def add(
        self, head: RequestHead, environ: Mapping[str, Any], response: Response, sent_bytes: int, took_ns: int
    ) -> None:
        """Add the line of a request that was answered."""
        size = max(0, sent_bytes - response.head_end) if response.is_started else 0
        line = self._render(_Access(head, environ, response.code, size, took_ns))
        try:
            if self._file is not None and time.monotonic() > self._look_at:
                self._reopen(self._file)
            os.write(self._descriptor, line.encode("ascii"))
            self._has_failed = False
        except OSError as error:
            if not self._has_failed:  # a full disk must not fill the log
                self._has_failed = True
                log.error("the access log cannot be written: %s", error)  # noqa: TRY400  # it says all

    def _reopen(self, file: Path) -> None:
        """Go on in a new file where a log rotation has renamed the old one."""
        self._look_at = time.monotonic() + LOOK_INTERVAL_S
        try:
            if os.path.samestat(os.fstat(self._descriptor), file.stat()):
                return
        except FileNotFoundError:
            pass
        new = _open(file)
        os.dup2(new, self._descriptor, inheritable=False)  # other threads may be writing
        os.close(new)


class _Access:
    """What a line tells."""

    __slots__ = ("address", "agent", "code", "duration_s", "method", "path", "referer", "size", "user", "version")

    def __init__(self, head: RequestHead, environ: Mapping[str, Any], code: str, size: int, took_ns: int) -> None:
        self.address: str = environ["REMOTE_ADDR"]
        self.user: str | None = environ.get("REMOTE_USER")
        self.method = head.method
        self.path = head.path
        self.version = head.version
        self.code = code
        self.size = size
        self.duration_s = took_ns / 1_000_000_000
        referer: str | None = environ.get("HTTP_REFERER")
        self.referer = referer and _USER_INFORMATION.sub("//", referer.partition("?")[0])
        self.agent: str | None = environ.get("HTTP_USER_AGENT")


def _as_combined(access: _Access) -> str:
    """As Apache and nginx write it, with the seconds that it took and the request's id behind."""
    user = _escaped(access.user).replace(" ", "\\x20") if access.user else "-"
    return (
        f"{access.address} - {user} [{_common_time(int(time.time()))}] "
        f'"{access.method} {_escaped(access.path)} HTTP/{access.version}" {access.code or "-"} {access.size} '
        f'"{_escaped(access.referer or "-")}" "{_escaped(access.agent or "-")}" '
        f"{access.duration_s:.6f} {current() or '-'}\n"
    )


def _as_json(access: _Access) -> str:
    fields = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "address": access.address,
        "user": access.user,
        "method": access.method,
        "path": access.path,
        "protocol": f"HTTP/{access.version}",
        "status": int(access.code) if access.code else None,
        "bytes": access.size,
        "duration_s": round(access.duration_s, 6),
        "referer": access.referer,
        "user_agent": access.agent,
        "request_id": current(),
    }
    return json.dumps(fields, separators=(",", ":")) + "\n"


def _escaped(text: str) -> str:
    return _UNPRINTABLE.sub(lambda found: "".join(f"\\x{byte:02x}" for byte in found.group().encode()), text)


@lru_cache(2)
def _common_time(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%d/%b/%Y:%H:%M:%S +0000")


def _open(file: Path) -> int:
    return os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)

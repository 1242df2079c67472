"""A desktop without a screen: a session bus of its own. The daemons of file managers start on it and end with it.

All they write is in a folder under /tmp: pytest's have paths too long for the sockets that they make.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.clients.programs import find_program

TELL_AND_WAIT = 'echo "$DBUS_SESSION_BUS_ADDRESS"; cat'  # until our end of the pipe is closed, even by SIGKILL
STOP_TIMEOUT_S = 20

QUIET = {
    "GVFS_DISABLE_FUSE": "1",
    "GVFS_REMOTE_VOLUME_MONITOR_IGNORE": "1",  # else it looks for cameras and telephones
    "QT_QPA_PLATFORM": "offscreen",
}


@contextmanager
def desktop_session() -> Iterator[Mapping[str, str]]:
    """The settings with which programs take part in a new session; it ends with the block."""
    with tempfile.TemporaryDirectory(prefix="davsql-desktop-", ignore_cleanup_errors=True) as home:
        settings = {"HOME": home, "XDG_RUNTIME_DIR": home, "LC_ALL": "C.UTF-8", **QUIET}
        dbus = find_program("dbus-run-session", Path(home), settings)
        command = [dbus.path, "--", "sh", "-c", TELL_AND_WAIT]
        with subprocess.Popen(
            command,
            cwd=home,
            env=dbus.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as session:
            assert session.stdin is not None
            assert session.stdout is not None
            address = session.stdout.readline().strip()
            assert address, "no session bus"
            try:
                yield settings | {"DBUS_SESSION_BUS_ADDRESS": address}
            finally:
                session.stdin.close()
                session.wait(STOP_TIMEOUT_S)
                _end_what_stays(home)


def _end_what_stays(home: str) -> None:
    """Kill the daemons that do not end with the bus: those of KDE."""
    mark = f"HOME={home}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is not ours
            if mark in (process / "environ").read_bytes().split(b"\0"):
                os.kill(int(process.name), signal.SIGKILL)

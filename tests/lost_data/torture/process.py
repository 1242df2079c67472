"""The real server as a process of its own: started, waited for, killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from davsql.keys.envelope import DataKey, new_data_key
from davsql.keys.file import write_private
from davsql.keys.secret import GivenKey, new_key_text
from davsql.store.options import StoreOptions
from davsql.store.pins import GRACE_S_MIN
from davsql.store.store import Store
from tests.http_client import request
from tests.lost_data.site import BROKEN

ROOT = Path(__file__).parents[3]
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0
POLL_S = 0.003

# GC runs all the time, so that kills hit it as well.
CONFIGURATION = """\
[server]
port = {port}
workers = {workers}
shutdown_timeout_s = 0.5
[admin]
port = 0
[store]
durability = "{durability}"
[maintenance]
gc_interval_s = 0.3
gc_grace_s = {grace_s}
upload_expiry_s = 3.0
[[share]]
name = ""
db = "{db}"
{more}
"""


KEY_FILE = "torture.key"


def _make_encrypted(store: Path) -> DataKey:
    """An empty encrypted store, and a file with its key beside it."""
    text = new_key_text()
    write_private(store.with_name(KEY_FILE), text.encode(), may_replace=False)
    key = new_data_key(StoreOptions().page_size, [("key", GivenKey(text))])
    Store.open(store, StoreOptions(key=key), create=True).close()
    return key


class ServerProcess:
    """`davsql serve` over one store, again and again on one port."""

    def __init__(self, folder: Path, durability: str, workers: int = 1, *, is_encrypted: bool = False) -> None:
        self.store = folder / "torture.db"
        self.key = _make_encrypted(self.store) if is_encrypted else None
        self.log = folder / "server.log"
        self.configuration = folder / "torture.toml"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = ("127.0.0.1", int(free.getsockname()[1]))
        text = CONFIGURATION.format(
            port=self.address[1],
            workers=workers,
            durability=durability,
            grace_s=1.0 if workers == 1 else GRACE_S_MIN,
            db=self.store.name,
            more=f'key_file = "{KEY_FILE}"' if is_encrypted else "",
        )
        self.configuration.write_text(text, encoding="utf-8")
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0

    def start(self) -> None:
        """Start the process and do not wait."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "davsql", "serve", "--config", str(self.configuration)]
        log: IO[bytes]
        with self.log.open("ab") as log:
            self._started = time.monotonic()
            self._process = subprocess.Popen(
                command,
                cwd=self.store.parent,
                env=environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a group of its own, to be killed whole
            )

    def wait_until_it_answers(self) -> float:
        """Seconds from the start to the first answer.

        Raises:
            RuntimeError: there is none.
        """
        assert self._process is not None
        while time.monotonic() - self._started < START_TIMEOUT_S:
            try:
                request(self.address, "OPTIONS", "/")
            except BROKEN:
                if self._process.poll() is not None:
                    raise RuntimeError(f"the server ended with {self._process.returncode}; see {self.log}") from None
                time.sleep(POLL_S)
            else:
                return time.monotonic() - self._started
        raise RuntimeError(f"the server does not answer; see {self.log}")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """kill -9, of all its processes."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def terminate(self) -> int:
        """SIGTERM; the exit code.

        Raises:
            subprocess.TimeoutExpired: it does not end.
        """
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(STOP_TIMEOUT_S)

    def leftovers(self) -> list[str]:
        """Files beside the store that a clean end removes."""
        return sorted(file.name for file in self.store.parent.glob(self.store.name + "-*"))

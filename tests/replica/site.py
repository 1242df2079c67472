"""A davsql with a replica, as a process of its own, and what it takes to kill it and its Litestream."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from davsql.store.check import check
from davsql.store.store import Store
from tests.store_steps import tree

START_TIMEOUT_S = 30
REPLICATED = "is replicated to"  # says davsql in its log
END_TIMEOUT_S = 60
CONFIG = """\
[server]
port = 0
workers = {workers}
[admin]
port = 0
[log]
file = "davsql.log"
[replica]
url = "{url}"
[[share]]
name = "/"
db = "store.db"
"""


class Site:
    """One folder with a store, its configuration and its replica; at most one davsql that serves it."""

    def __init__(self, folder: Path, *, more: str = "", workers: int = 1) -> None:
        self.folder = folder
        self.db = folder / "store.db"
        self.replica = folder / "replica"
        self.replica.mkdir(parents=True)
        self.url = f"file://{quote(str(self.replica))}"
        self.config = folder / "davsql.toml"
        self.config.write_text(CONFIG.format(url=self.url, workers=workers) + more)
        self._process: subprocess.Popen[str] | None = None
        self._replicated_before = 0

    def start(self) -> tuple[str, int]:
        """Serve the store and return where."""
        self._replicated_before = self.log().count(REPLICATED)
        command = [sys.executable, "-m", "davsql", "serve", "--config", str(self.config)]
        process = subprocess.Popen(command, cwd=self.folder, stdout=subprocess.PIPE, text=True, bufsize=1)
        self._process = process
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if "Ctrl-C" in line and (found := re.search(r"serving .* on http://([\d.]+):(\d+)/", said)):
                time.sleep(0.2)  # until it handles signals
                return found.group(1), int(found.group(2))
        raise AssertionError(f"davsql ended with code {process.wait()}: {said}{self.log()}")

    def wait_until_replicated(self) -> None:
        """Until the replica has what was there at the start."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while self.log().count(REPLICATED) <= self._replicated_before:
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)

    def stop(self) -> None:
        """End davsql the way an operator does."""
        assert self._process is not None
        self._process.terminate()
        assert self._process.wait(END_TIMEOUT_S) == 0, self.log()
        self._forget()

    def kill(self, *, davsql: bool = True, litestream: bool = True) -> None:
        """Kill -9, Litestream first, so that it copies nothing more."""
        assert self._process is not None
        if litestream:
            for pid in litestreams(self._process.pid):
                os.kill(pid, signal.SIGKILL)
        if davsql:
            self._process.kill()
            self._process.wait()
            self._forget()

    def close(self) -> None:
        """Leave no process behind."""
        if self._process is not None:
            self.kill()
        self.wait_for_litestream()

    def wait_for_litestream(self) -> None:
        """Until no Litestream works on the store: it and davsql hold a lock."""
        lock = self.db.with_name("store.db-replica") / "lock"
        if not lock.exists():
            return
        with lock.open("rb") as file:
            deadline = time.monotonic() + END_TIMEOUT_S
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    assert time.monotonic() < deadline, "Litestream outlived davsql"
                    time.sleep(0.05)
                else:
                    return

    def restore(self, target: Path, at: datetime | None = None) -> dict[str, bytes | None]:
        """Restore with `davsql restore` from the replica alone; digests of what is in it, checked whole."""
        command = [sys.executable, "-m", "davsql", "restore", "--from-replica", self.url, "--db", str(target)]
        if at is not None:
            command += ["--at", at.isoformat()]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        with Store.open(target) as store:
            assert check(store, deep=True) == []
            contents = tree(store).items()
        return {path: None if content is None else hashlib.sha256(content).digest() for path, content in contents}

    def log(self) -> str:
        file = self.folder / "davsql.log"
        return file.read_text(encoding="utf-8") if file.exists() else ""

    def _forget(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None


def litestreams(parent: int) -> list[int]:
    """The Litestreams that `parent` runs."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,comm="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=2) for line in listed.splitlines()]
    return [int(pid) for pid, ppid, name in rows if int(ppid) == parent and "litestream" in name]

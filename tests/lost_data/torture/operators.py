"""Operators who never rest: `davsql maintain` and `davsql backup` again and again beside the server, until killed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from threading import Event, Thread

ROOT = Path(__file__).parents[3]
WORK = ("vacuum", "incremental-vacuum", "gc", "quick-check", "scrub", "integrity-check", "optimize")
REPEATED = 3  # vacuum and the others so often in one process
DONE = re.compile(r": ([\w-]+) is done|^(backed up)", re.MULTILINE)


class Operators:
    """One who maintains and one who makes backups, each running one program after the other. Threads: one at a time.

    Attributes:
        backup: the last whole backup, when there is one.
        done: how often each work was done.
    """

    def __init__(self, folder: Path, configuration: Path, random: Random, fault: Callable[[str], None]) -> None:
        self.backup = folder / "backup" / "last.davsql"
        self.backup.parent.mkdir()
        self.done: Counter[str] = Counter()
        self._configuration = configuration
        self._random = random
        self._fault = fault
        self._is_ending = Event()
        self._threads: list[Thread] = []
        self._processes: dict[str, subprocess.Popen[str]] = {}

    def start(self) -> None:
        """Let them begin, or go on."""
        if not self._threads:
            self._is_ending.clear()
            self._threads = [Thread(target=self._repeat, args=(each,)) for each in (self._maintain, self._back_up)]
            for thread in self._threads:
                thread.start()

    def kill(self) -> None:
        """kill -9, and remove what a backup has left behind."""
        self._is_ending.set()
        for process in list(self._processes.values()):
            process.kill()
        for thread in self._threads:
            thread.join()
        self._threads = []
        for part in self.backup.parent.glob(".*.davsql-part*"):
            part.unlink()

    def _repeat(self, work: Callable[[], None]) -> None:
        while not self._is_ending.is_set():
            work()

    def _maintain(self) -> None:
        work = self._random.sample(WORK * REPEATED, len(WORK) * REPEATED)
        # The checkpoint comes last: it fails, as it should, when it finds somebody reading or writing.
        self._run("maintain", *work, "checkpoint", is_allowed_to_fail_after=len(work))

    def _back_up(self) -> None:
        self._run("backup", str(self.backup), "--force")

    def _run(self, command: str, *arguments: str, is_allowed_to_fail_after: int | None = None) -> None:
        """Run a program to its end or to ours."""
        line = [sys.executable, "-m", "davsql", command, *arguments, "--config", str(self._configuration)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(
            line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            self._processes[command] = process
            if self._is_ending.is_set():  # `kill` may have looked before
                process.kill()
            out, failure = process.communicate()
        done = [work or "backup" for work, _ in DONE.findall(out)]
        self.done.update(done)
        if process.returncode and not self._is_ending.is_set() and len(done) != is_allowed_to_fail_after:
            self._fault(f"davsql {command} after {done}: exit code {process.returncode}: {failure}")

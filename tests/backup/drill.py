"""Backups of a store that is being written to, each restored and compared with what must be in it.

Every writer does a fixed series of operations, so what a snapshot must hold of it follows from one number: how many of
them were done. `python -m tests.backup.drill --backups 100` (or scripts/backup-drill) runs it as long as wanted.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from davsql.maintenance.thread import Maintenance, MaintenanceOptions
from davsql.store.backup import back_up
from davsql.store.check import check
from davsql.store.restore import restore
from davsql.store.store import Store
from tests.store_steps import at, mkcol, put, tree

FILES = 17  # of each writer
SIZES = (0, 10, 10, 2000, 2000, 2000, 70_000, 300_000)
BALLAST_BYTES = 1024 * 1024
MAINTENANCE = MaintenanceOptions(gc_interval_s=0.5, gc_grace_s=0.2)


def content(writer: int, step: int) -> bytes:
    """What one operation writes; nothing else writes the same."""
    rng = random.Random(f"{writer}:{step}")  # noqa: S311
    return f"{writer}:{step}:".encode() + rng.randbytes(rng.choice(SIZES))


def is_deletion(step: int) -> bool:
    return step % 11 == 10


def path_of(writer: int, step: int) -> str:
    return f"/w{writer}/f{step * 7 % FILES}"


def expected(writer: int, steps: int) -> dict[str, int]:
    """The files of a writer after so many steps, each with the step that wrote it."""
    files: dict[str, int] = {}
    for step in range(max(0, steps - FILES), steps):  # each of them was written or deleted once since
        if is_deletion(step):
            files.pop(path_of(writer, step), None)
        else:
            files[path_of(writer, step)] = step
    return files


@dataclass
class Writer:
    """One thread that writes; `done` counts the steps that the store has acknowledged."""

    store: Store
    number: int
    done: int = 0
    delays_s: list[tuple[float, float]] = field(default_factory=list)  # (when, how long) of each step
    errors: list[Exception] = field(default_factory=list)

    def run(self, stopping: threading.Event) -> None:
        there: set[str] = set()
        try:
            while not stopping.is_set():
                self._step(there)
                self.done += 1
        except Exception as error:  # noqa: BLE001  # told by whoever joins the thread
            self.errors.append(error)

    def _step(self, there: set[str]) -> None:
        path, data = path_of(self.number, self.done), content(self.number, self.done)
        started = time.monotonic()
        if not is_deletion(self.done):
            put(self.store, path, data)
            there.add(path)
        elif path in there:
            self.store.delete(at(path))
            there.discard(path)
        self.delays_s.append((started, time.monotonic() - started))


@contextmanager
def writing(store: Store, writers: int) -> Iterator[list[Writer]]:
    """Threads that write as fast as they can until the block ends."""
    stopping = threading.Event()
    found = [Writer(store, number) for number in range(writers)]
    for writer in found:
        mkcol(store, f"/w{writer.number}")
    threads = [threading.Thread(target=writer.run, args=(stopping,)) for writer in found]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
    for writer in found:
        assert writer.errors == []


def steps_in(files: dict[str, bytes | None], writer: int, least: int, most: int) -> int | None:
    """How many steps of a writer a store holds; None when it is no number from `least` to `most`."""
    found = {path: data for path, data in files.items() if path.startswith(f"/w{writer}/")}
    names = {path: int(data.split(b":")[1]) for path, data in found.items() if data is not None}
    if any(found[path] != content(writer, step) for path, step in names.items()):
        return None
    return next((steps for steps in range(least, most + 1) if expected(writer, steps) == names), None)


class Outcome(NamedTuple):
    """What one backup was like."""

    duration_s: float
    size_bytes: int
    steps: int  # acknowledged while it ran


def back_up_and_compare(store: Store, writers: Sequence[Writer], folder: Path) -> Outcome:
    """One backup, restored under another name and compared; AssertionError when it is not what it must be."""
    before = [writer.done for writer in writers]
    backup = back_up(store.file, folder / "drill.davsql", store.options)
    after = [writer.done for writer in writers]
    restored = restore(backup.file, folder / "restored.db", store.options)
    with Store.open(restored.file) as copy:
        assert check(copy) == []
        files = tree(copy)
    for writer, least, most in zip(writers, before, after, strict=True):
        # The step at work when the backup ended may be in it: one more than was acknowledged.
        steps = steps_in(files, writer.number, least, most + 1)
        assert steps is not None, f"writer {writer.number}: not what it had written after {least} to {most + 1} steps"
    backup.file.unlink()
    restored.file.unlink()
    return Outcome(backup.duration_s, backup.snapshot.size_bytes, sum(after) - sum(before))


def run_drill(folder: Path, backups: int, *, writers: int = 4, ballast: int = 16) -> str:
    """Run the drill in an empty folder and tell the figures."""
    with Store.open(folder / "store.db", create=True) as store:
        mkcol(store, "/ballast")
        for number in range(ballast):
            put(store, f"/ballast/{number}", random.Random(number).randbytes(BALLAST_BYTES))  # noqa: S311
        maintenance = Maintenance(store, MAINTENANCE)
        maintenance.start()
        try:
            outcomes, quiet_s, busy_s = _rounds(store, folder, backups, writers)
        finally:
            maintenance.stop()
    durations = [outcome.duration_s for outcome in outcomes]
    return (
        f"{len(outcomes)} backups of up to {max(each.size_bytes for each in outcomes) >> 20} MiB, all equal; "
        f"{sum(durations) / len(durations):.2f} s each, {max(durations):.2f} s at most; "
        f"{sum(each.steps for each in outcomes)} writes acknowledged meanwhile; "
        f"p99 of a write {p99_ms(quiet_s):.1f} ms without and {p99_ms(busy_s):.1f} ms with a backup, "
        f"longest {max(quiet_s) * 1000:.0f} and {max(busy_s) * 1000:.0f} ms"
    )


def _rounds(store: Store, folder: Path, backups: int, writers: int) -> tuple[list[Outcome], list[float], list[float]]:
    """The backups, and how long writes took without and with one."""
    outcomes: list[Outcome] = []
    times: list[tuple[float, float]] = []
    with writing(store, writers) as threads:
        for _ in range(backups):
            time.sleep(0.3)
            started = time.monotonic()
            outcomes.append(back_up_and_compare(store, threads, folder))
            times.append((started, started + outcomes[-1].duration_s))
    quiet_s: list[float] = []
    busy_s: list[float] = []
    for writer in threads:
        for when, took_s in writer.delays_s:
            is_busy = any(when < end and when + took_s > start for start, end in times[-1000:])
            (busy_s if is_busy else quiet_s).append(took_s)
    return outcomes, quiet_s or [0.0], busy_s or [0.0]


def p99_ms(times_s: Sequence[float]) -> float:
    return sorted(times_s)[int(len(times_s) * 0.99)] * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backups", type=int, default=100, help="how many (100)")
    parser.add_argument("--writers", type=int, default=4, help="threads that write meanwhile (4)")
    parser.add_argument("--mb", type=int, default=100, help="size of the store to begin with (100)")
    parser.add_argument("--folder", type=Path, help="on which disk (that of temporary files)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="davsql-drill-", dir=arguments.folder) as folder:
        report = run_drill(Path(folder), arguments.backups, writers=arguments.writers, ballast=arguments.mb)
    sys.stdout.write(report + "\n")


if __name__ == "__main__":
    main()

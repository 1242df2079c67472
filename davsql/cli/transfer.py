"""Copying many files in several threads: progress, what became of each file, and a stop that leaves nothing half done.

Rule 1: what fails for one file is reported and the rest goes on; what would fail for every file ends the transfer.
Rule 2: memory does not grow with the number of files: few jobs wait at any time.
Threads: the methods of `Transfer` from any thread, but `submit` and `wait` from the one that made it.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import click
from tqdm import tqdm

from davsql.cli.printing import counted, human_size, printable
from davsql.errors import DavsqlError, StoreFull, StoreReadOnly, StoreUnavailable

DEFAULT_JOBS = 8  # more uploads at a time make larger commits, and take up to 10 MiB of memory each
WAITING_PER_JOB = 4

_FATAL_STORE_ERRORS = (StoreFull, StoreReadOnly, StoreUnavailable)
_FATAL_ERRNOS = frozenset({errno.ENOSPC, errno.EROFS, errno.EDQUOT})

Advance = Callable[[int], None]  # tells the progress bar of bytes; raises when the transfer stops


class _Stopped(Exception):
    """The transfer is over; the job that sees this gives up."""


class Transfer:
    """One run of `import` or `export`; use it in a `with` block, at whose end it says what was done."""

    def __init__(self, verb: str, jobs: int) -> None:
        """Args: verb: what is done, for the report (`imported`)."""
        self._verb = verb
        self._pool = ThreadPoolExecutor(jobs, thread_name_prefix="davsql-transfer")
        self._slots = threading.Semaphore(jobs * WAITING_PER_JOB)
        self._all_slots = jobs * WAITING_PER_JOB
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._bar = tqdm(unit="B", unit_scale=True, unit_divisor=1024, disable=None, dynamic_ncols=True, leave=False)
        self._copied = self._copied_bytes = self._unchanged = self._left_out = 0
        self.failures = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)
        self._bar.close()
        click.echo(self.summary())

    def expect(self, size_bytes: int) -> None:
        """Say how many bytes there are in all, so that the remaining time can be shown."""
        self._bar.total = size_bytes
        self._bar.refresh()

    def submit(self, name: object, size_bytes: int, job: Callable[[Advance], None]) -> None:
        """Copy one file in another thread; waits while enough others are waiting.

        Raises:
            What ended the transfer, if something did.
        """
        self._slots.acquire()
        if self._error is not None:
            self._slots.release()
            raise self._error
        self._pool.submit(self._run, name, size_bytes, job)

    def wait(self) -> None:
        """Wait for all that was submitted.

        Raises:
            What ended the transfer, if something did.
        """
        for _ in range(self._all_slots):
            self._slots.acquire()
        self._slots.release(self._all_slots)
        if self._error is not None:
            raise self._error

    def unchanged(self, size_bytes: int) -> None:
        """Count a file that need not be copied."""
        with self._lock:
            self._unchanged += 1
            self._expect_less(size_bytes)

    def left_out(self, name: object, reason: str) -> None:
        """Report something that a store or a disk does not hold; no failure."""
        self._report(f"left out: {printable(name)}: {reason}")
        with self._lock:
            self._left_out += 1

    def failed(self, name: object, error: BaseException | str) -> None:
        """Report a file that was not copied."""
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        self._report(f"failed: {printable(name)}: {printable(reason)}")
        with self._lock:
            self.failures += 1

    def summary(self) -> str:
        """One sentence about what was done."""
        if not (self._copied or self.failures):
            first = f"nothing to copy, {counted(self._unchanged, 'file')} unchanged"
        else:
            first = f"{self._verb} {counted(self._copied, 'file')} ({human_size(self._copied_bytes)})"
            first += f", {self._unchanged:,} unchanged" if self._unchanged else ""
        left_out = f", {self._left_out:,} left out" if self._left_out else ""
        return first + left_out + (f", {self.failures:,} failed" if self.failures else "")

    def _run(self, name: object, size_bytes: int, job: Callable[[Advance], None]) -> None:
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            if self._stop.is_set():
                raise _Stopped
            done += count
            with self._lock:
                self._bar.update(count)

        try:
            if not self._stop.is_set():
                job(advance)
                with self._lock:
                    self._copied += 1
                    self._copied_bytes += done
        except _Stopped:
            pass
        except BaseException as error:  # noqa: BLE001  # raised again by submit or wait
            self._took_error(name, error)
        finally:
            with self._lock:
                self._expect_less(size_bytes - done)
            self._slots.release()

    def _took_error(self, name: object, error: BaseException) -> None:
        if is_fatal(error):
            with self._lock:
                self._error = self._error or error
            self._stop.set()
        else:
            self.failed(name, error)

    def _expect_less(self, size_bytes: int) -> None:
        if self._bar.total is not None:
            self._bar.total -= size_bytes

    def _report(self, line: str) -> None:
        with self._lock, tqdm.external_write_mode():
            click.echo(line, err=True)


def is_fatal(error: BaseException) -> bool:
    """True when the next file would fail as well, or when the error is none that a file can cause."""
    if isinstance(error, OSError):
        return error.errno in _FATAL_ERRNOS
    # OverflowError: a time that this system cannot hold
    return isinstance(error, _FATAL_STORE_ERRORS) or not isinstance(error, (DavsqlError, OverflowError))

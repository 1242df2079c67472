"""The progress bar of the commands that copy whole stores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from davsql.store.backup import CopyOptions


@contextmanager
def shown_copy(*, is_verified: bool = True, may_replace: bool = False, rest: float = 0.0) -> Iterator[CopyOptions]:
    """How a copy is made while a bar on standard error shows how far it is, how fast, and the time that is left."""
    with tqdm(unit="B", unit_scale=True, unit_divisor=1024, disable=None, dynamic_ncols=True, leave=False) as bar:

        def progress(done_bytes: int, total_bytes: int) -> None:
            bar.total = total_bytes
            bar.update(done_bytes - bar.n)

        yield CopyOptions(is_verified=is_verified, may_replace=may_replace, rest=rest, progress=progress)

"""The progress bar of the commands that copy whole stores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from tqdm import tqdm

from davsql.store.backup import CopyOptions


@contextmanager
def shown_copy(how: CopyOptions) -> Iterator[CopyOptions]:
    """How to make a copy while a bar on standard error shows how far it is, how fast, and the time that is left."""
    with tqdm(unit="B", unit_scale=True, unit_divisor=1024, disable=None, dynamic_ncols=True, leave=False) as bar:

        def progress(done_bytes: int, total_bytes: int) -> None:
            if bar.total != total_bytes or done_bytes < bar.n:  # after the copy, with --deep, come the bytes to rehash
                bar.reset(total_bytes)
            bar.update(done_bytes - bar.n)

        yield replace(how, progress=progress)

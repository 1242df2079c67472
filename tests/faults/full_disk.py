"""A disk that fills up, is emptied and fills up again.

Each time PUT must end in StoreFull, everything acknowledged stay readable, DELETE and garbage collection work, and
what was deleted become room again without anybody's help.
"""

from __future__ import annotations

import random
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import click

from davsql.errors import StoreFull
from davsql.maintenance.gc import collect_garbage
from davsql.store.check import check
from davsql.store.options import StoreOptions
from davsql.store.store import Store
from tests.faults.small_disk import MIB, free_bytes, tmpfs
from tests.store_steps import at, put, read

SIZES = (2000, 100_000, 700_000, 5 * MIB)


class Cycle(NamedTuple):
    """One filling."""

    stored_bytes: int  # in the store when it was full
    free_bytes: int  # on the disk then
    free_after_bytes: int  # when all was deleted and collected


class Filler:
    """Puts files until the disk is full, and knows what it put."""

    def __init__(self, store: Store, seed: int) -> None:
        self._store = store
        self._rng = random.Random(seed)  # noqa: S311
        self._serial = 0
        self.files: dict[str, bytes] = {}

    @property
    def stored_bytes(self) -> int:
        return sum(map(len, self.files.values()))

    def fill(self) -> None:
        """PUT until StoreFull, which must come for small files too, and not be there for what GC can take away."""
        for largest in reversed(SIZES):
            before = -1
            while self.stored_bytes != before:
                before = self.stored_bytes
                with suppress(StoreFull):
                    while True:
                        self._put(self._rng.randint(1, largest))
                collect_garbage(self._store, grace_s=0, upload_expiry_s=0)

    def _put(self, size: int) -> None:
        # Small files in the place of large ones would make room for thousands of small ones.
        is_new = size < SIZES[1] or not self.files or self._rng.random() < 0.8
        path = self._new_path() if is_new else self._rng.choice(list(self.files))
        data = self._rng.randbytes(size)
        put(self._store, path, data)
        self.files[path] = data

    def _new_path(self) -> str:
        self._serial += 1
        return f"/{self._serial}"

    def delete(self, share: float) -> None:
        for path in list(self.files):
            if self._rng.random() < share:
                self._store.delete(at(path))
                del self.files[path]

    def verify(self) -> None:
        """Everything that was acknowledged is there, and nothing is broken."""
        for path, data in self.files.items():
            assert read(self._store, path) == data, f"{path} is not what was put"


def run_cycles(folder: Path, cycles: int, seed: int, reserve_mb: int = 16) -> list[Cycle]:
    """Fill, verify, delete some or all, collect; check the store each time."""
    found: list[Cycle] = []
    options = StoreOptions(readers=2, cache_mb=8, reserve_mb=reserve_mb)
    with Store.open(folder / "store.db", options, create=True) as store:
        filler = Filler(store, seed)
        for number in range(cycles):
            filler.fill()
            filler.verify()
            stored, free = filler.stored_bytes, free_bytes(folder)
            filler.delete(0.5 if number % 2 else 1.0)
            collect_garbage(store, grace_s=0, upload_expiry_s=0)
            filler.verify()
            assert check(store) == []
            found.append(Cycle(stored, free, free_bytes(folder)))
    return found


@click.command("full-disk")
@click.option("--cycles", default=100, show_default=True)
@click.option("--size-mb", default=64, show_default=True, help="Of the file system (tmpfs).")
@click.option("--reserve-mb", default=16, show_default=True, help="StoreOptions.reserve_mb")
@click.option("--seed", default=1, show_default=True)
def command(cycles: int, size_mb: int, reserve_mb: int, seed: int) -> bool:
    """Fill a small disk (a tmpfs: only root can mount one), delete, and fill it again.

    A full disk must refuse content only; what is deleted must become room again.
    """
    with tempfile.TemporaryDirectory() as name, tmpfs(Path(name), size_mb) as folder:
        found = run_cycles(folder, cycles, seed, reserve_mb)
    after_all = [each for number, each in enumerate(found) if number % 2 == 0][1:]
    stored = sorted(each.stored_bytes for each in found)
    click.echo(
        f"{cycles} cycles on {size_mb} MiB: stored when full {stored[0] / MIB:.1f} to {stored[-1] / MIB:.1f} MiB, "
        f"first {found[0].stored_bytes / MIB:.1f}, last {found[-1].stored_bytes / MIB:.1f}; disk free when full "
        f"{min(each.free_bytes for each in found) / MIB:.1f} MiB or more"
    )
    return not after_all or min(each.stored_bytes for each in after_all) >= found[0].stored_bytes / 2

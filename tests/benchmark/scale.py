"""What an operation costs in stores of a thousand to a million nodes, and with files of a megabyte to 100 gigabytes.

The engine alone, without HTTP: what grows with the store grows there. Prints Markdown tables.
"""

from __future__ import annotations

import hashlib
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from pathlib import Path

import click

from davsql.maintenance.gc import collect_garbage
from davsql.model import NO_GUARD, Inode
from davsql.paths import ROOT, DavPath
from davsql.store import blobs, commands
from davsql.store.backup import back_up
from davsql.store.check import check
from davsql.store.nodes import Content
from davsql.store.options import StoreOptions
from davsql.store.store import Store
from davsql.store.transaction import WriteTx

MEMBERS = 1000  # of each collection
MIB = 1 << 20
PERIOD_MIB = 64  # after so much the content of large files repeats, so that 100 GB fit on any disk
SMALL = 4096
REPEATS = 50  # of what takes milliseconds; the median counts
MOVES = 5  # an odd number: there, and not back again
COMMAND_FILES = 500  # made in one transaction when a store is filled

Row = dict[str, float]  # seconds, by operation


def timed(action: Callable[[], object], repeats: int = 1) -> float:
    """The median of so many runs, in seconds."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


# --- nodes ----------------------------------------------------------------------------------------------------------


def fill(store: Store, have: int, want: int) -> None:
    """Make the store's tree `/all` have `want` small files, each with content of its own, in collections of MEMBERS."""
    for number in range(have // MEMBERS, want // MEMBERS):
        store.make_collection(_collection(number))
        for start in range(0, MEMBERS, COMMAND_FILES):
            files = range(number * MEMBERS + start, number * MEMBERS + start + COMMAND_FILES)
            store.write(lambda tx, files=files: _put_many(tx, files, store.options))  # type: ignore[misc]
        store.checkpoint()


def _put_many(tx: WriteTx, numbers: range, options: StoreOptions) -> None:
    for number in numbers:
        data = number.to_bytes(16, "big")
        digest = hashlib.sha256(data).digest()
        content = Content(blobs.put_content(tx, digest, data), digest, len(data), None)
        incoming = commands.Incoming(len(data), lambda _, content=content: content)  # type: ignore[misc]
        commands.put_file(tx, _file(number), incoming, NO_GUARD, options, modified_at=None)


def _collection(number: int) -> DavPath:
    return DavPath(["all", f"c{number:04}"])


def _file(number: int) -> DavPath:
    return _collection(number // MEMBERS).child(f"file-{number:07}.txt")


def measure_nodes(folder: Path, counts: Sequence[int]) -> dict[str, Row]:
    """One store that grows; what is copied for a measurement is deleted again."""
    rows: dict[str, Row] = {}
    with Store.open(folder / "nodes.db", create=True) as store:
        store.make_collection(DavPath(["all"]))
        have = 0
        for count in counts:
            fill(store, have, count)
            have = count
            rows[f"{count:,}"] = _of_nodes(store, count, folder)
    return rows


def _of_nodes(store: Store, count: int, folder: Path) -> Row:
    rng = random.Random(count)  # noqa: S311
    everything, copied, moved = DavPath(["all"]), DavPath(["copied"]), DavPath(["moved"])
    some, part = _collection(rng.randrange(count // MEMBERS)), DavPath(["part"])
    new = (some.child(f"new-{number}") for number in range(REPEATS))
    parent, moves = store.node(some).inode, cycle([(copied, moved), (moved, copied)])
    row = {
        "lookup of a path": timed(lambda: store.node(_file(rng.randrange(count))), REPEATS),
        f"list {MEMBERS:,} members": timed(lambda: _list(store, parent), 10),
        "PUT 4 KiB": timed(lambda: _put(store, next(new), [rng.randbytes(SMALL)]), REPEATS),
        "PUT 4 KiB over another": timed(lambda: _put(store, _file(0), [rng.randbytes(SMALL)]), REPEATS),
        f"COPY of {MEMBERS:,} files": timed(lambda: store.copy(some, part), 3),
        "COPY of everything": timed(lambda: store.copy(everything, copied)),
        "MOVE of everything": timed(lambda: store.move(*next(moves)), MOVES),
        "DELETE of everything": timed(lambda: store.delete(moved)),
        "GC of what was deleted": timed(lambda: _collect(store)),
        "backup": timed(lambda: _back_up(store, folder)),
        "check": timed(lambda: _require_sound(store)),
    }
    store.delete(part)
    _collect(store)
    return row


# --- bytes ----------------------------------------------------------------------------------------------------------


def measure_bytes(folder: Path, sizes_mib: Sequence[int]) -> dict[str, Row]:
    """A store for each size, with one file."""
    pattern = os.urandom(PERIOD_MIB * MIB)
    rows: dict[str, Row] = {}
    for size_mib in sizes_mib:
        file = folder / "bytes.db"
        with Store.open(file, create=True) as store:
            rows[f"{size_mib:,} MiB"] = _of_bytes(store, size_mib, pattern, folder)
        file.unlink()
    return rows


def _of_bytes(store: Store, size_mib: int, pattern: bytes, folder: Path) -> Row:
    rng = random.Random(size_mib)  # noqa: S311
    file, copied, moved = DavPath(["file"]), DavPath(["copied"]), DavPath(["moved"])
    moves, both = cycle([(copied, moved), (moved, copied)]), iter([moved, file])

    def some_range() -> None:
        start = rng.randrange(size_mib * MIB - 65536)
        with store.open_download(file) as download:
            assert sum(map(len, download.chunks(start, start + 65536))) == 65536

    def whole() -> None:
        with store.open_download(file) as download:
            assert sum(map(len, download.chunks())) == size_mib * MIB

    return {
        "PUT": timed(lambda: _put(store, file, _blocks(pattern, size_mib))),
        "lookup of the path": timed(lambda: store.node(file), REPEATS),
        "GET": timed(whole),
        "GET of 64 KiB somewhere": timed(some_range, REPEATS),
        "COPY": timed(lambda: store.copy(file, copied), MOVES),
        "MOVE": timed(lambda: store.move(*next(moves)), MOVES),
        "backup": timed(lambda: _back_up(store, folder)),
        "check": timed(lambda: _require_sound(store)),
        "DELETE": timed(lambda: store.delete(next(both)), 2),
        "GC of what was deleted": timed(lambda: _collect(store)),
    }


def _blocks(pattern: bytes, size_mib: int) -> Iterator[memoryview]:
    view = memoryview(pattern)
    for number in range(size_mib):
        start = number % PERIOD_MIB * MIB
        yield view[start : start + MIB]


# --- what both do ---------------------------------------------------------------------------------------------------


def _put(store: Store, path: DavPath, blocks: Sequence[bytes] | Iterator[memoryview]) -> None:
    with store.upload() as upload:
        for block in blocks:
            upload.write(block)
        upload.commit(path)


def _list(store: Store, parent: Inode) -> None:
    with store.snapshot() as view:
        assert len(view.members(parent, limit=MEMBERS)) == MEMBERS


def _collect(store: Store) -> None:
    assert collect_garbage(store, grace_s=0, upload_expiry_s=3600)


def _back_up(store: Store, folder: Path) -> None:
    copy = back_up(store.file, folder / "backup.db", store.options)
    copy.file.unlink()


def _require_sound(store: Store) -> None:
    assert check(store) == []
    assert store.node(ROOT).is_collection


def table(title: str, rows: dict[str, Row], growth: Sequence[str]) -> str:
    """Operations downwards, sizes to the right.

    Args:
        growth: how each operation should grow, in their order.
    """
    sizes = list(rows)
    lines = [f"| {title} | {' | '.join(sizes)} | grows |", f"| --- |{' ---: |' * len(sizes)} --- |"]
    for operation, expected in zip(rows[sizes[0]], growth, strict=True):
        times = " | ".join(_shown(rows[size][operation]) for size in sizes)
        lines.append(f"| {operation} | {times} | {expected} |")
    return "\n".join(lines)


def _shown(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 100 else f"{seconds:.0f} s"


FLAT, LOGARITHMIC, LINEAR = "not", "logarithmically", "linearly"
NODES_GROWTH = (LOGARITHMIC, *(FLAT,) * 4, LINEAR, *(FLAT,) * 2, *(LINEAR,) * 3)
BYTES_GROWTH = (LINEAR, FLAT, LINEAR, *(FLAT,) * 3, "with what is stored", LINEAR, FLAT, LINEAR)


@click.command()
@click.option("--nodes", default=1_000_000, show_default=True, help="Files of the largest tree.")
@click.option("--mib", default=100_000, show_default=True, help="Size of the largest file; 0 for none.")
@click.option("--folder", type=click.Path(path_type=Path, exists=True), help="Where; by default a temporary folder.")
def main(nodes: int, mib: int, folder: Path | None) -> None:
    """Measure how operations grow with a store, from 1,000 files and 1 MiB in steps of ten."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        if nodes:
            click.echo(table("Files", measure_nodes(Path(name), _steps(MEMBERS, nodes)), NODES_GROWTH) + "\n")
        if mib:
            click.echo(table("File of", measure_bytes(Path(name), _steps(1, mib)), BYTES_GROWTH))


def _steps(first: int, last: int) -> list[int]:
    steps = [first]
    while steps[-1] * 10 <= last:
        steps.append(steps[-1] * 10)
    return steps


if __name__ == "__main__":
    main()

"""Single bits that rot in a store's file: what `check --deep` finds, and what a client gets.

    python -m tests.faults.bit_flips --flips 1000 --seed 1

A flip may stay unseen only where it changes nothing that a client can see. No flip may crash the process or make GET
give wrong bytes as complete. The looking is done in processes of their own, so that a crash is seen.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import click

from davsql.errors import StoreError
from davsql.maintenance.gc import collect_garbage
from davsql.model import ROOT_INODE, LockRequest, LockScope, PropertyUpdate
from davsql.store.check import check
from davsql.store.options import StoreOptions
from davsql.store.store import Snapshot, Store
from tests.faults.disk import MEMORY
from tests.store_steps import NODES_MAX, at, mkcol

OPTIONS = StoreOptions(readers=1, cache_mb=4, page_size=1024)  # small pages are full ones
FILES = 60
BATCH = 20

Place = tuple[int, int]  # byte and bit
Facts = dict[str, tuple[object, ...]]


class Look(NamedTuple):
    """What became of one flip."""

    offset: int
    bit: int
    outcome: str
    trouble: str = ""


def make_original(file: Path) -> None:
    """A store with a bit of everything, closed: files small, large and equal, collections, properties, locks, holes."""
    rng = random.Random(11)  # noqa: S311
    with Store.open(file, OPTIONS, create=True) as store:
        for folder in ("/a", "/a/b", "/a/b/c", "/gone"):
            mkcol(store, folder)
        for number in range(FILES):
            folder = rng.choice(("", "/a", "/a/b", "/a/b/c", "/gone"))
            _put(store, f"{folder}/file {number}.txt", rng.randbytes(rng.choice((0, 10, 700, 5000, 30_000))))
            if number % 4 == 0:
                updates = [
                    PropertyUpdate("urn:x", f"p{each}", f"<x:p{each} xmlns:x='urn:x'>{number}</x:p{each}>")
                    for each in range(3)
                ]
                store.set_properties(at(f"{folder}/file {number}.txt"), updates)
        _put(store, "/a/large", rng.randbytes(600_000))
        store.copy(at("/a/large"), at("/a/b/equal"))
        for path in ("/a/large", "/a/b"):
            store.lock(at(path), LockRequest(LockScope.EXCLUSIVE, False, "<owner/>", 3600))  # noqa: FBT003
        store.delete(at("/gone"))
        collect_garbage(store, grace_s=0, upload_expiry_s=0)


def _put(store: Store, path: str, data: bytes) -> None:
    with store.upload() as upload:
        upload.write(data)
        upload.commit(at(path), content_type="text/plain; charset=utf-8")


def facts(store: Store) -> Facts:
    """Everything that a client can see, but content."""
    found: Facts = {}
    with store.snapshot() as view:
        nodes = view.descendants(ROOT_INODE, NODES_MAX)
        assert nodes is not None
        for node in nodes:
            properties = sorted(view.dead_properties([node.inode]).get(node.inode, []))
            path = view.path_of(node.inode)
            found[str(path)] = (node._replace(blob_id=None), properties, _locks(view, str(path)))
    return found


def _locks(view: Snapshot, path: str) -> list[tuple[object, ...]]:
    return sorted(
        (lock.token, lock.scope.value, lock.principal, lock.owner_xml) for lock in view.locks_covering(at(path))
    )


def contents(store: Store, paths: Sequence[str]) -> Iterator[tuple[str, bytes | None]]:
    """What GET gives; None where it ends early."""
    for path in paths:
        try:
            with store.open_download(at(path)) as download:
                yield path, b"".join(download.chunks())
        except StoreError:
            yield path, None


def look_at_flips(original: Path, places: Sequence[Place]) -> list[Look]:
    """Flip each bit in a copy of its own and look."""
    good = original.read_bytes()
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        with Store.open(_copy(Path(name) / "good.db", good), OPTIONS) as store:
            expected = facts(store)
            files = [path for path, (node, *_) in expected.items() if not node.is_collection]  # type: ignore[attr-defined]
            right = dict(contents(store, files))
        looks: list[Look] = []
        for number, (offset, bit) in enumerate(places):
            bad = bytearray(good)
            bad[offset] ^= 1 << bit
            file = _copy(Path(name) / f"{number}.db", bytes(bad))
            try:
                outcome, trouble = _look(file, expected, right)
            except Exception as error:  # noqa: BLE001  # anything that is not a StoreError is what we look for
                outcome, trouble = "crash", repr(error)
            looks.append(Look(offset, bit, outcome, trouble))
            for each in Path(name).glob(f"{number}.db*"):
                each.unlink()
    return looks


def _copy(file: Path, content: bytes) -> Path:
    file.write_bytes(content)
    return file


def _look(file: Path, expected: Facts, right: dict[str, bytes | None]) -> tuple[str, str]:
    try:
        store = Store.open(file, OPTIONS)
    except StoreError as error:
        return f"refused when opened ({type(error).__name__})", ""
    with store:
        found = dict(contents(store, list(right)))
        wrong = [path for path, data in found.items() if data is not None and data != right[path]]
        if wrong:
            return "wrong bytes", f"GET {wrong[0]} gives wrong bytes"
        if verdict := _verdict(store):
            return verdict, ""
        seen = facts(store)
    if found != right:
        return "unseen", "check finds nothing, and a GET ends early"
    if seen != expected:
        return "unseen", f"check finds nothing, and clients see something else: {_difference(seen, expected)}"
    return "changes nothing", ""


def _verdict(store: Store) -> str:
    try:
        return "found by check" if check(store, deep=True) else ""
    except StoreError as error:
        return f"found: cannot be read ({type(error).__name__})"


def _difference(found: Facts, expected: Facts) -> str:
    for path, (node, properties, locks) in expected.items():
        if path not in found:
            return f"{path} is missing"
        for one, other in zip((node, properties, locks), found[path], strict=True):
            if one != other:
                return f"{path}: {other} instead of {one}"
    return "more nodes"


DESCRIBING_PAGES = "SELECT pageno FROM dbstat WHERE name NOT IN ('chunk_data', 'sqlite_schema') AND ncell > 20"


def _describing_pages(file: Path) -> list[range]:
    """The bytes of the pages that say what lies where, as ranges."""
    with Store.open(file, OPTIONS) as store, store.read() as tx:
        size: int = tx.value("PRAGMA page_size")
        return [range((page - 1) * size, page * size) for (page,) in tx.rows(DESCRIBING_PAGES)]


def flip_many(flips: int, seed: int, jobs: int, *, only_describing: bool = False) -> list[Look]:
    """Random flips, in processes; one that takes its process along is a crash.

    Args:
        only_describing: not in content, nor in pages that are nearly empty.
    """
    rng = random.Random(seed)  # noqa: S311
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        original = Path(name) / "original.db"
        make_original(original)
        ranges = _describing_pages(original) if only_describing else [range(original.stat().st_size)]
        places = [(rng.choice(rng.choice(ranges)), rng.randrange(8)) for _ in range(flips)]
        looks, left = _in_processes(original, [places[start : start + BATCH] for start in range(0, flips, BATCH)], jobs)
        for place in left:  # one of them took the processes along: which?
            found, crashed = _in_processes(original, [[place]], 1)
            looks += found + [Look(*each, "crash", "the process died") for each in crashed]
    return looks


def _in_processes(original: Path, batches: list[list[Place]], jobs: int) -> tuple[list[Look], list[Place]]:
    """What became of the flips; and those of which nothing is known because a process died."""
    looks: list[Look] = []
    left: list[Place] = []
    with ProcessPoolExecutor(min(jobs, len(batches)), get_context("spawn")) as pool:
        pending = [pool.submit(look_at_flips, original, batch) for batch in batches]
        for batch, each in zip(batches, pending, strict=True):
            try:
                looks.extend(each.result())
            except BrokenProcessPool:
                left.extend(batch)
    return looks, left


@click.command()
@click.option("--flips", default=1000, show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--jobs", default=os.cpu_count() or 1, show_default=True, help="Processes.")
@click.option("--describing", "only_describing", is_flag=True, help="Only in full pages of tables and indexes.")
def main(flips: int, seed: int, jobs: int, *, only_describing: bool) -> None:
    """Flip bits one by one; exit 1 when one did harm unseen."""
    looks = flip_many(flips, seed, jobs, only_describing=only_describing)
    for outcome, number in sorted(Counter(look.outcome for look in looks).items()):
        click.echo(f"{number:6}  {outcome}")
    troubles = [look for look in looks if look.trouble]
    for look in troubles[:40]:
        click.echo(f"        byte {look.offset}, bit {look.bit}: {look.trouble}")
    sys.exit(bool(troubles))


if __name__ == "__main__":
    main()

"""Single bits that rot in a store's file: what `check --deep` finds, and what a client gets.

A flip may stay unseen only where it changes nothing that a client can see. No flip may make GET give wrong bytes as
complete, or crash the process, or send it round in circles, whatever is done with the store: this happens in processes
of their own, whose time and memory have a bound.
"""

from __future__ import annotations

import logging
import os
import random
import resource
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import click

from davsql.errors import DavsqlError, StoreDamaged, StoreError
from davsql.maintenance.gc import collect_garbage
from davsql.maintenance.tasks import IncrementalVacuum, IntegrityCheck, Scrub
from davsql.model import ROOT_INODE, LockRequest, LockScope, PropertyUpdate
from davsql.store.check import check
from davsql.store.options import StoreOptions
from davsql.store.snapshot import Snapshot
from davsql.store.store import Store
from tests.faults.disk import MEMORY
from tests.store_steps import at, mkcol, put

OPTIONS = StoreOptions(readers=1, cache_mb=4, page_size=1024)  # small pages are full ones
FILES = 60
NODES_MAX = 1000
BATCH = 20
FLIP_S = 60  # a flip takes some 50 ms; after so long nothing ends any more
MEMORY_BYTES = 2 * 1024**3  # of a process
GROWTH_KIB = 200 * 1024  # of a process by one flip

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
            data = rng.randbytes(rng.choice((0, 10, 700, 5000, 30_000)))
            _put(store, f"{folder}/file {number}.txt", data.hex().encode() if number % 3 else data)
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
        if nodes is None:
            raise StoreDamaged("the tree leads round in circles")
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
            signal.alarm(FLIP_S)  # ends the process
            memory_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            try:
                outcome, trouble = _look(file, expected, right)
            except Exception as error:  # noqa: BLE001  # anything that is not a StoreError is what we look for
                outcome, trouble = "crash", repr(error)
            signal.alarm(0)
            grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory_kib
            if grown_kib > GROWTH_KIB:
                outcome, trouble = "crash", f"took {grown_kib // 1024} MiB"
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
        judged = _judge(store, expected, right)
        for use in USES:
            with suppress(DavsqlError):
                use(store)
    return judged


def _judge(store: Store, expected: Facts, right: dict[str, bytes | None]) -> tuple[str, str]:
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


# What a server does besides, to a copy of the tree and to all; any of it may be refused.
USES: tuple[Callable[[Store], object], ...] = (
    facts,
    lambda store: store.stats(),
    lambda store: Scrub(0, 1e15).run(store, lambda: False),
    lambda store: IntegrityCheck(0).run(store, lambda: False),
    lambda store: put(store, "/a/new", b"new"),
    lambda store: store.copy(at("/a"), at("/copy")),
    lambda store: store.copy(at("/a"), at("/copy")),
    lambda store: put(store, "/copy/large", b"large" * 20_000),
    lambda store: store.set_properties(at("/copy"), [PropertyUpdate("urn:x", "p", "<p xmlns='urn:x'/>")]),
    lambda store: store.move(at("/copy/b"), at("/copy/a/moved")),
    lambda store: store.move(at("/copy/b"), at("/moved")),
    lambda store: store.lock(at("/moved"), LockRequest(LockScope.EXCLUSIVE, True, None, 600)),  # noqa: FBT003
    lambda store: store.delete(at("/copy")),
    lambda store: collect_garbage(store, grace_s=0, upload_expiry_s=0),
    lambda store: IncrementalVacuum(0).run(store, lambda: False),
    lambda store: check(store, deep=True),
)


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
    with ProcessPoolExecutor(min(jobs, len(batches)), get_context("spawn"), _prepare_process) as pool:
        pending = [pool.submit(look_at_flips, original, batch) for batch in batches]
        for batch, each in zip(batches, pending, strict=True):
            try:
                looks.extend(each.result())
            except BrokenProcessPool:
                left.extend(batch)
    return looks, left


def _prepare_process() -> None:
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


@click.command("bit-flips")
@click.option("--flips", default=1000, show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--jobs", default=os.cpu_count() or 1, show_default=True, help="Processes.")
def command(flips: int, seed: int, jobs: int) -> bool:
    """Flip bits of a store one by one, half of them in full pages of tables and indexes, and use it.

    Each flip must be found by `check --deep`, or change nothing that a client sees; no GET may end well with wrong
    bytes, and nothing may crash, run without end or take memory without end.
    """
    troubles = 0
    for only_describing in (False, True):
        looks = flip_many(flips // 2, seed, jobs, only_describing=only_describing)
        click.echo("bits in full pages of tables and indexes:" if only_describing else "bits anywhere:")
        for outcome, number in sorted(Counter(look.outcome for look in looks).items()):
            click.echo(f"{number:6}  {outcome}")
        for look in looks:
            if look.trouble:
                troubles += 1
                click.echo(f"        byte {look.offset}, bit {look.bit}: {look.trouble}")
    return not troubles

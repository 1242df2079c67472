"""A WAL that was cut, zeroed, overwritten or rots: the store opens with a prefix of the commits, and is sound."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import click

from davsql.errors import StoreError
from davsql.store.check import check
from davsql.store.options import StoreOptions
from davsql.store.store import Store
from tests.faults.disk import MEMORY
from tests.faults.workload import Client, Tree, small_pieces, tree_of

OPTIONS = StoreOptions(readers=1, cache_mb=4)
STEPS = 40
UNBOUNDED = 2**40
DAMAGES = ("cut", "flip", "zero", "garbage", "gone")


class Original(NamedTuple):
    """The files of a store that nobody closed."""

    database: bytes
    wal: bytes
    states: list[Tree]  # after each commit since the last checkpoint


def make_original(seed: int) -> Original:
    """Some commands in the file, the rest in the WAL over what is left of an older one.

    No checkpoint has begun since: of a WAL that is partly in the file already, losing a part breaks the store, which
    integrity_check finds.
    """
    client = Client("c", seed)
    with tempfile.TemporaryDirectory(dir=MEMORY) as name, small_pieces(UNBOUNDED):
        file = Path(name) / "store.db"
        with Store.open(file, OPTIONS, create=True) as store:
            _walk(store, client, STEPS)
            store.checkpoint()
            states = [client.tree, *_walk(store, client, STEPS // 4)]
            return Original(file.read_bytes(), file.with_name("store.db-wal").read_bytes(), states)


def _walk(store: Store, client: Client, steps: int) -> list[Tree]:
    states = []
    for _ in range(steps):
        step = client.next_step()
        step.run(store)
        client.done(step)
        states.append(client.tree)
    return states


def damaged(wal: bytes, how: str, rng: random.Random) -> bytes:
    """The WAL after a mishap."""
    start = rng.randrange(len(wal))
    end = min(len(wal), start + rng.choice((1, 24, 512, 8192, 100_000)))
    match how:
        case "cut":
            return wal[:start]
        case "flip":
            return wal[:start] + bytes([wal[start] ^ 1 << rng.randrange(8)]) + wal[start + 1 :]
        case "zero":
            return wal[:start] + bytes(end - start) + wal[end:]
        case "garbage":
            return wal[:start] + rng.randbytes(end - start) + wal[end:]
        case _:
            return b""


def outcome(original: Original, wal: bytes) -> tuple[str, str]:
    """What became of it, in a word; and what is wrong with that."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        file = Path(name) / "store.db"
        file.write_bytes(original.database)
        file.with_name("store.db-wal").write_bytes(wal)
        try:
            with Store.open(file, OPTIONS) as store:
                if violations := check(store, deep=True):
                    return "broken", violations[0].message
                found = tree_of(store)
        except StoreError as error:
            return "does not open", repr(error)
    if found not in original.states:
        return "mixed", "the tree is none that it ever was"
    return ("all commits" if found == original.states[-1] else "the first commits"), ""


def tear_many(times: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Outcomes by kind of damage, and what went wrong."""
    rng = random.Random(seed)  # noqa: S311
    found, troubles = Counter[str](), list[str]()
    original = make_original(seed)
    for number in range(times):
        if number % 100 == 99:
            original = make_original(rng.getrandbits(32))
        how = rng.choice(DAMAGES)
        what, trouble = outcome(original, damaged(original.wal, how, rng))
        found[f"{how}: {what}"] += 1
        if trouble:
            troubles.append(f"seed {seed}, number {number}, {how}: {what}: {trouble}")
    return found, troubles


@click.command("torn-wals")
@click.option("--times", default=1000, show_default=True)
@click.option("--seed", default=1, show_default=True)
def command(times: int, seed: int) -> bool:
    """Cut, zero, overwrite and flip bits of WALs: what is left must be the first commits, and sound."""
    found, troubles = tear_many(times, seed)
    for what, number in sorted(found.items()):
        click.echo(f"{number:6}  {what}")
    for trouble in troubles:
        click.echo(f"        {trouble}")
    return not troubles

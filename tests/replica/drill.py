"""Kill davsql and Litestream under load, restore from the replica alone, compare with what was acknowledged.

Each cycle loads the server, then one of these, in turn:
  all         kill -9 of both, then the store is deleted: what is lost is told, in writes and seconds
  davsql      kill -9 of davsql only, which ends Litestream; after a new start nothing may be lost
  litestream  kill -9 of Litestream in the middle of the load, and an orderly stop at its end; nothing may be lost
After each, the newest state and one as of a moment in the middle of the load are restored, checked to the last byte
and compared.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from tests.replica.load import Load, Loss, kept_writes, writes_around
from tests.replica.site import Site

SLACK_S = 4.0  # two intervals and what syncs take under load: how far a state may lie behind the moment asked for
CYCLES_PER_SITE = 12  # then with a new store
MODES = ("all", "davsql", "litestream")


class Outcome(NamedTuple):
    """What came of one cycle."""

    mode: str
    loss: Loss
    behind_s: float  # how far the state as of a moment lies behind that moment, at most
    wal_mb: float  # the WAL at the end of the load


class Drill:
    """Cycles on one site; each must find what the ones before have left."""

    def __init__(self, folder: Path, *, clients: int, seconds: float, seed: int) -> None:
        self._site = Site(folder / "site")
        self.folder = folder
        self._clients = clients
        self._seconds = seconds
        self._seed = seed
        self._before: Mapping[str, bytes | None] = {}
        self._number = 0

    def close(self) -> None:
        self._site.close()

    def cycle(self, mode: str) -> Outcome:
        """Load, break, restore, compare."""
        self._number += 1
        site, seed = self._site, self._seed + 1000 * self._number
        address = site.start()
        site.wait_until_replicated()
        load = Load(address, self._clients, label=f"{self._number}", seed=seed)
        time.sleep(self._seconds / 2)
        middle = time.time()
        if mode == "litestream":
            site.kill(davsql=False)
        time.sleep(self._seconds / 2)
        wal_mb = site.db.with_name("store.db-wal").stat().st_size / 1e6
        ended_at = time.time()
        if mode == "litestream":
            load.end()
            site.stop()
        else:
            site.kill(litestream=mode == "all")
            load.end()
        site.wait_for_litestream()
        if mode == "davsql":
            site.start()
            site.stop()
        newest = self._restore("newest")
        outcome = Outcome(mode, load.loss(newest, ended_at=ended_at), self._compare_middle(load, middle), wal_mb)
        self._continue(mode, newest)
        return outcome

    def _restore(self, name: str, at: datetime | None = None) -> dict[str, bytes | None]:
        target = self.folder / f"{name}.db"
        for old in self.folder.glob(f"{name}.db*"):
            old.unlink()
        found = self._site.restore(target, at)
        for path, content in self._before.items():
            assert found.get(path) == content, f"{path} of an earlier cycle has changed"
        return found

    def _compare_middle(self, load: Load, middle: float) -> float:
        found = self._restore("middle", datetime.fromtimestamp(middle, UTC))
        behind_s = 0.0
        for client, (least, most) in zip(load.clients, writes_around(load.clients, middle, SLACK_S), strict=True):
            kept = kept_writes(client, found)
            assert least <= kept <= most, f"{client.folder}: {kept} writes at the moment, expected {least} to {most}"
            missing = [each.acknowledged_at for each in client.writes[kept:most] if each.acknowledged_at is not None]
            behind_s = max([behind_s, *(middle - each for each in missing)])
        return behind_s

    def _continue(self, mode: str, newest: dict[str, bytes | None]) -> None:
        """After `all` go on with what was restored, after the others with the store as it is."""
        self._before = newest
        if mode == "all":
            site = self._site
            for part in site.folder.glob("store.db*"):
                shutil.rmtree(part) if part.is_dir() else part.unlink()
            (self.folder / "newest.db").rename(site.db)


def main() -> int:
    """Run cycles and print a line about each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=20.0, help="of load in each cycle")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--keep", type=Path, help="folder to work in, left as it is when something is wrong")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    options = parser.parse_args()
    say = sys.stdout.write
    say(f"seed {options.seed}\n")
    with tempfile.TemporaryDirectory(prefix="davsql-replica-") as folder:

        def make_drill(number: int) -> Drill:
            place = (options.keep or Path(folder)) / f"from-{number + 1}"
            return Drill(place, clients=options.clients, seconds=options.seconds, seed=options.seed + number)

        drill = make_drill(0)
        try:
            for number in range(options.cycles):
                if number and number % CYCLES_PER_SITE == 0:
                    drill.close()
                    shutil.rmtree(drill.folder)
                    drill = make_drill(number)
                outcome = drill.cycle(options.modes[number % len(options.modes)])
                loss = outcome.loss
                say(
                    f"{number + 1:4} {outcome.mode:10} acknowledged {loss.acknowledged:6}  lost {loss.lost:4} writes, "
                    f"{loss.window_s:5.2f} s  state as of a moment: {outcome.behind_s:4.2f} s behind  "
                    f"WAL {outcome.wal_mb:6.1f} MB\n"
                )
                sys.stdout.flush()
                if loss.lost and outcome.mode != "all":
                    say("writes were lost that should be in the replica\n")
                    return 1
        finally:
            drill.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The order of a campaign: servers are started and seeded, workloads run in turns, each result is written at once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmark import bulk, machine, seed, servers
from tests.benchmark.load import Wrong
from tests.benchmark.machine import Memory
from tests.benchmark.runs import Bench, Workload
from tests.benchmark.seed import Size
from tests.benchmark.servers import HELLO, NotStarted, Peer, Server

SETTLE_S = 1.0  # before idle memory is read

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Scale:
    """How much a campaign measures."""

    size: Size = field(default_factory=Size)
    seconds: int = 1  # of each rate
    reps: int = 3


@dataclass(frozen=True, slots=True)
class Run:
    """One workload on one server, once."""

    server: str
    workload: str  # the key of its first row
    rep: int
    values: dict[str, float]
    requests: int
    void: str | None  # why nothing counts
    wall_s: float
    cpu_s: float  # of the server
    others_cpu_s: float  # of what is neither the server nor this program
    grown_bytes: int  # of the process that has most: its peak less what it had when the server was idle
    peak_bytes: int  # of all its processes; what they share counts for each


@dataclass(frozen=True, slots=True)
class Results:
    """All that a campaign found out, as it stands in the file."""

    about: dict[str, str]  # this machine
    versions: dict[str, str]
    missing: dict[str, list[str]]
    started: str
    scale: dict[str, Any]
    idle: dict[str, Memory] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)

    @property
    def size(self) -> Size:
        """The size of the data."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in self.scale["size"].items()
        }
        return Size(**values)

    def write(self, path: Path) -> None:
        """Replace the file in one step: a campaign that is cut leaves what it had."""
        scratch = path.with_name(f"{path.name}.tmp")
        scratch.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")
        scratch.replace(path)


def read_results(path: Path) -> Results:
    """What `Results.write` wrote."""
    values = json.loads(path.read_text(encoding="utf-8"))
    values["idle"] = {key: Memory(**each) for key, each in values["idle"].items()}
    values["runs"] = [Run(**each) for each in values["runs"]]
    return Results(**values)


class Campaign:
    """Servers that run side by side while one after the other is measured."""

    def __init__(self, folder: Path, scale: Scale, say: Say) -> None:
        self._folder, self._scale, self._say = folder, scale, say
        self._tree, self._uploads = folder / "tree", folder / "uploads"
        self._servers: list[Server] = []
        self._resting: dict[str, int] = {}  # resident bytes of each server's largest process while idle

    def run(self, peers: Sequence[Peer], workloads: Sequence[Workload], output: Path) -> Results:
        """Measure; `output` is written after each turn. Peers that are not installed are left out."""
        missing = {peer.title: peer.missing() for peer in peers if peer.missing()}
        there = [peer for peer in peers if peer.title not in missing]
        for title, needs in missing.items():
            self._say(f"{title} is left out, for these are missing: {', '.join(needs)}")
        results = Results(
            about=machine.describe_machine(self._folder),
            versions={peer.title: servers.version_of(peer) for peer in there},
            missing=missing,
            started=time.strftime("%Y-%m-%d %H:%M %Z"),
            scale=asdict(self._scale),
        )
        self._uploads.mkdir(parents=True)
        try:
            self._start(there, results)
            for workload in workloads:
                for rep in range(1, 1 + (1 if workload.all_at_once else self._scale.reps)):
                    self._take_turns(workload, rep, results)
                    results.write(output)
        finally:
            for server in self._servers:
                server.stop()
        return results

    def _start(self, peers: Sequence[Peer], results: Results) -> None:
        self._say("making the data")
        seed.make_tree(self._tree, self._scale.size)
        for peer in peers:
            self._say(f"starting {peer.title}")
            try:
                server = servers.start(peer, self._folder / f"run-{peer.key}", self._seeded_root(peer))
            except (NotStarted, OSError) as error:
                self._say(f"{peer.title} is left out, for it did not start: {error}")
                results.missing[peer.title] = [f"it did not start: {error}"]
                continue
            self._servers.append(server)
        os.sync()
        time.sleep(SETTLE_S)
        for server in self._servers:
            pids = server.pids()
            results.idle[server.peer.key] = machine.idle_memory_of(pids)
            self._resting[server.peer.key] = machine.resident_memory_of(pids).largest

    def _seeded_root(self, peer: Peer) -> Path:
        if not peer.stores:
            return self._tree
        if not peer.is_ours:
            root = self._folder / f"root-{peer.key}"
            seed.copy_tree(self._tree, root, peer.owner if os.geteuid() == 0 else None)
            return root
        store, filled = self._folder / f"{peer.key}.db", self._folder / "filled.db"
        if not filled.exists():
            _davsql("init", "--db", str(filled))
            _davsql("import", "--db", str(filled), str(self._tree))
        shutil.copyfile(filled, store)
        return store

    def _take_turns(self, workload: Workload, rep: int, results: Results) -> None:
        """One repetition on all servers that take part; every second one in the opposite order."""
        parts = [server for server in self._servers if _takes_part(server.peer, workload)]
        benches = [
            Bench(server, self._scale.size, self._scale.seconds, rep, self._tree, self._uploads)
            for server in (parts if rep % 2 else reversed(parts))
        ]
        if workload.all_at_once and benches:
            bulk.prepare_sync(benches[0])
            with ThreadPoolExecutor(len(benches)) as pool:
                results.runs.extend(pool.map(lambda bench: self._measure(workload, bench), benches))
        else:
            results.runs.extend(self._measure(workload, bench) for bench in benches)
        for path in self._uploads.glob("*.bin"):
            path.unlink()

    def _measure(self, workload: Workload, bench: Bench) -> Run:
        server, pids = bench.server, bench.server.pids()
        machine.reset_peaks(pids)
        all_before, own_before = machine.machine_cpu(), machine.own_cpu()
        cpu_before, started = machine.cpu_of(pids), time.perf_counter()
        values, requests, void = _figures_of(workload, bench)
        wall_s, pids = time.perf_counter() - started, server.pids()
        cpu_s = machine.cpu_of(pids) - cpu_before
        others_s = machine.machine_cpu() - all_before - (machine.own_cpu() - own_before) - cpu_s
        peak = machine.peak_memory_of(pids)
        key = workload.rows[0].key
        told = void or ", ".join(f"{value:,.1f} {row.unit}" for row in workload.rows for value in [values[row.key]])
        self._say(f"{key} {bench.rep}: {server.peer.title}: {told}")
        return Run(
            server=server.peer.key,
            workload=key,
            rep=bench.rep,
            values=values,
            requests=requests,
            void=void,
            wall_s=wall_s,
            cpu_s=cpu_s,
            others_cpu_s=0.0 if workload.all_at_once else max(0.0, others_s),
            grown_bytes=peak.largest - self._resting[server.peer.key],
            peak_bytes=peak.total,
        )


def _davsql(*arguments: str) -> None:
    command = [sys.executable, "-m", "davsql", *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NotStarted(done.stderr.strip()[-500:])


def _takes_part(peer: Peer, workload: Workload) -> bool:
    if peer.key == HELLO:
        return workload.hello
    if peer.key == "davsql-normal":
        return workload.writes
    return peer.is_ours or not workload.ours


def _figures_of(workload: Workload, bench: Bench) -> tuple[dict[str, float], int, str | None]:
    if not bench.server.is_alive():
        return {}, 0, "the server has ended"
    try:
        figures = workload.run(bench)
    except (Wrong, subprocess.TimeoutExpired) as error:
        return {}, 0, str(error)
    return figures.values, figures.requests, None

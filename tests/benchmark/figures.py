"""Medians of what was measured."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.benchmark.campaign import Results, Run
from tests.benchmark.runs import Row
from tests.benchmark.servers import PEERS, Peer
from tests.benchmark.workloads import ROWS, WORKLOADS

TICK_S = 0.01
NOISY = 0.1  # of the machine's processors used by others: such a run is not looked at if there is a better one
WORKLOAD_OF = {row.key: workload.rows[0].key for workload in WORKLOADS for row in workload.rows}
ALL_AT_ONCE = {workload.rows[0].key for workload in WORKLOADS if workload.all_at_once}


@dataclass(frozen=True, slots=True)
class Figure:
    """The median of several runs."""

    value: float
    noisy: bool  # others used much of the machine in all of them


class Figures:
    """The medians of one or several campaigns, of which the later ones replace what the earlier ones measured."""

    def __init__(self, campaigns: Sequence[Results]) -> None:
        self.last = campaigns[-1]
        self.processors = int(self.last.about["processors"].split()[0])
        self.idle = {key: memory for results in campaigns for key, memory in results.idle.items()}
        self._runs: dict[tuple[str, str], list[Run]] = {}
        for results in campaigns:
            fresh: dict[tuple[str, str], list[Run]] = {}
            for run in results.runs:
                fresh.setdefault((run.workload, run.server), []).append(run)
            self._runs |= fresh

    @property
    def peers(self) -> list[Peer]:
        """The servers that took part."""
        there = {server for _, server in self._runs}
        return [peer for peer in PEERS if peer.key in there]

    @property
    def rows(self) -> list[Row]:
        """The rows of workloads that ran."""
        there = {workload for workload, _ in self._runs}
        return [row for key, row in ROWS.items() if WORKLOAD_OF[key] in there]

    @property
    def workloads(self) -> list[str]:
        """The workloads that ran, by the keys of their first rows."""
        return list(dict.fromkeys(WORKLOAD_OF[row.key] for row in self.rows))

    def of(self, row: str, server: str) -> Figure | None:
        """The figure of a row; none where nothing was measured, or a run was void."""
        return self._median(WORKLOAD_OF[row], server, lambda run: run.values[row])

    def value(self, row: str, server: str) -> float | None:
        """The value of that."""
        figure = self.of(row, server)
        return None if figure is None else figure.value

    def cpu(self, workload: str, server: str) -> Figure | None:
        """The server's CPU: microseconds of a request where they were counted, else seconds of a run."""
        return self._median(workload, server, lambda run: run.cpu_s / run.requests * 1e6 if run.requests else run.cpu_s)

    def counts_requests(self, workload: str) -> bool:
        """Whether `cpu` is that of a request."""
        return any(run.requests for (key, _), runs in self._runs.items() for run in runs if key == workload)

    def grown(self, workload: str, server: str) -> int | None:
        """Bytes by which the largest process grew at most beyond what it had when the server was idle."""
        return max((run.grown_bytes for run in self._runs.get((workload, server), [])), default=None)

    def voids(self) -> list[tuple[str, str, str]]:
        """Workload, server and reason of what does not count."""
        found = [(run.workload, run.server, run.void) for runs in self._runs.values() for run in runs if run.void]
        return sorted(set(found))

    def best(self, row: Row, servers: Sequence[str]) -> tuple[str, float] | None:
        """Which of `servers` did best, and its value."""
        there = [(server, value) for server in servers if (value := self.value(row.key, server)) is not None]
        pick = max if row.more_is_better else min
        return pick(there, key=lambda each: each[1], default=None)

    def _median(self, workload: str, server: str, value_of: Callable[[Run], float]) -> Figure | None:
        runs = self._runs.get((workload, server), [])
        if not runs or any(run.void for run in runs):
            return None
        quiet = [run for run in runs if run.others_cpu_s <= NOISY * self.processors * run.wall_s]
        return Figure(statistics.median(value_of(run) for run in quiet or runs), noisy=not quiet)


def ahead(row: Row, value: float, other: float) -> float:
    """How many times better than `other` `value` is."""
    least = TICK_S if row.unit == "CPU s" else sys.float_info.min  # CPU time comes in ticks of the clock
    better, worse = (value, other) if row.more_is_better else (other, value)
    return max(better, least) / max(worse, least)

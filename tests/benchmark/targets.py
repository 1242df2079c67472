"""What davsql is to reach beside its peers, and whether it does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.benchmark.figures import Figures, ahead
from tests.benchmark.servers import HELLO, PEERS
from tests.benchmark.workloads import ROWS, WORKLOADS

OTHERS = tuple(peer.key for peer in PEERS if not peer.is_ours and peer.key != HELLO)
MEGABYTE = 1_000_000
IDLE_MB = 60
GROWN_MB = 64


@dataclass(frozen=True, slots=True)
class Target:
    """One figure of davsql is to be so many times as good as that of the best of some peers."""

    rows: tuple[str, ...]
    factor: float
    peers: tuple[str, ...]
    first: bool = True  # else a goal for later
    server: str = "davsql"


@dataclass(frozen=True, slots=True)
class Limit:
    """One figure of davsql is to be at least (or for times at most) so much."""

    rows: tuple[str, ...]
    value: float
    first: bool = True
    server: str = "davsql"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether one target is reached; the texts are cells of a table."""

    row: str
    ours: str
    wanted: str
    first: bool
    seen: str
    reached: bool


READS = tuple(f"{kind}_{connections}" for kind in ("get", "head", "not_modified") for connections in (8, 32))
LISTINGS = ("describe_8", "list_8", *(f"list{n}_{kind}" for n in range(3) for kind in ("all", "few")), "deep")
TREES = ("tree", "copy_big")
PUTS = ("put_8", "put_32")
LARGE = ("get_big", "range")
UPLOADS = ("put_big", "put_parts")

TARGETS: tuple[Target | Limit, ...] = (
    Target(READS, 1.5, ("rclone", "sabre")),
    Target(READS, 0.5, ("apache",)),
    Target(READS, 1.0, ("apache",), first=False),
    Limit(("get_1",), 6000),
    Target(("get_1",), 0.8, (HELLO,)),
    Target(("get_1",), 2.0, ("rclone",), first=False),
    Target(PUTS, 0.6, ("rclone",)),
    Target(PUTS, 1.0, ("rclone",), server="davsql-normal"),
    Target(PUTS, 1.0, ("apache",), first=False),
    Target(LISTINGS, 3.0, ("apache", "rclone", "sabre", "lighttpd")),
    Target(LISTINGS, 1.0, ("nginx",), first=False),
    Target(("mixed",), 1.0, ("rclone", "sabre")),
    Limit(("mixed_p99",), 20),
    Target(("mixed",), 1.0, ("apache",), first=False),
    Target(TREES, 10, OTHERS),
    Target(TREES, 50, OTHERS, first=False),
    Target(LARGE, 0.5, ("apache",)),
    Target(LARGE, 1.0, ("sabre",)),
    Target(LARGE, 1.0, ("apache",), first=False),
    Target(UPLOADS, 1.0, ("rclone",)),
    Limit(UPLOADS, 400),
    Target(UPLOADS, 1.0, ("apache",), first=False),
    Target(("sync_cpu",), 5, ("wsgidav",)),
    Target(("sync_cpu",), 1.0, ("apache",), first=False),
)


def judge(figures: Figures) -> list[Verdict]:
    """All targets whose figures were measured, in the order of the rows."""
    verdicts = [verdict for target in TARGETS for verdict in _judge_one(target, figures)]
    order = list(ROWS)
    return sorted(verdicts, key=lambda verdict: order.index(verdict.row)) + list(_judge_memory(figures))


def _judge_one(target: Target | Limit, figures: Figures) -> Iterator[Verdict]:
    title = next(peer.title for peer in PEERS if peer.key == target.server)
    for key in target.rows:
        row, value = ROWS[key], figures.value(key, target.server)
        if value is None:
            continue
        if isinstance(target, Limit):
            reached = value >= target.value if row.more_is_better else value <= target.value
            sign = "at least" if row.more_is_better else "at most"
            wanted = f"{sign} {target.value:,.0f} {row.unit}"
            yield Verdict(key, title, wanted, target.first, f"{value:,.1f}", reached)
            continue
        best = figures.best(row, target.peers)
        if best is None:
            continue
        names = {peer.key: peer.title for peer in PEERS}
        times = ahead(row, value, best[1])
        wanted = f"{target.factor:g} x {names[best[0]]}"
        yield Verdict(key, title, wanted, target.first, f"{times:,.2f} x", times >= target.factor)


def _judge_memory(figures: Figures) -> Iterator[Verdict]:
    idle = figures.idle.get("davsql")
    if idle is not None:
        yield _judge_bytes("memory of a process, idle", idle.largest, IDLE_MB)
    keys = [workload.rows[0].key for workload in WORKLOADS]
    grown = [size_bytes for key in keys if (size_bytes := figures.grown(key, "davsql")) is not None]
    if grown:
        yield _judge_bytes("memory of a process, growth under load", max(grown), GROWN_MB)


def _judge_bytes(what: str, size_bytes: int, most_mb: int) -> Verdict:
    megabytes = size_bytes / MEGABYTE
    return Verdict(
        row=what,
        ours="davsql",
        wanted=f"at most {most_mb} MB",
        first=True,
        seen=f"{megabytes:.0f} MB",
        reached=megabytes <= most_mb,
    )

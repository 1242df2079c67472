"""Results as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.benchmark.figures import NOISY, Figure, Figures, ahead
from tests.benchmark.runs import Row
from tests.benchmark.servers import HELLO, Peer
from tests.benchmark.targets import judge
from tests.benchmark.workloads import ROWS, title_of

BEGIN, END = "<!-- figures: scripts/bench writes what follows -->", "<!-- end of figures -->"
MEMORY_TEXT = (
    "Megabytes while idle, where memory that processes share counts once, and by how much the process that has most "
    "grew at most until the end of each load; what it keeps from earlier loads counts."
)
MEGABYTE = 1_000_000
NOTHING = "–"  # noqa: RUF001 - an en dash, as in any table


def make_report(figures: Figures) -> str:
    """All tables."""
    size = figures.last.size
    titles = {key: title_of(row, size) for key, row in ROWS.items()}
    parts = [
        "## Targets",
        *_targets(figures, titles),
        "## Figures",
        *_table(figures, titles, lambda row, peer: figures.of(row.key, peer.key)),
        "## How far davsql is ahead",
        "Durability full; 2.0 is twice as fast, 0.5 half as fast.",
        *_ratios(figures, titles),
        "## CPU of the server",
        "Microseconds a request, or seconds of the whole run where it says s.",
        *_cpu(figures, titles),
        "## Memory",
        MEMORY_TEXT,
        *_memory(figures, titles),
        "## Conditions",
        *_conditions(figures, titles),
    ]
    return "\n\n".join(parts) + "\n"


def insert_report(page: Path, report: str) -> None:
    """Replace what stands between the two marks on a page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise ValueError(f"{page}: the lines {BEGIN} and {END} are missing")
    page.write_text(f"{before}{BEGIN}\n\n{report}\n{END}{after}", encoding="utf-8")


def number(value: float) -> str:
    """Three digits or so."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f}"


def _grid(head: Sequence[str], lines: Iterator[list[str]]) -> str:
    rows = [list(head), ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def _cell(figure: Figure | None) -> str:
    return NOTHING if figure is None else number(figure.value) + (" ~" if figure.noisy else "")


def _table(figures: Figures, titles: dict[str, str], figure_of: Callable[[Row, Peer], Figure | None]) -> Iterator[str]:
    head = ["work", "unit", *(peer.title for peer in figures.peers)]
    lines = (
        [titles[row.key], row.unit, *(_cell(figure_of(row, peer)) for peer in figures.peers)] for row in figures.rows
    )
    yield _grid(head, lines)


def _ratios(figures: Figures, titles: dict[str, str]) -> Iterator[str]:
    others = [peer for peer in figures.peers if not peer.is_ours]
    lines = []
    for row in figures.rows:
        ours = figures.value(row.key, "davsql")
        theirs = [figures.value(row.key, peer.key) for peer in others]
        if ours is not None and any(value is not None for value in theirs):
            cells = [NOTHING if value is None else number(ahead(row, ours, value)) for value in theirs]
            lines.append([titles[row.key], *cells])
    yield _grid(["work", *(peer.title for peer in others)], iter(lines))


def _targets(figures: Figures, titles: dict[str, str]) -> Iterator[str]:
    verdicts = judge(figures)
    for first, name in ((True, "first"), (False, "next")):
        part = [verdict for verdict in verdicts if verdict.first == first]
        if part:
            reached = sum(verdict.reached for verdict in part)
            yield f"The {name} targets: {reached} of {len(part)} reached."
            yield _grid(
                ["work", "of", "wanted", "measured", "reached"],
                (
                    [titles.get(each.row, each.row), each.ours, each.wanted, each.seen, "yes" if each.reached else "no"]
                    for each in part
                ),
            )


def _cpu(figures: Figures, titles: dict[str, str]) -> Iterator[str]:
    peers = figures.peers
    lines = (
        [
            titles[workload],
            "us" if figures.counts_requests(workload) else "s",
            *(_cell(figures.cpu(workload, peer.key)) for peer in peers),
        ]
        for workload in figures.workloads
    )
    yield _grid(["work", "unit", *(peer.title for peer in peers)], lines)


def _memory(figures: Figures, titles: dict[str, str]) -> Iterator[str]:
    peers = [peer for peer in figures.peers if peer.key != HELLO]

    def idle(peer: Peer) -> str:
        memory = figures.idle.get(peer.key)
        return NOTHING if memory is None else f"{memory.total / MEGABYTE:.0f} in {memory.processes}"

    def grown(workload: str, peer: Peer) -> str:
        size_bytes = figures.grown(workload, peer.key)
        return NOTHING if size_bytes is None else f"+{max(0, size_bytes) / MEGABYTE:.0f}"

    lines = [["idle, all processes", *(idle(peer) for peer in peers)]]
    lines += [[titles[key], *(grown(key, peer) for peer in peers)] for key in figures.workloads]
    yield _grid(["work", *(peer.title for peer in peers)], iter(lines))


def _conditions(figures: Figures, titles: dict[str, str]) -> Iterator[str]:
    last = figures.last
    lines = [f"- {name}: {value}" for name, value in last.about.items()]
    lines += [f"- {title}: {version}" for title, version in last.versions.items()]
    lines += [f"- {title} was left out: {', '.join(needs)}" for title, needs in last.missing.items()]
    lines.append(f"- {last.started}; medians of {last.scale['reps']}; each rate is that of {last.scale['seconds']} s.")
    yield "\n".join(lines)
    if any(figure.noisy for row in figures.rows for peer in figures.peers if (figure := figures.of(row.key, peer.key))):
        yield f"`~`: other programs used more than {NOISY:.0%} of the processors meanwhile, in every repetition."
    voids = figures.voids()
    if voids:
        names = {peer.key: peer.title for peer in figures.peers}
        lines = [f"- {titles[workload]}: {names[server]}: {reason}" for workload, server, reason in voids]
        yield f"Void, and shown as {NOTHING}, because an answer was not right:"
        yield "\n".join(lines)

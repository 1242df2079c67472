"""Results as a chart: how fast each peer is beside davsql, on a logarithmic scale. SVG, for light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape

from tests.benchmark.figures import Figures, ahead
from tests.benchmark.runs import Row
from tests.benchmark.servers import Peer
from tests.benchmark.workloads import title_of

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 1000, 330, 30, 84, 44
ROW_HEIGHT = 24
LEGEND_GAP, LETTER_WIDTH = 32, 6.6
REFERENCE = "davsql"
# The colours of Okabe and Ito, which people who see fewer colours can tell apart, and a shape for each as well.
COLOURS = {
    "davsql": "#c1272d",
    "davsql-normal": "#c1272d",
    "apache": "#d55e00",
    "nginx": "#009e73",
    "lighttpd": "#56b4e9",
    "rclone": "#0072b2",
    "sabre": "#cc79a7",
    "wsgidav": "#b8860b",
    "hello": "#888888",
}
SHAPES = {
    "circle": "M-5,0a5,5 0 1,0 10,0a5,5 0 1,0 -10,0z",
    "square": "M-4.5,-4.5h9v9h-9z",
    "diamond": "M0,-6L6,0L0,6L-6,0z",
    "up": "M0,-5.5L5.5,4.5L-5.5,4.5z",
    "down": "M0,5.5L5.5,-4.5L-5.5,-4.5z",
    "cross": "M-5,-2h3v-3h4v3h3v4h-3v3h-4v-3h-3z",
    "bar": "M-1.5,-8h3v16h-3z",
}
SHAPE_OF = {
    "davsql": "bar",
    "davsql-normal": "diamond",
    "apache": "circle",
    "nginx": "square",
    "lighttpd": "up",
    "rclone": "diamond",
    "sabre": "down",
    "wsgidav": "cross",
    "hello": "square",
}
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #333 }
.small { font-size: 11px; fill: #666 } .title { font-size: 15px; font-weight: 600 }
.grid { stroke: #8884; stroke-width: 1 } .stripe { fill: #8881 } .equal { stroke: #c1272d; stroke-width: 2 }
@media (prefers-color-scheme: dark) { text { fill: #ddd } .small { fill: #aaa } }
"""


def make_chart(figures: Figures) -> str:
    """The whole picture; rows that davsql has no figure for are left out."""
    rows = [row for row in figures.rows if _points(figures, row)]
    points = {row.key: _points(figures, row) for row in rows}
    ratios = [ratio for each in points.values() for ratio in each.values()] or [1.0]
    scale = _Scale(min(*ratios, 0.5), max(*ratios, 2.0))
    height = TOP + len(rows) * ROW_HEIGHT + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img">',
        "<title>Speed of WebDAV servers, relative to davsql</title>",
        f"<style>{STYLE}</style>",
        f'<text x="16" y="24" class="title">Speed relative to davsql ({escape(figures.last.started[:10])})</text>',
        *_legend([peer for peer in figures.peers if peer.key in COLOURS]),
        *_grid(scale, height),
    ]
    for index, row in enumerate(rows):
        parts += _line(figures, row, points[row.key], scale, TOP + index * ROW_HEIGHT)
    return "\n".join([*parts, "</svg>"]) + "\n"


class _Scale:
    """Ratios to pixels, in steps of 1, 2, 5, 10."""

    def __init__(self, least: float, most: float) -> None:
        steps = [factor * 10.0**power for power in range(-6, 7) for factor in (1, 2, 5)]
        self._low = max(step for step in steps if step <= least * 0.95)
        self._high = min(step for step in steps if step >= most * 1.05)
        self.ticks = [step for step in steps if self._low <= step <= self._high]
        if len(self.ticks) > 12:
            self.ticks = [step for step in self.ticks if math.isclose(math.log10(step) % 1, 0, abs_tol=1e-9)]

    def x(self, ratio: float) -> float:
        """Where a ratio is."""
        part = math.log(ratio / self._low) / math.log(self._high / self._low)
        return LEFT + part * (WIDTH - LEFT - RIGHT)


def _points(figures: Figures, row: Row) -> dict[str, float]:
    """How many times as fast as davsql each other server is."""
    ours = figures.value(row.key, REFERENCE)
    if ours is None:
        return {}
    values = ((peer.key, figures.value(row.key, peer.key)) for peer in figures.peers if peer.key != REFERENCE)
    return {key: ahead(row, value, ours) for key, value in values if value is not None}


def _mark(key: str, x: float, y: float, note: str) -> str:
    hollow = f'fill="none" stroke="{COLOURS[key]}" stroke-width="2"'
    paint = hollow if key in {"davsql-normal", "hello"} else f'fill="{COLOURS[key]}"'
    shape = f'<path d="{SHAPES[SHAPE_OF[key]]}" transform="translate({x:.1f},{y:.1f})" {paint}>'
    return f"{shape}<title>{escape(note)}</title></path>"


def _legend(peers: list[Peer]) -> Iterator[str]:
    x = 22.0
    for peer in peers:
        yield _mark(peer.key, x, 46, peer.title)
        yield f'<text x="{x + 11:.1f}" y="50" class="small">{escape(peer.title)}</text>'
        x += LEGEND_GAP + LETTER_WIDTH * len(peer.title)


def _grid(scale: _Scale, height: int) -> Iterator[str]:
    bottom = height - BOTTOM + 4
    for tick in scale.ticks:
        x, kind = scale.x(tick), "equal" if tick == 1 else "grid"
        yield f'<line x1="{x:.1f}" y1="{TOP - 6}" x2="{x:.1f}" y2="{bottom}" class="{kind}"/>'
        for y in (TOP - 12, bottom + 14):
            yield f'<text x="{x:.1f}" y="{y}" text-anchor="middle" class="small">{tick:g}x</text>'
    y = bottom + 30
    yield f'<text x="{LEFT}" y="{y}" class="small">slower than davsql</text>'
    yield f'<text x="{WIDTH - RIGHT}" y="{y}" text-anchor="end" class="small">faster than davsql</text>'


def _line(figures: Figures, row: Row, points: dict[str, float], scale: _Scale, top: int) -> Iterator[str]:
    middle = top + ROW_HEIGHT / 2
    title = title_of(row, figures.last.size)
    if (top - TOP) // ROW_HEIGHT % 2 == 0:
        yield f'<rect x="8" y="{top}" width="{WIDTH - 16}" height="{ROW_HEIGHT}" class="stripe"/>'
    yield f'<text x="16" y="{middle + 4.5}">{escape(title)}</text>'
    for peer in figures.peers:
        if peer.key in points:
            note = f"{peer.title}: {points[peer.key]:.2g} times as fast as davsql"
            yield _mark(peer.key, scale.x(points[peer.key]), middle, note)

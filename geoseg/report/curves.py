"""Line charts over the steps of a training, as SVG in the page's colors."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup, escape

from geoseg.report.charts import BOTTOM, SIDE, TOP

Point = tuple[float, float]
LEFT, WIDTH, ROOM = 58, 410, 16
"""Width of the plot, and the room on both of its sides."""
MOST_POINTS = 160
TICKS = 4


def curve(points: Sequence[Point], label: str, across: str, up: str, dots: bool = False) -> Markup:
    """One line. points: (x, y) each, with x >= 0, rising. label: for those who do not see it. dots: mark each point.

    The vertical axis covers the values, and 0 where they come near it.
    """
    last = max((x for x, _ in points), default=1) or 1
    low, high = _ends([y for _, y in points])
    inner = []
    for i in range(TICKS + 1):
        share = i / TICKS
        x, y = LEFT + WIDTH * share, TOP + SIDE * (1 - share)
        inner.append(f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{LEFT + WIDTH}" y2="{y:.1f}"/>')
        value = _short(low + share * (high - low))
        inner.append(f'<text x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{value}</text>')
        inner.append(
            f'<text x="{x:.1f}" y="{TOP + SIDE + 16}" text-anchor="middle">{share * last:,.0f}</text>'
        )
    places = [
        (LEFT + WIDTH * x / last, TOP + SIDE * (1 - (y - low) / (high - low))) for x, y in thinned(points)
    ]
    if len(places) > 1:
        inner.append(f'<polyline class="curve" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in places)}"/>')
    if dots or len(places) == 1:
        inner += [f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in places]
    turned = f"translate(10 {TOP + SIDE / 2:.1f}) rotate(-90)"
    inner.append(
        f'<text class="axis" x="{LEFT + WIDTH / 2:.1f}" y="{TOP + SIDE + 34}" text-anchor="middle">'
        f"{escape(across)}</text>"
        f'<text class="axis" transform="{turned}" text-anchor="middle">{escape(up)}</text>'
    )
    size = f"0 0 {LEFT + WIDTH + ROOM} {TOP + SIDE + BOTTOM}"
    return Markup(  # noqa: S704
        f'<svg class="plot broad" viewBox="{size}" role="img" aria-label="{escape(label)}">{"".join(inner)}</svg>'
    )


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """Means of runs of neighbors, as many in each as needed for at most `most` points."""
    size = -(-len(points) // most) if points else 1
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis that holds all values, on round numbers."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if 0 <= low < 0.5 * high:
        low = 0.0
    if high <= low:
        high = low + (abs(low) or 1.0)
    step = 10 ** math.floor(math.log10((high - low) / TICKS))
    while TICKS * step < high - math.floor(low / step) * step:
        step *= 2.5 if str(f"{step:.0e}").startswith("2") else 2
    low = math.floor(low / step) * step
    return low, low + TICKS * step


def _short(value: float) -> str:
    """A number on an axis."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

"""Charts as SVG, drawn in the page's own colors. Text beside a bar is HTML, so that it does not shrink on a phone."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup, escape

SIDE, LEFT, TOP, BOTTOM = 260, 40, 10, 40
"""Size of the plot of a chart with axes, and the room around it."""


def bar(
    share: float | None, color: str | None = None, low: float | None = None, high: float | None = None
) -> Markup:
    """A horizontal bar. share: of the full width, 0..1, None for none. color: as #rrggbb, else the page's accent.
    low, high: ends of an interval, drawn as a whisker."""
    parts = ['<rect class="track" x="0" y="4" width="100%" height="12" rx="2"/>']
    if share is not None:
        fill = f'fill="{escape(color)}"' if color else 'class="value"'
        parts.append(f'<rect {fill} x="0" y="4" width="{_percent(share)}" height="12" rx="2"/>')
    if low is not None and high is not None:
        a, b = _percent(low), _percent(high)
        parts.append(f'<line class="halo" x1="{a}" x2="{b}" y1="10" y2="10"/>')
        parts.append(f'<line class="whisker" x1="{a}" x2="{b}" y1="10" y2="10"/>')
        parts += [f'<line class="whisker" x1="{x}" x2="{x}" y1="5.5" y2="14.5"/>' for x in (a, b)]
    return Markup(f'<svg class="bar" aria-hidden="true" focusable="false">{"".join(parts)}</svg>')  # noqa: S704


def stack(shares: Sequence[tuple[float, str]]) -> Markup:
    """One bar of several parts: (share of the width, color as #rrggbb) each."""
    parts, begin = [], 0.0
    for share, color in shares:
        parts.append(
            f'<rect x="{_percent(begin)}" y="0" width="{_percent(share)}" height="100%" fill="{escape(color)}"/>'
        )
        begin += share
    return Markup(f'<svg class="stack" aria-hidden="true" focusable="false">{"".join(parts)}</svg>')  # noqa: S704


def swatch(color: str) -> Markup:
    """A square of a color, as #rrggbb."""
    return Markup(  # noqa: S704
        f'<svg class="swatch" aria-hidden="true" focusable="false" viewBox="0 0 12 12">'
        f'<rect width="12" height="12" rx="2" fill="{escape(color)}"/></svg>'
    )


def reliability(points: Sequence[tuple[float, float, float]], label: str) -> Markup:
    """The reliability curve: (confidence, share that is right, share of the pixels) each, all in 0..1.

    The larger a dot, the more pixels have that confidence; on the diagonal, confidence keeps its promise.
    """
    inner = [_line(0, 0, 1, 1, "ideal")]
    ordered = sorted(points)
    if len(ordered) > 1:
        inner.append(
            f'<polyline class="curve" points="{" ".join(f"{_x(c):.1f},{_y(r):.1f}" for c, r, _ in ordered)}"/>'
        )
    most = max((weight for *_, weight in ordered), default=1) or 1
    inner += [
        f'<circle class="dot" cx="{_x(c):.1f}" cy="{_y(r):.1f}" r="{2 + 5 * (w / most) ** 0.5:.1f}"/>'
        for c, r, w in ordered
    ]
    return _axes(inner, label, "confidence, %", "right, %", 1.0)


def histogram(shares: Sequence[float], label: str) -> Markup:
    """Shares of the pixels in bins of one width from 0 to 100 percent."""
    top = _round_up(max(shares, default=0) or 1)
    width = SIDE / max(len(shares), 1)
    inner = [
        f'<rect class="value" x="{LEFT + i * width + 0.5:.1f}" y="{_y(s / top):.1f}" width="{width - 1:.1f}" '
        f'height="{SIDE * s / top:.1f}"/>'
        for i, s in enumerate(shares)
        if s > 0
    ]
    return _axes(inner, label, "confidence, %", "pixels, %", top)


def _axes(inner: Sequence[str], label: str, across: str, up: str, top: float) -> Markup:
    grid = []
    for i in range(5):
        share = i / 4
        grid.append(_line(0, share, 1, share, "grid"))
        grid.append(
            f'<text x="{LEFT - 6}" y="{_y(share) + 3.5:.1f}" text-anchor="end">{100 * share * top:.4g}</text>'
        )
        grid.append(
            f'<text x="{_x(share):.1f}" y="{TOP + SIDE + 16}" text-anchor="middle">{100 * share:.0f}</text>'
        )
    turned = f"translate(10 {_y(0.5):.1f}) rotate(-90)"
    names = (
        f'<text class="axis" x="{_x(0.5):.1f}" y="{TOP + SIDE + 34}" text-anchor="middle">{escape(across)}</text>'
        f'<text class="axis" transform="{turned}" text-anchor="middle">{escape(up)}</text>'
    )
    size = f"0 0 {LEFT + SIDE + 14} {TOP + SIDE + BOTTOM}"
    return Markup(  # noqa: S704
        f'<svg class="plot" viewBox="{size}" role="img" aria-label="{escape(label)}">'
        f"{''.join(grid)}{''.join(inner)}{names}</svg>"
    )


def _x(share: float) -> float:
    return LEFT + SIDE * share


def _y(share: float) -> float:
    return TOP + SIDE * (1 - share)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{_x(x1):.1f}" y1="{_y(y1):.1f}" x2="{_x(x2):.1f}" y2="{_y(y2):.1f}"/>'


def _percent(share: float) -> str:
    return f"{100 * min(max(share, 0.0), 1.0):.3f}%"


def _round_up(share: float) -> float:
    """The next multiple of four percent, so that four grid lines have whole numbers."""
    return max(4, 4 * math.ceil(25 * share)) / 100

"""Where scenes lie, as a map of outlines without a background: nothing is fetched for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

WIDE, HIGH = 1200.0, 520.0
SMALLEST = 10.0
"""Side of the smallest outline drawn, in units of the picture."""
NAMED = 40
"""With more scenes, names would cover each other."""


@dataclass(frozen=True)
class Footprint:
    """A scene's box in WGS 84: west, south, east, north in degrees; west above east where it crosses 180 degrees."""

    name: str
    href: str
    box: tuple[float, float, float, float]


def draw_world(feet: Sequence[Footprint], total: int) -> dict[str, Any] | None:
    """The map with a note; None without any place. total: scenes, with or without a place."""
    feet = [one for one in feet if all(-360 <= side <= 360 for side in one.box)]
    if not feet:
        return None
    parts = [(one, box) for one in feet for box in _unfolded(one.box)]
    west, south, east, north = _extent([box for _, box in parts])
    middle = (west + east) / 2, (south + north) / 2
    squeeze = math.cos(math.radians(middle[1]))
    scale = min(WIDE / ((east - west) * squeeze), HIGH / (north - south))

    def at(lon: float, lat: float) -> tuple[float, float]:
        return WIDE / 2 + (lon - middle[0]) * squeeze * scale, HIGH / 2 - (lat - middle[1]) * scale

    drawn = _grid(at, middle, WIDE / 2 / squeeze / scale, HIGH / 2 / scale)
    for one, (w, s, e, n) in parts:
        (x0, y0), (x1, y1) = at(w, n), at(e, s)
        wide, high = max(SMALLEST, x1 - x0), max(SMALLEST, y1 - y0)
        x, y = (x0 + x1 - wide) / 2, (y0 + y1 - high) / 2
        shape = f'<rect class="foot" x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{high:.1f}"/>'
        name = escape(one.name)
        if len(feet) <= NAMED:
            shape += f'<text x="{x:.1f}" y="{y - 6:.1f}">{name}</text>'
        drawn.append(f'<a href="{escape(one.href)}" aria-label="{name}"><title>{name}</title>{shape}</a>')
    opening = (
        f'<svg class="world" viewBox="0 0 {WIDE:.0f} {HIGH:.0f}" role="group" aria-label="Map of the scenes">'
    )
    svg = f"{opening}{''.join(drawn)}</svg>"
    note = "Outlines in WGS 84, in degrees; each leads to its report."
    if missing := total - len(feet):
        note += f" {missing:,} without a known place {'is' if missing == 1 else 'are'} not shown."
    return {"svg": Markup(svg), "note": note}  # noqa: S704


def _unfolded(box: tuple[float, float, float, float]) -> list[tuple[float, float, float, float]]:
    w, s, e, n = box
    return [(w, s, e, n)] if w <= e else [(w, s, 180.0, n), (-180.0, s, e, n)]


def _extent(boxes: Sequence[tuple[float, float, float, float]]) -> tuple[float, float, float, float]:
    """Of all boxes, with room around."""
    west, south = min(b[0] for b in boxes), min(b[1] for b in boxes)
    east, north = max(b[2] for b in boxes), max(b[3] for b in boxes)
    room = max(0.12 * max(east - west, north - south), 0.002)
    return (
        max(-180.0, west - room),
        max(-89.0, south - room),
        min(180.0, east + room),
        min(89.0, north + room),
    )


def _grid(at: Any, middle: tuple[float, float], wide: float, high: float) -> list[str]:
    """Meridians and parallels at round degrees, with names. wide, high: half of the picture's sides, in degrees."""
    step = _step(2 * min(wide, high))
    digits = max(0, -math.floor(math.log10(step)))
    drawn = []
    for i in range(math.ceil((middle[0] - wide) / step), math.floor((middle[0] + wide) / step) + 1):
        x, _ = at(i * step, middle[1])
        drawn.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{HIGH:.0f}"/>')
        if 80 < x < WIDE - 70:
            name = _degrees(i * step, digits, "EW")
            drawn.append(f'<text x="{x + 4:.1f}" y="{HIGH - 6:.1f}" class="tick">{name}</text>')
    for i in range(math.ceil((middle[1] - high) / step), math.floor((middle[1] + high) / step) + 1):
        _, y = at(middle[0], i * step)
        drawn.append(f'<line class="grid" x1="0" x2="{WIDE:.0f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        if 20 < y < HIGH - 20:
            name = _degrees(i * step, digits, "NS")
            drawn.append(f'<text x="6" y="{y - 5:.1f}" class="tick">{name}</text>')
    return drawn


def _degrees(value: float, digits: int, ends: str) -> str:
    return f"{abs(value):.{digits}f}° {ends[0] if value >= 0 else ends[1]}"


def _step(span: float) -> float:
    """A round distance, so that about two to eight lines cross the span."""
    ten = 10.0 ** math.floor(math.log10(span))
    return next(ten * m for m in (0.1, 0.2, 0.5, 1, 2) if span / (ten * m) <= 8)

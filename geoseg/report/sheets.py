"""Pictures of a raster side by side on one sheet, with a title and a legend: PNG, for places where no page opens."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from geoseg.legend import Legend
from geoseg.report.pictures import thin_out

WIDTH, HEIGHT = 1600, 1200
"""Most pixels of a sheet."""
EDGE, GAP, LINE = 24, 16, 30
PAPER, INK, SOFT, EMPTY = (255, 255, 255), (22, 32, 42), (85, 99, 111), (233, 237, 239)
MOST_KEYS = 16
LARGEST = 4.0
"""Small rasters are enlarged so many times at most."""

Size = tuple[int, int]
Color = tuple[int, int, int]
Panel = Callable[[Size], Image.Image]
"""Makes a picture of the raster: (width, height), RGB."""
Keys = list[list[tuple[str, Color]]]


def sheet(
    title: str, told: str, shape: Size, panels: Sequence[Panel], keys: Sequence[tuple[str, Color]]
) -> bytes:
    """The sheet as PNG, at most WIDTH x HEIGHT; the same input, the same bytes.

    shape: rows and columns of the raster. keys: entries of the legend, of which MOST_KEYS are shown.
    """
    legend, (rows, cols), count = _in_lines(keys[:MOST_KEYS]), shape, len(panels)
    room = HEIGHT - 2 * EDGE - 2 * LINE - GAP - LINE * len(legend)
    # Side by side or, where that gives larger pictures, one above the other.
    beside = min((WIDTH - 2 * EDGE - (count - 1) * GAP) / count / cols, room / rows)
    above = min((WIDTH - 2 * EDGE) / cols, (room - (count - 1) * GAP) / count / rows)
    scale, across = max((min(LARGEST, beside), True), (min(LARGEST, above), False))
    size = max(1, int(cols * scale)), max(1, int(rows * scale))
    return _compose(title, told, [panel(size) for panel in panels], size, across, legend)


def class_panel(labels: np.ndarray, legend: Legend) -> Panel:
    """A panel of class ids (row, col) uint8 in the legend's colors; all else is empty."""
    lookup = np.full((256, 3), EMPTY, np.uint8)
    for c in legend.classes:
        lookup[c.id] = c.color

    def panel(size: Size) -> Image.Image:
        return Image.fromarray(lookup[thin_out(labels, max(size))]).resize(size, Image.Resampling.NEAREST)

    return panel


def _in_lines(keys: Sequence[tuple[str, Color]]) -> Keys:
    """The legend's entries in lines that fit."""
    lines: Keys = [[]]
    used = 0.0
    for entry, color in keys:
        wide = _font(18).getlength(entry) + 52
        if lines[-1] and used + wide > WIDTH - 2 * EDGE:
            lines.append([])
            used = 0.0
        used += wide
        lines[-1].append((entry, color))
    return lines


def _compose(
    title: str, told: str, shown: Sequence[Image.Image], size: Size, across: bool, legend: Keys
) -> bytes:  # fmt: skip
    columns, rows = (len(shown), 1) if across else (1, len(shown))
    pictures = columns * size[0] + (columns - 1) * GAP, rows * size[1] + (rows - 1) * GAP
    keys = max(sum(_font(18).getlength(entry) + 52 for entry, _ in line) for line in legend)
    words = max(_font(26).getlength(title), _font(16).getlength(told))
    width = min(WIDTH, int(max(pictures[0], keys, words)) + 2 * EDGE)
    top = EDGE + 2 * LINE
    height = top + pictures[1] + GAP + LINE * len(legend) + EDGE
    page = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((EDGE, EDGE - 4), title, fill=INK, font=_font(26))
    draw.text((EDGE, EDGE + 30), told, fill=SOFT, font=_font(16))
    for i, picture in enumerate(shown):
        step = size[0] + GAP if across else size[1] + GAP
        page.paste(picture, (EDGE + i * step, top) if across else (EDGE, top + i * step))
    y = top + pictures[1] + GAP
    for line in legend:
        x = float(EDGE)
        for entry, color in line:
            draw.rectangle((x, y + 5, x + 16, y + 21), fill=color, outline=(150, 150, 150))
            draw.text((x + 24, y + 1), entry, fill=INK, font=_font(18))
            x += _font(18).getlength(entry) + 52
        y += LINE
    stream = io.BytesIO()
    page.save(stream, "PNG", compress_level=6)
    return stream.getvalue()


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)

"""`quicklook.png`: image and land cover side by side, with the legend, for places where no page opens."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from geoseg.io.files import publish_bytes
from geoseg.report.facts import QUICKLOOK, SceneFacts, dig
from geoseg.report.layers import SceneViews
from geoseg.report.outlines import short
from geoseg.report.pictures import shrink_photo, thin_out
from geoseg.report.scene import class_shares

WIDTH, HEIGHT = 1600, 1200
"""Most pixels of the whole picture."""
EDGE, GAP, LINE = 24, 16, 30
PAPER, INK, SOFT, EMPTY = (255, 255, 255), (22, 32, 42), (85, 99, 111), (233, 237, 239)
MOST_KEYS = 16
LARGEST = 4.0
"""Small scenes are enlarged so many times at most."""


def write_quicklook(folder: Path) -> Path:
    """Write `folder/quicklook.png`, at most 1600 x 1200 px; the same input, the same bytes.

    The image is shown if it is still where run.json says it was, else the land cover alone. Raises SourceError where
    the folder holds no map or a file in it is damaged, OutputError where the disk refuses.
    """
    path = folder / QUICKLOOK
    publish_bytes(path, quicklook(SceneFacts.read(folder)))
    return path


def quicklook(facts: SceneFacts) -> bytes:
    """The picture as PNG."""
    views = SceneViews.read(facts, None)
    lookup = np.full((256, 3), EMPTY, np.uint8)
    for c in facts.legend.classes:
        lookup[c.id] = c.color
    grid = facts.landcover.grid
    legend = _keys(facts, views)
    room = HEIGHT - 2 * EDGE - 2 * LINE - GAP - LINE * len(legend)
    count = 2 if views.source is not None else 1
    # Side by side or, where that gives larger pictures, one above the other.
    beside = min((WIDTH - 2 * EDGE - (count - 1) * GAP) / count / grid.width, room / grid.height)
    above = min((WIDTH - 2 * EDGE) / grid.width, (room - (count - 1) * GAP) / count / grid.height)
    scale, across = max((min(LARGEST, beside), True), (min(LARGEST, above), False))
    size = max(1, int(grid.width * scale)), max(1, int(grid.height * scale))
    shown = [
        Image.fromarray(lookup[thin_out(views.landcover, max(size))]).resize(size, Image.Resampling.NEAREST)
    ]
    if views.source is not None:
        image, valid = shrink_photo(*views.source.view(max(size)), max(size))
        photo = np.where(valid[..., None], image, np.array(EMPTY, np.uint8))
        shown.insert(0, Image.fromarray(photo).resize(size, Image.Resampling.BILINEAR))
    return _compose(facts, shown, size, across, legend)


def _keys(facts: SceneFacts, views: SceneViews) -> list[list[tuple[str, tuple[int, int, int]]]]:
    """The legend's entries in lines that fit."""
    shares, *_ = class_shares(facts, views.landcover)
    there = sorted((c for c in facts.legend.classes if shares.get(c.id, 0) > 0), key=lambda c: -shares[c.id])
    lines: list[list[tuple[str, tuple[int, int, int]]]] = [[]]
    used = 0.0
    for c in there[:MOST_KEYS]:
        entry = f"{short(c.name)} {100 * shares[c.id]:.1f} %"
        wide = _font(18).getlength(entry) + 52
        if lines[-1] and used + wide > WIDTH - 2 * EDGE:
            lines.append([])
            used = 0.0
        used += wide
        lines[-1].append((entry, c.color))
    return lines


def _compose(
    facts: SceneFacts, shown: list[Image.Image], size: tuple[int, int], across: bool,
    legend: list[list[tuple[str, tuple[int, int, int]]]],
) -> bytes:  # fmt: skip
    columns, rows = (len(shown), 1) if across else (1, len(shown))
    pictures = columns * size[0] + (columns - 1) * GAP, rows * size[1] + (rows - 1) * GAP
    keys = max(sum(_font(18).getlength(entry) + 52 for entry, _ in line) for line in legend)
    title, told = short(facts.name), _told(facts)
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


def _told(facts: SceneFacts) -> str:
    """One line about the scene."""
    grid, properties = facts.landcover.grid, dig(facts.item, "properties") or {}
    model = dig(facts.run, "model", "name") or properties.get("geoseg:model")
    parts = [f"{grid.width:,} x {grid.height:,} px"]
    parts += [] if grid.gsd_m is None else [f"{grid.gsd_m:.2g} m"]
    return ", ".join([*parts, *([f"mapped by {short(str(model))}"] if model else [])])


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)

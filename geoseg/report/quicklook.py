"""`quicklook.png`: image and land cover side by side, with the legend, for places where no page opens."""

from __future__ import annotations

import numpy as np
from PIL import Image

from geoseg.io.files import publish_bytes
from geoseg.io.places import Place
from geoseg.report.facts import QUICKLOOK, SceneFacts, dig
from geoseg.report.layers import SceneViews
from geoseg.report.outlines import short
from geoseg.report.pictures import shrink_photo
from geoseg.report.scene import class_shares
from geoseg.report.sheets import EMPTY, Size, class_panel, sheet


def write_quicklook(folder: Place) -> Place:
    """Write `folder/quicklook.png`, at most 1600 x 1200 px; the same input, the same bytes.

    The image is shown if it is still where run.json says it was, else the land cover alone. Raises SourceError where
    the folder holds no map or a file in it is damaged, OutputError where the disk refuses.
    """
    path = folder / QUICKLOOK
    facts = SceneFacts.read(folder)
    publish_bytes(path, quicklook(facts, SceneViews.read(facts)))
    return path


def quicklook(facts: SceneFacts, views: SceneViews) -> bytes:
    """The picture as PNG."""
    shares, *_ = class_shares(facts, views.landcover)
    there = sorted((c for c in facts.legend.classes if shares.get(c.id, 0) > 0), key=lambda c: -shares[c.id])
    keys = [(f"{short(c.name)} {100 * shares[c.id]:.1f} %", c.color) for c in there]
    panels = [class_panel(views.landcover, facts.legend)]
    if views.image is not None:
        photo_px, valid_px = views.image

        def photo(size: Size) -> Image.Image:
            image, valid = shrink_photo(photo_px, valid_px, max(size))
            shown = np.where(valid[..., None], image, np.array(EMPTY, np.uint8))
            return Image.fromarray(shown).resize(size, Image.Resampling.BILINEAR)

        panels.insert(0, photo)
    grid = facts.landcover.grid
    return sheet(short(facts.name), _told(facts), (grid.height, grid.width), panels, keys)


def _told(facts: SceneFacts) -> str:
    """One line about the scene."""
    grid, properties = facts.landcover.grid, dig(facts.item, "properties") or {}
    model = dig(facts.run, "model", "name") or properties.get("geoseg:model")
    parts = [f"{grid.width:,} x {grid.height:,} px"]
    parts += [] if grid.gsd_m is None else [f"{grid.gsd_m:.2g} m"]
    return ", ".join([*parts, *([f"mapped by {short(str(model))}"] if model else [])])

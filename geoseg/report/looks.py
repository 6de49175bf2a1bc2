"""The worst places of a scene as small pictures: what is there, what the map says, what the labels say."""

from __future__ import annotations

from typing import Any

import numpy as np

from geoseg.legend import Legend
from geoseg.report import pictures
from geoseg.report.facts import SceneFacts
from geoseg.report.layers import SceneViews
from geoseg.report.outlines import MapFrame
from geoseg.report.places import Place, main_mistake, worst_places
from geoseg.report.sections import percent
from geoseg.report.views import part_of

THUMB_PX = 192
THUMB_QUALITY = 72
THUMB_SIDES = (THUMB_PX, 128, 96, 64)
THUMB_BYTES = 9_000


def badness(views: SceneViews) -> tuple[np.ndarray | None, bool]:
    """What to judge places by, (row, col) in 0..1, NaN where unknown: errors if there are any labels (then True), else
    lack of confidence."""
    if views.errors is not None and not np.isnan(views.errors).all():
        return views.errors, True
    if views.confidence is None:
        return None, False
    percents = views.confidence
    return np.where(percents > 100, np.nan, 1 - percents.astype(np.float32) / 100), False


def place_cards(facts: SceneFacts, views: SceneViews) -> tuple[list[Place], list[dict[str, Any]], bool]:
    """The worst places, their cards, and whether errors decided (else confidence).

    Raises SourceError where a raster cannot be read.
    """
    bad, by_error = badness(views)
    places = [] if bad is None else worst_places(bad, facts.landcover.grid)
    return places, [_card(facts, views, place, by_error) for place in places], by_error


def place_box(place: Place, frame: MapFrame) -> list[float]:
    """Where it lies on the page's map: x, y, width, height."""
    w = place.window
    return [round(side * frame.units_per_px, 1) for side in (w.col, w.row, w.width, w.height)]


def _card(facts: SceneFacts, views: SceneViews, place: Place, by_error: bool) -> dict[str, Any]:
    legend, window = facts.legend, place.window
    mapped = part_of(facts.landcover, window, THUMB_PX)
    shown = []
    if views.source is not None:
        image, valid = views.source.part(window, facts.landcover.grid, THUMB_PX)
        shown.append(("image", "Image", _photo(image, valid)))
    shown.append(("landcover", "Map", _classes(mapped, legend)))
    names = {c.id: c.name for c in legend.classes}
    if by_error and views.labels is not None:
        truth = part_of(views.labels, window, THUMB_PX)
        known = np.isin(truth, [i for i in legend.ids if i != views.labels.nodata]) & np.isin(
            mapped, legend.ids
        )
        shown.append(("labels", "Labels", _classes(np.where(known, truth, 255).astype(np.uint8), legend)))
        title = f"{percent(place.badness, 0)} differs from the labels"
        worst = main_mistake(truth[known], mapped[known])
        told = "" if worst is None else f"mostly {names[worst[0]]} mapped as {names[worst[1]]}; "
    else:
        title = f"{percent(1 - place.badness, 0)} mean confidence"
        there = mapped[np.isin(mapped, legend.ids)]
        told = f"mostly mapped as {names[int(np.bincount(there).argmax())]}; " if there.size else ""
    where = f"row {window.row:,}, column {window.col:,}, {window.width} × {window.height} px"
    found = [{"of": key, "label": label, "src": pictures.data_uri(picture)} for key, label, picture in shown]
    return {"title": title, "text": told + where, "pictures": found}


def _photo(image: np.ndarray, valid: np.ndarray) -> bytes:
    def make(side: int) -> bytes:
        return pictures.photo(*pictures.shrink_photo(image, valid, side), THUMB_QUALITY)

    return pictures.to_fit(THUMB_BYTES, max(valid.shape), make, THUMB_SIDES)


def _classes(labels: np.ndarray, legend: Legend) -> bytes:
    def make(side: int) -> bytes:
        return pictures.classes(pictures.thin_out(labels, side), legend)

    return pictures.to_fit(THUMB_BYTES, max(labels.shape), make, THUMB_SIDES)

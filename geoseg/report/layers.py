"""The layers of a report's map, each within its share of the page's size, and the views that combine them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np

from geoseg.io.glimpse import layer_counts
from geoseg.io.labels import Labels
from geoseg.io.qgis_styles import VIRIDIS
from geoseg.legend import NODATA, LandClass, Legend
from geoseg.report import pictures
from geoseg.report.charts import swatch
from geoseg.report.facts import VECTORS, SceneFacts, dig, text
from geoseg.report.outlines import DrawnRegion, MapFrame, draw_layer, draw_regions
from geoseg.report.views import CLASSES_PX, SMALL_PX, VIEW_PX, Box, Source, open_labels, part_of, view_of
from geoseg.stages.layers import LAYER_OF_ROLE

BUDGETS = {
    "image": 1_050_000,
    "landcover": 500_000,
    "confidence": 220_000,
    "labels": 200_000,
    "errors": 100_000,
    "buildings": 400_000,
    "roads": 300_000,
    "road_centerlines": 150_000,
    "regions": 200_000,
}
"""Most bytes of a picture, or characters of outlines; together with all else a page stays under 5 MB."""
MOST_FEATURES = 100_000
"""Layers with more are drawn from the land cover at once: their outlines would not fit."""
WRONG = (214, 40, 57)
TITLES = {"buildings": "Buildings", "roads": "Roads", "road_centerlines": "Road center lines"}
LINE_COLORS = {"buildings": "#ff5a3c", "roads": "#ffc53d", "road_centerlines": "#fff1a8"}
WIDE, BESIDE = 100, 60


@dataclass(frozen=True)
class SceneViews:
    """What is read of a scene's rasters. landcover, confidence, truth: (row, col) uint8; truth and errors may be None.

    errors: (row, col) float of the size of truth: 1 where the map differs from the labels, 0 where it agrees, NaN
    where nothing can be said.
    """

    landcover: np.ndarray
    confidence: np.ndarray | None
    source: Source | None
    labels: Labels | None
    truth: np.ndarray | None
    errors: np.ndarray | None

    @cached_property
    def image(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The image, (row, col, 3) uint8, and where it is valid; None where it is no longer there."""
        return None if self.source is None else self.source.view(VIEW_PX)

    @classmethod
    def read(cls, facts: SceneFacts) -> SceneViews:
        """Raises SourceError where a raster of the scene's folder cannot be read."""
        grid, legend, confidence = facts.landcover.grid, facts.legend, facts.confidence
        path, labels_path = text(facts.entry.get("path")), text(facts.entry.get("labels"))
        bands = dig(facts.run, "job", "bands")
        wanted = [b for b in bands if isinstance(b, int) and b > 0] if isinstance(bands, list) else []
        labels = open_labels(labels_path, grid, legend, facts.label_options)
        truth = errors = None
        if labels is not None:
            truth, mapped = (part_of(raster, grid.window, SMALL_PX) for raster in (labels, facts.landcover))
            known = np.isin(truth, [i for i in legend.ids if i != labels.nodata])
            truth = np.where(known, truth, NODATA).astype(np.uint8)
            known &= np.isin(mapped, legend.ids)
            errors = np.where(known, (truth != mapped).astype(np.float32), np.nan)
        return cls(
            view_of(facts.landcover, CLASSES_PX),
            None if confidence is None else view_of(confidence, SMALL_PX),
            Source.find(path, wanted, grid),
            labels,
            truth,
            errors,
        )


@dataclass(frozen=True)
class MapLayer:
    """A layer of the map and its line in the panel.

    kind: picture, path or regions. opacity: in percent. box: of a picture, in units of the map; side: its longer one
    in its own pixels.
    """

    key: str
    label: str
    kind: str
    on: bool = False
    opacity: int = 100
    picture: str = ""
    box: Box = (0, 0, 0, 0)
    side: int = 0
    path: str = ""
    fill: str = "none"
    fill_opacity: float = 0.0
    stroke: str = "none"
    swatch: Any = None
    note: str = ""
    classes: Sequence[Mapping[str, Any]] = ()
    ramp: bool = False


@dataclass(frozen=True)
class MapContent:
    """All of the map. region_count: how many there are, of which `regions` are drawn. counts: features by layer."""

    frame: MapFrame
    layers: tuple[MapLayer, ...]
    regions: tuple[DrawnRegion, ...] = ()
    region_count: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def build(cls, facts: SceneFacts, views: SceneViews, shares: Mapping[int, float]) -> MapContent:
        """Raises SourceError where a file of the scene's folder cannot be read."""
        frame = MapFrame.of(facts.landcover.grid)
        gpkg = facts.folder / VECTORS
        counts = layer_counts(gpkg) if gpkg.is_file() else {}
        layers = [*_picture_layers(facts, views, frame, shares), *_vector_layers(facts, views, frame, counts)]
        regions: list[DrawnRegion] = []
        total = 0
        if counts.get("regions"):
            regions, total = draw_regions(gpkg, "regions", frame, BUDGETS["regions"])
            layers.append(MapLayer("regions", "Regions", "regions", on=True))
        return cls(frame, tuple(layers), tuple(regions), total, counts)


def _picture_layers(
    facts: SceneFacts, views: SceneViews, frame: MapFrame, shares: Mapping[int, float]
) -> list[MapLayer]:
    legend, whole = facts.legend, (0, 0, frame.width, frame.height)
    layers = []
    if views.source is not None and views.image is not None:
        image, valid = views.image
        picture = pictures.to_fit(
            BUDGETS["image"],
            max(valid.shape),
            lambda side: pictures.photo(*pictures.shrink_photo(image, valid, side)),
        )
        x, y, width, height = (round(side * frame.units_per_px, 2) for side in views.source.box)
        box = (x, y, width, height)
        layers.append(MapLayer("image", "Image", "picture", on=True, **_shown(picture, box)))
    landcover = _fitted("landcover", views.landcover, lambda part: pictures.classes(part, legend))
    layers.append(
        MapLayer(
            "landcover",
            "Land cover",
            "picture",
            on=True,
            opacity=BESIDE if layers else WIDE,
            **_shown(landcover, whole),
            classes=class_key(legend, shares),
        )
    )
    if views.confidence is not None:
        percents = _fitted("confidence", views.confidence, lambda part: pictures.percent_steps(part, VIRIDIS))
        layers.append(MapLayer("confidence", "Confidence", "picture", **_shown(percents, whole), ramp=True))
    if views.truth is not None and views.errors is not None:
        truth = _fitted("labels", views.truth, lambda part: pictures.classes(part, legend))
        layers.append(MapLayer("labels", "Labels", "picture", **_shown(truth, whole)))
        wrong = _fitted(
            "errors", np.nan_to_num(views.errors).astype(np.uint8), lambda p: pictures.flat(p, {1: WRONG})
        )
        layers.append(
            MapLayer("errors", "Differences", "picture", **_shown(wrong, whole), swatch=swatch(css(WRONG)))
        )
    return layers


def _vector_layers(
    facts: SceneFacts, views: SceneViews, frame: MapFrame, counts: Mapping[str, int]
) -> list[MapLayer]:
    layers = []
    roles = {layer: role for role, layer in LAYER_OF_ROLE.items()}
    for key in ("roads", "buildings", "road_centerlines"):
        if not counts.get(key):
            continue
        color = LINE_COLORS[key]
        path = None
        if counts[key] <= MOST_FEATURES:
            path = draw_layer(facts.folder / VECTORS, key, frame, BUDGETS[key])
        if path is not None:
            fill = 0.0 if key == "road_centerlines" else 0.25
            layers.append(
                MapLayer(
                    key,
                    TITLES[key],
                    "path",
                    path=path,
                    fill=color if fill else "none",
                    fill_opacity=fill,
                    stroke=color,
                    swatch=swatch(color),
                )
            )
        elif key in roles:
            ids = [c.id for c in facts.legend.classes if c.role == roles[key]]
            mask = np.isin(views.landcover, ids).astype(np.uint8)
            picture = _fitted(key, mask, partial(pictures.flat, palette={1: bytes.fromhex(color[1:])}))
            note = f"{counts[key]:,} outlines are too much for a page: drawn from the land cover."
            layers.append(
                MapLayer(
                    key,
                    TITLES[key],
                    "picture",
                    **_shown(picture, (0, 0, frame.width, frame.height)),
                    swatch=swatch(color),
                    note=note,
                )
            )
    return layers


def _fitted(key: str, pixels: np.ndarray, make: Callable[[np.ndarray], bytes]) -> bytes:
    """A picture of classes within its budget."""
    return pictures.to_fit(
        BUDGETS[key], max(pixels.shape), lambda side: make(pictures.thin_out(pixels, side))
    )


def _shown(picture: bytes, box: Box) -> dict[str, Any]:
    """What a layer says of its picture."""
    return {"picture": pictures.data_uri(picture), "box": box, "side": pictures.side_of(picture)}


def class_key(legend: Legend, shares: Mapping[int, float]) -> list[dict[str, Any]]:
    """The legend's lines: the classes that occur, or all where that is unknown."""
    there = [c for c in legend.classes if not shares or shares.get(c.id, 0) > 0]
    return [
        {
            "swatch": swatch(color_of(c)),
            "name": c.name,
            "share": f"{100 * shares[c.id]:.1f} %" if shares else "",
        }
        for c in there
    ]


def color_of(c: LandClass) -> str:
    """The color of a class as #rrggbb."""
    return css(c.color)


def css(color: Sequence[int]) -> str:
    """A color as #rrggbb."""
    return "#" + "".join(f"{part:02x}" for part in color)


def presets(layers: Sequence[MapLayer], measure: str | None) -> list[dict[str, Any]]:
    """Views of the map, each a choice of layers with their opacity; the first is how the page opens."""
    keys = {layer.key for layer in layers}
    base = {"image": WIDE} if "image" in keys else {"landcover": WIDE}
    frames = {"regions": WIDE} if "regions" in keys else {}
    first = {layer.key: layer.opacity for layer in layers if layer.on}
    found: list[tuple[str, str, dict[str, int], str]] = [("blend", "Overview", first, "")]
    if "image" in keys:
        found.append(("image", "Image", {"image": WIDE}, ""))
        found.append(("landcover", "Land cover", {"landcover": WIDE}, ""))
    if "confidence" in keys:
        found.append(("confidence", "Confidence", {"confidence": WIDE}, ""))
    if "errors" in keys:
        found.append(("errors", "Errors", {**base, "errors": 65}, ""))
    if objects := {key: WIDE for key in TITLES if key in keys}:
        found.append(("objects", "Objects", {**base, **objects}, ""))
    if frames and measure:
        found.append(("regions", "Regions", {**base, **frames}, measure))
    return [{"key": key, "label": label, "layers": chosen, "measure": m} for key, label, chosen, m in found]

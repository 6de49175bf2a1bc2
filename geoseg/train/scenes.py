"""Labelled scenes: a raster, its labels, and which of its pixels may be learned from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import shapely
from shapely.affinity import affine_transform
from shapely.geometry.base import BaseGeometry

from geoseg.errors import SourceError, SpecError
from geoseg.grid.window import Window
from geoseg.io.classmap import ClassMap
from geoseg.io.regions import NamedPolygon, read_polygons
from geoseg.io.sources import Scene, open_scene
from geoseg.legend import Legend
from geoseg.pixels.burn import burn
from geoseg.spec import InputSpec
from geoseg.train.config import RegionChoice, SceneEntry, Split, TrainConfig

IGNORED = 255
"""Target value of pixels that neither teach nor score."""

EDGE_PX = 0.01
"""A patch reaching no further into a held-out region only touches it: map coordinates are rounded."""


@dataclass(frozen=True)
class LabelledScene:
    """A scene with labels on the same grid.

    channels: (256,) uint8, from label value to the network's channel, or IGNORED. known: (256,) bool, label
    values that are a class or are to be ignored. held_out: the regions kept for validation.
    """

    scene: Scene
    labels: ClassMap
    split: Split
    weight: float
    channels: np.ndarray = field(repr=False, compare=False)
    known: np.ndarray = field(repr=False, compare=False)
    held_out: tuple[NamedPolygon, ...] = ()

    @property
    def window(self) -> Window:
        return self.scene.grid.window

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pixels (band, row, col), targets (row, col) uint8 and validity (row, col) bool.

        Invalid pixels hold zeros, and their target is IGNORED; so does what sticks out of the raster.
        """
        inside = window.overlap(self.window)
        at = (slice(None), *inside.within(window))
        pixels = np.zeros((len(self.scene.bands), *window.shape), self.scene.dtype)
        targets = np.full(window.shape, IGNORED, np.uint8)
        valid = np.zeros(window.shape, bool)
        pixels[at], valid[at[1:]] = self.scene.read_window(inside)
        targets[at[1:]] = self.channels[self.labels.read(inside)]
        targets[~valid] = IGNORED
        pixels[:, ~valid] = 0
        return pixels, targets, valid

    def label_values(self, window: Window) -> np.ndarray:
        """Targets of a window inside the raster; SourceError for a label value that is not known."""
        values = self.labels.read(window)
        strange = np.unique(values[~self.known[values]])
        if strange.size:
            names = ", ".join(map(str, strange[:5]))
            raise SourceError(
                f"holds the label value{'s' * (strange.size > 1)} {names}, neither a class nor ignored",
                self.labels.path,
            )
        targets: np.ndarray = self.channels[values]
        return targets

    def touches_held_out(self, window: Window) -> bool:
        """True where a window shares ground with a region kept for validation."""
        if self._held_out_px is None or not window.area_px:
            return False
        box = shapely.box(
            window.col + EDGE_PX, window.row + EDGE_PX, window.col_end - EDGE_PX, window.row_end - EDGE_PX
        )
        return bool(self._held_out_px.intersects(box))

    def in_held_out(self, window: Window) -> np.ndarray:
        """Which pixels of a window have their center in a region kept for validation: (row, col) bool."""
        return burn([p.geometry for p in self.held_out], window, self.scene.grid)

    @cached_property
    def _held_out_px(self) -> BaseGeometry | None:
        """The held-out regions in columns and rows."""
        if not self.held_out:
            return None
        a, b, c, d, e, f = (~self.scene.grid.transform)[:6]
        united = affine_transform(shapely.union_all([p.geometry for p in self.held_out]), (a, b, d, e, c, f))
        shapely.prepare(united)
        return united


def open_labelled(entry: SceneEntry, wants: InputSpec, legend: Legend) -> LabelledScene:
    """Open a scene and its labels; SourceError or ModelError where they do not fit together or the model."""
    scene = open_scene(str(entry.scene), wants)
    labels = ClassMap.open(str(entry.labels))
    if not scene.grid.same_place(labels.grid):
        raise SourceError(
            f"labels are {labels.grid.width} x {labels.grid.height} px and the scene {entry.scene.name} is "
            f"{scene.grid.width} x {scene.grid.height} px, or they lie elsewhere: both must share one grid",
            entry.labels,
        )
    channels = np.full(256, IGNORED, np.uint8)
    channels[list(legend.ids)] = np.arange(len(legend.ids))
    known = channels != IGNORED
    known[list(entry.ignore)] = True
    if labels.nodata is not None and labels.nodata not in legend.ids:
        known[labels.nodata] = True
    opened = LabelledScene(scene, labels, entry.split, entry.weight, channels, known)
    if entry.validation_regions is None:
        return opened
    return replace(opened, held_out=_chosen(entry.validation_regions, opened))


def _chosen(choice: RegionChoice, opened: LabelledScene) -> tuple[NamedPolygon, ...]:
    by_name = {p.name: p for p in read_polygons(str(choice.file), opened.scene.grid, choice.field)}
    missing = [name for name in choice.names if name not in by_name]
    if missing:
        raise SpecError(
            f"has no {choice.field} named {', '.join(missing)}; it has {', '.join(by_name)}", choice.file
        )
    return tuple(by_name[name] for name in choice.names)


def open_scenes(
    config: TrainConfig, entries: Iterable[SceneEntry], wants: InputSpec
) -> tuple[LabelledScene, ...]:
    """All scenes of a run, after the check that no ground lies on both sides of a split."""
    entries = tuple(entries)
    check_splits(entries)
    return tuple(open_labelled(entry, wants, config.legend) for entry in entries)


def check_splits(entries: Iterable[SceneEntry]) -> None:
    """SpecError where one file is listed twice, or one group of scenes lies in two splits."""
    files: dict[str, SceneEntry] = {}
    groups: dict[str, SceneEntry] = {}
    for entry in entries:
        file = str(entry.scene.resolve())
        if file in files:
            raise SpecError(
                "the scene is listed twice: training would leak into scores; use validation_regions",
                entry.scene,
            )
        files[file] = entry
        if entry.group is None:
            continue
        other = groups.setdefault(entry.group, entry)
        if other.split != entry.split:
            raise SpecError(
                f"scenes of group {entry.group!r} share ground but lie in two splits: {other.scene.name} in "
                f"{other.split}, {entry.scene.name} in {entry.split}",
                entry.scene,
            )

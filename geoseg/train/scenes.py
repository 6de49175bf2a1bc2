"""Labelled scenes: a raster, its labels, and which of its pixels may be learned from."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import shapely
from shapely.affinity import affine_transform
from shapely.geometry.base import BaseGeometry

from geoseg.errors import SpecError
from geoseg.grid.window import Window
from geoseg.io.regions import NamedPolygon, read_polygons
from geoseg.io.sources import Scene, open_scene
from geoseg.legend import Legend
from geoseg.pixels.burn import burn
from geoseg.spec import InputSpec
from geoseg.train.config import RegionChoice, SceneEntry, Split, TrainConfig
from geoseg.train.ground import Ground, check_ground
from geoseg.train.labels import IGNORED, SceneLabels, open_scene_labels

LOG = logging.getLogger(__name__)
EDGE_PX = 0.01
"""A patch reaching no further into a held-out region only touches it: map coordinates are rounded."""


@dataclass(frozen=True)
class LabelledScene:
    """A scene with its labels. held_out: the regions kept for validation."""

    scene: Scene
    labels: SceneLabels
    split: Split
    weight: float
    held_out: tuple[NamedPolygon, ...] = ()

    @property
    def window(self) -> Window:
        return self.scene.grid.window

    def read(self, window: Window) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pixels (band, row, col), targets (row, col) uint8 as of SceneLabels.read, and validity (row, col) bool.

        Invalid pixels hold zeros, and their target is IGNORED; so does what sticks out of the raster.
        """
        inside = window.overlap(self.window)
        at = (slice(None), *inside.within(window))
        pixels = np.zeros((len(self.scene.bands), *window.shape), self.scene.dtype)
        targets = np.full(window.shape, IGNORED, np.uint8)
        valid = np.zeros(window.shape, bool)
        pixels[at], valid[at[1:]] = self.scene.read_window(inside)
        targets[at[1:]] = self.labels.read(inside)
        targets[~valid] = IGNORED
        pixels[:, ~valid] = 0
        return pixels, targets, valid

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
    scene = open_scene(str(entry.scene), wants, entry.bands)
    opened = LabelledScene(scene, open_scene_labels(entry, scene.grid, legend), entry.split, entry.weight)
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
    opened = tuple(open_labelled(entry, wants, config.legend) for entry in entries)
    for scene in opened:
        gsd = scene.scene.grid.gsd_m
        if gsd is None or (scene.split == "train" and not teaches_scale(config, gsd)):
            continue  # the latter is told of all scenes in one line: see checks
        if not wants.gsd_m[0] <= gsd <= wants.gsd_m[1]:
            LOG.warning(
                "%s: pixels are %.3g m on the ground, outside gsd_m (%g to %g m)",
                scene.scene.path,
                gsd,
                *wants.gsd_m,
            )
    _check_mapped_names(entries, opened)
    check_ground(
        [
            Ground(scene.scene.path, scene.scene.grid, scene.split, scene.held_out)
            for entry, scene in zip(entries, opened, strict=True)
            if not entry.nominal
        ]
    )
    return opened


def teaches_scale(config: TrainConfig, gsd_m: float) -> bool:
    """Whether pixels of a size, in metres, are zoomed to any size that the card promises."""
    low, high = config.augment.zoom
    return gsd_m / high <= config.gsd_m.max and gsd_m / low >= config.gsd_m.min


def _check_mapped_names(entries: Sequence[SceneEntry], opened: Sequence[LabelledScene]) -> None:
    """SpecError for a name in map_class that no labels hold: scenes share a mapping, and few hold all classes."""
    found = frozenset[str]().union(*(scene.labels.found for scene in opened))
    for entry in entries:
        missing = [name for name in entry.map_class if name not in found]
        if missing:
            theirs = ", ".join(sorted(found - set(map(str, range(256)))))
            raise SpecError(
                f"map_class speaks of {missing[0]!r}, but no labels of the run hold such a class; "
                + (f"they hold {theirs}" if theirs else "they are known by their values only"),
                entry.labels,
            )


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

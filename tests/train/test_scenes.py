"""Scenes of a run together: what they call their classes, and what ground they share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely

from geoseg.errors import SpecError
from geoseg.train.demos import write_demos
from geoseg.train.labels import SET
from geoseg.train.material import wants_of
from geoseg.train.reading import load_config
from geoseg.train.scenes import LabelledScene, open_scenes
from tests.data import DATA, needs_data
from tests.train.scenes import TRANSFORM, labels_of, place_of, settings, write, write_run, write_scene

TOWN = {"scene": "town.tif", "labels": "town_labels.tif"}
PORT = {"scene": "port.tif", "labels": "port_labels.tif"}


def opened(folder: Path, *datasets: dict[str, Any], **changes: Any) -> tuple[LabelledScene, ...]:
    config = load_config(write_run(folder, datasets=list(datasets), **changes), {})
    return open_scenes(config, config.datasets, wants_of(config))


def put(folder: Path, name: str, shift_px: float, side: int = 128, crs: str | None = "EPSG:32640") -> None:
    """A scene with labels whose corner lies so many pixels right of that of the town, which is 384 px wide."""
    place = TRANSFORM @ TRANSFORM.translation(shift_px, 0)
    write(folder / f"{name}.tif", np.full((3, side, side), 9, np.uint8), place, crs)
    write(folder / f"{name}_labels.tif", labels_of(side)[None], place, crs)


def test_scenes_that_share_ground_must_share_a_split(tmp_path):
    put(tmp_path, "port", 380)
    with pytest.raises(
        SpecError, match=r"town\.tif: is in split train but shows ground of .*port\.tif \(split test; .*group"
    ):
        opened(tmp_path, TOWN, {**PORT, "split": "test"})
    assert len(opened(tmp_path, TOWN, PORT)) == 2


def test_tiles_side_by_side_share_none(tmp_path):
    put(tmp_path, "port", 384)
    assert len(opened(tmp_path, TOWN, {**PORT, "split": "test"})) == 2


def test_pixels_of_another_size_than_the_file_says_are_warned_of(tmp_path, caplog):
    opened(tmp_path, TOWN, gsd_m={"min": 1, "max": 2})
    assert [
        line for line in caplog.messages if "pixels are 0.8 m on the ground, outside gsd_m (1 to 2 m)" in line
    ]


def test_of_nominal_places_only_groups_tell(tmp_path):
    put(tmp_path, "port", 0)
    nominal = {**PORT, "split": "test", "nominal": True}
    assert len(opened(tmp_path, TOWN, nominal)) == 2
    with pytest.raises(SpecError, match="group 'bay'"):
        opened(tmp_path, {**TOWN, "group": "bay"}, {**nominal, "group": "bay"})


def test_no_scene_trains_on_a_region_that_another_holds_out(tmp_path):
    """The south of the town is held out; the port lies in its north-west or, larger, reaches into it."""
    held_out = settings()["datasets"][0]
    put(tmp_path, "port", 0, side=256)
    assert len(opened(tmp_path, held_out, PORT)) == 2
    put(tmp_path, "port", 0, side=260)
    with pytest.raises(
        SpecError, match=r"port\.tif: shows ground of 'south', a validation region of .*town\.tif"
    ):
        opened(tmp_path, held_out, PORT)


def square(folder: Path, kind: str, col: float) -> dict[str, Any]:
    (left, top), (right, bottom) = (TRANSFORM @ corner for corner in ((col, 10), (col + 20, 30)))
    shape = shapely.box(left, bottom, right, top)
    geopandas.GeoDataFrame({"kind": [kind]}, geometry=[shape], crs=32640).to_file(folder / f"{kind}.gpkg")
    return {"labels": f"{kind}.gpkg", "class_field": "kind"}


def test_scenes_share_a_mapping_of_which_each_needs_a_part(tmp_path):
    put(tmp_path, "port", 400)
    mapping = {"map_class": {"house": "building", "hut": ["building", "land"]}}
    house, hut = square(tmp_path, "house", 10), square(tmp_path, "hut", 410)
    town, port = opened(
        tmp_path, {"scene": "town.tif", **house, **mapping}, {"scene": "port.tif", **hut, **mapping}
    )
    assert town.labels.codes[town.labels.read(town.window)][15, 15] == 0
    assert port.labels.codes[port.labels.read(port.window)][15, 15] == SET + 0b101
    with pytest.raises(SpecError, match=r"map_class speaks of 'hut', but no labels.*; they hold house"):
        opened(tmp_path, {"scene": "town.tif", **house, **mapping})


def test_relative_labels_start_at_the_file(tmp_path):
    square(tmp_path, "road", 10)
    config = load_config(
        write_run(tmp_path, datasets=[{"scene": "town.tif", "labels": "road.gpkg", "every_polygon": "road"}]),
        {},
    )
    assert config.datasets[0].labels == tmp_path / "road.gpkg"


def test_demo_classes_go_by_name(tmp_path):
    """Into a run with other classes, in another order."""
    classes = [
        {"id": 1, "name": "water", "color": [0, 0, 255]},
        {"id": 4, "name": "built", "color": [255, 0, 0]},
        {"id": 6, "name": "green", "color": [0, 255, 0]},
    ]
    mapping = {"building": "built", "road": "built", "land": {"not": ["water"]}, "vegetation": "green"}
    demo = {"seeds": [7], "size": 256, "map_class": mapping}
    config = load_config(write_run(tmp_path, datasets=[], demo=demo, classes=classes), {})
    entries = write_demos(config.demo, tmp_path / "demo")
    scene = open_scenes(config, entries, wants_of(config))[0]
    raw = scene.labels.pixels.read(scene.window)
    codes = scene.labels.codes[scene.labels.read(scene.window)]
    for value, code in ((1, 1), (2, 1), (3, SET + 0b110), (4, 2), (5, 0), (0, 255)):
        assert (codes[raw == value] == code).all()
    assert len(np.unique(raw)) > 3


def test_scenes_of_other_seeds_lie_apart(tmp_path):
    write_scene(tmp_path, "port", labels_of(128), seed=1)
    assert place_of(0) == TRANSFORM
    assert len(opened(tmp_path, TOWN, {**PORT, "split": "test"})) == 2


@needs_data
def test_the_bundled_models_scenes_share_no_ground_across_its_splits():
    root = Path(__file__).resolve().parents[2]
    places = {**os.environ, "GEOSEG_DATA": str(DATA), "GEOSEG_ENCODER": "encoder.safetensors"}
    config = load_config(root / "workflows" / "train_landcover_rgb.yaml", places)
    scenes = open_scenes(config, config.datasets, wants_of(config))
    assert [scene.split for scene in scenes].count("train") == 5
    assert len(scenes) == 6

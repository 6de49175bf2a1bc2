"""The training file: every fault is one line with its place."""

from __future__ import annotations

import pytest
import yaml

from geoseg.errors import SpecError
from geoseg.train.reading import load_config
from geoseg.train.scenes import check_splits
from tests.train.scenes import settings

CLASSES = settings()["classes"]
AB = {"scene": "a.tif", "labels": "b.tif"}


def write(folder, values):
    path = folder / "train.yaml"
    path.write_text(values if isinstance(values, str) else yaml.safe_dump(values))
    return path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stepps": 3}, "stepps: there is no such key; is it steps?"),
        ({"steps": 0}, "steps: "),
        ({"crop_px": 100}, "crop_px: "),
        ({"gsd_m": {"min": 2, "max": 1}}, "gsd_m"),
        ({"classes": [CLASSES[0], CLASSES[0]]}, "distinct"),
        ({"loss": {"class_weights": {"sea": 2}}}, "names no class: sea"),
        ({"augment": {"zoom": [2, 1]}}, "zoom must rise"),
        ({"datasets": []}, "nothing to train from"),
        ({"datasets": [{"scene": "a.tif"}]}, "datasets.0.labels: "),
        ({"datasets": [{"scene": "a.tif", "labels": "b.tif", "ignore": [1]}]}, "which are classes"),
        ({"demo": {"seeds": []}}, "demo.seeds"),
        ({"demo": {"seeds": [1], "map_class": {"sea": "water"}}}, "demo: demo scenes have no class 'sea'"),
        (
            {"demo": {"seeds": [1], "map_class": {"water": "sea"}}},
            "demo.map_class.water: no class is named sea",
        ),
        ({"demo": {"seeds": [1]}, "classes": CLASSES[:2]}, "demo.map_class.land: no class is named land"),
        ({"datasets": [{**AB, "class_field": "x", "every_polygon": "road"}]}, "not both"),
        ({"datasets": [{**AB, "every_polygon": "sea"}]}, "datasets.0.every_polygon: no class is named sea"),
        (
            {"datasets": [{**AB, "every_polygon": "road", "map_class": {"a": "road"}}]},
            "every_polygon has none",
        ),
        ({"datasets": [{**AB, "class_field": "x", "ignore": [0]}]}, "ignore is for values of a raster"),
        ({"datasets": [{**AB, "background": "land"}]}, "with map_class: {0: ...}"),
        (
            {"datasets": [{**AB, "ignore": [7], "map_class": {7: "road"}}]},
            "7 is both ignored and in map_class",
        ),
        (
            {"datasets": [{**AB, "map_class": {7: ["road", "sea"]}}]},
            "datasets.0.map_class.7: no class is named sea",
        ),
        (
            {"datasets": [{**AB, "map_class": {7: {"no": ["road"]}}}]},
            "datasets.0.map_class.7: give a class, a list",
        ),
        (
            {"datasets": [{**AB, "map_class": {7: {"not": "road"}}}]},
            "datasets.0.map_class.7: give a class, a list",
        ),
        ({"datasets": [{**AB, "map_class": {7: 3}}]}, "datasets.0.map_class.7: give a class, a list"),
        ({"datasets": [{**AB, "map_class": {7: []}}]}, "datasets.0.map_class.7: give a class, a list"),
        (
            {"datasets": [{**AB, "every_polygon": {"not": []}}]},
            "datasets.0.every_polygon: give a class, a list",
        ),
        ({"datasets": [{**AB, "bands": [0]}]}, "datasets.0.bands.0: "),
        ({"loss": {"cross_entropy": 0, "dice": 0}}, "loss: all losses have weight 0"),
        ({"loss": {"lovas": 1}}, "loss.lovas: there is no such key; is it lovasz?"),
        ({"loss": {"focal": float("inf")}}, "loss.focal: "),
        (
            {"loss": {"cross_entropy": 0}, "datasets": [{**AB, "map_class": {7: ["road", "land"]}}]},
            "learn from",
        ),
        ({"loss": {"class_weights": {"road": 0}}}, "loss.class_weights.road: "),
        ({"augment": {"rotate": 2}}, "augment.rotate"),
    ],
)
def test_a_fault_is_one_line_with_the_file(tmp_path, changes, said):
    path = write(tmp_path, settings(**changes))
    with pytest.raises(SpecError) as caught:
        load_config(path, {})
    assert said in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["a: [", "just words", "", "- 1\n- 2"])
def test_what_is_not_a_mapping_is_refused(tmp_path, text):
    with pytest.raises(SpecError) as caught:
        load_config(write(tmp_path, text), {})
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(SpecError, match="cannot be read"):
        load_config(tmp_path / "none.yaml", {})


def test_paths_start_at_the_file_or_at_an_environment_variable(tmp_path):
    here = {"scene": "a.tif", "labels": "${PLACE}/b.tif"}
    path = write(tmp_path, settings(datasets=[here]))
    entry = load_config(path, {"PLACE": "/far"}).datasets[0]
    assert (str(entry.scene), str(entry.labels)) == (str(tmp_path / "a.tif"), "/far/b.tif")
    with pytest.raises(SpecError, match="PLACE is not set"):
        load_config(path, {})


def splits(tmp_path, *entries):
    return load_config(write(tmp_path, settings(datasets=list(entries))), {}).datasets


def test_one_scene_on_two_sides_is_refused(tmp_path):
    town = {"scene": "a.tif", "labels": "b.tif"}
    with pytest.raises(SpecError, match="listed twice"):
        check_splits(
            splits(tmp_path, town, {**town, "scene": "../" + tmp_path.name + "/a.tif", "split": "test"})
        )


def test_one_group_on_two_sides_is_refused_by_name(tmp_path):
    first = {"scene": "a.tif", "labels": "b.tif", "group": "bay"}
    second = {"scene": "c.tif", "labels": "d.tif", "group": "bay", "split": "validation"}
    with pytest.raises(SpecError, match=r"'bay'.*a\.tif in train, c\.tif in validation"):
        check_splits(splits(tmp_path, first, second))
    check_splits(splits(tmp_path, first, {**second, "split": "train"}))

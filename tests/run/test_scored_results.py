"""Errors, objects and labels from elsewhere are seen wherever a scene is looked at: in QGIS, in STAC, on its pages."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.features import shapes

from tests.run.results import run, write_labels, write_scene


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Path:
    """A scene scored against polygons in degrees, run twice."""
    folder = tmp_path_factory.mktemp("seen")
    scene = write_scene(folder / "scene.tif", 400, 380)
    with rasterio.open(write_labels(folder / "labels.tif", scene)) as source:
        found = list(shapes(source.read(1), source.read(1) == 1, transform=source.transform))
    houses = [shapely.geometry.shape(shape) for shape, _ in found]
    frame = geopandas.GeoDataFrame({"kind": "house"}, geometry=houses, crs=32640, index=range(len(houses)))
    frame.to_crs(4326).to_file(folder / "labels.geojson")
    options: dict[str, Any] = {
        "labels": str(folder / "labels.geojson"), "class_field": "kind", "map_class": {"house": "building"},
        "background": "land", "objects": True, "errors": True,
    }  # fmt: skip
    for _ in range(2):
        assert run(scene, folder / "out", tiny_bundle, **options) == 0
    return folder / "out" / "scene"


def test_qgis_has_them_as_a_layer_that_is_off(made: Path) -> None:
    with zipfile.ZipFile(made / "project.qgz") as archive:
        project = archive.read("project.qgs").decode()
    (line,) = re.findall(r'<layer-tree-layer [^>]*source="./errors.tif"[^>]*>', project)
    assert 'checked="Qt::Unchecked"' in line
    assert 'label="missed building"' in project
    assert 'label="right"' not in project


def test_stac_describes_their_values(made: Path) -> None:
    asset = json.loads((made / "item.json").read_text())["assets"]["errors"]
    assert asset["href"] == "./errors.tif"
    assert [c["value"] for c in asset["classification:classes"]] == [0, 1, 2, 3, 4, 5]
    assert asset["classification:classes"][1]["description"] == "missed building"
    assert asset["nodata"] == 255


def test_pages_show_objects_and_labels_from_anywhere(made: Path) -> None:
    page = (made / "report.html").read_text()
    for words in (
        "Buildings as objects",
        "Roads as lines",
        "Where it errs most",
        "Differences",
        "map of errors",
    ):
        assert words in page
    index = (made.parent / "index.html").read_text()
    row = json.loads((made.parent / "run.json").read_text())["scenes"][0]
    assert row["status"] == "unchanged"
    assert "unchanged" in index
    assert re.search(r"<dt>time</dt><dd>[\d.]+ (s|min)", index)


def test_views_of_labels_are_those_of_the_centers(made: Path) -> None:
    from geoseg.report.facts import SceneFacts
    from geoseg.report.layers import SceneViews

    facts = SceneFacts.read(made)
    views = SceneViews.read(facts)
    assert views.labels is not None and views.truth is not None
    assert set(np.unique(views.truth)) == {1, 3}
    whole = views.labels.read(facts.landcover.grid.window)
    assert (views.truth == whole).all()  # small enough to be shown pixel by pixel

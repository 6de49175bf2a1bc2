"""Every real scene goes through the main job with the bundled model, and what comes out is a proper product."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from rio_cogeo.cogeo import cog_validate
from scipy import ndimage

from geoseg.legend import NODATA
from geoseg.run.events import LineReporter
from geoseg.run.job import make_job
from geoseg.run.pipeline import Run
from tests.data import DATA, needs_data

SCENES = sorted(
    path
    for folder in ("dubai", "buildings")
    for path in (DATA / folder).glob("*.tif")
    if not path.stem.endswith("_labels")
)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("real")
    entries = []
    for path in SCENES:
        entry = {"path": str(path)}
        if path.parent.name == "dubai":
            entry["labels"] = str(path.with_name(f"{path.stem}_labels.tif"))
            entry["regions"] = str(path.with_name(f"{path.stem}_regions.gpkg"))
        entries.append(entry)
    assert Run(make_job({"scenes": entries, "output": str(out), "report": False}), LineReporter()).go() == 0
    return out


@needs_data
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", SCENES, ids=lambda p: p.stem)
def test_rasters_are_strict_cogs_in_the_right_place(results: Path, path: Path) -> None:
    for name in ("landcover.tif", "confidence.tif"):
        valid, errors, warnings = cog_validate(results / path.stem / name, strict=True, quiet=True)
        assert valid, (errors, warnings)
        with rasterio.open(path) as source, rasterio.open(results / path.stem / name) as made:
            assert (made.transform, made.crs, made.shape) == (source.transform, source.crs, source.shape)
            assert (made.dtypes, made.nodata) == (("uint8",), NODATA)


@needs_data
@pytest.mark.parametrize("path", SCENES, ids=lambda p: p.stem)
def test_vectors_open_and_hold_what_the_map_holds(results: Path, path: Path) -> None:
    with rasterio.open(results / path.stem / "landcover.tif") as source:
        labels, crs = source.read(1), source.crs
        cell = abs(source.transform.determinant)
    # Buildings are squared: that may move walls, but neither lose a building nor make much more or less of them.
    for layer, class_id, leeway in (("buildings", 1, 0.005), ("roads", 2, 1e-9)):
        polygons = geopandas.read_file(results / path.stem / "vectors.gpkg", layer=layer)
        assert polygons.crs == crs
        assert polygons.geometry.is_valid.all()
        assert polygons.area.sum() == pytest.approx(cell * (labels == class_id).sum(), rel=leeway)
        assert len(polygons) == ndimage.label(labels == class_id)[1]


@needs_data
def test_the_bundled_model_maps_the_scene_that_it_never_saw(results: Path) -> None:
    from json import loads

    metrics = loads((results / "dubai_2" / "metrics.json").read_text())
    assert metrics["overall"]["miou"] >= 0.40
    assert len(metrics["regions"]) == 9
    assert np.mean([r["unmapped"] for r in metrics["regions"]]) == 0

"""What a scene's folder holds beside the rasters: copies of layers, a QGIS project, a STAC item."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas
import pytest
from pystac import Catalog

from geoseg.errors import SpecError
from geoseg.run.job import make_job
from tests.run.results import run, write_polygons, write_scene


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_copies_of_layers_come_and_go_with_the_wish_for_them(tmp_path: Path, tiny_bundle: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", 300, 300)
    regions = write_polygons(tmp_path / "regions.gpkg", [(0, 0, 200, 200)])
    out = tmp_path / "out"
    wanted = {"format": ("parquet", "geojson"), "crs": "EPSG:3857", "regions": str(regions)}
    assert run(scene, out, tiny_bundle, **wanted) == 0
    copies = {
        f"{layer}.{name}" for layer in ("buildings", "roads", "regions") for name in ("parquet", "geojson")
    }
    assert copies < names(out / "scene")
    for layer in ("buildings", "roads", "regions"):
        original = geopandas.read_file(out / "scene" / "vectors.gpkg", layer=layer)
        copy = geopandas.read_parquet(out / "scene" / f"{layer}.parquet")
        assert copy.crs == "EPSG:3857"
        for column in original.columns.drop("geometry"):
            assert (copy[column].isna() == original[column].isna()).all()
            assert (copy[column].dropna() == original[column].dropna()).all()
        moved = original.to_crs("EPSG:3857").geometry
        assert copy.geometry.geom_equals_exact(moved, 1e-6).all()
    assert run(scene, out, tiny_bundle, regions=str(regions)) == 0
    assert not copies & names(out / "scene")
    assets = json.loads((out / "scene" / "item.json").read_text())["assets"]
    assert set(assets) == {"landcover", "confidence", "vectors", "areas"}


def test_a_catalog_lists_the_scenes_of_all_runs(tmp_path: Path, tiny_bundle: Path) -> None:
    for name in ("a", "b"):
        assert run(write_scene(tmp_path / f"{name}.tif", 300, 300), tmp_path / "out", tiny_bundle) == 0
    catalog = Catalog.from_file(str(tmp_path / "out" / "catalog.json"))
    assert [item.id for item in catalog.get_items()] == ["a", "b"]


def test_a_crs_needs_a_copy_to_be_for() -> None:
    with pytest.raises(SpecError, match="name a format"):
        make_job({"scenes": ("a.tif",), "output": "out", "crs": "EPSG:4326"})

"""`geoseg demo`: a scene drawn by rule, written as files like any scene, and the main job on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
import shapely
from affine import Affine
from pyproj import CRS

from geoseg.demo.scene import DemoScene, render_demo
from geoseg.io.files import make_folder, staged
from geoseg.io.vectors import add_region_layer
from geoseg.report.facts import REPORT
from geoseg.run.events import Reporter
from geoseg.run.job import make_job
from geoseg.run.pipeline import Run

GSD_M = 0.8
CRS_CODE = 32640
CORNER = (325_000.0, 2_785_000.0)
SCENE, LABELS, REGIONS = "demo_scene.tif", "demo_labels.tif", "demo_regions.gpkg"


def run_demo(output: Path, seed: int, size: int, reporter: Reporter) -> int:
    """Write the demo scene with its labels and regions into `output`, unless they are there, and map it."""
    scene = output / f"seed_{seed}_{size}px" / SCENE
    if not scene.is_file():
        reporter.say("note", f"drawing the demo scene, {size} x {size} px, seed {seed}")
        write_demo(render_demo(seed, size), scene.parent)
    options = {
        "scenes": (str(scene),),
        "labels": str(scene.parent / LABELS),
        "regions": str(scene.parent / REGIONS),
        "output": str(output),
    }
    code = Run(make_job(options), reporter).go()
    if code == 0:
        print(_guide(output, scene))
    return code


def write_demo(scene: DemoScene, folder: Path) -> None:
    """The scene as GeoTIFF with a mask, labels as GeoTIFF, regions as GeoPackage; the scene's own file comes last."""
    transform = Affine(GSD_M, 0.0, CORNER[0], 0.0, -GSD_M, CORNER[1])
    make_folder(folder)
    polygons = [shapely.Polygon([transform @ corner for corner in ring]) for _, ring in scene.regions]
    rows = [{"region": name} for name, _ in scene.regions]
    with staged(folder / REGIONS) as temporary:
        add_region_layer(temporary, polygons, rows, CRS.from_epsg(CRS_CODE).to_wkt())
    _write(folder / LABELS, scene.labels[None], transform, nodata=0)
    _write(folder / SCENE, scene.image, transform, mask=scene.valid)


def _write(
    path: Path,
    pixels: np.ndarray,
    transform: Affine,
    nodata: int | None = None,
    mask: np.ndarray | None = None,
) -> None:
    profile = {
        "driver": "GTiff", "count": pixels.shape[0], "height": pixels.shape[1], "width": pixels.shape[2],
        "dtype": "uint8", "crs": f"EPSG:{CRS_CODE}", "transform": transform, "nodata": nodata,
        "tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "predictor": 2,
    }  # fmt: skip
    with (
        staged(path) as temporary,
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(temporary, "w", **profile) as out,
    ):
        out.write(pixels)
        if mask is not None:
            out.write_mask(mask)


def _guide(output: Path, scene: Path) -> str:
    results = output / scene.stem
    return "\n".join(
        [
            "",
            f"scene       {scene}",
            f"land cover  {results / 'landcover.tif'}   classes, with colors",
            f"confidence  {results / 'confidence.tif'}   percent",
            f"vectors     {results / 'vectors.gpkg'}   buildings, roads, regions with scores",
            f"QGIS        {results / 'project.qgz'}   all of it, with names and colors",
            f"report      {results / REPORT}   maps, areas, scores and where it errs, on one page",
            f"figures     {results / 'areas.csv'}, {results / 'regions.csv'}, {results / 'metrics.json'}",
            "",
            f"Open {results / REPORT} in a browser,",
            f"or {results / 'project.qgz'} in QGIS.",
        ]
    )

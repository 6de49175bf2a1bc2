"""Polygons of a 10,000 x 10,000 class map: block by block and streamed, against one call on the whole raster."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyogrio
import rasterio
import rasterio.features
import shapely
from shapely.geometry import shape

from geoseg.io.rasters import configure_gdal
from geoseg.parallel import threaded_map
from geoseg.run.vectorizing import vectorize_file
from tests.benchmarks.memory import peak_mb
from tests.benchmarks.speed import interval
from tests.data import DATA

SIDE_PX = 10_000
LABELS = DATA / "dubai" / "dubai_7_labels.tif"


def main(pairs: int) -> None:
    """Interleaved pairs of processes; imports excluded from the time, included in the memory."""
    with tempfile.TemporaryDirectory() as name:
        raster = class_map(Path(name))
        times: dict[str, list[float]] = {"whole": [], "blocks": []}
        for number in range(pairs):
            for side in sorted(times, reverse=bool(number % 2)):
                times[side].append(float(_run(side, raster, Path(name, f"{side}.gpkg")).stdout))
            print("  " + ", ".join(f"{side} {taken[-1]:.1f} s" for side, taken in times.items()), flush=True)
        counts = {side: pyogrio.read_info(Path(name, f"{side}.gpkg"))["features"] for side in times}
        peaks = {side: peak_mb(_command(side, raster, Path(name, f"{side}.gpkg"))) for side in times}
    shares = [w / b for w, b in zip(times["whole"], times["blocks"], strict=True)]
    low, high = interval(shares)
    print("| side | polygons | s (median) | peak MB |\n| --- | --- | --- | --- |")
    for side, taken in times.items():
        print(f"| {side} | {counts[side]} | {statistics.median(taken):.1f} | {peaks[side]:.0f} |")
    print(
        f"\nspeed against the whole: {statistics.median(shares):.2f} (95 % interval {low:.2f} to {high:.2f}), "
        f"memory {peaks['blocks'] / peaks['whole']:.2f}"
    )


def class_map(folder: Path) -> Path:
    """The labels of dubai_7, repeated to 10,000 x 10,000."""
    with rasterio.open(LABELS) as source:
        labels, profile = source.read(1), source.profile
    repeats = [-(-SIDE_PX // side) for side in labels.shape]
    path = folder / "classes.tif"
    profile.update(height=SIDE_PX, width=SIDE_PX, tiled=True, blockxsize=512, blockysize=512, compress="zstd")
    with rasterio.open(path, "w", **profile) as target:
        target.write(np.tile(labels, repeats)[:SIDE_PX, :SIDE_PX], 1)
    return path


def _command(side: str, raster: Path, output: Path) -> list[str]:
    return [sys.executable, "-m", "tests.benchmarks.polygons", side, str(raster), str(output)]


def _run(side: str, raster: Path, output: Path) -> subprocess.CompletedProcess[str]:
    output.unlink(missing_ok=True)
    return subprocess.run(_command(side, raster, output), capture_output=True, text=True, check=True)


def _whole(raster: str, output: str) -> None:
    with rasterio.open(raster) as source:
        found = list(rasterio.features.shapes(source.read(1), connectivity=4, transform=source.transform))
        polygons = [shape(geometry) for geometry, _ in found]
        class_ids = np.array([value for _, value in found], np.int32)
        pyogrio.raw.write(
            output, shapely.to_wkb(polygons), [class_ids], ["class_id"], layer="polygons", driver="GPKG",
            geometry_type="Polygon", crs=source.crs.to_wkt(),
        )  # fmt: skip


def _blocks(raster: str, output: str) -> None:
    configure_gdal()
    vectorize_file(raster, output, raw=True, block_px=None, mapper=threaded_map)


if __name__ == "__main__":
    begin = time.perf_counter()
    {"whole": _whole, "blocks": _blocks}[sys.argv[1]](*sys.argv[2:])
    print(time.perf_counter() - begin)

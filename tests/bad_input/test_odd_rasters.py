"""Awkward and broken rasters of other projects run through: mapped where they lie, or refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import rasterio

from tests.bad_input.attempt import DONE, Try
from tests.data import DATA

FILES = sorted(p for p in (DATA / "odd").rglob("*") if p.is_file())
MAX_PX = 1_500_000

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(not FILES, reason=f"no odd rasters in {DATA / 'odd'} (set GEOSEG_DATA to its folder)"),
]


def run_through(run: Try, path: Path, folder: Path, *options: object) -> None:
    tried = run(path, "--margin-px", 0, *options)
    if tried.code != DONE:
        tried.refused(tried.code, path)
        return
    assert not tried.errors
    with rasterio.open(path) as scene, rasterio.open(folder / "out" / path.stem / "landcover.tif") as mapped:
        assert (mapped.transform, mapped.crs, mapped.shape) == (scene.transform, scene.crs, scene.shape)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_odd_files_run_through(run: Try, tmp_path: Path, path: Path) -> None:
    run_through(run, path, tmp_path)


def single_bands() -> list[Path]:
    """Those of one band of bytes, which are refused for their number of bands before anything else is seen."""
    found = []
    for path in FILES:
        if path.suffix == ".tif":
            with rasterio.open(path) as dataset:
                if (
                    dataset.count < 3
                    and dataset.dtypes[0] == "uint8"
                    and dataset.width * dataset.height < MAX_PX
                ):
                    found.append(path)
    return found


@pytest.mark.parametrize("path", single_bands(), ids=lambda path: path.name)
def test_odd_bands_run_through(run: Try, tmp_path: Path, path: Path) -> None:
    run_through(run, path, tmp_path, "--bands", "1,1,1")

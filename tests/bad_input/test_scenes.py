"""Scenes that cannot be mapped say why; the others of the same job are mapped."""

from __future__ import annotations

import json
import os
import resource
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS

from tests.bad_input.attempt import (
    NOTHING_STARTED,
    SOME_FAILED,
    Try,
    attempt_in_shell,
    cut_short,
    write_raster,
    write_vrt,
)
from tests.run.results import TRANSFORM, write_polygons, write_scene

SHAPE = (3, 200, 300)
PLAIN = np.random.default_rng(0).integers(1, 255, SHAPE, np.uint8)


@pytest.mark.parametrize("content", [None, b"", b"hello", b"II*\0", os.urandom(3000)])
def test_what_is_no_raster_is_refused(run: Try, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "scene.tif"
    if content is not None:
        path.write_bytes(content)
    words = "no such file" if content is None else "cannot be opened as GeoTIFF, COG or VRT"
    run(path).refused(NOTHING_STARTED, path, words)


def test_folders_and_other_formats_are_refused(run: Try, tmp_path: Path) -> None:
    run(tmp_path).refused(NOTHING_STARTED, tmp_path, "is a folder")
    picture = write_raster(tmp_path / "p.png", PLAIN, driver="PNG", crs=None, transform=Affine.identity())
    run(picture).refused(NOTHING_STARTED, picture, "is PNG; convert it to GeoTIFF")


@pytest.mark.parametrize("name", ["missing.tif", "text.tif"])
def test_the_console_command_keeps_the_rule(tmp_path: Path, tiny_bundle: Path, name: str) -> None:
    (tmp_path / "text.tif").write_text("hello")
    tried = attempt_in_shell(tmp_path / "out", tmp_path / name, "--model", tiny_bundle)
    tried.refused(NOTHING_STARTED, tmp_path / name)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size", [8, 60, 150])
def test_a_header_cut_short_is_refused(run: Try, good: Path, size: int) -> None:
    run(cut_short(good, size)).refused(NOTHING_STARTED, good, "cannot be opened")


@pytest.mark.parametrize("size", [1000, 0.5, -100])
def test_pixels_cut_short_fail_while_mapping(run: Try, good: Path, size: float) -> None:
    run(cut_short(good, size)).refused(SOME_FAILED, good, "pixels at row", "cut short or damaged")


def test_a_scene_cut_short_says_so_without_noise_from_gdal(
    good: Path, tmp_path: Path, tiny_bundle: Path
) -> None:
    tried = attempt_in_shell(tmp_path / "out", cut_short(good, 0.5), "--model", tiny_bundle)
    tried.refused(SOME_FAILED, good, "cut short or damaged")


def test_bad_scenes_do_not_stop_good_ones(run: Try, good: Path, tmp_path: Path) -> None:
    bad = cut_short(write_scene(tmp_path / "bad.tif", 200, 300), 0.5)
    tried = run(tmp_path / "gone.tif", bad, good)
    assert tried.code == SOME_FAILED
    assert len(tried.errors) == 2
    assert {name.split("/")[0] for name in tried.published} == {"good"}
    assert {"good/confidence.tif", "good/landcover.tif", "good/vectors.gpkg"} < set(tried.published)
    summary = json.loads((tmp_path / "out" / "run.json").read_text())
    assert set(summary["failed"]) == {"gone", "bad"}


def huge_header(path: Path, height: int, width: int, tile: int) -> Path:
    """A BigTIFF of a few hundred bytes with one tile, said to be 4 EiB large."""
    tags = [
        (256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (277, 3, 3), (284, 3, 1),
        (322, 4, tile), (323, 4, tile), (324, 16, 1000), (325, 16, 1 << 62),
    ]  # fmt: skip
    entries = b"".join(struct.pack("<HHQQ", tag, kind, 1, value) for tag, kind, value in tags)
    head = b"II" + struct.pack("<HHHQ", 43, 8, 0, 16) + struct.pack("<Q", len(tags))
    path.write_bytes(head + entries + bytes(2000))
    return path


def sparse(path: Path, side: int) -> Path:
    profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", "crs": "EPSG:32640", "transform": TRANSFORM}
    tiles = {"tiled": True, "blockxsize": 4096, "blockysize": 4096, "compress": "deflate"}
    rasterio.open(
        path, "w", height=side, width=side, SPARSE_OK=True, BIGTIFF="YES", **profile, **tiles
    ).close()
    return path


@pytest.mark.parametrize("kind", ["vrt", "thin", "header", "tile", "sparse", "aoi", "resampled"])
def test_petabytes_are_refused_at_once(run: Try, good: Path, tmp_path: Path, kind: str) -> None:
    giant, corner = 2_000_000_000, write_polygons(tmp_path / "corner.gpkg", [(5, 5, 50, 50)])
    scene: list[object] = {
        "vrt": lambda: [write_vrt(tmp_path / "s.vrt", giant, giant)],
        "thin": lambda: [write_vrt(tmp_path / "s.vrt", 1, giant)],
        "header": lambda: [huge_header(tmp_path / "s.tif", giant, giant, 1 << 16)],
        "tile": lambda: [huge_header(tmp_path / "s.tif", 300, 400, 1 << 30)],
        "sparse": lambda: [sparse(tmp_path / "s.tif", 2_000_000)],
        "aoi": lambda: [write_vrt(tmp_path / "s.vrt", giant, giant), "--aoi", corner],
        "resampled": lambda: [good, "--gsd", 1e-7],
    }[kind]()  # fmt: skip
    before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    tried = run(*scene)
    tried.refused(SOME_FAILED if kind == "tile" else NOTHING_STARTED, scene[0])
    assert time.monotonic() - begin < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB


def test_a_vrt_without_its_parts_is_refused(run: Try, tmp_path: Path) -> None:
    vrt = write_vrt(tmp_path / "s.vrt", 200, 300, source="gone.tif")
    run(vrt).refused(NOTHING_STARTED, vrt, "gone.tif is not there")
    (tmp_path / "bad.vrt").write_text("<VRTDataset rasterXSize='10'")
    run(tmp_path / "bad.vrt").refused(NOTHING_STARTED, "bad.vrt: cannot be opened")


def test_a_vrt_of_itself_fails(run: Try, tmp_path: Path) -> None:
    vrt = write_vrt(tmp_path / "s.vrt", 200, 300, source="s.vrt")
    run(vrt).refused(SOME_FAILED, vrt, "Recursion detected")


@pytest.mark.parametrize(
    ("dtype", "bands", "words"),
    [
        ("uint8", 1, "has 1 band; the model takes 3 (red, green, blue)"),
        ("uint8", 2, "has 2 bands"),
        ("int8", 3, "holds int8 values; the model takes uint8"),
        ("uint16", 3, "holds uint16 values"),
        ("float32", 3, "holds float32 values"),
        ("complex64", 3, "holds complex64 values"),
    ],
)
def test_bands_and_types_must_be_those_of_the_model(
    run: Try, tmp_path: Path, dtype: str, bands: int, words: str
) -> None:
    scene = write_raster(tmp_path / "s.tif", PLAIN[:bands].astype(dtype))
    run(scene).refused(NOTHING_STARTED, scene, words)


@pytest.mark.parametrize("why", ["nodata", "mask", "alpha"])
def test_a_scene_without_a_valid_pixel_fails(run: Try, tmp_path: Path, why: str) -> None:
    scene = tmp_path / "s.tif"
    if why == "nodata":
        write_raster(scene, np.full(SHAPE, 7, np.uint8), nodata=7)
    elif why == "alpha":
        write_raster(
            scene, np.vstack([PLAIN, np.zeros((1, *SHAPE[1:]), np.uint8)]), photometric="rgb", alpha="yes"
        )
    else:
        write_raster(scene, PLAIN)
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(scene, "r+") as dataset:
            dataset.write_mask(False)
    run(scene).refused(SOME_FAILED, scene, "holds no pixel to map")


@pytest.mark.parametrize(
    ("transform", "words"),
    [
        (Affine(0.8, 0.8, 3e5, 0.8, 0.8, 2e6), "maps all pixels onto a line"),
        (Affine(0, 0, 3e5, 0, 0, 2e6), "maps all pixels onto a line"),
        (Affine(float("nan"), 0, 3e5, 0, -0.8, 2e6), "not finite"),
        (Affine(0.8, 0, float("inf"), 0, -0.8, 2e6), "not finite"),
    ],
)
def test_a_geotransform_that_places_nothing_is_refused(
    run: Try, tmp_path: Path, transform: Affine, words: str
) -> None:
    scene = write_raster(tmp_path / "s.tif", PLAIN, transform=transform)
    run(scene).refused(NOTHING_STARTED, scene, words)


@pytest.mark.parametrize("crs", [None, "EPSG:32640"])
def test_ground_control_points_are_no_place(run: Try, tmp_path: Path, crs: str | None) -> None:
    points = [GroundControlPoint(r, c, 55 + c / 1e4, 25 - r / 1e4) for r, c in ((0, 0), (0, 300), (200, 0))]
    scene = tmp_path / "s.tif"
    write_raster(scene, PLAIN, crs=CRS.from_epsg(4326), transform=Affine.identity(), gcps=points)
    if crs is not None:  # a VRT may state both
        rasterio.shutil.copy(str(scene), str(tmp_path / "s.vrt"), driver="VRT")
        scene = tmp_path / "s.vrt"
        scene.write_text(scene.read_text().replace("<GCPList", f"<SRS>{crs}</SRS><GCPList"))
    run(scene).refused(NOTHING_STARTED, scene, "placed by ground control points only; rectify it first")

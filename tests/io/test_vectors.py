"""A GeoPackage appears whole, in order, or not at all."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import shapely
from pyproj import CRS

from geoseg.errors import OutputError, SourceError
from geoseg.io import vectors
from geoseg.io.vectors import GeoPackageStore
from geoseg.stages.layers import Found

UTM = CRS.from_epsg(32640).to_wkt()
COLUMNS = {
    "class_id": np.array([1, 2], np.int32),
    "class_name": np.array(["house", None], object),
    "area_m2": np.array([2.5, np.nan]),
    "clipped": np.array([True, False]),
}
SQUARES = shapely.to_wkb(shapely.box([0, 5], [0, 5], [1, 7], [1, 7])).tolist()
NO_ROWS = {name: values[:0] for name, values in COLUMNS.items()}


def write(path, crs=UTM, batches=1):
    with GeoPackageStore.beside(path) as store, store.writer(crs) as writer:
        writer.append("buildings", [], NO_ROWS)
        writer.append("roads", [], NO_ROWS)
        for _ in range(batches):
            writer.append("roads", SQUARES, COLUMNS)


def test_layers_fields_order_and_crs(tmp_path):
    write(tmp_path / "out.gpkg", batches=2)
    assert os.listdir(tmp_path) == ["out.gpkg"]
    assert pyogrio.list_layers(tmp_path / "out.gpkg").tolist() == [
        ["buildings", "Polygon"],
        ["roads", "Polygon"],
    ]
    roads = pyogrio.read_dataframe(tmp_path / "out.gpkg", layer="roads", fid_as_index=True)
    assert roads.index.tolist() == [1, 2, 3, 4]
    assert shapely.to_wkb(roads.geometry.values).tolist() == SQUARES * 2
    assert roads["class_id"].tolist() == [1, 2, 1, 2]
    assert roads["class_name"].tolist()[0] == "house"
    assert roads["class_name"].isna().tolist() == [False, True] * 2
    assert roads["area_m2"].isna().tolist() == [False, True] * 2
    assert roads["clipped"].tolist() == [True, False] * 2
    assert roads.crs == CRS.from_epsg(32640)


def test_an_empty_layer_has_the_same_fields_as_a_full_one(tmp_path):
    write(tmp_path / "out.gpkg")
    empty, full = (pyogrio.read_info(tmp_path / "out.gpkg", layer=name) for name in ("buildings", "roads"))
    for fact in ("dtypes", "ogr_types", "ogr_subtypes", "fields"):
        assert list(empty[fact]) == list(full[fact])
    assert empty["features"] == 0
    assert empty["geometry_type"] == "Polygon"
    assert list(empty["ogr_subtypes"])[3] == "OFSTBoolean"


@pytest.mark.filterwarnings("error")
def test_a_raster_without_crs_gives_layers_without_crs(tmp_path):
    write(tmp_path / "out.gpkg", crs=None)
    assert pyogrio.read_info(tmp_path / "out.gpkg", layer="roads")["crs"] is None


def test_an_older_file_is_replaced_only_by_a_whole_one(tmp_path):
    output = tmp_path / "out.gpkg"
    output.write_text("old")
    with pytest.raises(SourceError), GeoPackageStore.beside(output) as store, store.writer(UTM) as writer:
        writer.append("roads", SQUARES, COLUMNS)
        raise SourceError("stop")
    assert output.read_text() == "old"
    assert os.listdir(tmp_path) == ["out.gpkg"]
    write(output)
    assert pyogrio.read_info(output, layer="roads")["features"] == 2


def test_the_spool_gives_back_scan_order_in_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(vectors, "BATCH", 3)
    rng = np.random.default_rng(0)
    places = rng.permutation(40)
    rows, cols, classes = places // 7 * 100_000, places % 7 * 400_000, places % 3
    with GeoPackageStore.beside(tmp_path / "out.gpkg") as store, store.spool() as spool:
        for part in np.array_split(np.arange(40), 4):
            found = [
                Found(int(c), float("nan"), 7.5, bool(p % 2), str(p).encode())
                for c, p in zip(classes[part], places[part], strict=True)
            ]
            spool.add(rows[part].tolist(), cols[part].tolist(), found)
        batches = list(spool.read((0, 2)))
    assert max(map(len, batches)) == 3
    found = [(int(one.wkb), one.class_id, one.at_edge, one.low_percent) for batch in batches for one in batch]
    assert found == [(place, place % 3, place % 2 == 1, 7.5) for place in range(40) if place % 3 in (0, 2)]
    assert all(np.isnan(one.mean_percent) for batch in batches for one in batch)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["file/out.gpkg", "file/deeper/out.gpkg", "folder"])
def test_a_place_that_cannot_be_written_is_one_line(tmp_path, name):
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError) as caught:
        write(tmp_path / name)
    assert caught.value.path == str(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: cannot be written (")
    assert "\n" not in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_a_store_travels_and_keeps_scratch_files(tmp_path):
    with GeoPackageStore.beside(tmp_path / "new" / "out.gpkg") as store:
        store.put("a.npz", b"123")
        assert pickle.loads(pickle.dumps(store)).get("a.npz") == b"123"
        with pytest.raises(OutputError, match=r"out\.gpkg"):
            store.get("b.npz")
    assert os.listdir(tmp_path / "new") == []


@pytest.mark.parametrize("limit_kb", [4, 60, 110, 400, 1500])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, limit_kb):
    """A limit on file size stands in for the full disk: both make writes fail in the middle."""
    script = f"""
import resource, signal, sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from tests.io.test_vectors import *
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit_kb} * 1024, {limit_kb} * 1024))
try:
    with GeoPackageStore.beside({str(tmp_path / "out.gpkg")!r}) as store:
        with store.spool() as spool, store.writer(UTM) as writer:
            for k in range(20_000):
                spool.add([k], [0], [Found(1, 1.0, 1.0, True, SQUARES[0])])
            many = {{name: np.repeat(values, 10_000) for name, values in COLUMNS.items()}}
            writer.append("roads", SQUARES * 10_000, many)
except OutputError as error:
    print("refused", error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith(f"refused {tmp_path / 'out.gpkg'}: cannot be written ("), done.stderr
    assert done.stdout.count("\n") == 1
    assert os.listdir(tmp_path) == []

"""Nights: what is new is mapped, what is bad is named and tried again, what is gone is forgotten."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml

from geoseg.errors import SourceError, SpecError
from geoseg.run.nights import NightJob, list_scenes, read_history, read_night_job
from tests.run.results import write_scene
from tests.run.test_cluster import spoil

WORKFLOW = Path(__file__).parents[2] / "workflows" / "nightly_landcover.py"


def night(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(WORKFLOW), str(folder / "night.yaml"), *more],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def write_job(folder: Path, **values: object) -> None:
    (folder / "night.yaml").write_text(yaml.safe_dump(values))


def last(folder: Path) -> dict:
    return read_history(folder / "out")["nights"][-1]


def test_twenty_scenes_of_which_four_are_bad(tiny_bundle: Path, tmp_path: Path) -> None:
    """The good ones are published the first night; the second does only the bad; the third only the repaired."""
    incoming = tmp_path / "in"
    incoming.mkdir()
    scenes = [write_scene(incoming / f"s{n:02}.tif", 170, 160, seed=n) for n in range(20)]
    whole = {n: scenes[n].read_bytes() for n in (3, 7, 11, 15)}
    scenes[3].write_bytes(whole[3][: len(whole[3]) // 3])
    with rasterio.open(scenes[7], "r+") as dataset:
        dataset.write(np.zeros((3, 170, 160), np.uint8))
    write_scene(scenes[11], 170, 160, seed=11, crs=None)
    spoil(scenes[15], scenes[15], "0_0")
    options = {"output": "out", "model": str(tiny_bundle), "block_px": 128, "report": False}
    write_job(tmp_path, sources=[{"glob": "in/*.tif"}], job=options)

    bad, good = {"s03", "s07", "s11", "s15"}, {f"s{n:02}" for n in range(20)} - {"s03", "s07", "s11", "s15"}
    first = night(tmp_path)
    assert first.returncode == 1, first.stderr
    assert last(tmp_path)["failed"].keys() == bad
    assert set(last(tmp_path)["done"]) == good
    assert "has no CRS" in last(tmp_path)["failed"]["s11"]
    assert "blocks could not be mapped" in last(tmp_path)["failed"]["s15"]
    assert "holds no pixel" in last(tmp_path)["failed"]["s07"]
    for name in good:
        assert (tmp_path / "out" / name / "landcover.tif").is_file()
    for name in bad:
        assert str(incoming / f"{name}.tif") in first.stderr
        assert not (tmp_path / "out" / name).exists()

    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.glob("out/s*/*")}
    second = night(tmp_path)
    assert second.returncode == 1
    assert (last(tmp_path)["done"], set(last(tmp_path)["unchanged"])) == ([], good)
    assert last(tmp_path)["failed"].keys() == bad

    for n in (7, 15):
        scenes[n].write_bytes(whole[n])
    third = night(tmp_path)
    assert third.returncode == 1
    assert set(last(tmp_path)["done"]) == {"s07", "s15"}
    assert last(tmp_path)["failed"].keys() == {"s03", "s11"}
    assert stamps == {p: p.stat().st_mtime_ns for p in stamps}
    for n in (3, 11):
        scenes[n].write_bytes(whole[n])
    assert night(tmp_path).returncode == 0
    page = (tmp_path / "out/nights.html").read_text()
    assert page.count("<tr>") == 1 + 5 + 1 + 4
    total = sum(last(tmp_path)["hectares"].values())
    assert 0.4 < total / (20 * 170 * 160 * 0.64e-4) < 1  # a corner of each is nodata


def test_results_of_a_scene_that_is_gone_stay_for_some_nights(tiny_bundle: Path, tmp_path: Path) -> None:
    for name in "ab":
        write_scene(tmp_path / f"{name}.tif", 150, 150)
    options = {"output": "out", "model": str(tiny_bundle), "report": False}
    write_job(tmp_path, sources=[{"glob": "*.tif"}], keep_nights=2, job=options)
    assert night(tmp_path).returncode == 0
    (tmp_path / "b.tif").unlink()
    assert night(tmp_path).returncode == 0
    assert (tmp_path / "out/b/landcover.tif").is_file()
    assert night(tmp_path).returncode == 0
    assert not (tmp_path / "out/b").exists()
    assert last(tmp_path)["removed"] == ["b"]
    one = json.loads((tmp_path / "out/catalog.json").read_text())
    assert not [link for link in one["links"] if "/b/" in link["href"]]


def test_a_night_without_time_leaves_everything_to_the_next_one(tiny_bundle: Path, tmp_path: Path) -> None:
    write_scene(tmp_path / "a.tif", 600, 600)
    options = {"output": "out", "model": str(tiny_bundle), "report": False, "block_px": 128, "workers": 1}
    write_job(tmp_path, sources=[{"glob": "*.tif"}], job={**options, "hours": 1e-9})
    short = night(tmp_path, "--json")
    assert short.returncode == 0, short.stderr
    assert json.loads(short.stdout.splitlines()[-1])["postponed"] == ["a"]
    write_job(tmp_path, sources=[{"glob": "*.tif"}], job=options)
    assert night(tmp_path).returncode == 0
    assert last(tmp_path)["done"] == ["a"]


def entries(folder: Path, **values: object) -> dict[str, dict[str, str]]:
    made = NightJob.model_validate({"job": {"output": "out"}, **values})
    return list_scenes(made, folder).scenes


def test_scenes_come_from_globs_tables_and_catalogs(tmp_path: Path) -> None:
    for name in ("in/a.tif", "in/deep/b.tif", "in/a_clouds.tif", "x y.tif"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "scenes.csv").write_text("path,mask,note\nin/a.tif,in/a_clouds.tif,hazy\nin/deep/b.tif,,\n")
    item = {"type": "Feature", "assets": {"visual": {"href": "../x%20y.tif"}, "clouds": {"href": "m.tif"}}}
    catalog = {
        "type": "Catalog",
        "links": [{"rel": "item", "href": "./items/i.json"}, {"rel": "self", "href": "?"}],
    }
    (tmp_path / "items").mkdir()
    (tmp_path / "items/i.json").write_text(json.dumps(item))
    (tmp_path / "catalog.json").write_text(json.dumps(catalog))

    found = entries(tmp_path, sources=[{"glob": "in/**/[ab].tif"}], mask="{stem}_clouds.tif")
    assert list(found) == ["a", "b"]
    assert found["a"]["mask"] == str(tmp_path / "in/a_clouds.tif")
    assert "mask" not in found["b"]
    table = entries(tmp_path, sources=[{"csv": "scenes.csv"}])
    assert table == {
        "a": {"path": str(tmp_path / "in/a.tif"), "mask": str(tmp_path / "in/a_clouds.tif")},
        "b": {"path": str(tmp_path / "in/deep/b.tif")},
    }
    stac = entries(tmp_path, sources=[{"stac": "catalog.json", "asset": "visual", "mask_asset": "clouds"}])
    assert [Path(one["path"]).resolve() for one in stac.values()] == [(tmp_path / "x y.tif").resolve()]
    assert Path(stac["x y"]["mask"]) == tmp_path.resolve() / "items/m.tif"

    made = NightJob.model_validate({"job": {"output": "o"}, "sources": [{"stac": "catalog.json"}]})
    listing = list_scenes(made, tmp_path)
    assert not listing.scenes
    assert "has no asset 'image'; there are visual, clouds" in next(iter(listing.refused.values()))


def test_scenes_of_one_name_are_named_and_the_first_is_taken(tmp_path: Path) -> None:
    for name in ("one/a.tif", "two/a.tif"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    made = NightJob.model_validate({"job": {"output": "o"}, "sources": [{"glob": "*/a.tif"}]})
    listing = list_scenes(made, tmp_path)
    assert listing.scenes["a"]["path"] == str(tmp_path / "one/a.tif")
    assert "would write to the same folder as" in listing.refused[str(tmp_path / "two/a.tif")]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"sources": [], "job": {"output": "o"}}, "sources"),
        (
            {"sources": [{"glob": "a", "csv": "b"}], "job": {"output": "o"}},
            "one of glob, prefix, csv and stac",
        ),
        ({"sources": [{"glob": "a"}], "job": {}}, "job.output: name a folder"),
        ({"sources": [{"glob": "a"}], "job": {"output": "o", "scenes": ["a"]}}, "come from its sources"),
        ({"sources": [{"glob": "a"}], "job": {"output": "o"}, "hours": 3}, "hours"),
    ],
)
def test_a_night_that_cannot_be_is_refused(tmp_path: Path, values: dict, words: str) -> None:
    write_job(tmp_path, **values)
    with pytest.raises(SpecError, match=words):
        read_night_job(str(tmp_path / "night.yaml"))


def test_a_catalog_that_leads_in_a_circle_or_elsewhere_is_refused(tmp_path: Path) -> None:
    made = NightJob.model_validate({"job": {"output": "o"}, "sources": [{"stac": "c.json"}]})
    for href, words in (
        ("./c.json", "links to itself"),
        ("https://example.com/i.json", "only files and objects"),
    ):
        content = {"type": "Catalog", "links": [{"rel": "child", "href": href}]}
        (tmp_path / "c.json").write_text(json.dumps(content))
        with pytest.raises(SourceError, match=words):
            list_scenes(made, tmp_path)

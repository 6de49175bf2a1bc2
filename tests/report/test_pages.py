"""Pages as files: whole, bounded, the same for the same input, and safe with names that nobody vouches for."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from geoseg.cli import main
from geoseg.errors import SourceError
from geoseg.legend import LandClass, Legend
from geoseg.report.everything import write_reports
from geoseg.report.facts import SceneFacts
from geoseg.report.index import write_index
from geoseg.report.page import json_for_script
from geoseg.report.quicklook import write_quicklook
from geoseg.report.scene import write_scene_report
from geoseg.report.sections import class_areas
from tests.report.folders import LEGEND, NASTY, add_failure, boxes, draw, write_layer, write_run

MOST_BYTES = 5_000_000


class Outline(HTMLParser):
    """Elements with their attributes, and the text of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[tuple[str, str]] = []
        self._kind = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes) -> None:
        self.elements.append((tag, dict(attributes)))
        self._kind = tag

    def handle_data(self, data) -> None:
        if self._kind in ("script", "style"):
            self.inside.append((self._kind, data))

    def handle_endtag(self, tag) -> None:
        self._kind = ""

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page(path: Path) -> Outline:
    return Outline(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run of two scenes, one of them without labels and regions, and one that failed."""
    output = tmp_path_factory.mktemp("report") / "out"
    write_run(output)
    write_run(output, "plain", (300, 260), names=(), labels=False)
    add_failure(output, f"lost {NASTY}", f"lost.tif: cannot be opened {NASTY}")
    write_reports(output)
    return output


def test_the_same_input_gives_the_same_bytes(run: Path, tmp_path: Path) -> None:
    names = ("index.html", "scene/report.html", "scene/quicklook.png", "plain/report.html")
    before = {name: (run / name).read_bytes() for name in names}
    write_reports(run)
    assert {name: (run / name).read_bytes() for name in names} == before
    copy = tmp_path / "out"  # the folder's own place is no input
    shutil.copytree(run, copy)
    write_reports(copy)
    assert {name: (copy / name).read_bytes() for name in names} == before


@pytest.mark.parametrize("name", ["scene/report.html", "plain/report.html", "index.html"])
def test_a_page_asks_for_nothing_beyond_itself(run: Path, name: str) -> None:
    found = page(run / name)
    for tag, attributes in found.elements:
        for key in ("src", "href", "data", "action", "srcset", "poster"):
            target = attributes.get(key)
            if target is None or target.startswith(("data:", "#")):
                continue
            assert tag == "a" and re.match(r"\./|\.\./index\.html$", target), (tag, target)
    style = next(text for kind, text in found.inside if kind == "style")
    assert "url(" not in style.replace("url(#viridis)", "") and "@import" not in style


@pytest.mark.parametrize("name", ["scene/report.html", "plain/report.html", "index.html"])
def test_the_policy_names_this_style_and_this_script_and_no_inline_attribute_needs_more(
    run: Path, name: str
) -> None:
    found = page(run / name)
    policy = next(m["content"] for m in found.of("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    code = [text for kind, text in found.inside if kind == "script"][-1]
    style = next(text for kind, text in found.inside if kind == "style")
    for kind, text in (("script", code), ("style", style)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    for tag, attributes in found.elements:
        assert not [key for key in attributes if key.startswith("on") or key == "style"], tag


@pytest.mark.parametrize("name", ["scene/report.html", "index.html"])
def test_names_are_text_and_never_markup(run: Path, name: str) -> None:
    text = (run / name).read_text(encoding="utf-8")
    found = page(run / name)
    assert "<img src=x" not in text and "onerror=alert(1)>" not in text.replace("onerror=alert(1)&gt;", "")
    assert len(found.of("script")) == 2
    assert all(image["src"].startswith("data:image/") for image in found.of("img"))
    assert "&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;" in text


def test_a_scenes_own_name_is_text_too(tmp_path: Path) -> None:
    name = 'a"><svg onload=alert(1)>&b'
    folder = write_run(tmp_path / "out", name, (120, 100), names=())
    found = page(write_scene_report(folder))
    assert not [a for _, a in found.elements if "onload" in a]
    assert any(a.get("aria-label", "").startswith(f"Map of {name}.") for a in found.of("svg"))
    index = page(write_index(tmp_path / "out"))
    assert any(a.get("href", "").startswith("./a%22%3E%3Csvg") for a in index.of("a"))


def test_json_in_a_script_reads_back_and_holds_no_markup() -> None:
    value = {"a": "</script><!--", "b": ["\u2028", "é", 1.5, None]}
    text = json_for_script(value)
    assert not set("<>&") & set(text)
    assert json.loads(text) == value


def test_everything_is_there(run: Path) -> None:
    text = (run / "scene/report.html").read_text(encoding="utf-8")
    for title in (
        "Layers", "Where it errs most", "Area by class", "Agreement with the labels", "What is taken for what",
        "Whether confidence keeps its promise", "How sure the map is", "Regions", "Time", "Where it comes from",
        "Files",
        "The bottleneck is “map”: 80 % of 2.5 s", "95 %: 0.60 to 0.90", "tiny 0", "WGS 84 / UTM zone 40N (EPSG:32640)",
    ):  # fmt: skip
        assert title in text, title
    found = page(run / "scene/report.html")
    assert {a["data-layer"] for a in found.of("div") if "data-layer" in a} == {
        "image", "landcover", "confidence", "labels", "errors", "buildings", "regions"
    }  # fmt: skip
    assert len([a for a in found.of("path") if a.get("class") == "region"]) == 4
    charts = [a for a in found.of("div") if a.get("class") == "bars"] + [
        a for a in found.of("svg") if a.get("class") == "plot"
    ]
    assert (
        len(charts) == 5 and len(found.of("details")) == 6
    )  # a table for each chart, and the matrix in pixels


@pytest.mark.parametrize("name", ["scene", "plain"])
def test_views_name_layers_that_are_there_with_an_opacity_in_percent(run: Path, name: str) -> None:
    text = (run / name / "report.html").read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])
    there = set(re.findall(r'data-layer="(\w+)"', text))
    assert len(data["views"]) >= 4
    for view in data["views"].values():
        assert view["layers"].keys() <= there and all(
            0 < strength <= 100 for strength in view["layers"].values()
        )
        assert view["measure"] in {"", *(m["key"] for m in data["measures"])}


def test_a_map_without_labels_regions_and_image_has_a_page(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "out", shape=(200, 260), names=(), labels=False)
    shutil.rmtree(tmp_path / "out sources")
    (folder / "item.json").unlink()
    (folder / "vectors.gpkg").unlink()
    text = write_scene_report(folder).read_text(encoding="utf-8")
    assert "Where it is least sure" in text and "Agreement with the labels" not in text
    assert 'data-layer="image"' not in text
    (folder.parent / "run.json").unlink()
    (folder / "confidence.tif").unlink()
    text = write_scene_report(folder).read_text(encoding="utf-8")
    assert "Area by class" in text and "The bottleneck" not in text
    assert "./scene/report.html" in write_index(folder.parent).read_text(encoding="utf-8")


def test_a_map_without_crs_has_a_page_without_a_scale(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "out", shape=(90, 130), crs=None)
    text = write_scene_report(folder).read_text(encoding="utf-8")
    assert 'id="scale-bar"' not in text and "<dd>none</dd>" in text and 'data-layer="labels"' in text
    assert write_quicklook(folder).is_file() and write_index(folder.parent).is_file()


def test_shares_are_those_that_the_run_counted(run: Path) -> None:
    row = json.loads((run / "run.json").read_text())["scenes"][0]
    text = (run / "scene/report.html").read_text(encoding="utf-8")
    for share in row["shares"].values():
        assert f"{100 * share:.3f} %" in text


def test_areas_measured_are_shown_with_their_intervals(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "out", shape=(200, 200), names=("one",), labels=False)
    head = "region,class_id,class_name,pixels,hectares,share,adjusted_ha,adjusted_ci95_ha"
    rows = [
        f"{r},{c.id},{c.name},1,{10 * c.id}.5,0.25,{9 * c.id},1.25"
        for r in ("one", "overall")
        for c in LEGEND.classes
    ]
    (folder / "areas.csv").write_text("\n".join([head, *rows]) + "\n")
    text = write_scene_report(folder).read_text(encoding="utf-8")
    assert "9.00 ha ± 1.25 adjusted" in text and "10.50 ha" in text and "hectares on the ellipsoid" in text
    record = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])["regions"][0]
    assert record["values"]["hectares"] == sum(10 * c.id + 0.5 for c in LEGEND.classes)
    assert record["values"]["share:0"] == 0.25


def test_whiskers_of_areas_far_above_the_mapped_ones_are_drawn_whole(tmp_path: Path) -> None:
    """Of one class all is mapped, of another a tenth of what labels say there is."""
    folder = write_run(tmp_path / "out", shape=(200, 200), names=("one",), labels=False)
    head = "region,class_id,class_name,pixels,hectares,share,adjusted_ha,adjusted_ci95_ha"
    mapped, adjusted = {1: 2, 2: 8, 3: 40, 5: 50}, {1: 2, 2: 80, 3: 10, 5: 8}
    rows = [f"overall,{i},x,1,{mapped[i]},{mapped[i] / 100},{adjusted[i]},4" for i in mapped]
    (folder / "areas.csv").write_text("\n".join([head, *rows]) + "\n")
    bars = class_areas(SceneFacts.read(folder), {i: mapped[i] / 100 for i in mapped}, True, 1)["bars"]
    ends = {b["name"]: [float(x) for x in re.search(r'whisker" x1="([\d.]+)%" x2="([\d.]+)%"', b["bar"]).groups()]
            for b in bars}  # fmt: skip
    for c in LEGEND.classes:
        low, high = (adjusted[c.id] + side for side in (-4, 4))
        assert ends[c.name] == pytest.approx([max(0, low) / 84 * 100, high / 84 * 100], abs=0.01)


def test_region_shares_without_areas_come_from_the_map_inside(tmp_path: Path) -> None:
    mapped = np.full((300, 400), 3, np.uint8)
    mapped[:150, :200], mapped[:75, :200] = 5, 1
    folder = write_run(
        tmp_path / "out", shape=(300, 400), mapped=mapped, names=("a", "b", "c", "d"), labels=False
    )
    text = write_scene_report(folder).read_text(encoding="utf-8")
    regions = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])["regions"]
    first, second = regions[0]["values"], regions[1]["values"]
    assert (first["share:0"], first["share:3"], first["share:2"]) == (0.5, 0.5, 0)
    assert second["share:2"] == 1


def test_the_worst_place_is_where_map_and_labels_differ(run: Path) -> None:
    text = (run / "scene/report.html").read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])
    x, y, w, h = data["places"][0]
    cx, cy = data["width"] / 500 * 280, data["height"] / 420 * 240  # the middle of the altered square
    assert x <= cx <= x + w and y <= cy <= y + h


def test_size_is_bounded_whatever_the_scene(tmp_path: Path) -> None:
    """Noise cannot be packed: many classes, many regions with long names, many buildings, every pixel its own."""
    legend = Legend(
        tuple(
            LandClass(i, f"class {i} " + "x" * 40, (i * 5, 255 - i * 3, (i * 37) % 256)) for i in range(1, 41)
        )
    )
    rng = np.random.default_rng(0)
    shape = (2048, 2048)
    mapped = rng.integers(1, 41, shape).astype(np.uint8)
    folder = write_run(
        tmp_path / "out", "noise", shape, legend, mapped, tuple(f"region {i} " + "y" * 300 for i in range(900)),
        image=rng.integers(0, 256, (3, *shape)), confidence=rng.integers(0, 101, shape),
        truth=rng.integers(1, 41, shape),
    )  # fmt: skip
    spots = [box.buffer(-0.3).buffer(0.2, quad_segs=12) for box in boxes(*shape, 9000)]
    write_layer(folder / "vectors.gpkg", "roads", spots, ["x"] * len(spots))
    assert 3_500_000 < write_scene_report(folder).stat().st_size < MOST_BYTES
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "The 300 largest of 900 regions" in text


def test_views_are_the_same_size_for_a_larger_scene(tmp_path: Path) -> None:
    sizes = []
    for factor in (1, 2):
        shape = (300 * factor, 3072 * factor)
        mapped = draw(*shape, side=64 * factor)
        folder = write_run(tmp_path / f"out{factor}", shape=shape, mapped=mapped, names=(), labels=False)
        found = page(write_scene_report(folder))
        picture = next(a["href"] for a in found.of("image") if a.get("class") == "pixels")
        sizes.append(Image.open(io.BytesIO(base64.b64decode(picture.split(",")[1]))).size)
    assert sizes[0] == sizes[1] == (3072, 300)


def test_the_quicklook_shows_image_and_map_with_the_legends_colors(run: Path) -> None:
    picture = Image.open(run / "scene/quicklook.png")
    assert picture.width <= 1600 and picture.height <= 1200
    colors = {color for _, color in picture.getcolors(1 << 24)}
    assert {c.color for c in LEGEND.classes} <= colors


@pytest.mark.parametrize("shape", [(40, 2500), (2500, 40), (1, 1), (7, 3)])
def test_scenes_of_odd_shapes(tmp_path: Path, shape: tuple[int, int]) -> None:
    mapped = np.full(shape, 3, np.uint8)
    folder = write_run(tmp_path / "out", shape=shape, mapped=mapped, names=("all of it",), labels=False)
    assert write_scene_report(folder).stat().st_size > 10_000
    with Image.open(write_quicklook(folder)) as picture:
        assert max(picture.size) <= 1600


def test_the_index_lists_all_scenes_and_why_one_failed(run: Path) -> None:
    found = page(run / "index.html")
    text = (run / "index.html").read_text(encoding="utf-8")
    assert "lost.tif: cannot be opened" in text
    links = [a["href"] for a in found.of("a") if a.get("href", "").endswith("report.html")]
    assert {"./scene/report.html", "./plain/report.html"} == set(links)
    assert all((run / link).is_file() for link in links)
    assert len([a for a in found.of("rect") if a.get("class") == "foot"]) == 2


def test_a_folder_of_an_earlier_run_is_not_described_by_the_last_one(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "out", shape=(100, 100), names=(), labels=False)
    run = json.loads((tmp_path / "out/run.json").read_text())
    run["scenes"] = run["job"]["scenes"] = []
    run["model"]["name"] = "another"
    (tmp_path / "out/run.json").write_text(json.dumps(run))
    assert "another" not in write_scene_report(folder).read_text(encoding="utf-8")
    assert "earlier run" in write_index(tmp_path / "out").read_text(encoding="utf-8")


def test_pages_name_files_and_no_folder_of_this_machine(tmp_path: Path) -> None:
    """In errors, too, and whatever else of the job is told."""
    output = tmp_path / "out"
    write_run(output, shape=(90, 80), names=("a",))
    add_failure(
        output,
        "lost",
        f"{tmp_path}/elsewhere/lost.tif: cannot be opened; see {output}/.geoseg/lost/error.txt",
    )
    broken = write_run(output, "broken", (60, 60), names=(), labels=False)
    (broken / "metrics.json").write_text("[]")
    run = json.loads((output / "run.json").read_text())
    run["job"] |= {
        "output": str(output), "model": f"{tmp_path}/models/best", "aoi": f"{tmp_path}/town.geojson", "crs": None,
        "config": {"AWS_SECRET_ACCESS_KEY": "0fb5"},
    }  # fmt: skip
    run["job"]["scenes"][1]["path"] = f"{tmp_path}/elsewhere/lost.tif"
    (output / "run.json").write_text(json.dumps(run))
    written, (damaged,) = write_reports(output)
    texts = {path.name: path.read_text(encoding="utf-8") for path in written if path.suffix == ".html"}
    for text in texts.values():
        assert str(tmp_path) not in text and "0fb5" not in text
    for name in (
        "scene.tif",
        "scene_labels.tif",
        "model: best",
        "aoi: town.geojson",
        "AWS_SECRET_ACCESS_KEY",
    ):
        assert name in texts["report.html"]
    assert "lost.tif: cannot be opened; see .geoseg/lost/error.txt" in texts["index.html"]
    assert "broken/metrics.json: holds no JSON object" in texts["index.html"]
    assert str(broken / "metrics.json") in str(damaged)  # whoever runs it is told the place


def test_only_new_scenes_get_new_pages(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_run(tmp_path / "out", name, (60, 60), names=(), labels=False)
    write_reports(tmp_path / "out")
    for name in ("a", "b"):
        (tmp_path / "out" / name / "report.html").write_text("old")
    (tmp_path / "out/c/report.html").unlink()
    written, failed = write_reports(tmp_path / "out", {"b"})
    assert [path.relative_to(tmp_path / "out").as_posix() for path in written] == [
        "index.html", "b/report.html", "b/quicklook.png", "c/report.html", "c/quicklook.png"
    ]  # fmt: skip
    assert not failed and (tmp_path / "out/a/report.html").read_text() == "old"


def test_run_json_cannot_point_outside_its_folder(tmp_path: Path) -> None:
    write_run(tmp_path / "other", "scene", (60, 60), names=(), labels=False)
    write_run(tmp_path / "out", "scene", (60, 60), names=(), labels=False)
    for folder in (tmp_path, tmp_path / "out"):
        shutil.copy(tmp_path / "other/scene/landcover.tif", folder)
    for name in ("../other/scene", "..", "."):
        add_failure(tmp_path / "out", name, "x")
    links = [a["href"] for a in page(write_index(tmp_path / "out")).of("a")]
    assert set(links) == {"./scene/report.html"}


def test_errors_are_one_line(tmp_path: Path) -> None:
    empty = CliRunner().invoke(main, ["report", str(tmp_path)])
    assert empty.exit_code == 2 and empty.output.count("\n") == 1 and "holds no results" in empty.output
    missing = CliRunner().invoke(main, ["report", str(tmp_path / "none")])
    assert missing.exit_code == 2 and "no such folder" in missing.output
    with pytest.raises(SourceError, match=r"holds no landcover\.tif"):
        write_scene_report(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.json", b"{"),
        ("metrics.json", b"[1]"),
        ("areas.csv", b"region,class_id\nx,y\n"),
        ("landcover.tif", b"II*\0"),
        ("confidence.tif", b"no raster"),
        ("vectors.gpkg", b"SQLite format 3\0"),
        ("item.json", b"\xff"),
    ],
)
def test_a_damaged_file_is_named_and_costs_only_its_own_scene(
    tmp_path: Path, name: str, content: bytes
) -> None:
    output = tmp_path / "out"
    damaged = write_run(output, "damaged", (80, 90), names=("one",))
    write_run(output, "sound", (80, 90), names=())
    (damaged / name).write_bytes(content)
    done = CliRunner().invoke(main, ["report", str(output)])
    assert done.exit_code == 1, done.output
    errors = [line for line in done.output.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and str(damaged / name) in errors[0] and "Traceback" not in done.output
    assert (output / "sound/report.html").is_file() and not (damaged / "report.html").exists()
    assert (output / "index.html").is_file()
    assert not list(output.rglob(".part-*"))


def test_strange_values_in_what_a_run_says_do_no_harm(tmp_path: Path) -> None:
    """Other versions may write other things: what is not understood is left out."""
    folder = write_run(tmp_path / "out", shape=(120, 130))
    (folder / "metrics.json").write_text(
        json.dumps(
            {
                "overall": {"miou": "high", "iou": {"road": True}, "confusion": [[1]], "calibration": 3},
                "regions": [7],
            }
        )
    )
    (folder / "item.json").write_text(json.dumps({"properties": {}, "bbox": ["a"], "assets": [1]}))
    run = json.loads((tmp_path / "out/run.json").read_text())
    run |= {"job": {"scenes": [{"path": 5}], "bands": "all"}, "versions": 3, "model": []}
    run["scenes"][0] |= {"seconds": [1], "shares": {"road": "much"}, "megapixels": None}
    (tmp_path / "out/run.json").write_text(json.dumps(run))
    assert "Area by class" in write_scene_report(folder).read_text(encoding="utf-8")
    assert "scene" in write_index(tmp_path / "out").read_text(encoding="utf-8")

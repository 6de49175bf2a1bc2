"""What a class raster's values mean: the first source that tells wins, and what is written is what is read."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import yaml
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from geoseg.errors import SpecError
from geoseg.io.classmap import TAG_LEGEND, AnyClassRaster
from geoseg.io.legend_files import read_legend_file
from geoseg.io.legends import KnownClasses, find_classes
from geoseg.io.qgis_styles import attribute_table
from geoseg.legend import NODATA, LandClass, Legend, role_of
from tests.run.results import TRANSFORM

LEGEND = Legend(
    (
        LandClass(1, "house", (200, 60, 60), "building"),
        LandClass(3, "Wald & Wiese", (1, 150, 60)),
        LandClass(200, "road", (90, 90, 90), "road"),
    )
)


def raster(path: Path, **profile: Any) -> Path:
    pixels = np.array([[1, 3], [200, 7]], profile.setdefault("dtype", "uint8"))
    size = {"driver": "GTiff", "count": 1, "height": 2, "width": 2}
    with rasterio.open(path, "w", crs="EPSG:32640", transform=TRANSFORM, **{**size, **profile}) as out:
        for band in range(out.count):
            out.write(pixels, band + 1)
    return path


def known(path: Path, legend_file: Path | None = None, band: int | None = None) -> KnownClasses:
    return find_classes(AnyClassRaster.open(str(path), band), str(legend_file) if legend_file else None)


def plain(legend: Legend | None) -> list[tuple[int, str, tuple[int, int, int]]]:
    return [(c.id, c.name, c.color) for c in legend.classes] if legend else []


def names(found: KnownClasses) -> dict[int, str]:
    return {c.id: c.name for c in found.legend.classes} if found.legend else {}


LINES = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=9)


@st.composite
def legends(draw: st.DrawFn) -> Legend:
    ids = draw(st.lists(st.integers(0, 254), min_size=1, max_size=9, unique=True))
    called = draw(st.lists(LINES, min_size=len(ids), max_size=len(ids), unique=True))
    part = st.integers(0, 255)
    role = st.sampled_from([None, "building", "road"])
    classes = [
        LandClass(i, n, draw(st.tuples(part, part, part)), draw(role))
        for i, n in zip(sorted(ids), called, strict=True)
    ]
    return Legend(tuple(classes))


def as_csv(legend: Legend) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["id", "name", "color", "role"])
    writer.writerows((c.id, c.name, "#" + bytes(c.color).hex(), c.role or "") for c in legend.classes)
    return text.getvalue()


WRITERS = {
    ".json": lambda legend: json.dumps(legend.to_list()),
    ".yaml": lambda legend: yaml.safe_dump(legend.to_list(), allow_unicode=True),
    ".yml": lambda legend: yaml.safe_dump({"classes": legend.to_list(), "name": "a card"}),
    ".csv": as_csv,
}


@settings(max_examples=60)
@given(legends(), st.sampled_from(sorted(WRITERS)), st.booleans(), st.randoms())
@example(LEGEND, ".csv", True, None)
def test_a_legend_file_says_the_same_in_any_format_and_order(
    tmp_path_factory: pytest.TempPathFactory, legend: Legend, ending: str, bom: bool, random: Any
) -> None:
    path = tmp_path_factory.mktemp("law") / f"legend{ending}"
    path.write_text(WRITERS[ending](legend), encoding="utf-8-sig" if bom and ending == ".csv" else "utf-8")
    found = known(raster(path.with_name("map.tif")), path)
    assert found.legend == legend
    assert found.origin == str(path)
    assert found.guessed == ()


@settings(max_examples=40)
@given(legends())
@example(LEGEND)
def test_an_attribute_table_comes_back_with_colors(
    tmp_path_factory: pytest.TempPathFactory, legend: Legend
) -> None:
    assume(any(max(c.color) > 1 for c in legend.classes))
    path = raster(tmp_path_factory.mktemp("law") / "map.tif")
    path.with_name("map.tif.aux.xml").write_text(attribute_table(legend), encoding="utf-8")
    found = known(path)
    assert plain(found.legend) == plain(legend)
    assert found.origin == "its raster attribute table"
    assert found.guessed == tuple(c for c in found.legend.classes if c.role)


def test_the_first_source_that_tells_wins(tmp_path: Path) -> None:
    path, file = raster(tmp_path / "map.tif"), tmp_path / "legend.csv"
    said = []
    said.append(known(path))
    with rasterio.open(path, "r+") as out:
        out.write_colormap(1, {3: (1, 2, 3, 255)})
    said.append(known(path))
    sidecar = tmp_path / "map.tif.aux.xml"
    sidecar.write_text(pam("<CategoryNames><Category/><Category>one</Category></CategoryNames>"))
    said.append(known(path))
    sidecar.write_text(
        pam("<CategoryNames><Category/><Category>one</Category></CategoryNames>" + table([(1, "uno")]))
    )
    said.append(known(path))
    with rasterio.open(path, "r+") as out:
        out.update_tags(**{TAG_LEGEND: json.dumps(LEGEND.to_list())})
    said.append(known(path))
    file.write_text("id,name\n1,eins\n")
    said.append(known(path, file))
    assert [names(found).get(1) for found in said] == [None, None, "one", "uno", "house", "eins"]
    assert [found.origin.split(",")[0] for found in said] == [
        "none found", "none found", "its category names", "its raster attribute table", f"its {TAG_LEGEND} tag",
        str(file),
    ]  # fmt: skip
    assert [found.of([3]).classes[0].color == (1, 2, 3) for found in said] == [False] + 3 * [True] + [
        False,
        True,
    ]


def pam(content: str, band: int = 1) -> str:
    return f'<PAMDataset><PAMRasterBand band="{band}">{content}</PAMRasterBand></PAMDataset>'


def table(rows: list[tuple[Any, ...]], fields: str = "value 0 5,name 2 2", more: str = "") -> str:
    """fields: name, type and usage of each column, as GDAL numbers them."""
    parts = [
        f'<FieldDefn index="{i}"><Name>{name}</Name><Type>{kind}</Type><Usage>{usage}</Usage></FieldDefn>'
        for i, (name, kind, usage) in enumerate(one.split() for one in fields.split(","))
    ]
    for i, row in enumerate(rows):
        parts.append(f'<Row index="{i}">{"".join(f"<F>{cell}</F>" for cell in row)}</Row>')
    return f"<GDALRasterAttributeTable {more}>{''.join(parts)}</GDALRasterAttributeTable>"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (table([(3, "tree"), (1, "hut")]), {1: "hut", 3: "tree"}),
        (table([("hut", 1.0), ("tree", 3.5)], "kind 2 0,VALUE 1 0"), {1: "hut"}),  # as ArcGIS has it
        (table([(9, "nil"), (4, "hut")], "count 0 1,name 2 2", 'Row0Min="-0.5" BinSize="1"'), {0: "nil", 1: "hut"}),
        (table([(9, "nil"), (4, "hut")], "count 0 1,name 2 2", 'Row0Min="2" BinSize="1"'), {2: "nil", 3: "hut"}),
        (table([(9, "nil")], "count 0 1,name 2 2", 'Row0Min="0" BinSize="0.25"'), {}),
        (table([(9, "nil")], "count 0 1,name 2 2"), {}),
        (table([(1, "hut"), (1, "tree"), (300, "far"), (-2, "neg"), (255, "none")]), {1: "hut"}),
        (table([(1, "wood"), (2, "wood"), (3, "field")]), {1: "wood (1)", 2: "wood (2)", 3: "field"}),
        (table([(1, ""), (2, " ")]) + "<CategoryNames><Category>a</Category></CategoryNames>", {0: "a"}),
        (table([(1, 20)], "value 0 5,count 0 1"), {}),
        (table([(1, "two\n  lines")]), {1: "two lines"}),
        ("<CategoryNames><Category>a</Category><Category/><Category>c</Category></CategoryNames>", {0: "a", 2: "c"}),
    ],
)  # fmt: skip
def test_tables_as_other_programs_write_them(tmp_path: Path, content: str, expected: dict[int, str]) -> None:
    path = raster(tmp_path / "map.tif")
    (tmp_path / "map.tif.aux.xml").write_text(pam(content))
    assert names(known(path)) == expected


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([(1, "a", 0, 128, 255), (2, "b", 256, 0, 0)], {1: (0, 128, 255)}),
        ([(1, "a", 0, 0.5, 1), (2, "b", 1, 0, 0)], {}),  # shares of 1, which GDAL rounds
        ([(1, "a", 3, 1, 2), (2, "b", -1, 0, 0)], {1: (3, 1, 2)}),
    ],
)
def test_colors_of_a_table(tmp_path: Path, rows: list[tuple[Any, ...]], expected: dict[int, Any]) -> None:
    path = raster(tmp_path / "map.tif")
    content = table(rows, "value 0 5,name 2 2,r 1 6,g 1 7,b 1 8")
    (tmp_path / "map.tif.aux.xml").write_text(pam(content))
    assert known(path).colors == expected


def test_transparent_colors_are_none(tmp_path: Path) -> None:
    entries = '<Entry c1="9" c2="9" c3="9" c4="0"/><Entry c1="1" c2="2" c3="3" c4="255"/>'
    band = f'<VRTRasterBand dataType="Byte" band="1"><ColorTable>{entries}</ColorTable></VRTRasterBand>'
    (tmp_path / "map.vrt").write_text(f'<VRTDataset rasterXSize="2" rasterYSize="2">{band}</VRTDataset>')
    assert known(tmp_path / "map.vrt").colors == {1: (1, 2, 3)}


def test_nodata_is_no_class(tmp_path: Path) -> None:
    path = raster(tmp_path / "map.tif", nodata=0, dtype="int16")
    (tmp_path / "map.tif.aux.xml").write_text(pam(table([(0, "void"), (1, "hut")])))
    assert names(known(path)) == {1: "hut"}


def test_tables_belong_to_a_band(tmp_path: Path) -> None:
    path = raster(tmp_path / "map.tif", count=2)
    (tmp_path / "map.tif.aux.xml").write_text(pam(table([(1, "hut")]), band=2))
    assert names(known(path, band=2)) == {1: "hut"}
    assert names(known(path, band=1)) == {}


def test_a_vrt_has_its_own_table(tmp_path: Path) -> None:
    path = raster(tmp_path / "map.tif")
    (tmp_path / "map.tif.aux.xml").write_text(pam(table([(1, "hut")])))
    rasterio.shutil.copy(path, tmp_path / "map.vrt", driver="VRT")
    (tmp_path / "map.tif.aux.xml").unlink()
    assert names(known(path)) == {}
    assert names(known(tmp_path / "map.vrt")) == {1: "hut"}


LAUGHS = (
    '<!DOCTYPE lolz [<!ENTITY a "haha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">'
    '<!ENTITY f SYSTEM "file:///etc/passwd">]>'
)


@pytest.mark.parametrize("entity", ["c", "f"])
def test_entities_of_strangers_are_not_expanded(tmp_path: Path, entity: str) -> None:
    path = raster(tmp_path / "map.tif")
    (tmp_path / "map.tif.aux.xml").write_text(LAUGHS + pam(table([(1, f"&{entity};"), (3, "tree")])))
    found = names(known(path))
    assert all(len(name) < 20 and "haha" not in name and "root" not in name for name in found.values())


@pytest.mark.parametrize("text", ["", "<PAMDataset", "no xml", pam("<GDALRasterAttributeTable><Row>")])
def test_what_gdal_cannot_read_tells_nothing(tmp_path: Path, text: str) -> None:
    path = raster(tmp_path / "map.tif")
    (tmp_path / "map.tif.aux.xml").write_text(text)
    assert known(path).legend is None


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("building", "building"), ("Buildings", "building"), ("BUILT_STRUCTURE", "building"), ("House", "building"),
        ("Roof, flat", "building"), ("1 - rooftops", "building"), ("road", "road"), ("Unpaved Roads", "road"),
        ("street", "road"), ("Highways", "road"), ("built up", None), ("railroad", None), ("roadside", None),
        ("greenhouse", None), ("non-building", None), ("no road", None), ("Tree canopy over roads", None),
        ("land between buildings", None), ("roads and buildings", None), ("water", None), ("", None), ("Straße", None),
    ],
)  # fmt: skip
def test_roles_from_names(name: str, role: str | None) -> None:
    assert role_of(name) == role


def test_roles_are_guessed_only_where_none_are_told(tmp_path: Path) -> None:
    path, file = raster(tmp_path / "map.tif"), tmp_path / "legend.yaml"
    rows = [{"id": 1, "name": "house"}, {"id": 2, "name": "road"}, {"id": 5, "name": "lawn"}]
    file.write_text(yaml.safe_dump(rows))
    found = known(path, file)
    assert [(c.id, c.role) for c in found.guessed] == [(1, "building"), (2, "road")]
    assert found.has_roles
    file.write_text(yaml.safe_dump([*rows[:2], {**rows[2], "role": None}]))
    found = known(path, file)
    assert (found.guessed, found.has_roles) == ((), False)
    untold = Legend(tuple(LandClass(c.id, c.name, c.color) for c in LEGEND.classes))
    with rasterio.open(path, "r+") as out:
        out.update_tags(**{TAG_LEGEND: json.dumps(untold.to_list())})
    assert not known(path).has_roles


@given(st.lists(st.integers(0, 254), min_size=1, unique=True))
def test_every_id_gets_a_name_and_a_color_of_its_own(ids: list[int]) -> None:
    legend = KnownClasses(LEGEND, "").of(ids)
    assert set(legend.ids) == set(ids)
    for c in legend.classes:
        assert c.name == (dict(zip(LEGEND.ids, LEGEND.names, strict=True)).get(c.id) or f"class {c.id}")
    colors = [c.color for c in KnownClasses(None, "").of(range(NODATA)).classes[:40]]
    assert len(set(colors)) == 40


def test_a_name_that_looks_like_a_number_stays_apart() -> None:
    found = KnownClasses(Legend((LandClass(1, "class 2", (0, 0, 0)),)), "")
    assert found.of([1, 2]).names == ("class 2 (1)", "class 2 (2)")
    assert found.unnamed([1, 2]) == [2]


WRONG = {
    ".yaml": [
        ("- {id: 1, name: a, color: #ff0000}", "cannot be read as YAML"),
        ("- id: 1\n  name: a\n  color: #ff0000", "row 1, field color: is empty; in YAML # begins a comment"),
        ("- {id: 1, name: no}", "row 1, field name: is no text but bool; write it in quotes"),
        ("- {id: 1, name: 12}", "row 1, field name: is no text but int"),
        ("- {id: 1, name: ' '}", "row 1, field name"),
        ("- {id: yes, name: a}", "row 1, field id"),
        ("- {id: 1.5, name: a}", "row 1, field id"),
        (
            "- {id: 1, name: a}\n- {id: 255, name: b}",
            "row 2, field id: Input should be less than or equal to 254",
        ),
        ("- {id: -1, name: a}", "row 1, field id"),
        ("- {name: a}", "row 1, field id: is missing"),
        ("- {id: 1}", "row 1, field name: is missing"),
        (
            "- {id: 1, name: a, colour: red}",
            "row 1, field colour: no such field; there are id, name, color and role",
        ),
        ("- {id: 1, name: a, color: red}", "row 1, field color: 'red' is not of the form #rrggbb"),
        ("- {id: 1, name: a, color: [1, 2]}", "row 1, field color"),
        ("- {id: 1, name: a, color: [1, 2, 256]}", "row 1, field color"),
        ("- {id: 1, name: a, color: [1, 2, x]}", "row 1, field color"),
        (
            "- {id: 1, name: a, role: house}",
            "row 1, field role: Input should be 'building' or 'road', got 'house'",
        ),
        ("- {id: 1, name: a}\n- {id: 1, name: b}", "row 2, field id: 1 is that of row 1, too"),
        ("- {id: 1, name: a}\n- {id: 2, name: a}", "row 2, field name: 'a' is that of row 1, too"),
        ("- [1, a]", "row 1 is no class"),
        ("1: a", "a legend is a list of classes"),
        ("[]", "a legend is a list of classes"),
        ("classes: 3", "a legend is a list of classes"),
        ("", "a legend is a list of classes"),
        ("- !!python/object/apply:os.system [true]", "cannot be read as YAML"),
        ("a: &a [b]\nc: [*a, *d]", "cannot be read as YAML"),
        ("[" * 5000, "cannot be read as YAML"),
        ("- {1: a}", "row 1"),
        ("- &a {id: 1, name: *a}", "row 1, field name: is no text but dict"),
    ],
    ".json": [
        ('[{"id": 1, "name": "a"},]', "cannot be read as JSON"),
        ('[{"id": "1x", "name": "a"}]', "row 1, field id"),
        ("[" * 100_000, "cannot be read as JSON"),
    ],
    ".csv": [
        ("value,name\n1,a\n", "row 1, field id: is missing"),
        ("id,name\n1,a\nx,b\n", "row 2, field id"),
        ("id,name\n1.5,a\n", "row 1, field id"),
        ("id,name,color\n1,a,red\n", "row 1, field color: 'red' is not of the form"),
        ("id,name\n1,\n", "row 1, field name"),
        ("id,name,role\n1,a,House\n", "row 1, field role"),
        ("id,name\n", "a legend is a list of classes"),
        ('id,name\n1,"' + 200_000 * "a", "cannot be read as CSV"),
    ],
    ".txt": [("1 a", "a legend is a file that ends in .yaml, .json or .csv")],
}


@pytest.mark.parametrize(
    ("ending", "text", "words"), [(ending, *case) for ending, cases in WRONG.items() for case in cases]
)
def test_a_wrong_legend_file_says_where(tmp_path: Path, ending: str, text: str, words: str) -> None:
    path = tmp_path / f"legend{ending}"
    path.write_text(text)
    with pytest.raises(SpecError) as caught:
        read_legend_file(str(path))
    line = str(caught.value)
    assert line.startswith(f"{path}: {words}")
    assert "\n" not in line and len(line) < 400


def test_legend_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "legend.csv"
    for content, words in (
        (None, "no such legend file"),
        (b"\xff\xfe\x00", "is not UTF-8"),
        (bytes(2 << 20), "larger"),
    ):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(SpecError, match=words):
            read_legend_file(str(path))
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(SpecError, match="cannot be read"):
        read_legend_file(str(tmp_path / "folder.json"))


@pytest.mark.parametrize(
    "text", ["id;name;role\n 3 ; tree ;\n1;Hütte, klein;building\n", "ID , Name, role\n3,tree\n"]
)
def test_csv_as_spreadsheets_write_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "legend.csv").write_text(text, encoding="utf-8-sig")
    rows = read_legend_file(str(tmp_path / "legend.csv"))
    assert (rows[-1].id, rows[-1].name, rows[-1].role) == (3, "tree", None)
    assert rows[0].name in ("Hütte, klein", "tree")


def test_a_models_card_is_a_legend(tmp_path: Path) -> None:
    from geoseg.model.bundle import Bundle

    card = Bundle.open(None).card
    path = tmp_path / "model.json"
    path.write_text(card.model_dump_json())
    assert [(r.id, r.name, r.color, r.role) for r in read_legend_file(str(path))] == [
        (c.id, c.name, c.color, c.role) for c in card.classes
    ]

"""What the values of a class raster mean: from a file of the user, or from what the raster itself tells.

The first of these that names classes: a legend file; geoseg's own tag; the raster attribute table, then the category
names, that GDAL finds in the raster or in the `.aux.xml` beside it. Else classes go by their number, with the colors
of the color table where there is one.
"""

from __future__ import annotations

import colorsys
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, fromstring

import pyogrio
from rasterio.io import DatasetReader

from geoseg.io.classmap import TAG_LEGEND, AnyClassRaster, tagged_legend
from geoseg.io.legend_files import read_legend_file
from geoseg.io.rasters import open_raster, vrt_of
from geoseg.legend import NODATA, LandClass, Legend, role_of

Color = tuple[int, int, int]

LARGEST_XML = 32 << 20
"""Bytes; a mosaic of very many files takes more. Tables of a few hundred classes take a few kilobytes."""
VALUE, NAME, RED, GREEN, BLUE = "5", "2", "6", "7", "8"
"""GDAL's numbers of a column's usage: the value (MinMax), the name, and the color (0 to 255)."""
TEXT = "2"
"""GDAL's number of a column of text."""


@dataclass(frozen=True)
class KnownClasses:
    """What is known of a raster's classes.

    legend: the classes that have names; None where only their numbers are known. origin: where that comes from, for a
    person. guessed: the classes whose role follows from their name. colors: of a color table. complete: whether the
    raster may hold no other classes, as geoseg's own tag says.
    """

    legend: Legend | None
    origin: str
    guessed: tuple[LandClass, ...] = ()
    colors: Mapping[int, Color] = field(default_factory=dict)
    complete: bool = False

    @property
    def has_roles(self) -> bool:
        return self.legend is not None and any(c.role for c in self.legend.classes)

    def unnamed(self, ids: Iterable[int]) -> list[int]:
        """Those without a name of their own, where there are names."""
        return [i for i in ids if self.legend is not None and i not in self.legend.ids]

    @property
    def possible(self) -> Legend:
        """A legend of all that the raster may hold."""
        if self.complete and self.legend is not None:
            return self.legend
        return self.of(range(NODATA))

    def of(self, ids: Iterable[int]) -> Legend:
        """A legend of these ids, at least one; those without a name are called by their number."""
        named = {c.id: c for c in self.legend.classes} if self.legend else {}
        return _legend({i: named[i] if i in named else _class(i, "", self.colors) for i in ids}.values())


def find_classes(source: AnyClassRaster, legend_file: str | None = None) -> KnownClasses:
    """What is known of a raster's classes, from the first source that tells.

    Raises SourceError or SpecError for a legend file, a tag or an .aux.xml that cannot be used.
    """
    with open_raster(source.path) as dataset:
        colors = _color_table(dataset, source.band)
        if legend_file is not None:
            rows = read_legend_file(legend_file)
            classes = [LandClass(r.id, r.name, r.color or _color(r.id, colors), r.role) for r in rows]
            return _known(classes, legend_file, colors, guess=not any(r.tells_role for r in rows))
        tagged = tagged_legend(dataset)
        if tagged is not None:
            return KnownClasses(tagged, f"its {TAG_LEGEND} tag", (), colors, complete=True)
        band = _band_element(dataset, source.band)
    if band is not None:
        colors = {**colors, **_table_colors(band)}
        for names, origin in (
            (_table_names(band), "its raster attribute table"),
            (_categories(band), "its category names"),
        ):
            classes = [_class(i, name, colors) for i, name in names.items() if i != source.declared]
            if classes:
                return _known(classes, origin, colors, guess=True)
    return KnownClasses(None, "none found, so classes go by their number; --legend names them", (), colors)


def classes_in(gpkg: Path, layer: str) -> list[int]:
    """The class ids that occur in a layer of a GeoPackage, rising."""
    query = f'SELECT DISTINCT class_id FROM "{layer}" ORDER BY class_id'  # noqa: S608
    ids: list[int] = pyogrio.raw.read(gpkg, sql=query, read_geometry=False)[3][0].tolist()
    return ids


def _known(
    classes: Iterable[LandClass], origin: str, colors: Mapping[int, Color], guess: bool
) -> KnownClasses:
    legend = _legend(classes)
    if not guess:
        return KnownClasses(legend, origin, (), colors)
    legend = Legend(tuple(replace(c, role=role_of(c.name)) for c in legend.classes))
    return KnownClasses(legend, origin, tuple(c for c in legend.classes if c.role), colors)


def _legend(classes: Iterable[LandClass]) -> Legend:
    """In order of id; names that several classes share are told apart by their numbers."""
    classes = sorted(classes, key=lambda c: c.id)
    shared = Counter(c.name for c in classes)
    told = [replace(c, name=f"{c.name} ({c.id})") if shared[c.name] > 1 else c for c in classes]
    return Legend(tuple(told))


def _class(class_id: int, name: str, colors: Mapping[int, Color]) -> LandClass:
    return LandClass(class_id, " ".join(name.split()) or f"class {class_id}", _color(class_id, colors))


def _color(class_id: int, colors: Mapping[int, Color]) -> Color:
    """That of the color table, else one of its own: hues a golden section apart are far apart for neighbors."""
    if class_id in colors:
        return colors[class_id]
    hue = class_id * (math.sqrt(5) - 1) / 2 % 1
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.6, 0.85))
    return red, green, blue


def _color_table(dataset: DatasetReader, band: int) -> dict[int, Color]:
    try:
        table = dataset.colormap(band)
    except ValueError:  # it has none
        return {}
    return {i: (red, green, blue) for i, (red, green, blue, alpha) in table.items() if i < NODATA and alpha}


def _band_element(dataset: DatasetReader, band: int) -> Element | None:
    """What GDAL knows of a band, as it writes it into a VRT: rasterio has no call for tables and category names.

    So GDAL alone reads the XML of strangers, which it has opened with the raster anyway and whose entities it does not
    expand; what is parsed here is GDAL's own.
    """
    content = vrt_of(dataset)
    if len(content) > LARGEST_XML or b"<!DOCTYPE" in content:
        return None
    try:
        root = fromstring(content)  # noqa: S314 - written by GDAL, without a document type
    except ParseError:  # characters that XML cannot hold
        return None
    return next((e for e in root.findall("VRTRasterBand") if e.get("band") == str(band)), None)


def _columns(table: Element) -> dict[str, int]:
    """Positions of the columns that are of use, by usage; a column called value, or the first of text, will do."""
    found: dict[str, int] = {}
    fields = table.findall("FieldDefn")
    for position, one in enumerate(fields):
        found.setdefault((one.findtext("Usage") or "").strip(), position)
    for position, one in enumerate(fields):
        if (one.findtext("Name") or "").strip().lower() == "value":
            found.setdefault(VALUE, position)
        if (one.findtext("Type") or "").strip() == TEXT:
            found.setdefault(NAME, position)
    return found


def _table_rows(band: Element) -> dict[int, dict[str, str]]:
    """The rows of a raster attribute table by class id: texts by usage. The first row of a value counts."""
    table = band.find("GDALRasterAttributeTable")
    if table is None:
        return {}
    columns = _columns(table)
    first, step = _number(table.get("Row0Min")), _number(table.get("BinSize"))
    rows: dict[int, dict[str, str]] = {}
    for position, row in enumerate(table.findall("Row")):
        cells = [(cell.text or "").strip() for cell in row.findall("F")]
        told = {usage: cells[at] for usage, at in columns.items() if at < len(cells)}
        value = _number(told.get(VALUE))
        if (
            VALUE not in columns and first is not None and step == 1
        ):  # a row per value, as Erdas Imagine has them
            value = math.ceil(first) + position
        if value is not None and value == int(value) and 0 <= value < NODATA:
            rows.setdefault(int(value), told)
    return rows


def _table_names(band: Element) -> dict[int, str]:
    return {value: told[NAME] for value, told in _table_rows(band).items() if told.get(NAME)}


def _table_colors(band: Element) -> dict[int, Color]:
    """Colors of 0 to 255. Shares of 1, which some programs write, are whole numbers once GDAL gives them: no colors."""
    colors: dict[int, Color] = {}
    for value, told in _table_rows(band).items():
        parts = [_number(told.get(usage)) for usage in (RED, GREEN, BLUE)]
        red, green, blue = (int(part) if part is not None and 0 <= part <= 255 else -1 for part in parts)
        if min(red, green, blue) >= 0:
            colors[value] = red, green, blue
    return colors if any(max(color) > 1 for color in colors.values()) else {}


def _categories(band: Element) -> dict[int, str]:
    """Category names are a list by value from 0 on; those of values between classes are empty."""
    names = [(name.text or "").strip() for name in band.findall("CategoryNames/Category")[:NODATA]]
    return {value: name for value, name in enumerate(names) if name}


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None

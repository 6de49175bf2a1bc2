"""What QGIS and GDAL are told about colors and names: XML in memory, no files.

QGIS shows class names by itself only from a same-named .qml or, from 3.40 on, from the raster attribute table in
.tif.aux.xml; a color table alone gives 256 entries named 0, 1, 2. The elements are those that QGIS 3.22 writes.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element, indent, tostring

from geoseg.legend import LandClass, Legend

QGIS_VERSION = "3.22.0"
DOCTYPE = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

Color = tuple[int, ...]
Properties = dict[str, str]
INK, PAPER, GREY = (35, 35, 35), (255, 255, 255), (150, 150, 150)
VIRIDIS: tuple[Color, ...] = (
    (68, 1, 84), (72, 36, 117), (65, 68, 135), (53, 95, 141), (42, 120, 142), (33, 145, 140),
    (34, 168, 132), (68, 191, 112), (122, 209, 81), (189, 223, 38), (253, 231, 37),
)  # fmt: skip

CHANGES: Mapping[str, Color] = {"gone": (213, 94, 0), "new": (0, 114, 178)}
"""What becomes of a building, and its color (vermilion and blue of Okabe and Ito)."""

SYMBOLS = {"SimpleMarker": ("marker", "0"), "SimpleLine": ("line", "1"), "SimpleFill": ("fill", "2")}
"""Kind of symbol and QGIS's number of the geometry type, by class of symbol layer."""

TABLE_FIELDS = (
    ("Value", "Integer", 0, "MinMax", 5),
    ("Class", "String", 2, "Name", 2),
    ("Red", "Integer", 0, "Red", 6),
    ("Green", "Integer", 0, "Green", 7),
    ("Blue", "Integer", 0, "Blue", 8),
)
"""Columns of the raster attribute table: name, GDAL's type and usage, each by name and number."""

SCORE_LABEL = """"region" || coalesce('\\nmIoU ' || format_number("miou", 2), '')"""


@dataclass(frozen=True)
class Style:
    """How a layer looks: the content of a QML file and, alike, of a layer in a project."""

    parts: tuple[Element, ...]
    attributes: Mapping[str, str] = field(default_factory=dict)

    def qml(self) -> str:
        """The text of a QML file."""
        head = {"version": QGIS_VERSION, "styleCategories": "Symbology|Labeling", **self.attributes}
        return DOCTYPE + xml_text(element("qgis", head, *self.parts))


def element(
    tag: str, attributes: Mapping[str, object] | None = None, *children: Element, text: str | None = None
) -> Element:
    """An element; values that are not text are written as str() gives them."""
    made = Element(tag, {key: str(value) for key, value in (attributes or {}).items()})
    made.text = text
    made.extend(children)
    return made


def xml_text(root: Element) -> str:
    """The document, indented; characters that XML cannot hold become U+FFFD."""
    root = copy.deepcopy(root)
    for part in root.iter():
        part.text = NOT_XML.sub("\ufffd", part.text) if part.text else None
        for key, value in part.items():
            part.set(key, NOT_XML.sub("\ufffd", value))
    indent(root, " ")
    return tostring(root, encoding="unicode") + "\n"


def class_style(legend: Legend) -> Style:
    """A raster of class ids: one named and colored entry per class; all other values are transparent."""
    entries = [
        element("paletteEntry", {"value": c.id, "color": _hex(c.color), "label": c.name, "alpha": 255})
        for c in legend.classes
    ]
    return _raster_style("paletted", element("colorPalette", None, *entries))


def percent_style(opacity: float = 1.0) -> Style:
    """A raster of percent: viridis from 0 to 100."""
    step = 100 // (len(VIRIDIS) - 1)
    items = [
        element("item", {"value": i * step, "color": _hex(color), "label": f"{i * step} %", "alpha": 255})
        for i, color in enumerate(VIRIDIS)
    ]
    span = {"minimumValue": 0, "maximumValue": 100}
    how = {"colorRampType": "INTERPOLATED", "classificationMode": 1, "clip": 0, "labelPrecision": 0}
    ramp_legend = element("rampLegendSettings", {"useContinuousLegend": 1, "orientation": 2, "suffix": " %"})
    shader = element("colorrampshader", {**span, **how}, _ramp(), *items, ramp_legend)
    limits = {"classificationMin": 0, "classificationMax": 100, "opacity": opacity}
    return _raster_style("singlebandpseudocolor", element("rastershader", None, shader), limits)


def _raster_style(kind: str, content: Element, more: Mapping[str, object] | None = None) -> Style:
    attributes = {"type": kind, "band": 1, "alphaBand": -1, "nodataColor": "", "opacity": 1, **(more or {})}
    renderer = element("rasterrenderer", attributes, element("rasterTransparency"), content)
    return Style((element("pipe", None, renderer), element("blendMode", text="0")))


def attribute_table(legend: Legend) -> str:
    """The .tif.aux.xml of a raster of class ids: GDAL's raster attribute table and category names.

    Category names are a list by value from 0 on, so ids between those of the classes get empty names.
    """
    names = {c.id: c.name for c in legend.classes}
    categories = [element("Category", text=names.get(value, "")) for value in range(max(names) + 1)]
    fields = [
        element(
            "FieldDefn",
            {"index": index},
            element("Name", text=name),
            element("Type", {"typeAsString": kind}, text=str(kind_id)),
            element("Usage", {"usageAsString": usage}, text=str(usage_id)),
        )
        for index, (name, kind, kind_id, usage, usage_id) in enumerate(TABLE_FIELDS)
    ]
    rows = [
        element("Row", {"index": i}, *(element("F", text=str(value)) for value in (c.id, c.name, *c.color)))
        for i, c in enumerate(legend.classes)
    ]
    table = element("GDALRasterAttributeTable", {"tableType": "thematic"}, *fields, *rows)
    band = element("PAMRasterBand", {"band": 1}, element("CategoryNames", None, *categories), table)
    return xml_text(element("PAMDataset", None, band))


def vector_style(layer: str, legend: Legend, region_columns: Collection[str]) -> Style:
    """A layer of vectors.gpkg; KeyError where there is none of that name."""
    roads = legend.of_role("road")
    ink = _darker(roads[0].color if roads else GREY)
    styles: dict[str, Callable[[], Style]] = {
        "regions": lambda: score_style(filled=False) if "miou" in region_columns else _plain_regions(),
        "road_nodes": lambda: _one_symbol("SimpleMarker", _dot(PAPER, ink)),
        "road_centerlines": lambda: _one_symbol("SimpleLine", _line(ink)),
        "buildings": lambda: _per_class(legend.of_role("building"), lambda c: _fill(c, _darker(c), 0.15)),
        "roads": lambda: _per_class(roads, _fill),
        "landcover": lambda: _per_class(legend.classes, _fill),
    }
    return styles[layer]()


def changed_style() -> Style:
    """Buildings that are gone and new, by the field `change`; colors that color-blind people tell apart."""
    looks = {change: _fill((*color, 150), color, 0.5) for change, color in CHANGES.items()}
    return _by_value("change", "string", [(c, f"{c} buildings", look) for c, look in looks.items()])


def _per_class(classes: Sequence[LandClass], look: Callable[[Color], Properties]) -> Style:
    """One symbol where there is one class; else one per class, chosen by class_id."""
    if len(classes) < 2:
        return _one_symbol("SimpleFill", look(classes[0].color if classes else GREY))
    return _by_value("class_id", "integer", [(c.id, c.name, look(c.color)) for c in classes])


def _by_value(field: str, kind: str, looks: Sequence[tuple[object, str, Properties]]) -> Style:
    """A symbol for each value of a field: (value, label, look) each."""
    categories = [
        {"value": value, "type": kind, "label": label, "symbol": i, "render": "true"}
        for i, (value, label, _) in enumerate(looks)
    ]
    symbols = [_symbol("SimpleFill", look, i) for i, (*_, look) in enumerate(looks)]
    listed = element("categories", None, *(element("category", each) for each in categories))
    return _vector_style(_renderer("categorizedSymbol", symbols, listed, attr=field))


def _plain_regions() -> Style:
    symbol = _symbol("SimpleFill", _fill(None, INK, 0.5))
    return _vector_style(_renderer("singleSymbol", [symbol]), _label('"region"'))


def score_style(filled: bool) -> Style:
    """Regions by five steps of mIoU: filled, or framed and labeled so that the map below keeps its colors.

    A region without labels has an outline only; QGIS would leave out what is null.
    """
    steps = [(i / 5, (i + 1) / 5, f"mIoU {i / 5:.1f} to {(i + 1) / 5:.1f}") for i in range(5)]
    colors: list[Color | None] = [*VIRIDIS[1::2], None]
    ranges = [
        {"lower": low, "upper": high, "label": label, "symbol": i, "render": "true"}
        for i, (low, high, label) in enumerate([*steps, (-1.0, -1.0, "no labels")])
    ]
    symbols = [
        _symbol("SimpleFill", _fill(color if filled else None, INK, 0.3), i, frame=None if filled else color)
        for i, color in enumerate(colors)
    ]
    listed = element("ranges", None, *(element("range", each) for each in ranges))
    how = {"attr": 'coalesce("miou", -1)', "graduatedMethod": "GraduatedColor"}
    renderer = _renderer("graduatedSymbol", symbols, listed, **how)
    return _vector_style(renderer, None if filled else _label(SCORE_LABEL))


def _one_symbol(kind: str, properties: Properties) -> Style:
    return _vector_style(_renderer("singleSymbol", [_symbol(kind, properties)]), kind=kind)


def _vector_style(renderer: Element, label: Element | None = None, kind: str = "SimpleFill") -> Style:
    parts = [renderer, *([label] if label is not None else [])]
    parts += [element("blendMode", text="0"), element("layerGeometryType", text=SYMBOLS[kind][1])]
    return Style(tuple(parts), {"labelsEnabled": "1" if label is not None else "0"})


def _renderer(kind: str, symbols: Sequence[Element], *before: Element, **attributes: str) -> Element:
    head = {"type": kind, "enableorderby": 0, "symbollevels": 0, "forceraster": 0, **attributes}
    return element("renderer-v2", head, *before, element("symbols", None, *symbols))


def _symbol(kind: str, properties: Properties, name: int = 0, frame: Color | None = None) -> Element:
    """A symbol of one layer; frame: a band inside the outline of a polygon, below that layer."""
    looks = [(kind, properties)]
    if frame is not None:
        looks.insert(0, ("SimpleLine", {**_line(frame, 1.4), "offset": "0.7", "offset_unit": "MM"}))
    layers = [
        element("layer", {"class": kind, "enabled": 1, "locked": 0, "pass": 0}, _options(look))
        for kind, look in looks
    ]
    head = {"type": SYMBOLS[kind][0], "name": name, "alpha": 1, "clip_to_extent": 1, "force_rhr": 0}
    return element("symbol", head, *layers)


def _options(properties: Properties) -> Element:
    options = [element("Option", {"name": k, "type": "QString", "value": v}) for k, v in properties.items()]
    return element("Option", {"type": "Map"}, *options)


def _fill(color: Color | None, outline: Color | None = None, width_mm: float = 0.1) -> Properties:
    return {
        "color": _rgba(color or PAPER),
        "style": "solid" if color else "no",
        "outline_color": _rgba(outline or INK),
        "outline_style": "solid" if outline else "no",
        "outline_width": str(width_mm),
        "outline_width_unit": "MM",
        "joinstyle": "miter",
    }


def _line(color: Color, width_mm: float = 0.5) -> Properties:
    look = {"line_color": _rgba(color), "line_style": "solid", "capstyle": "round", "joinstyle": "round"}
    return {**look, "line_width": str(width_mm), "line_width_unit": "MM"}


def _dot(color: Color, outline: Color) -> Properties:
    look = {"name": "circle", "color": _rgba(color), "size": "1.6", "size_unit": "MM"}
    return {**look, "outline_color": _rgba(outline), "outline_width": "0.3", "outline_width_unit": "MM"}


def _label(expression: str) -> Element:
    """Text with a halo, inside each polygon. (A weight left out would be 0, the thinnest.)"""
    halo = {"bufferDraw": 1, "bufferSize": 0.7, "bufferSizeUnits": "MM", "bufferColor": _rgba(PAPER)}
    look = {"fontSize": 10, "fontSizeUnit": "Point", "textColor": _rgba(INK), "textOpacity": 1}
    look |= {"namedStyle": "Bold", "fontWeight": 75}
    text = element(
        "text-style", {"fieldName": expression, "isExpression": 1, **look}, element("text-buffer", halo)
    )
    over_centroid = {"placement": 1, "centroidInside": 1, "centroidWhole": 1, "quadOffset": 4}
    settings = element(
        "settings",
        {"calloutType": "simple"},
        text,
        element("text-format", {"multilineAlign": 1}),
        element("placement", {**over_centroid, "layerType": "PolygonGeometry"}),
        element("rendering", {"obstacle": 0}),
    )
    return element("labeling", {"type": "simple"}, settings)


def _ramp() -> Element:
    last = len(VIRIDIS) - 1
    stops = ":".join(f"{i / last:g};{_rgba(color)}" for i, color in enumerate(VIRIDIS) if 0 < i < last)
    ends = {"color1": _rgba(VIRIDIS[0]), "color2": _rgba(VIRIDIS[last])}
    options = _options({**ends, "discrete": "0", "rampType": "gradient", "stops": stops})
    return element("colorramp", {"type": "gradient", "name": "[source]"}, options)


def _darker(color: Color) -> Color:
    return tuple(round(0.6 * part) for part in color)


def _hex(color: Color) -> str:
    return "#" + bytes(color).hex()


def _rgba(color: Color) -> str:
    """Red, green, blue and alpha, opaque unless given."""
    return ",".join(map(str, (*color, 255)[:4]))

"""README.txt of a folder that is handed over: what all of it is, for people who have never heard of geoseg."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence

from pyproj import CRS

from geoseg.io.qgis import PROJECT
from geoseg.io.stac import CATALOG, ITEM, MapFacts
from geoseg.model.bundle import CARD
from geoseg.model.card import ModelCard
from geoseg.report.facts import QUICKLOOK
from geoseg.run.finish import CONFIDENCE, LANDCOVER
from geoseg.run.results import VECTORS

README = "README.txt"
HEADLINE = "Land-cover maps made with geoseg"
"""Its first line, by which the folder is known."""

TEXT = f"""\
{HEADLINE}
{"=" * len(HEADLINE)}

{{title}}

Open a scene's {PROJECT} in QGIS (3.22 or later): its layers have their names and colors. All paths are relative, so
this folder may be moved and renamed. Other programs open the same files; each scene's folder holds

  {LANDCOVER:<20}the class of each pixel by its number, 255 where there is no answer (Cloud Optimized GeoTIFF)
  {CONFIDENCE:<20}how sure that is, in percent
  {VECTORS:<20}layers of buildings and roads, and of what else was made, as regions with scores; styles inside
{{copies}}\
  {"*.qml, *.aux.xml":<20}names and colors, for QGIS and for all that use GDAL
  {"metrics.json, *.csv":<20}scores and areas, in all and per region, where there were labels or regions
  {QUICKLOOK:<20}the picture beside its land cover, where it was made
  {ITEM:<20}STAC item: place, files with checksums, software; {CATALOG} lists the scenes
  {CARD:<20}the card of the model, where it was found

Buildings and roads say their class_name; area_m2 and perimeter_m on the ellipsoid; confidence_mean and confidence_p10
in percent; touches_edge where they may go on beyond the map; scene, model, date.
"""


def readme(
    title: str, copies: Mapping[str, str], scenes: Iterable[tuple[MapFacts, ModelCard | None]],
    left_out: Sequence[str],
) -> str:  # fmt: skip
    """The whole text. copies: formats of copies of the layers, and in which CRS. scenes: with their model's card,
    None where that could not be found. left_out: names of scenes."""
    lines = [f"  {f'LAYER.{name}':<20}a copy of each layer, in {place}\n" for name, place in copies.items()]
    parts = [TEXT.format(title=title, copies="".join(lines)), *(_about(*scene) for scene in scenes)]
    if left_out:
        parts.append(f"Left out, since they are not finished: {', '.join(left_out)}\n")
    return "\n".join(parts)


def _about(facts: MapFacts, card: ModelCard | None) -> str:
    """What is said of a scene."""
    grid, model = facts.grid, facts.model
    size = f"{grid.width} x {grid.height} px" + (f" of {grid.gsd_m:.3g} m" if grid.gsd_m else "")
    made = {
        "size": [size],
        "CRS": [_crs(grid.crs)],
        "picture taken": [facts.acquired[:10] if facts.acquired else "date unknown"],
        "mapped": [f"{facts.started[:10]} with geoseg {facts.versions.get('geoseg', '')}".rstrip()],
        "model": [f"{model.name} {model.version}", *([card.description] if card else [])],
        "model's licence": [(card.license if card else "") or "not stated"],
        "trained on": card.training_data if card else [],
        "classes": [f"{c.id:>3}  #{bytes(c.color).hex()}  {c.name}" for c in facts.legend.classes],
    }
    lines = [facts.name, "-" * len(facts.name)]
    for key, given in made.items():
        rows = [part for row in given for part in textwrap.wrap(row, 98)]
        lines += [f"  {key if i == 0 else '':<17} {row}" for i, row in enumerate(rows)]
    return "\n".join(lines) + "\n"


def _crs(wkt: str | None) -> str:
    """The code, where it has one, and the name of a CRS."""
    if wkt is None:
        return "none: the picture did not say where it lies"
    crs = CRS.from_wkt(wkt)
    code = crs.to_authority(min_confidence=100)
    return f"{':'.join(code)}, {crs.name}" if code else str(crs.name)

"""`report.html`: all that is known of a scene, on one page that opens from disk."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup
from pyproj import CRS

from geoseg.io.files import publish_bytes
from geoseg.io.places import Place
from geoseg.io.qgis_styles import VIRIDIS
from geoseg.legend import ROLES
from geoseg.report.facts import INDEX, REPORT, SceneFacts, dig, number, pair
from geoseg.report.layers import MapContent, SceneViews, color_of, css, presets
from geoseg.report.looks import place_box, place_cards
from geoseg.report.origin import origin, result_files
from geoseg.report.outlines import LONG_SIDE, short
from geoseg.report.page import render
from geoseg.report.regions import measures, per_class, region_records, region_table, shown_classes
from geoseg.report.sections import (
    class_areas,
    class_scores,
    confusion,
    duration,
    mean_percent,
    percent,
    score,
    spread,
    stages,
    sureness,
)
from geoseg.report.structures import structures
from geoseg.report.views import sample_percent
from geoseg.stages.weighing import EVERYTHING

RAMP = Markup(
    '<svg class="ramp" aria-hidden="true" focusable="false">'
    '<rect width="100%" height="100%" fill="url(#viridis)"/></svg>'
)


def write_scene_report(folder: Place) -> Place:
    """Write `folder/report.html` from the results in `folder` and run.json beside it; the same input, the same bytes.

    The page is one file below 5 MB, whatever the scene's size; memory does not follow the scene either. Image and
    labels are shown if they are still where run.json says they were.
    Raises SourceError where the folder holds no map or a file in it is damaged, OutputError where the disk refuses.
    """
    path = folder / REPORT
    facts = SceneFacts.read(folder)
    publish_bytes(path, scene_page(facts, SceneViews.read(facts)))
    return path


def scene_page(facts: SceneFacts, views: SceneViews) -> bytes:
    """The page of a scene."""
    shares, exact, mapped_px = class_shares(facts, views.landcover)
    content = MapContent.build(facts, views, shares)
    records = region_records(facts, content, views.landcover)
    classes = shown_classes(facts, views.landcover)
    wanted = measures(records, classes)
    first = next((m["key"] for m in wanted if m["key"] != "pixels"), None)
    views_of_map = presets(content.layers, first)
    places, cards, by_error = place_cards(facts, views)
    sampled = None if facts.confidence is None else sample_percent(facts.confidence).tolist()
    grid = facts.landcover.grid
    data = {
        "width": content.frame.width,
        "height": content.frame.height,
        "closest": max(grid.width, grid.height) / 48,
        "unitsPerPx": {layer.key: round(LONG_SIDE / layer.side, 3) for layer in content.layers if layer.side},
        "metresPerUnit": None if grid.gsd_m is None else grid.gsd_m / content.frame.units_per_px,
        "ramp": [list(color) for color in VIRIDIS],
        "views": {
            view["key"]: {"layers": view["layers"], "measure": view["measure"]} for view in views_of_map
        },
        "regions": [{key: record[key] for key in ("name", "box", "values")} for record in records],
        "measures": wanted,
        "perClass": per_class(records),
        "classes": [{"name": c.name, "color": color_of(c)} for c in classes],
        "places": [place_box(place, content.frame) for place in places],
    }
    left_out = content.region_count - len(records)
    return render(
        "scene.html.j2", "map.js", data,
        title=f"{short(facts.name)} – land cover", name=facts.name, index=INDEX, lead=_lead(facts),
        figures=_figures(facts, content, sampled), frame=content.frame, layers=content.layers,
        regions=[{"name": record["name"], "path": drawn.path}
                 for record, drawn in zip(records, content.regions, strict=True)],
        views=views_of_map, metres_per_unit=data["metresPerUnit"], ramp=RAMP, gradient=_gradient(), measures=wanted,
        places=cards, places_title="Where it errs most" if by_error else "Where it is least sure",
        places_note=_places_note(by_error),
        area=class_areas(facts, shares, exact, mapped_px), scores=class_scores(facts), confusion=confusion(facts),
        structures=structures(facts),
        sureness=sureness(facts, sampled), region_table=region_table(records, classes, wanted),
        region_note=f"The {len(records):,} largest of {content.region_count:,} regions." if left_out else "",
        stages=stages(facts), origin=origin(facts, crs_name(grid.crs)), files=result_files(facts),
    )  # fmt: skip


def class_shares(facts: SceneFacts, view: np.ndarray) -> tuple[dict[int, float], bool, float]:
    """Share of each class of what is mapped, by id; whether it was counted; and how many pixels are mapped, about.

    From areas.csv or run.json, where they know it; else estimated from a view of the land cover.
    """
    counts = np.bincount(view.ravel(), minlength=256)
    ids = list(facts.legend.ids)
    seen = int(counts[ids].sum())
    mapped_px = seen / view.size * facts.landcover.grid.window.area_px
    measured = {
        i: row.share for i in ids if (row := facts.areas.get((EVERYTHING, i))) and row.share is not None
    }
    told = {c.id: number(dig(facts.row, "shares", c.name)) for c in facts.legend.classes}
    counted = {i: share for i, share in told.items() if share is not None}
    if measured or counted:
        return measured or counted, True, mapped_px
    return (
        {i: int(counts[i]) / max(seen, 1) for i in ids},
        seen == facts.landcover.grid.window.area_px,
        mapped_px,
    )


def crs_name(wkt: str | None) -> str:
    """A CRS as a person knows it."""
    if wkt is None:
        return "none"
    crs = CRS.from_wkt(wkt)
    authority = crs.to_authority()
    return f"{crs.name} ({':'.join(authority)})" if authority else crs.name


def _lead(facts: SceneFacts) -> str:
    grid, properties = facts.landcover.grid, dig(facts.item, "properties") or {}
    parts = [f"{grid.width:,} × {grid.height:,} px ({grid.megapixels:,.1f} Mpx)"]
    if grid.gsd_m is not None:
        side = grid.gsd_m / 1000
        parts.append(f"{grid.width * side:.1f} × {grid.height * side:.1f} km at {grid.gsd_m:.2g} m")
    name = dig(facts.run, "model", "name") or properties.get("geoseg:model")
    number_ = dig(facts.run, "model", "version") or properties.get("geoseg:model_version")
    if name:
        parts.append(f"mapped by {name} {number_ or ''}".strip())
    when = str(facts.run.get("started") or properties.get("processing:datetime") or "")[:10]
    return " · ".join([*parts, *([when] if when else [])])


def _figures(facts: SceneFacts, content: MapContent, sampled: list[int] | None) -> list[dict[str, str]]:
    found: list[tuple[str, str, str]] = []
    miou, accuracy = number(facts.overall.get("miou")), number(facts.overall.get("accuracy"))
    if miou is not None:
        found.append(("mean IoU", score(miou), spread(pair(dig(facts.overall, "intervals", "miou")))))
    if accuracy is not None:
        ends = pair(dig(facts.overall, "intervals", "accuracy"))
        note = "" if ends is None else f"95 %: {100 * ends[0]:.1f} to {100 * ends[1]:.1f}"
        found.append(("pixel accuracy", percent(accuracy), note))
    if sampled is not None and any(sampled):
        mean = mean_percent(sampled) / 100
        found.append(("mean confidence", percent(mean, 0), ""))
    for role, label in zip(ROLES, ("buildings", "road polygons"), strict=True):
        if (count := content.counts.get(f"{role}s")) is not None:
            plays = bool(facts.legend.of_role(role))
            found.append(
                (label, f"{count:,}", "") if plays else (label, "–", f"no class has the role {role}")
            )
    seconds = facts.row.get("seconds")
    total = sum(number(v) or 0.0 for v in seconds.values()) if isinstance(seconds, dict) else 0.0
    if total:
        found.append(("time", duration(total), ""))
    return [{"label": label, "value": value, "note": note} for label, value, note in found]


def _places_note(by_error: bool) -> str:
    note = "A click shows the place on the map, with its pictures in full detail."
    if by_error:
        return f"Cells with the largest share of pixels that differ from the labels. {note} Labels may be wrong, too."
    return f"Cells with the lowest mean confidence. {note}"


def _gradient() -> Markup:
    """The color ramp of percent, by the name that RAMP paints with."""
    last = len(VIRIDIS) - 1
    stops = "".join(f'<stop offset="{i / last:.2f}" stop-color="{css(c)}"/>' for i, c in enumerate(VIRIDIS))
    return Markup(f'<defs><linearGradient id="viridis">{stops}</linearGradient></defs>')  # noqa: S704

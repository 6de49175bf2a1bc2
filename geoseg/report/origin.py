"""Where the results of a report come from: scene, model, run, files."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from geoseg.report.facts import SceneFacts, dig, items, number, text
from geoseg.report.paths import FILES_OF_JOB, FILES_OF_SCENE, file_name

NOT_GIVEN: tuple[Any, ...] = (None, [], {}, False, "")


def origin(facts: SceneFacts, crs: str) -> list[dict[str, Any]]:
    """Where the results come from, in groups of names and values."""
    run, grid, properties = facts.run, facts.landcover.grid, dig(facts.item, "properties") or {}
    gsd = grid.gsd_m
    scene = [
        ("Scene", file_name(facts.entry.get("path")) or facts.name, True),
        ("Size", f"{grid.width:,} × {grid.height:,} px", False),
        ("Pixel", "unknown" if gsd is None else f"{gsd:.3g} m on the ground", False),
        ("CRS", crs, False),
        *((key.capitalize(), file_name(facts.entry.get(key)), True) for key in FILES_OF_SCENE[1:]),
    ]
    taken, made = text(properties.get("datetime")), text(properties.get("processing:datetime"))
    if taken and taken != made:
        scene.append(("Taken", taken[:10], False))
    name = text(dig(run, "model", "name") or properties.get("geoseg:model"))
    number_ = text(dig(run, "model", "version") or properties.get("geoseg:model_version"))
    model = [
        ("Model", f"{name} {number_}".strip(), False),
        ("Digest", text(dig(run, "model", "digest") or properties.get("geoseg:model_digest")), True),
        ("Runtime", text(run.get("runtime")), False),
        ("Precision", text(run.get("precision")), False),
        ("Device", text(run.get("device")), False),
    ]
    versions = dig(run, "versions") or properties.get("processing:software")
    software = ", ".join(f"{k} {v}" for k, v in versions.items()) if isinstance(versions, dict) else ""
    job, skipped = dig(run, "job") or {}, ("scenes", "output", "json")
    told = job.items() if isinstance(job, dict) else ()
    settings = [f"{k}: {_setting(k, v)}" for k, v in told if k not in skipped and v not in NOT_GIVEN]
    made_by = [
        ("Started", _moment(run.get("started")) or _moment(made), False),
        ("Ended", _moment(run.get("ended")), False),
        ("Engine", text(run.get("engine")), False),
        ("Settings", ", ".join(settings), True),
        ("Software", software, False),
    ]
    groups = (("Scene", scene), ("Model", model), ("Run", made_by))
    return [
        {"title": title, "facts": [{"name": n, "value": v, "code": c} for n, v, c in facts_ if v]}
        for title, facts_ in groups
    ]


def _setting(name: str, value: Any) -> str:
    """A setting as a page shows it. GDAL's options may hold keys to a store, so their values are not shown."""
    if name in FILES_OF_JOB:
        return file_name(value)
    if name == "config" and isinstance(value, dict):
        return ", ".join(map(str, value))
    return str(value)


def _moment(value: Any) -> str:
    """A time in UTC as a person writes it."""
    return text(value)[:19].replace("T", " ").removesuffix("Z") + " UTC" if value else ""


def result_files(facts: SceneFacts) -> list[dict[str, str]]:
    """The results as the STAC item names them, with links beside the page."""
    assets = facts.item.get("assets")
    found = []
    for asset in items(list(assets.values()) if isinstance(assets, dict) else []):
        name = text(asset.get("href")).removeprefix("./")
        if not name or "/" in name or not (facts.folder / name).is_file():
            continue
        size = number(asset.get("file:size"))
        found.append(
            {
                "name": name,
                "href": f"./{quote(name)}",
                "title": text(asset.get("title")),
                "size": "" if size is None else amount(size),
                "digest": text(asset.get("file:checksum"))[4:20] + "…",
            }
        )
    return found


def amount(size: float) -> str:
    """Bytes as a person says them."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if size >= 10 or unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"

"""`nights.html`: what a job that comes back every night has done, from nights.json alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from geoseg.errors import SourceError
from geoseg.io.files import publish_bytes
from geoseg.io.places import Place
from geoseg.report.charts import bar
from geoseg.report.facts import INDEX, dig, items, number, read_object, text
from geoseg.report.page import render
from geoseg.report.sections import duration

NIGHTS = "nights.json"
PAGE = "nights.html"
MOST_ROWS = 400
HEADS = (
    ("night", "number"), ("started", "text"), ("mapped", "number"), ("unchanged", "number"), ("failed", "number"),
    ("postponed", "number"), ("removed", "number"), ("Mpx", "number"), ("Mpx/s", "number"), ("time", "number"),
)  # fmt: skip


def write_nights(output: Place) -> Place:
    """Write `output/nights.html`; the same input, the same bytes.

    Raises SourceError where nights.json is missing or damaged, OutputError where the disk refuses.
    """
    path = output / PAGE
    publish_bytes(path, nights_page(output))
    return path


def nights_page(output: Place) -> bytes:
    """The page of an output folder, the newest night first."""
    nights = items(read_object(output / NIGHTS).get("nights"))
    if not nights:
        raise SourceError("holds no nights", output / NIGHTS)
    last = nights[-1]
    shown = nights[::-1][:MOST_ROWS]
    left = len(nights) - len(shown)
    failures = dig(last, "failed")
    failed = failures.items() if isinstance(failures, dict) else ()
    return render(
        "nights.html.j2", "index.js", {}, title=f"{output.resolve().name} – nights", name=output.resolve().name,
        lead=f"{len(nights):,} night{'s' * (len(nights) > 1)}, the last one {text(last.get('started'))}",
        figures=_figures(last), failed=[{"name": text(n), "reason": text(r)} for n, r in failed],
        classes=_classes(last, nights[-2] if len(nights) > 1 else {}),
        heads=[{"label": label, "kind": kind} for label, kind in HEADS], rows=[_row(night) for night in shown],
        left_out=f"{left:,} earlier ones are not listed." if left else "",
        index=f"./{INDEX}" if (output / INDEX).is_file() else "",
    )  # fmt: skip


def _count(night: Mapping[str, Any], key: str) -> int:
    value = night.get(key)
    return len(value) if isinstance(value, list | dict) else 0


def _rate(night: Mapping[str, Any]) -> float | None:
    megapixels, seconds = number(night.get("megapixels")), number(night.get("seconds"))
    return megapixels / seconds if megapixels and seconds else None


def _figures(night: Mapping[str, Any]) -> list[dict[str, str]]:
    rate = _rate(night)
    found = [
        (key, f"{_count(night, at):,}", "") for key, at in (("mapped", "done"), ("unchanged", "unchanged"))
    ]
    found += [(key, f"{_count(night, key):,}", "") for key in ("failed", "postponed") if _count(night, key)]
    if rate is not None:
        found.append(("throughput", f"{rate:.2f}", "Mpx/s, all stages"))
    return [{"label": label, "value": value, "note": note} for label, value, note in found]


def _classes(night: Mapping[str, Any], before: Mapping[str, Any]) -> list[dict[str, Any]]:
    now, then = dig(night, "hectares"), dig(before, "hectares")
    areas = {text(k): number(v) or 0.0 for k, v in now.items()} if isinstance(now, dict) else {}
    old = {text(k): number(v) or 0.0 for k, v in then.items()} if isinstance(then, dict) else None
    total = sum(areas.values())
    return [
        {
            "name": name,
            "hectares": f"{area:,.2f}",
            "change": "–" if old is None else f"{area - old.get(name, 0.0):+,.2f}",
            "bar": bar(area / total if total else None),
        }
        for name, area in areas.items()
    ]


def _row(night: Mapping[str, Any]) -> list[dict[str, Any]]:
    def cell(value: float | None, shown: str, bad: bool = False) -> dict[str, Any]:
        return {"value": "" if value is None else f"{value:.6g}", "text": shown, "bad": bad}

    counts = [_count(night, key) for key in ("done", "unchanged", "failed", "postponed", "removed")]
    rate, seconds, mpx = _rate(night), number(night.get("seconds")), number(night.get("megapixels"))
    started = text(night.get("started"))
    return [
        cell(
            number(night.get("number")),
            text(night.get("number")) or f"{number(night.get('number')) or 0:.0f}",
        ),
        {"value": started, "text": started.replace("T", " ").removesuffix("+00:00"), "bad": False},
        *(cell(count, f"{count:,}", bad=at == 2 and count > 0) for at, count in enumerate(counts)),
        cell(mpx, f"{mpx:,.1f}" if mpx else "–"),
        cell(rate, "–" if rate is None else f"{rate:.2f}"),
        cell(seconds, "–" if seconds is None else duration(seconds)),
    ]

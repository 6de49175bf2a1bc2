"""Buildings as objects and roads as lines are shown as metrics.json has them, and where it has them only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from geoseg.report.everything import write_reports
from geoseg.report.facts import SceneFacts
from geoseg.report.sections import class_scores, stages
from geoseg.report.structures import MOST_ROWS, structures
from tests.report.folders import write_run

HOUSES = {
    "truth": 1650,
    "mapped": 90,
    "precision": 0.5,
    "recall": 0.25,
    "f1": 1 / 3,
    "panoptic_quality": None,
}
LINES = {"truth_px": 1234.5, "mapped_px": 10.0, "completeness": 0.75, "correctness": 0.5, "quality": 0.4}


def change(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def scored(tmp_path: Path, classes: tuple[str, ...] = ("building",), regions: int = 1) -> SceneFacts:
    folder = write_run(tmp_path / "out", names=("north",))
    metrics = json.loads((folder / "metrics.json").read_text())
    found = {"objects": dict.fromkeys(classes, HOUSES), "roads": {"road": LINES}}
    metrics["overall"] |= found
    metrics["regions"] = [{"region": f"r {i}", "miou": 0.5, **found} for i in range(regions)]
    change(folder / "metrics.json", **metrics)
    return SceneFacts.read(folder)


def test_each_role_has_a_table(tmp_path: Path) -> None:
    houses, roads = structures(scored(tmp_path))
    assert houses["title"] == "Buildings as objects"
    head = ["region", "precision", "recall", "F1", "AP50", "AP75", "PQ", "labeled", "mapped"]
    assert houses["table"]["head"] == head
    row = ["0.500", "0.250", "0.333", "–", "–", "–", "1,650", "90"]
    assert houses["table"]["rows"] == [["overall", *row], ["r 0", *row]]
    assert roads["table"]["rows"][0] == ["overall", "0.750", "0.500", "0.400", "1,234", "10"]
    assert "took" not in houses["note"]


def test_classes_are_named_where_there_are_several_and_rows_end(tmp_path: Path) -> None:
    houses, _ = structures(scored(tmp_path, ("house", "hut"), 1000))
    assert houses["table"]["head"][:2] == ["region", "class"]
    assert [row[:2] for row in houses["table"]["rows"][:3]] == [
        ["overall", "house"],
        ["overall", "hut"],
        ["r 0", "house"],
    ]
    assert len(houses["table"]["rows"]) == 2 * MOST_ROWS


def test_without_them_there_is_none_and_strange_values_do_no_harm(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "out")
    assert structures(SceneFacts.read(folder)) == []
    metrics = json.loads((folder / "metrics.json").read_text())
    nonsense: list[Any] = [[], {"building": 3}, {"building": {"f1": "much"}}, {}]
    for strange in nonsense:
        change(folder / "metrics.json", overall={**metrics["overall"], "objects": strange, "roads": None})
        facts = SceneFacts.read(folder)
        assert all(set(row[1:]) == {"–"} for one in structures(facts) for row in one["table"]["rows"])
        assert write_reports(folder.parent)[1] == []


def test_times_are_those_of_the_runs_that_made_the_results(tmp_path: Path) -> None:
    """run.json tells of the last run only; what is kept beside the ledger tells of all."""
    facts = scored(tmp_path)
    assert "2.4" in str(stages(facts)) or "2.5" in str(stages(facts))
    kept = tmp_path / "out" / ".geoseg" / "scene"
    kept.mkdir(parents=True)
    made = {"seconds": {"map": 60.0, "objects": 12.5, "errors": 0.5}, "shares": {"road": 1.0}, "miou": None}
    (kept / "made.json").write_text(json.dumps(made))
    run = tmp_path / "out" / "run.json"
    rows = json.loads(run.read_text())["scenes"]
    for scenes in (rows, [{**rows[0], "status": "unchanged", "seconds": {}}], []):
        change(run, scenes=scenes)
        again = SceneFacts.read(facts.folder)
        found = stages(again)
        assert found is not None
        assert [row[0] for row in found["table"]["rows"]] == [
            "map",
            "score buildings and roads",
            "map of errors",
        ]
        assert "The bottleneck is “map”: 82 % of 73 s." in found["note"]
        assert again.row["shares"] == {"road": 1.0}
        assert structures(again)[0]["note"].endswith(" Buildings and roads took 12 s to score.")


def test_remarks_on_labels_are_told(tmp_path: Path) -> None:
    facts = scored(tmp_path)
    remark = "The labels lie on another grid: they were brought onto the map's, nearest neighbor."
    change(facts.folder / "metrics.json", remarks=[remark])
    scores = class_scores(SceneFacts.read(facts.folder))
    assert scores is not None
    assert scores["note"].endswith(remark)
    assert "boundary F1" in scores["table"]["head"]
    assert all(len(row) == len(scores["table"]["head"]) for row in scores["table"]["rows"])


def test_how_labels_were_read_comes_from_the_job(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "out")
    run = tmp_path / "out" / "run.json"
    job = json.loads(run.read_text())["job"]
    told = {"class_field": "kind", "map_class": {"house": "building"}, "ignore": [], "background": "land"}
    change(run, job={**job, **told})
    options = SceneFacts.read(folder).label_options
    assert (options.class_field, options.background) == ("kind", "land")
    assert options.class_names == {"house": "building"}
    nonsense: list[dict[str, Any]] = [
        {"class_field": 3, "background": "land"},
        {"ignore": [300, "a", 4]},
        {"map_class": [1]},
    ]
    for strange in nonsense:
        change(run, job={**job, **strange})
        options = SceneFacts.read(folder).label_options
        assert options.background is None
        assert options.ignore == ((4,) if "ignore" in strange else ())
    change(run, job=[])
    assert SceneFacts.read(folder).label_options.class_field is None

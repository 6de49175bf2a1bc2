"""What a run tells while it goes: how fast, what holds it up, and of which run, scene and block each event is."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from geoseg.cli import main
from geoseg.run import events
from geoseg.run.events import BarReporter, JsonReporter, LineReporter, Watched
from geoseg.run.pace import NETWORK, READ, RECENT, WRITE, Pace, bottleneck, limit_text
from tests.run.results import write_scene

STAGES = (READ, NETWORK, WRITE)
BLOCKS = 200


def makespan(seconds: dict[str, float], lanes: dict[str, int]) -> float:
    """When the last of many equal blocks leaves a pipeline of stages with so many lanes each, in order."""
    ready = [0.0] * BLOCKS
    for stage in STAGES:
        free = [0.0] * lanes[stage]
        for block in range(BLOCKS):
            lane = free.index(min(free))
            ready[block] = free[lane] = max(free[lane], ready[block]) + seconds[stage]
    return max(ready)


@given(
    st.fixed_dictionaries({stage: st.floats(0.01, 10) for stage in STAGES}),
    st.fixed_dictionaries({stage: st.integers(1, 4) for stage in STAGES}),
)
def test_no_faster_stage_helps_more_than_a_faster_bottleneck(
    seconds: dict[str, float], lanes: dict[str, int]
) -> None:
    faster = {stage: makespan({**seconds, stage: seconds[stage] / 2}, lanes) for stage in STAGES}
    filling = 2 * sum(seconds.values())
    named = bottleneck(seconds, {(stage,): lanes[stage] for stage in STAGES})
    assert faster[named] <= min(faster.values()) + filling


@pytest.mark.parametrize(
    ("read", "network", "write", "limit"),
    [(1.0, 1.0, 0.5, NETWORK), (2.0, 1.0, 0.5, READ), (0.5, 1.0, 2.0, WRITE), (0.0, 0.0, 0.0, "")],
)
def test_stages_that_share_lanes_count_together(
    read: float, network: float, write: float, limit: str
) -> None:
    """An actor with three threads of which one maps: 2.5 s of the two others are more than 1 s, and 1.5 s are not."""
    assert (
        bottleneck({READ: read, NETWORK: network, WRITE: write}, {(READ, WRITE): 2, (NETWORK,): 1}) == limit
    )


def test_the_last_blocks_say_what_holds_up_now() -> None:
    pace = Pace({(READ,): 1, (NETWORK,): 2})
    assert pace.limit == ""
    for _ in range(10 * RECENT):
        pace.note({READ: 1.0, NETWORK: 5.0})
    assert pace.limit == NETWORK
    for _ in range(RECENT):
        pace.note({READ: 1.0, NETWORK: 0.1})
    assert pace.limit == READ
    assert limit_text(pace.limit) == "read-bound"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that moves only where it is told to."""
    made = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(events, "time", SimpleNamespace(monotonic=lambda: made.now, time=lambda: made.now))
    return made


def test_a_line_of_a_resumed_run_counts_only_what_this_run_mapped(
    clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    reporter = LineReporter()
    reporter.stage("a", "map", 100.0, 90.0)
    clock.now += 20
    reporter.advance(4.0, NETWORK)
    assert capsys.readouterr().err == "a: map 94 %, 0.20 Mpx/s, 30 s left, network-bound\n"


def test_a_bar_of_a_resumed_run_counts_only_what_this_run_mapped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    reporter = BarReporter()
    reporter.stage("a", "map", 1_000_100.0, 1_000_000.0)
    reporter._bar.start_t -= 100
    reporter.advance(50.0, READ)
    reporter.say("retry", "block r00000_c00001 is tried again")
    reporter.advance(0.0)
    bar = str(reporter._bar)
    reporter.end_stage()
    assert "warning: block r00000_c00001 is tried again\n" in capsys.readouterr().err
    assert "100%" in bar
    assert "| 1000050.0/1000100.0 Mpx [" in bar
    speed = bar.rsplit("<", 1)[1]
    assert "read-bound" in speed
    assert rate_of(speed) < 1000, speed


def rate_of(text: str) -> float:
    """Megapixels a second that the end of a bar tells."""
    figure, unit = next(word for word in text.split(", ") if "Mpx" in word).strip().rstrip("]"), "s/Mpx"
    value = float(figure.removesuffix(unit).removesuffix("Mpx/s"))
    return 1 / value if figure.endswith(unit) else value


def test_every_event_names_its_run_and_scene(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = JsonReporter()
    now: dict[str, Any] = {}
    scene = Watched(reporter.for_scene("a"), now)
    scene.stage("a", "map", 10.0, 2.0)
    scene.advance(1.0, WRITE)
    scene.say("warning", "careful")
    scene.fact("block_lost", block="r00001_c00002")
    scene.end_stage()
    reporter.fact("worker_joined", worker="x")
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in told] == [
        "stage", "progress", "warning", "block_lost", "stage_done", "worker_joined",
    ]  # fmt: skip
    assert {event["run"] for event in told} == {reporter.run}
    assert {event.get("scene") for event in told[:-1]} == {"a"}
    assert told[1]["bottleneck"] == now["bottleneck"] == WRITE
    scene.stage("a", "merge", 10.0)
    assert "bottleneck" not in now
    assert JsonReporter().run != reporter.run


def test_lines_of_several_threads_do_not_mix(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = JsonReporter()
    threads = [
        threading.Thread(target=lambda: [reporter.fact("x", text="y" * 500) for _ in range(200)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([json.loads(line) for line in capsys.readouterr().out.splitlines()]) == 800


def test_a_run_is_known_by_one_id_in_its_events_and_its_summary(tiny_bundle: Path, tmp_path: Path) -> None:
    scenes = [str(write_scene(tmp_path / f"{name}.tif", 300, 300)) for name in "ab"]
    out = tmp_path / "out"
    command = [
        "run", *scenes, "-o", str(out), "--model", str(tiny_bundle), "--block-px", "128", "--no-report", "--json",
    ]  # fmt: skip
    told = [json.loads(line) for line in CliRunner().invoke(main, command).stdout.splitlines()]
    assert {event["run"] for event in told} == {json.loads((out / "run.json").read_text())["run"]}
    assert {event["scene"] for event in told} == {"a", "b"}
    mapping = [event for event in told if event["event"] == "stage_done" and event["stage"] == "map"]
    assert {event["bottleneck"] for event in mapping} <= {READ, NETWORK, WRITE}
    assert len(mapping) == 2

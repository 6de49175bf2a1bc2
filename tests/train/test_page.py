"""The page of a training: what it shows is what the run has left."""

from __future__ import annotations

import csv
import io
import json
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from geoseg.errors import SourceError
from geoseg.legend import NODATA
from geoseg.report.curves import MOST_POINTS, curve, thinned
from geoseg.report.training import read_log, training_page, write_training
from geoseg.train import loop
from geoseg.train.reading import load_config
from geoseg.train.scores import BINS, Outcome, calibration_error, reliability
from geoseg.train.steplog import StepLog
from geoseg.train.trainer import learn, train, training_folder
from tests.train.scenes import SMALL, labels_of, settings, write_run, write_scene

SHORT = SMALL | {"steps": 6, "validate_every": 2}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The training folder of a run of six steps with a test scene."""
    folder = tmp_path_factory.mktemp("run")
    other = {"scene": "other.tif", "labels": "other_labels.tif", "ignore": [0], "split": "test"}
    path = write_run(folder, **SHORT, datasets=[*settings()["datasets"], other])
    write_scene(folder, "other", labels_of(64), seed=1)
    return training_folder(train(path, folder / "bundle", progress_bar=False))


def facts_of(folder: Path) -> dict:
    return json.loads((folder / "training.json").read_text())


def test_the_page_is_one_file_that_loads_nothing(run):
    text = write_training(run).read_text()
    assert write_training(run).read_text() == text, "the same input gives the same bytes"
    assert "default-src &#39;none&#39;" in text
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", text)


def test_the_page_shows_the_scores_of_the_run(run):
    text, facts = training_page(run).decode(), facts_of(run)
    assert f">{facts['validation']['miou']:.3f}<" in text
    for name, iou in facts["validation"]["iou"].items():
        assert name in text and f">{iou:.3f}<" in text
    assert "other" in text and f"{facts['tests']['other']['miou']:.3f}" in text
    assert f"weights of step {facts['done']['best_step']}" in text
    assert "decoder_channels: 16" in text
    assert text.count("<img") == 3 * sum(k.startswith("image") for k in np.load(run / "examples.npz"))
    assert text.count('class="plot') == 5, "three curves, reliability before and after"


def test_confusion_and_scores_are_of_one_counting(run):
    validation = facts_of(run)["validation"]
    counts = np.array(validation["confusion"], float)
    square = counts[: counts.shape[1]]
    hit = square.diagonal()
    ious = hit / (counts.sum(0) + square.sum(1) - hit)
    assert list(validation["iou"].values()) == pytest.approx(ious.tolist())
    assert validation["miou"] == pytest.approx(np.nanmean(ious))


def test_examples_are_image_labels_and_answer_of_one_place(run):
    with np.load(run / "examples.npz", allow_pickle=False) as arrays:
        names = [key for key in arrays if key.startswith("image_")]
        assert 1 <= len(names) <= 6
        for name in names:
            labels, answers = (arrays[name.replace("image", kind)] for kind in ("labels", "answers"))
            assert arrays[name].shape[1:] == labels.shape == answers.shape
            assert set(np.unique(labels)) <= {1, 2, 3, 4, 5, NODATA} and set(np.unique(answers)) <= {
                1,
                2,
                3,
                4,
                5,
            }
            means = [arrays[name][:, labels == c].mean() for c in (1, 2) if (labels == c).any()]
            assert len(means) < 2 or means[0] > means[1] + 50, "light and dark class lie where the labels say"


def test_tensorboard_finds_its_log(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(run / "tensorboard")).Reload()
    assert {"loss", "learning_rate", "miou_validation"} <= set(read.Tags()["scalars"])


def test_the_log_goes_on_where_a_run_goes_on(tmp_path, monkeypatch):
    """Law: stopped and gone on, the log tells the same losses and scores at the same steps."""
    config = load_config(write_run(tmp_path, **SHORT), {})
    learn(config, tmp_path / "through", False)
    plain = loop.SegmentationTask.training_step

    def stopped(self, batch, number):
        if number == 5:
            raise KeyboardInterrupt
        return plain(self, batch, number)

    monkeypatch.setattr(loop.SegmentationTask, "training_step", stopped)
    with pytest.raises(KeyboardInterrupt):
        learn(config, tmp_path / "stopped", False)
    monkeypatch.undo()
    learn(config, tmp_path / "stopped", False)
    assert [p.name for p in (tmp_path / "stopped" / "log").iterdir()] == ["metrics.csv"], "one log, appended"
    through, resumed = read_log(tmp_path / "through"), read_log(tmp_path / "stopped")
    assert [row["step"] for row in through if "loss" in row] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in through if "miou_validation" in row] == [2, 4, 6]
    assert resumed == through


def test_a_damaged_log_is_read_as_far_as_it_goes(tmp_path):
    (tmp_path / "log").mkdir()
    (tmp_path / "log/metrics.csv").write_text("step,loss\n1,2.5\nx,1.7\n4,\n5,nan\n6,1.")
    assert read_log(tmp_path) == [{"loss": 2.5, "step": 1}, {"step": 4}, {"step": 5}, {"loss": 1, "step": 6}]


@given(st.integers(0, 9), st.sampled_from(["", "\n", "8,1", "x,1\n", "2,\xe4"]))
@examples(max_examples=20, deadline=None)
def test_a_log_goes_on_after_the_step_of_the_checkpoint(first, left):
    """Law: of what an earlier sitting wrote, the rows up to the checkpoint stay, whole; the next ones follow."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "log" / "metrics.csv"
        log = StepLog(path, ("loss", "iou_road"), 0)
        for step in range(7):
            log.log_metrics({"loss": step / 8, "other": 1.0}, step)
        with path.open("a") as stream:
            stream.write(left)
        StepLog(path, ("loss", "iou_road"), first).log_metrics({"loss": float("nan"), "iou_road": 0.5}, first)
        rows = [{"step": step, "loss": (step - 1) / 8} for step in range(1, min(first, 7) + 1)]
        assert read_log(Path(name)) == [*rows, {"step": first + 1, "iou_road": 0.5}]


@pytest.mark.parametrize("found", ["nothing", "no object", "no examples"])
def test_a_folder_without_a_training_is_one_line(tmp_path, found):
    if found == "no object":
        (tmp_path / "training.json").write_text("[1]")
    elif found == "no examples":
        (tmp_path / "training.json").write_text('{"name": "a"}')
        (tmp_path / "examples.npz").write_bytes(b"PK\x03\x04 no such thing")
    with pytest.raises(SourceError, match=r"no training has ended here|no JSON object|no examples") as told:
        training_page(tmp_path)
    assert "\n" not in str(told.value)


KEYS = (
    "name",
    "classes",
    "validation",
    "calibration",
    "tests",
    "done",
    "start",
    "bands",
    "options",
    "learned_px",
)
INNER = st.sampled_from(["iou", "miou", "confusion", "name", "curve", "before"])
VALUES = st.recursive(
    st.none() | st.integers(-9, 999) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(INNER, inner, max_size=3),
    max_leaves=8,
)


@examples(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=1))
def test_facts_of_another_version_still_make_a_page(tmp_path_factory, facts) -> None:
    folder = tmp_path_factory.mktemp("facts")
    (folder / "training.json").write_text(json.dumps(facts))
    assert b"</html>" in training_page(folder)


def test_no_text_of_a_run_is_taken_for_markup(tmp_path):
    bad = "<script>alert(1)</script>"
    validation = {"miou": 0.5, "iou": {bad: 0.5}, "confusion": [[1]]}
    classes = [{"id": 1, "name": bad, "color": ["red", None]}]
    facts = {
        "name": bad,
        "start": [bad],
        "classes": classes,
        "validation": validation,
        "tests": {bad: {"miou": 0.1}},
    }
    (tmp_path / "training.json").write_text(json.dumps(facts))
    assert bad not in training_page(tmp_path).decode()


@given(st.lists(st.floats(-1e6, 1e6), max_size=500))
def test_thinning_takes_the_means_of_neighbors(values) -> None:
    points = [(float(i), y) for i, y in enumerate(values)]
    thin = thinned(points)
    assert len(thin) <= MOST_POINTS
    size = next(n for n in range(1, 9) if -(-len(values) // n) <= MOST_POINTS)
    assert [y for _, y in thin] == pytest.approx(
        [np.mean(values[i : i + size]) for i in range(0, len(values), size)]
    )


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(-1e9, 1e9)), min_size=1, max_size=50))
def test_every_point_of_a_curve_lies_on_the_plot(points) -> None:
    text = curve(sorted(points), "a", "b", "c", dots=True)
    for x, y in re.findall(r'<circle class="dot" cx="(\S+)" cy="(\S+)"', text):
        assert 58 <= float(x) <= 469 and 9.9 <= float(y) <= 270.1


@given(st.integers(0, 10**6), st.integers(1, 400), st.integers(2, 6), st.floats(0.1, 9))
def test_the_reliability_curve_makes_up_the_calibration_error(seed, count, channels, temperature) -> None:
    """Oracle: torchmetrics."""
    rng = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(count, channels, generator=rng)
    targets = torch.randint(0, channels, (count,), generator=rng)
    outcome = Outcome(torch.zeros(channels + 1, channels), logits, targets)
    points = reliability(outcome, temperature)
    assert len(points) <= BINS and sum(n for *_, n in points) == count
    apart = sum(n * abs(sure - right) for sure, right, n in points) / count
    assert apart == pytest.approx(calibration_error(outcome, temperature), abs=2e-3)


def test_logs_for_people_have_a_header(run):
    (path,) = run.glob("log/metrics.csv")
    assert {"loss", "step", "miou_validation", "iou_road"} <= set(
        next(csv.reader(io.StringIO(path.read_text())))
    )

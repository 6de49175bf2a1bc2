"""Every score on the bundled model's card, measured again and set beside what the card says.

- "as run": `geoseg run SCENE --labels LABELS`, in the precision that this machine takes by itself; "float32": with
  `--precision float32`, which is what training scores with. mIoU and IoU are those of metrics.json.
- "at 1.0 m": with `--gsd 1.0`. The scene is resampled while it is read (average to larger pixels, bilinear to
  smaller ones), the map has the new pixels, and the labels are brought onto them, nearest neighbor.
- "brightness times f" and "haze of p %": the scene is first written anew, losslessly, as `brightened` and `hazed` say.
- "demo seed n": the scene that `geoseg demo --seed n --size 1536` draws.
- "held out": scenes with validation regions in workflows/train_landcover_rgb.yaml, with `--aoi` set to these regions
  and `--precision float32`; confusion matrices are added before IoU is taken.
- The calibration error of the card takes probabilities, which no result of a run holds: it comes of training's own
  scoring, torch in float32, of the same pixels (every 7th along rows and columns; 15 bins), with and without the card's
  temperature. "From confidence.tif" is what a user can compute: all pixels, whole percents.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio

from geoseg.demo.scene import render_demo
from geoseg.io.rasters import configure_gdal
from geoseg.io.vectors import add_region_layer
from geoseg.model.bundle import Bundle
from geoseg.model.card import ModelCard
from geoseg.model.runtimes import RuntimeChoice
from geoseg.pixels.calibration import PERCENTS, Calibration
from geoseg.pixels.confusion import ConfusionMatrix
from geoseg.run.demo import LABELS, SCENE, write_demo
from geoseg.run.events import LineReporter
from geoseg.run.job import make_job
from geoseg.run.pipeline import Run
from tests.data import DATA

if TYPE_CHECKING:
    from geoseg.train.scenes import LabelledScene

UNSEEN = "dubai_2"
TRAINING = Path(__file__).parents[2] / "workflows" / "train_landcover_rgb.yaml"
AIR = 230
"""Light of the air, the middle of what training draws from (205 to 255)."""
GSDS = (0.5, 1.0, 1.25)
BRIGHTNESS = (0.8, 1.2)
HAZE = (0.2, 0.35)
DEMO_SEEDS, DEMO_PX = (1, 2, 7), 1536

CHANGED, DEMO, CHOICES = "Scene 2 changed", "Demo scenes", "Choices were made"
"""How the card's notes begin that hold scores."""
BATCH = 4
BINS = 15
"""Of the card's calibration error."""


@dataclass(frozen=True)
class Row:
    """A figure, as the card has it (None: it has not) and as it was found."""

    figure: str
    card: float | None
    found: float


Change = Callable[[np.ndarray], np.ndarray]


def brightened(pixels: np.ndarray, factor: float) -> np.ndarray:
    """uint8 values of any shape, times a factor from 0, rounded (halves to even) and cut to 0..255; uint8."""
    return _as_bytes(pixels * factor)


def hazed(pixels: np.ndarray, share: float, air: float = AIR) -> np.ndarray:
    """uint8 values of any shape, seen through haze: value * (1 - share) + air * share, rounded as `brightened` does.

    Koschmieder's scattering law for one distance, as nadir imagery has it: share is 1 - transmission, from 0 to 1;
    air is the light that the haze itself sends, the same in all bands.
    """
    return _as_bytes(pixels * (1 - share) + air * share)


def _as_bytes(values: np.ndarray) -> np.ndarray:
    rounded: np.ndarray = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return rounded


def main(_pairs: int) -> None:
    """One table over all figures of the card."""
    configure_gdal()
    bundle = Bundle.open()
    choice = RuntimeChoice.decide(bundle.card)
    print(f"{bundle.card.name} {bundle.card.version}; as run: {choice.runtime} {choice.precision}\n")
    print("| figure | card | here | difference |\n| --- | --- | --- | --- |")
    parts = (unseen_scene, changed_scenes, demo_scenes, held_out_regions)
    for rows in (*(part(bundle.card) for part in parts), calibration(bundle)):
        for row in rows:
            known, apart = (
                ("-", "-") if row.card is None else (f"{row.card:.4f}", f"{row.found - row.card:+.4f}")
            )
            print(f"| {row.figure} | {known} | {row.found:.4f} | {apart} |", flush=True)


def unseen_scene(card: ModelCard) -> Iterator[Row]:
    """The scene that the network never saw."""
    found = run(path_of(UNSEEN), labels_of(UNSEEN), precision="float32")["overall"]
    yield from ious(card, UNSEEN, f"{UNSEEN}, float32", found["miou"], found["iou"])
    low, high = told[1:] if len(told := numbers(card.notes, CHOICES)) == 3 else (None, None)
    for end, number, value in zip(("lower", "upper"), (low, high), found["intervals"]["miou"], strict=True):
        yield Row(f"{UNSEEN}, float32: mIoU, {end} end of the 95 % interval", number, value)


def changed_scenes(card: ModelCard) -> Iterator[Row]:
    """The same scene as it is, with other pixels, in other light and under haze."""
    scene, labels = path_of(UNSEEN), labels_of(UNSEEN)
    sides: dict[str, Callable[[], dict[str, Any]]] = {"as run": lambda: run(scene, labels)}
    sides |= {f"at {gsd} m": partial(run, scene, labels, gsd=gsd) for gsd in GSDS}
    changes: dict[str, Change] = {f"brightness times {f}": partial(brightened, factor=f) for f in BRIGHTNESS}
    changes |= {f"haze of {100 * share:.0f} %": partial(hazed, share=share) for share in HAZE}
    sides |= {name: partial(run_changed, scene, labels, change) for name, change in changes.items()}
    told = numbers(card.notes, CHANGED)
    for (name, measure), number in zip(sides.items(), padded(told, len(sides)), strict=True):
        yield Row(f"{UNSEEN}, {name}: mIoU", number, measure()["overall"]["miou"])


def demo_scenes(card: ModelCard) -> Iterator[Row]:
    """Drawn scenes of seeds that were not trained on."""
    told = numbers(card.notes, DEMO)
    for seed, number in zip(DEMO_SEEDS, padded(told, len(DEMO_SEEDS)), strict=True):
        with tempfile.TemporaryDirectory() as name:
            write_demo(render_demo(seed, DEMO_PX), Path(name))
            found = run(Path(name) / SCENE, Path(name) / LABELS)
        yield Row(f"demo seed {seed}: mIoU", number, found["overall"]["miou"])


def held_out_regions(card: ModelCard) -> Iterator[Row]:
    """The regions that choices were made on, all together."""
    matrix, percents = ConfusionMatrix.zero(card.legend), np.zeros((2, PERCENTS), np.int64)
    for labelled in held_out_scenes():
        with tempfile.TemporaryDirectory() as name:
            aoi, crs = Path(name) / "held_out.gpkg", labelled.scene.grid.crs
            rows = [{"region": polygon.name} for polygon in labelled.held_out]
            add_region_layer(aoi, [p.geometry for p in labelled.held_out], rows, crs)
            scene = Path(labelled.scene.path)
            found = run(scene, labels_of(scene.stem), precision="float32", aoi=str(aoi))["overall"]
        matrix += ConfusionMatrix(card.legend, np.array(found["confusion"]))
        for percent, pixels, share in found["calibration"]["curve"]:
            percents[:, percent] += pixels, round(share * pixels)
    assert matrix.miou is not None
    by_class = dict(zip(card.legend.names, matrix.iou, strict=True))
    yield from ious(card, "validation", "held out, float32", matrix.miou, by_class)
    where, known = (
        "held out, float32: calibration error from confidence.tif",
        card.scores.get("ece_validation"),
    )
    yield Row(f"{where}, in {BINS} bins", known, error_in_bins(percents))
    exact = Calibration.of(percents).expected_error
    assert exact is not None
    yield Row(f"{where}, a bin for each percent, as in metrics.json", None, exact)


def error_in_bins(percents: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error (Naeini et al. 2015) in bins of equal width, each closed below.

    percents: (2, 101), as of `Calibration`: pixels by whole percent of confidence, and those that got their class.
    """
    pixels, right = percents
    place = np.minimum(np.arange(PERCENTS) * bins // (PERCENTS - 1), bins - 1)
    apart = np.bincount(place, right - pixels * np.arange(PERCENTS) / (PERCENTS - 1), bins)
    return float(np.abs(apart).sum() / pixels.sum())


def calibration(bundle: Bundle) -> Iterator[Row]:
    """The calibration error as training takes it, of the bundle's network."""
    from torch.utils.data import DataLoader

    from geoseg.model.network import Network, load_network
    from geoseg.spec import SegmentSpec
    from geoseg.train.data import ScoredPatches
    from geoseg.train.scores import calibration_error, mean_iou, score

    card = bundle.card
    patches = ScoredPatches(held_out_scenes(), SegmentSpec(card.patch_px), card.input_spec.fill, True)
    raw = Network(load_network(bundle).body, card.bands)
    outcome = score(raw, DataLoader(patches, BATCH), len(card.classes))
    yield Row(
        "held out, torch float32: mIoU", card.scores.get("miou_validation"), mean_iou(outcome.confusion)
    )
    for temperature, known in ((1.0, "ece_validation_uncalibrated"), (card.temperature, "ece_validation")):
        found = calibration_error(outcome, temperature)
        figure = f"held out, torch float32: calibration error at temperature {temperature:g}"
        yield Row(figure, card.scores.get(known), found)


def held_out_scenes() -> list[LabelledScene]:
    """The scenes of the training file that have validation regions, opened."""
    from geoseg.train.material import wants_of
    from geoseg.train.reading import load_config
    from geoseg.train.scenes import open_labelled

    config = load_config(TRAINING, {"GEOSEG_DATA": str(DATA), "GEOSEG_ENCODER": "none"})
    entries = [entry for entry in config.datasets if entry.validation_regions is not None]
    return [open_labelled(entry, wants_of(config), config.legend) for entry in entries]


def ious(
    card: ModelCard, known_as: str, where: str, miou: float, by_class: dict[str, float | None]
) -> Iterator[Row]:
    """Mean IoU and that of each class, beside the card's scores."""
    yield Row(f"{where}: mIoU", card.scores.get(f"miou_{known_as}"), miou)
    for name, value in by_class.items():
        if value is not None:
            yield Row(f"{where}: IoU of {name}", card.scores.get(f"iou_{name}_{known_as}"), value)


def run(scene: Path, labels: Path, **options: Any) -> dict[str, Any]:
    """metrics.json of a run on one scene; all else is removed. Exits where the run fails."""
    said = io.StringIO()
    with tempfile.TemporaryDirectory() as name:
        files = {"scenes": (str(scene),), "labels": str(labels), "output": name, "report": False}
        with contextlib.redirect_stderr(said):
            code = Run(make_job({**files, **options}), LineReporter()).go()
        if code:
            sys.exit(said.getvalue())
        metrics: dict[str, Any] = json.loads((Path(name) / scene.stem / "metrics.json").read_text())
        return metrics


def run_changed(scene: Path, labels: Path, change: Change) -> dict[str, Any]:
    """The same of a scene whose values were changed, in a temporary file."""
    with tempfile.TemporaryDirectory() as name:
        return run(write_changed(scene, Path(name) / scene.name, change), labels)


def write_changed(scene: Path, path: Path, change: Change) -> Path:
    """A scene anew, window by window, each value changed for itself; lossless. Returns the path."""
    with rasterio.open(scene) as source:
        profile = {
            "driver": "GTiff", "count": source.count, "height": source.height, "width": source.width,
            "dtype": "uint8", "crs": source.crs, "transform": source.transform, "nodata": source.nodata,
            "tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate",
        }  # fmt: skip
        with rasterio.open(path, "w", **profile) as out:
            for _, window in out.block_windows(1):
                out.write(change(source.read(window=window)), window=window)
    return path


def numbers(notes: Sequence[str], beginning: str) -> list[float]:
    """The scores in the note that begins so, in their order: all numbers with three decimals. Empty without one."""
    note = next((note for note in notes if note.startswith(beginning)), "")
    return [float(number) for number in re.findall(r"(?<![\d.])0\.\d{3}(?!\d)", note)]


def padded(told: list[float], count: int) -> list[float | None]:
    """As many as there are rows; None for all where the note tells of others."""
    return [*told] if len(told) == count else [None] * count


def path_of(scene: str) -> Path:
    return DATA / "dubai" / f"{scene}.tif"


def labels_of(scene: str) -> Path:
    return DATA / "dubai" / f"{scene}_labels.tif"

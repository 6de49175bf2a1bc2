"""How patches should meet: seams, score and speed of each way, on two real scenes."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from pathlib import Path

import numpy as np
import rasterio

from geoseg.grid.lattice import Lattice
from geoseg.run.events import LineReporter
from geoseg.run.job import make_job
from geoseg.run.pipeline import Run
from geoseg.spec import SegmentSpec
from tests.data import DATA

SCENES = ("dubai_2", "dubai_6")
WAYS = (
    SegmentSpec(512, 64), SegmentSpec(1024, 64), SegmentSpec(1024, 128),
    SegmentSpec(512, 64, "hann"), SegmentSpec(512, 128, "hann"), SegmentSpec(512, 64, tta="d4"),
)  # fmt: skip


def main(_pairs: int) -> None:
    """One table over all ways. Seam ratio: label changes across patch borders over those elsewhere; 1 is no seam."""
    print("| way | " + " | ".join(f"{s}: seam ratio | mIoU | Mpx/s" for s in SCENES) + " |")
    print("| --- " * (1 + 3 * len(SCENES)) + "|")
    for spec in WAYS:
        cells = [f"{spec.blend} {spec.patch_px}/{spec.margin_px}{' d4' if spec.tta == 'd4' else ''}"]
        for scene in SCENES:
            cells += [f"{value:.3f}" for value in measure(scene, spec)]
        print("| " + " | ".join(cells) + " |", flush=True)


def measure(scene: str, spec: SegmentSpec) -> tuple[float, float, float]:
    """Seam ratio, mIoU and megapixels per second."""
    folder = DATA / "dubai"
    with tempfile.TemporaryDirectory() as name:
        job = make_job({
            "scenes": (str(folder / f"{scene}.tif"),), "labels": str(folder / f"{scene}_labels.tif"), "output": name,
            "patch_px": spec.patch_px, "margin_px": spec.margin_px, "blend": spec.blend, "tta": spec.tta,
        })  # fmt: skip
        with contextlib.redirect_stderr(io.StringIO()):
            Run(job, LineReporter()).go()
        report = json.loads((Path(name) / "run.json").read_text())["scenes"][0]
        with rasterio.open(Path(name) / scene / "landcover.tif") as source:
            labels = source.read(1)
    return seam_ratio(labels, spec), report["miou"], report["megapixels"] / report["seconds"]["map"]


def seam_ratio(labels: np.ndarray, spec: SegmentSpec) -> float:
    """How much likelier a label changes across a patch's border than between any other two neighbors."""
    lattice = Lattice(*labels.shape, spec)
    answers = [lattice.center(patch) for patch in lattice.patches(lattice.window)]
    row_cuts = {r for a in answers for r in (a.row, a.row_end)}
    col_cuts = {c for a in answers for c in (a.col, a.col_end)}
    across = [(labels[1:] != labels[:-1], row_cuts, 0), (labels[:, 1:] != labels[:, :-1], col_cuts, 1)]
    on, off = [], []
    for changes, cuts, axis in across:
        is_cut = np.isin(np.arange(1, changes.shape[axis] + 1), list(cuts))
        on.append(changes.compress(is_cut, axis).ravel())
        off.append(changes.compress(~is_cut, axis).ravel())
    return float(np.concatenate(on).mean() / np.concatenate(off).mean())

"""Stand-ins for a network, plain numpy, so that laws of cutting can be tried on thousands of small cases."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from geoseg.legend import LandClass, Legend
from geoseg.spec import SegmentSpec

LEGEND = Legend(tuple(LandClass(i, name, (40 * i, 9 * i, 200)) for i, name in ((1, "a"), (2, "b"), (4, "c"))))


@dataclass
class FakeSegmenter:
    """Answers with what a real network may use: the pixel, its place in the patch, and the patch as a whole."""

    spec: SegmentSpec
    legend: Legend = LEGEND
    batch: int = 1
    patches_seen: int = field(default=0)

    def probabilities(self, patches: np.ndarray) -> np.ndarray:
        n, _, rows, cols = patches.shape
        self.patches_seen += n
        values = patches.astype(np.float64)
        level = values.mean(axis=1)
        whole = values.mean(axis=(1, 2, 3))[:, None, None]
        ramp = np.add.outer(np.arange(rows) * 0.11, np.arange(cols) * 0.07)[None]
        logits = np.stack(
            [np.sin(0.05 * (k + 1) * level + 0.3 * k * whole + ramp) for k in range(len(self.legend.ids))],
            axis=1,
        )
        odds = np.exp(2 * logits)
        return (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)

    def classify(self, patches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        margin, side = self.spec.margin_px, self.spec.stride_px
        scores = self.probabilities(patches)[:, :, margin : margin + side, margin : margin + side]
        ids = np.asarray(self.legend.ids, np.uint8)[scores.argmax(axis=1)]
        return ids, np.floor(scores.max(axis=1) * np.float32(100) + np.float32(0.5)).astype(np.uint8)


@dataclass
class FakeConstantSegmenter(FakeSegmenter):
    """Sees the same everywhere."""

    def probabilities(self, patches: np.ndarray) -> np.ndarray:
        shares = np.array([0.2, 0.5, 0.3], np.float32)[None, :, None, None]
        return np.broadcast_to(shares, (len(patches), 3, *patches.shape[2:])).copy()

"""What is said of a run before it begins, and again when it has ended: classes without pixels, scales."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from geoseg.errors import SpecError
from geoseg.train.config import TrainConfig
from geoseg.train.sampling import BLOCK_PX, LabelIndex, blocks_of
from geoseg.train.scenes import LabelledScene, teaches_scale

MOST_NAMED = 3


def check_classes(
    scenes: Sequence[LabelledScene], indexes: Sequence[LabelIndex], others: Sequence[LabelledScene]
) -> None:
    """SpecError where a class of the run has no pixel to train on, not even as one of several.

    It names what 0 would have to mean where that is the likely cause. others: scenes that are only scored, whose
    labels are likely to be read the same way.
    """
    legend = scenes[0].labels.legend
    certain = np.sum([index.counts.sum(axis=(0, 1)) for index in indexes], axis=0)
    missing = [
        name
        for channel, name in enumerate(legend.names)
        if not certain[channel]
        and not any(
            index.counts[..., -1].any() and any(bits >> channel & 1 for bits in scene.labels.sets)
            for scene, index in zip(scenes, indexes, strict=True)
        )
    ]
    if not missing:
        return
    words = f"no pixel to train on has the class {', '.join(missing)}"
    silent = next((s for s in (*scenes, *others) if s.labels.zero == "unmapped" and _has_zero(s)), None)
    if silent is not None:
        raise SpecError(
            f"{words}, and the value 0 in these labels means nothing yet: say map_class: {{0: {missing[0]}}}, or "
            "ignore: [0] if it means nothing",
            silent.labels.path,
        )
    declared = next((s for s in (*scenes, *others) if s.labels.zero == "nodata" and _has_zero(s)), None)
    if declared is not None:
        raise SpecError(
            f"{words}, and the value 0 is nodata in these labels: if it means {missing[0]}, undeclare it "
            f"(gdal_edit.py -unsetnodata) and say map_class: {{0: {missing[0]}}}",
            declared.labels.path,
        )
    raise SpecError(
        f"{words}: give labels that hold it, say with map_class what means it, or take it out of classes"
    )


def _has_zero(scene: LabelledScene) -> bool:
    return any(bool((scene.labels.pixels.read(b) == 0).any()) for b in blocks_of(scene.window, BLOCK_PX))


def scale_remark(config: TrainConfig, scenes: Sequence[LabelledScene]) -> str:
    """Of training scenes that teach no pixel size of gsd_m, at any zoom, and what to write; "" where all do.

    The card would promise pixel sizes that were never learned.
    """
    (low, high), wanted = config.augment.zoom, config.gsd_m
    known = {s.scene.path: s.scene.grid.gsd_m for s in scenes if s.scene.grid.gsd_m is not None}
    apart = [path for path, gsd_m in known.items() if not teaches_scale(config, gsd_m)]
    if not apart:
        return ""
    named = ", ".join(apart[:MOST_NAMED]) + (
        f" and {len(apart) - MOST_NAMED} more" * (len(apart) > MOST_NAMED)
    )
    least, most = min(known[path] for path in apart), max(known[path] for path in apart)
    ours = f"{least:.3g} m" if most < 1.05 * least else f"{least:.3g} to {most:.3g} m"
    seen = min(known.values()) / high, max(known.values()) / low
    return (
        f"{named}: pixels are {ours} on the ground, and augment.zoom ({low:g} to {high:g}) makes none of them a pixel "
        f"of gsd_m ({wanted.min:g} to {wanted.max:g} m), which the card promises; write "
        f"gsd_m: {{min: {seen[0]:.2g}, max: {seen[1]:.2g}}}"
    )

"""The law: cutting a raster into blocks changes no label and no percent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.inferers import sliding_window_inference

from geoseg.grid.lattice import Block, Blocks, Lattice
from geoseg.legend import NODATA
from geoseg.pixels.blend import hann_window, symmetries, undo_symmetry
from geoseg.pixels.labels import choose_labels
from geoseg.pixels.pixelblock import PixelBlock
from geoseg.spec import SegmentSpec
from geoseg.stages.segment import block_scores, segment_block
from tests.fakes import LEGEND, FakeConstantSegmenter, FakeSegmenter

FILL = 7


@dataclass(frozen=True)
class Raster:
    pixels: np.ndarray
    valid: np.ndarray

    def read(self, block: Block, lattice: Lattice) -> PixelBlock:
        window = lattice.read_window(block.core)
        inside = window.overlap(lattice.window)
        here, there = inside.within(window), inside.within(lattice.window)
        pixels = np.full((2, *window.shape), FILL, np.uint8)
        pixels[(slice(None), *here)] = np.where(self.valid[there], self.pixels[(slice(None), *there)], FILL)
        return PixelBlock(block, window, pixels, self.valid[block.core.within(lattice.window)])


@st.composite
def rasters(draw: st.DrawFn) -> Raster:
    height, width = draw(st.integers(1, 150)), draw(st.integers(1, 150))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    pixels = rng.integers(0, 255, (2, height, width), dtype=np.uint8)
    return Raster(pixels, rng.random((height, width)) > draw(st.sampled_from([0.0, 0.1, 0.99])))


specs = st.builds(
    SegmentSpec,
    patch_px=st.sampled_from([32, 64]),
    margin_px=st.integers(0, 12),
    blend=st.sampled_from(["crop", "hann"]),
    tta=st.sampled_from(["none", "d4"]),
)


def mapped(
    raster: Raster, spec: SegmentSpec, block_px: int, segmenter: FakeSegmenter, backwards: bool = False
):
    lattice = Lattice(*raster.valid.shape, spec)
    labels = np.zeros(raster.valid.shape, np.uint8)
    percent = np.zeros(raster.valid.shape, np.uint8)
    blocks = list(Blocks.of(lattice, block_px))
    for block in reversed(blocks) if backwards else blocks:
        answer = segment_block(raster.read(block, lattice), segmenter, lattice, LEGEND)
        labels[block.core.within(lattice.window)] = answer.labels
        percent[block.core.within(lattice.window)] = answer.confidence
    return labels, percent


@settings(max_examples=60, deadline=None)
@given(rasters(), specs, st.integers(1, 200), st.sampled_from([1, 3]))
def test_blocks_order_and_batches_change_nothing(
    raster: Raster, spec: SegmentSpec, block_px: int, batch: int
) -> None:
    whole = mapped(raster, spec, 10_000, FakeSegmenter(spec))
    cut = mapped(raster, spec, block_px, FakeSegmenter(spec, batch=batch), backwards=True)
    assert all(np.array_equal(a, b) for a, b in zip(whole, cut, strict=True))


@settings(max_examples=40, deadline=None)
@given(rasters(), st.integers(0, 12), st.integers(1, 200))
def test_crop_equals_a_whole_image_reference(raster: Raster, margin: int, block_px: int) -> None:
    """Pad with the fill, walk over centers, keep each center: nothing of the lattice is used."""
    spec = SegmentSpec(64, margin)
    height, width = raster.valid.shape
    stride = 64 - 2 * margin
    padded = np.full((2, height + 64 + stride, width + 64 + stride), FILL, np.uint8)
    padded[:, margin : margin + height, margin : margin + width] = np.where(raster.valid, raster.pixels, FILL)
    labels = np.full((height, width), NODATA, np.uint8)
    percent = np.full((height, width), NODATA, np.uint8)
    for row in range(0, height, stride):
        for col in range(0, width, stride):
            scores = FakeSegmenter(spec).probabilities(padded[None, :, row : row + 64, col : col + 64])[0]
            center = scores[:, margin : margin + stride, margin : margin + stride]
            center = center[:, : height - row, : width - col]
            here = slice(row, row + center.shape[1]), slice(col, col + center.shape[2])
            labels[here] = np.array(LEGEND.ids, np.uint8)[center.argmax(0)]
            percent[here] = np.floor(center.max(0) * np.float32(100) + np.float32(0.5))
    labels[~raster.valid] = percent[~raster.valid] = NODATA
    ours = mapped(raster, spec, block_px, FakeSegmenter(spec))
    assert np.array_equal(ours[0], labels)
    assert np.array_equal(ours[1], percent)


@settings(max_examples=25, deadline=None)
@given(rasters(), st.sampled_from([4, 8, 12, 15]), st.integers(1, 200))
def test_hann_agrees_with_monai(raster: Raster, margin: int, block_px: int) -> None:
    spec = SegmentSpec(64, margin, "hann")
    raster = Raster(raster.pixels, np.ones_like(raster.valid))
    theirs = sliding_window_inference(
        torch.from_numpy(raster.pixels[None].astype(np.float32)),
        roi_size=(64, 64),
        sw_batch_size=1,
        predictor=lambda x: torch.from_numpy(FakeSegmenter(spec).probabilities(x.numpy())),
        overlap=2 * margin / 64,
        roi_weight_map=torch.from_numpy(hann_window(64)),
        padding_mode="constant",
        cval=FILL,
    )[0].numpy()
    lattice = Lattice(*raster.valid.shape, spec)
    for block in Blocks.of(lattice, block_px):
        ours = block_scores(raster.read(block, lattice), FakeSegmenter(spec), lattice, 3)
        np.testing.assert_allclose(ours, theirs[(slice(None), *block.core.within(lattice.window))], atol=2e-5)


@settings(max_examples=30, deadline=None)
@given(rasters(), specs, st.integers(1, 200))
def test_a_constant_network_gives_a_constant_map(raster: Raster, spec: SegmentSpec, block_px: int) -> None:
    raster = Raster(raster.pixels, np.ones_like(raster.valid))
    labels, percent = mapped(raster, spec, block_px, FakeConstantSegmenter(spec))
    assert (labels == 2).all()
    assert (percent == 50).all()


def test_patches_without_a_wanted_pixel_never_reach_the_network() -> None:
    spec = SegmentSpec(64, 8)
    valid = np.zeros((96, 96), bool)
    valid[:5, :5] = True
    segmenter = FakeSegmenter(spec)
    labels, _ = mapped(Raster(np.zeros((2, 96, 96), np.uint8), valid), spec, 48, segmenter)
    assert segmenter.patches_seen == 1
    assert (labels != NODATA).sum() == 25


@given(st.integers(0, 7))
def test_symmetries_are_undone(index: int) -> None:
    pixels = np.arange(2 * 4 * 4).reshape(2, 4, 4)
    assert np.array_equal(undo_symmetry(index, list(symmetries(pixels))[index]), pixels)


def test_the_eight_symmetries_differ() -> None:
    assert len({s.tobytes() for s in symmetries(np.arange(16).reshape(4, 4))}) == 8


def test_equal_scores_go_to_the_lower_class() -> None:
    scores = np.full((3, 1, 2), 1 / 3, np.float32)
    labels, percent = choose_labels(scores, np.array([[True, False]]), LEGEND)
    assert labels.tolist() == [[1, NODATA]]
    assert percent.tolist() == [[33, NODATA]]

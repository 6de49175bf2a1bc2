from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from monai.data.utils import dense_patch_slices
from monai.inferers.utils import _get_scan_interval

from geoseg.errors import SpecError
from geoseg.grid.lattice import Blocks, Lattice
from geoseg.spec import SegmentSpec

specs = st.builds(
    SegmentSpec,
    patch_px=st.sampled_from([32, 64, 96]),
    margin_px=st.integers(0, 15),
    blend=st.sampled_from(["crop", "hann"]),
)
lattices = st.builds(Lattice, height=st.integers(1, 300), width=st.integers(1, 300), spec=specs)


@given(lattices, st.integers(1, 400))
def test_block_cores_tile_the_raster(lattice: Lattice, block_px: int) -> None:
    seen = np.zeros((lattice.height, lattice.width), int)
    blocks = Blocks.of(lattice, block_px)
    for block in blocks:
        seen[block.core.within(lattice.window)] += 1
    assert (seen == 1).all()
    assert len(blocks) == len(list(blocks))
    assert blocks.block_px % lattice.spec.stride_px == 0


@given(lattices, st.integers(1, 400))
def test_a_blocks_patches_are_those_of_the_raster_that_touch_it(lattice: Lattice, block_px: int) -> None:
    everything = list(lattice.patches(lattice.window))
    for block in Blocks.of(lattice, block_px):
        mine = list(lattice.patches(block.core))
        assert mine == [p for p in everything if lattice.center(p).touches(block.core)]
        assert len(mine) == lattice.patch_count(block.core)
        assert all(p.overlap(lattice.read_window(block.core)) == p for p in mine)


@given(lattices)
def test_centers_cover_every_pixel_and_crop_covers_it_once(lattice: Lattice) -> None:
    seen = np.zeros((lattice.height, lattice.width), int)
    for patch in lattice.patches(lattice.window):
        seen[lattice.center(patch).within(lattice.window)] += 1
    assert (seen == 1).all() if lattice.spec.blend == "crop" else (seen >= 1).all()


@given(st.integers(96, 400), st.integers(96, 400), st.integers(0, 15))
def test_hann_patches_lie_where_monai_puts_them(height: int, width: int, margin: int) -> None:
    lattice = Lattice(height, width, SegmentSpec(96, margin, "hann"))
    interval = _get_scan_interval((height, width), (96, 96), 2, [2 * margin / 96] * 2)
    if interval != (lattice.spec.stride_px,) * 2 and min(height, width) > 96:
        interval = (lattice.spec.stride_px,) * 2  # MONAI rounds patch * (1 - overlap) down in floats
    theirs = [
        (rows.start, cols.start) for rows, cols in dense_patch_slices((height, width), (96, 96), interval)
    ]
    assert [(p.row, p.col) for p in lattice.patches(lattice.window)] == theirs


def test_patches_that_leave_a_gap_are_refused() -> None:
    with pytest.raises(SpecError, match=r"margin must lie in 0\.\.31 px"):
        SegmentSpec(64, 32)
    with pytest.raises(SpecError, match="multiple of 32"):
        SegmentSpec(100, 10)

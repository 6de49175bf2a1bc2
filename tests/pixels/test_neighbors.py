"""Walls and neighbors against pixels, and against distances that shapely measures."""

from __future__ import annotations

import numpy as np
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from geoseg.grid.window import Window
from geoseg.pixels.neighbors import beside, cells_of, sides_of, wall_groups
from geoseg.pixels.polygons import polygonize_block
from tests.pixels.test_squaring import towns

CLASSES = (1, 2, 3)


def images():
    shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=14)
    return hnp.arrays(np.uint8, shapes, elements=st.sampled_from([0, 1, 1, 2, 3])) | towns()


def polygons_of(labels: np.ndarray, window: Window | None = None):
    """Polygons, and which of them each pixel belongs to: -1 for none."""
    pieces = polygonize_block(labels, window or Window(0, 0, *labels.shape), CLASSES)
    rows, cols = pieces.first_pixels()
    first = (rows - window.row, cols - window.col) if window else (rows, cols)
    owner = np.full(labels.shape, -1)
    for class_id in CLASSES:
        parts, count = ndimage.label(labels == class_id)
        number = np.full(count + 1, -1)
        mine = np.flatnonzero(pieces.class_ids == class_id)
        number[parts[first[0][mine], first[1][mine]]] = mine
        owner = np.where(parts > 0, number[parts], owner)
    return pieces.geometries(), owner


@settings(max_examples=150)
@given(images(), st.sampled_from([(0, 0), (10**6, 3 * 10**6)]))
def test_groups_are_those_of_pixels_side_by_side(labels, place):
    polygons, owner = polygons_of(labels, Window(*place, *labels.shape))
    if not len(polygons):
        return
    pairs = [(owner[:-1].ravel(), owner[1:].ravel()), (owner[:, :-1].ravel(), owner[:, 1:].ravel())]
    one, two = np.concatenate(pairs, axis=1)
    both = (one >= 0) & (two >= 0)
    graph = coo_array((np.ones(both.sum()), (one[both], two[both])), shape=(len(polygons),) * 2)
    expected = connected_components(graph, directed=False)[1]
    found = wall_groups(sides_of(polygons), len(polygons))
    assert (
        len(set(zip(found.tolist(), expected.tolist(), strict=True))) == len(set(expected)) == len(set(found))
    )


@settings(max_examples=150)
@given(images(), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_all_that_is_near_is_found_and_nothing_far_away(labels, cell_px, seed):
    polygons, _ = polygons_of(labels)
    if not len(polygons):
        return
    marked = np.random.default_rng(seed).random(len(polygons)) < 0.2
    found = beside(cells_of(sides_of(polygons), cell_px), marked)
    if not marked.any():
        assert not found.any()
        return
    apart = shapely.distance(shapely.boundary(polygons)[:, None], shapely.boundary(polygons)[marked]).min(
        axis=1
    )
    assert found[apart <= cell_px].all()
    assert (apart[found] <= 2 * np.sqrt(2) * cell_px).all()

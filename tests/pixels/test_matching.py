"""Objects, their matches and average precision are those of a brute-force matcher; windows change nothing."""

import random as plain_random
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.grid.window import Window
from geoseg.pixels.matching import ObjectScore, PartJoiner, average_precision, find_parts

NONE = 255


def components(mask):
    """Sets of pixels that share sides, by flood fill."""
    left, found = {tuple(p) for p in np.argwhere(mask).tolist()}, []
    for start in sorted(left):
        if start not in left:
            continue
        left.discard(start)
        stack, members = [start], set()
        while stack:
            r, c = stack.pop()
            members.add((r, c))
            for near in ((r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)):
                if near in left:
                    left.discard(near)
                    stack.append(near)
        found.append(members)
    return found


def by_brute_force(truth, mapped, scored, percent, inside):
    """Every object against every other, with sets of pixels."""
    good = {tuple(p) for p in np.argwhere(scored).tolist()}
    within = {tuple(p) for p in np.argwhere(inside).tolist()}
    truths, maps = components(truth), components(mapped)

    def iou(t, m):
        t, m = truths[t] & good, maps[m] & good
        return len(t & m) / len(t | m) if t | m else 0.0

    def confidence(m):
        values = [int(percent[p]) for p in maps[m] if percent[p] != NONE]
        return sum(values) / len(values) if values else -1

    def greedy(order, enough):
        owner = {}
        for m in order:
            best = max(
                (t for t in range(len(truths)) if t not in owner.values() and enough(iou(t, m))),
                key=lambda t: (iou(t, m), -t), default=None,
            )  # fmt: skip
            if best is not None:
                owner[m] = best
        return owner

    def here(objects, n):
        return 2 * len(objects[n] & within) > len(objects[n])

    def judged(objects, n):
        return 2 * len(objects[n] & good) > len(objects[n])

    def split(owner):
        counted = [
            t for t in range(len(truths)) if here(truths, t) and (judged(truths, t) or t in owner.values())
        ]
        wrong = [m for m in range(len(maps)) if m not in owner and judged(maps, m) and here(maps, m)]
        right = {m: t for m, t in owner.items() if here(truths, t)}
        return counted, wrong, right

    counted, wrong, right = split(greedy(range(len(maps)), lambda v: v > 0.5))
    aps = []
    for least in (0.5, 0.75):
        order = sorted(range(len(maps)), key=lambda m: (-confidence(m), m))
        labelled, missed, found = split(greedy(order, lambda v, least=least: v >= least))
        hits = [m in found for m in order if m in found or m in missed]
        aps.append(ap_by_loop(hits, len(labelled)))
    total = sum(iou(t, m) for m, t in right.items())
    return len(counted), len(wrong) + len(right), len(right), total, *aps


def ap_by_loop(hits, truth):
    """Mean over 101 recalls of the best precision at that recall or a higher one."""
    if not truth:
        return None
    points = [(sum(hits[: n + 1]) / truth, sum(hits[: n + 1]) / (n + 1)) for n in range(len(hits))]
    return np.mean([max((p for r, p in points if r >= level), default=0) for level in np.linspace(0, 1, 101)])


def world(seed, height, width):
    rng = np.random.default_rng(seed)
    coarse = rng.random((height // 3 + 1, width // 3 + 1)) < 0.45
    truth = coarse.repeat(3, 0).repeat(3, 1)[:height, :width]
    mapped = truth ^ (rng.random(truth.shape) < 0.12)
    scored = rng.random((height // 5 + 1, width // 5 + 1)).repeat(5, 0).repeat(5, 1)[:height, :width] < 0.85
    percent = rng.integers(0, 12, truth.shape).astype(np.uint8)
    percent[rng.random(truth.shape) < 0.3] = NONE
    inside = np.zeros(truth.shape, bool)
    inside[height // 3 :, : 2 * width // 3 + 1] = True
    return truth & scored, mapped & scored, scored, percent, inside


def scores_of(truth, mapped, scored, percent, inside, side, seed=0):
    scene = Window(0, 0, *truth.shape)
    cuts = [
        Window(r, c, side, side).overlap(scene)
        for r in range(0, scene.height, side)
        for c in range(0, scene.width, side)
    ]
    plain_random.Random(seed).shuffle(cuts)
    joiner = PartJoiner()
    for w in cuts:
        at = w.within(scene)
        places = [(0, np.s_[:, :], inside[at])]
        joiner.add(find_parts(truth[at], mapped[at], scored[at], percent[at], w, scene.width, places))
    objects = joiner.result()
    return objects.score(None), objects.score(0)


@given(st.integers(0, 9999), st.integers(1, 22), st.integers(1, 22), st.integers(1, 24))
def test_scores_are_those_of_brute_force_for_any_windows(seed, height, width, side):
    arrays = world(seed, height, width)
    everywhere = np.ones((height, width), bool)
    for found, inside in zip(scores_of(*arrays, side, seed), (everywhere, arrays[-1]), strict=True):
        expected = by_brute_force(*arrays[:-1], inside)
        assert astuple(found)[:3] == expected[:3]
        assert found.iou_sum == pytest.approx(expected[3])
        assert found.ap50 == (None if expected[4] is None else pytest.approx(expected[4]))
        assert found.ap75 == (None if expected[5] is None else pytest.approx(expected[5]))


@given(st.integers(0, 9999))
def test_objects_that_reach_beyond_what_is_scored(seed):
    """Here masks are not cut to what is scored, as where a map goes on beyond its labels."""
    rng = np.random.default_rng(seed)
    truth, mapped, scored, percent, inside = world(seed, 20, 20)
    mapped = mapped | (~scored & (rng.random(truth.shape) < 0.7))
    truth = truth & scored
    found = scores_of(truth, mapped, scored, percent, inside, 7)[1]
    expected = by_brute_force(truth, mapped, scored, percent, inside)
    assert astuple(found)[:3] == expected[:3]
    assert found.iou_sum == pytest.approx(expected[3])


@settings(max_examples=15)
@given(st.integers(0, 9999))
def test_one_window_or_many_give_the_same_bits(seed):
    arrays = world(seed, 40, 40)
    whole = scores_of(*arrays, 40)
    assert scores_of(*arrays, 3, seed) == whole
    assert scores_of(*arrays, 11, seed) == whole


def example():
    """Three labelled houses: one found exactly, one half too large (IoU 2/3), one missed; one found where none is."""
    truth, mapped = np.zeros((2, 3, 30), bool)
    truth[0, 0:4], mapped[0, 0:4] = True, True
    truth[0, 10:14], mapped[0, 10:16] = True, True
    truth[2, 0:4] = True
    mapped[2, 20:24] = True
    percent = np.full(truth.shape, NONE, np.uint8)
    percent[0, 0:4], percent[0, 10:16], percent[2, 20:24] = 60, 90, 80
    return truth, mapped, np.ones(truth.shape, bool), percent, np.ones(truth.shape, bool)


def test_an_example_to_check_by_eye():
    found, _ = scores_of(*example(), 8)
    assert (found.truth, found.mapped, found.matched) == (3, 3, 2)
    assert found.iou_sum == pytest.approx(1 + 2 / 3)
    # By confidence: right, wrong, right: precision 1 up to a recall of 1/3, 2/3 up to 2/3.
    assert found.ap50 == pytest.approx((34 * 1 + 33 * 2 / 3) / 101)
    # At 0.75 only the last is right: precision 1/3 up to a recall of 1/3.
    assert found.ap75 == pytest.approx(34 / 3 / 101)
    written = found.to_dict()
    assert written["precision"] == written["recall"] == written["f1"] == 2 / 3
    assert written["panoptic_quality"] == pytest.approx((1 + 2 / 3) / 3)
    assert written["mean_matched_iou"] == pytest.approx(5 / 6)


def test_of_two_that_match_as_well_the_surer_one_wins():
    """A house that the map has in two halves, each an IoU of just 0.5, around a pixel without answer."""
    truth, mapped = np.zeros((2, 1, 5), bool)
    truth[:], mapped[:] = True, [1, 1, 0, 1, 1]
    scored = mapped.copy()
    percent = np.array([[60, 60, NONE, 90, 90]], np.uint8)
    found, _ = scores_of(truth, mapped, scored, percent, scored, 5)
    assert (found.matched, found.ap50, found.ap75) == (0, 1.0, 0.0)


def test_an_object_counts_in_the_region_that_holds_most_of_it():
    truth, mapped, scored, percent, inside = example()
    inside[:] = False
    inside[:, 0:3] = True  # three of the four pixels of both western houses
    _, found = scores_of(truth, mapped, scored, percent, inside, 5)
    assert (found.truth, found.mapped, found.matched) == (2, 1, 1)
    inside[:, 2:] = False  # one half is not most of it
    _, found = scores_of(truth, mapped, scored, percent, inside, 5)
    assert (found.truth, found.mapped, found.matched) == (0, 0, 0)


def test_nothing_at_all():
    nothing = np.zeros((4, 4), bool)
    found, _ = scores_of(nothing, nothing, ~nothing, np.zeros((4, 4), np.uint8), ~nothing, 3)
    assert found == ObjectScore(0, 0, 0, 0.0, None, None)
    assert set(found.to_dict().values()) == {0, None}


@given(st.lists(st.booleans(), max_size=12), st.integers(0, 5))
def test_average_precision_is_that_of_a_plain_loop(hits, missed):
    truth = sum(hits) + missed
    expected = ap_by_loop(hits, truth)
    found = average_precision(np.array(hits, bool), truth)
    assert found is None if expected is None else found == pytest.approx(expected)

"""Losses against torch and segmentation-models-pytorch, and what pixels of several classes may teach."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from geoseg.legend import LandClass, Legend
from geoseg.train.config import LossSettings
from geoseg.train.labels import IGNORED, SET
from geoseg.train.losses import WeightedLoss
from geoseg.train.scores import confusion_of, iou_of

import segmentation_models_pytorch as smp  # isort: skip

NAMES = ("building", "road", "land", "water", "snow")
LEGEND = Legend(tuple(LandClass(i, name, (0, 0, 0)) for i, name in enumerate(NAMES)))
CLASSES = len(NAMES)
ONLY_SETS = {"cross_entropy": 1.0, "dice": 0.0, "label_smoothing": 0.0}


def loss_of(**settings: object) -> WeightedLoss:
    none = {"cross_entropy": 0.0, "dice": 0.0}
    return WeightedLoss(LossSettings.model_validate(none | settings), LEGEND)


def batch(seed: int, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(2, CLASSES, 6, 7, generator=rng)
    targets = torch.randint(0, CLASSES, (2, 6, 7), generator=rng)
    targets[torch.rand(targets.shape, generator=rng) < 0.2] = IGNORED
    return logits, targets


def code(*channels: int) -> int:
    return SET + sum(1 << channel for channel in channels)


seeds = st.integers(0, 2**31)
sets = st.sets(st.integers(0, CLASSES - 1), min_size=1, max_size=CLASSES)


@given(seeds, st.floats(0, 0.5), st.lists(st.floats(0.1, 5), min_size=CLASSES, max_size=CLASSES))
def test_cross_entropy_is_torchs(seed, smoothing, weights):
    logits, targets = batch(seed)
    named = dict(zip(NAMES, weights, strict=True))
    loss = loss_of(cross_entropy=2.0, label_smoothing=smoothing, class_weights=named)
    expected = F.cross_entropy(
        logits, targets, torch.tensor(weights), ignore_index=IGNORED, label_smoothing=smoothing
    )
    torch.testing.assert_close(loss(logits, targets), 2 * expected)


THEIRS = {
    "dice": smp.losses.DiceLoss("multiclass", ignore_index=IGNORED),
    "focal": smp.losses.FocalLoss("multiclass", gamma=1.5, ignore_index=IGNORED),
    "lovasz": smp.losses.LovaszLoss("multiclass", ignore_index=IGNORED),
    "tversky": smp.losses.TverskyLoss("multiclass", ignore_index=IGNORED, alpha=0.2, beta=0.8),
}


@pytest.mark.parametrize("name", THEIRS)
def test_the_other_losses_are_those_of_the_library_by_weight(name):
    logits, targets = batch(1)
    loss = loss_of(**{name: 0.7}, focal_gamma=1.5, tversky_alpha=0.2)
    torch.testing.assert_close(loss(logits, targets), 0.7 * THEIRS[name](logits, targets))


def test_weights_add_up():
    logits, targets = batch(2)
    parts = {
        "cross_entropy": 0.5,
        "dice": 0.25,
        "focal": 2.0,
        "lovasz": 1.5,
        "tversky": 3.0,
        "reverse_cross_entropy": 0.1,
    }
    alone = sum(loss_of(**{name: weight})(logits, targets) for name, weight in parts.items())
    torch.testing.assert_close(loss_of(**parts)(logits, targets), alone)


def test_a_tversky_loss_without_preference_is_dice():
    logits, targets = batch(3)
    torch.testing.assert_close(
        loss_of(tversky=1.0, tversky_alpha=0.5)(logits, targets), loss_of(dice=1.0)(logits, targets)
    )


def test_reverse_cross_entropy_is_that_of_its_paper():
    """Minus the sum of p log q, q the label as a distribution, with -4 for log 0."""
    logits, targets = batch(4)
    kept = targets != IGNORED
    p = logits.movedim(1, -1).softmax(-1)[kept]
    log_q = torch.where(F.one_hot(targets[kept], CLASSES) > 0, 0.0, -4.0)
    torch.testing.assert_close(
        loss_of(reverse_cross_entropy=1.0)(logits, targets), -(p * log_q).sum(-1).mean()
    )


@given(seeds, st.lists(st.floats(0.1, 5), min_size=CLASSES, max_size=CLASSES), st.floats(0, 1))
def test_a_set_of_one_class_is_that_class(seed, weights, share):
    """Whatever share of the pixels is told so."""
    logits, targets = batch(seed)
    chosen = (torch.rand(targets.shape, generator=torch.Generator().manual_seed(seed)) < share) & (
        targets != IGNORED
    )
    as_sets = torch.where(chosen, SET + (1 << targets.clamp(max=CLASSES)), targets)
    named = dict(zip(NAMES, weights, strict=True))
    loss = loss_of(cross_entropy=1.0, label_smoothing=0.0, reverse_cross_entropy=0.5, class_weights=named)
    torch.testing.assert_close(loss(logits, as_sets), loss(logits, targets))


def test_a_set_weighs_as_the_mean_of_its_classes():
    """Of two pixels with one answer, by hand."""
    logits = torch.tensor([0.3, -1.0, 0.5, 2.0, 0.1]).reshape(1, CLASSES, 1, 1).expand(1, CLASSES, 1, 2)
    p = logits[0, :, 0, 0].softmax(0)
    loss = loss_of(
        cross_entropy=1.0, label_smoothing=0.0, class_weights={"road": 5.0, "water": 2.0, "land": 4.0}
    )
    expected = -(2 * p[3].log() + 4.5 * (p[1] + p[2]).log()) / 6.5
    torch.testing.assert_close(loss(logits, torch.tensor([[[3, code(1, 2)]]])), expected)


@given(seeds, sets)
def test_a_set_is_learned_as_one_merged_class(seed, possible):
    """Cross entropy over two classes: the merged one and all others."""
    logits, _ = batch(seed)
    targets = torch.full((2, 6, 7), code(*possible))
    p = logits.double().softmax(1)[:, sorted(possible)].sum(1)
    torch.testing.assert_close(loss_of(cross_entropy=1.0)(logits, targets), -p.log().mean().float())


@given(seeds, st.sets(st.integers(0, CLASSES - 1), min_size=2, max_size=CLASSES - 1))
def test_possible_classes_are_pushed_in_proportion_to_their_own_chance(seed, possible):
    """So their odds are not taught; and no class outside the set gains."""
    logits, _ = batch(seed, scale=1.0)
    logits.requires_grad_()
    targets = torch.full((2, 6, 7), code(*possible))
    loss_of(cross_entropy=1.0, reverse_cross_entropy=1.0, dice=1.0, label_smoothing=0.1)(
        logits, targets
    ).backward()
    push = -logits.grad.double()
    p = logits.detach().double().softmax(1)
    inside = sorted(possible)
    outside = sorted(set(range(CLASSES)) - possible)
    rate = push[:, inside] / p[:, inside]
    torch.testing.assert_close(rate, rate[:, :1].expand_as(rate), rtol=1e-3, atol=1e-5)
    assert (push[:, inside] >= 0).all()
    assert (push[:, outside] <= 0).all()


@given(seeds)
def test_background_that_is_no_building_raises_that_class_nowhere(seed):
    """One step down the gradient, with every loss on, over labelled buildings and their background."""
    logits, targets = batch(seed, scale=1.0)
    targets[targets != 0] = code(1, 2, 3, 4)
    every = dict.fromkeys(
        ("cross_entropy", "dice", "focal", "lovasz", "tversky", "reverse_cross_entropy"), 1.0
    )
    logits.requires_grad_()
    loss_of(**every)(logits, targets).backward()
    before, after = (z.detach().softmax(1)[:, 0] for z in (logits, logits - 0.1 * logits.grad))
    background = targets >= SET
    assert (after[background] < before[background]).all()
    assert (after[targets == 0] > before[targets == 0]).all()
    assert logits.grad[:, 1:].movedim(1, -1)[background].abs().sum() > 0


@given(seeds)
def test_only_cross_entropies_learn_from_sets(seed):
    logits, targets = batch(seed)
    as_set = torch.where(targets == IGNORED, code(1, 2), targets)
    for name in THEIRS:
        torch.testing.assert_close(
            loss_of(**{name: 1.0})(logits, as_set), loss_of(**{name: 1.0})(logits, targets)
        )


@pytest.mark.parametrize("target", [IGNORED, code(1, 2)])
def test_a_batch_without_classes_has_a_finite_loss_and_gradient(target):
    logits, _ = batch(5, scale=60.0)
    logits.requires_grad_()
    every = dict.fromkeys(
        ("cross_entropy", "dice", "focal", "lovasz", "tversky", "reverse_cross_entropy"), 1.0
    )
    loss = loss_of(**every)(logits, torch.full((2, 6, 7), target))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
    if target == IGNORED:
        assert loss == 0
        assert not logits.grad.any()


def test_a_checkpoint_holds_nothing_of_the_loss():
    assert not loss_of(cross_entropy=1.0, dice=1.0).state_dict()


@given(seeds, st.lists(sets, min_size=1, max_size=4))
def test_scores_count_what_is_known(seed, possible):
    """Where only a set is known, a choice outside it is a false positive, and one inside it is left out."""
    rng = torch.Generator().manual_seed(seed)
    chosen = torch.randint(0, CLASSES, (9, 9), generator=rng)
    values = torch.tensor([*range(CLASSES), IGNORED, *(code(*s) for s in possible)])
    targets = values[torch.randint(0, len(values), (9, 9), generator=rng)]
    expected = torch.zeros(CLASSES + 1, CLASSES, dtype=torch.int64)
    for target, choice in zip(targets.flatten().tolist(), chosen.flatten().tolist(), strict=True):
        if target < CLASSES:
            expected[target, choice] += 1
        elif target >= SET and not (target - SET) >> choice & 1:
            expected[CLASSES, choice] += 1
    confusion = confusion_of(chosen, targets, CLASSES)
    torch.testing.assert_close(confusion, expected)
    hits = expected[:CLASSES].diagonal().double()
    truth = expected[:CLASSES].sum(1)
    expected_iou = torch.where(truth > 0, hits / (truth + expected.sum(0) - hits), torch.nan)
    torch.testing.assert_close(iou_of(confusion), expected_iou, equal_nan=True)


def test_logits_of_half_precision_are_summed_in_full():
    logits, targets = batch(6)
    logits = logits.bfloat16()
    loss = loss_of(cross_entropy=1.0, dice=1.0)(logits, targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, loss_of(cross_entropy=1.0, dice=1.0)(logits.float(), targets))


@pytest.mark.parametrize(
    ("background", "water_is"), [(code(1, 2, 3, 4), "water"), (NAMES.index("land"), "land")]
)
def test_buildings_alone_do_not_teach_that_all_else_is_land(background, water_is):
    """A linear classifier; few pixels labelled with all classes, and many with buildings only, all else water."""
    rng = torch.Generator().manual_seed(0)
    few, many = torch.arange(CLASSES).repeat(8), torch.where(torch.rand(2000, generator=rng) < 0.5, 0, 3)
    truth = torch.cat([few, many])
    seen = F.one_hot(truth, CLASSES) + 0.2 * torch.randn(len(truth), CLASSES, generator=rng)
    told = torch.cat([few, torch.where(many == 0, 0, background)])[None, :, None]
    weights = torch.zeros(CLASSES, CLASSES, requires_grad=True)
    optimizer, loss = torch.optim.Adam([weights], lr=0.1), loss_of(cross_entropy=1.0, dice=1.0)
    for _ in range(150):
        optimizer.zero_grad()
        loss((seen @ weights).T[None, :, :, None], told).backward()
        optimizer.step()
    answers = (seen @ weights).argmax(1)
    assert (answers[truth == 0] == 0).float().mean() > 0.95
    assert (answers[truth == 3] == NAMES.index(water_is)).float().mean() > 0.9

"""Bundles that are broken or altered start nothing, and nothing in them is unpickled."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from geoseg.model.bundle import CARD, sha256_of
from geoseg.model.card import IR_BIN, IR_XML, WEIGHTS
from tests.bad_input.attempt import NOTHING_STARTED, Try

Change = Callable[[Path, dict[str, Any]], object]


@pytest.fixture
def bundle(tmp_path: Path, tiny_bundle: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def alter(bundle: Path, change: Change, ir: bool = True, honest: bool = True) -> None:
    """Change files and card fields; without its IR the weights are read. honest: the card's digests are made right."""
    card = json.loads((bundle / CARD).read_text())
    if not ir:
        for name in (IR_XML, IR_BIN):
            (bundle / name).unlink()
            del card["files"][name]
    change(bundle, card)
    if honest:
        card["files"] = {name: sha256_of(bundle / name) for name in card["files"]}
    (bundle / CARD).write_text(json.dumps(card))


def halve(name: str) -> Change:
    return lambda folder, _: (folder / name).write_bytes((folder / name).read_bytes()[:5000])


def test_a_bundle_that_is_not_there(run: Try, good: Path, tmp_path: Path) -> None:
    run(good, model=tmp_path / "gone").refused(NOTHING_STARTED, tmp_path / "gone", "no such bundle")
    run(good, model=good).refused(NOTHING_STARTED, good, "no such bundle")


@pytest.mark.parametrize(
    "content",
    [None, b"", b'{"name":', b"[]", b"[" * 100_000, b"\xff\xfe\x00", b'"' + b"x" * (5 << 20) + b'"'],
)
def test_a_card_that_cannot_be_read(run: Try, good: Path, bundle: Path, content: bytes | None) -> None:
    (bundle / CARD).unlink()
    if content is not None:
        (bundle / CARD).write_bytes(content)
    run(good, model=bundle).refused(NOTHING_STARTED, bundle, CARD)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda _, card: card.update(surprise=1), "surprise: Extra inputs are not permitted"),
        (lambda _, card: card.pop("dtype"), "dtype: Field required"),
        (lambda _, card: card["classes"][1].update(id=1), "class ids must be distinct and rising"),
        (lambda _, card: card["classes"][1].update(name="building"), "class names must be distinct"),
        (lambda _, card: card["classes"][1].update(id=255), "classes.1.id"),
        (lambda _, card: card.update(bands=[]), "bands"),
        (
            lambda _, card: card["bands"][0].update(mean=float("nan")),
            "bands.0.mean: Input should be a finite number",
        ),
        (lambda _, card: card["bands"][0].update(mean=1e6), "a mean of 1000000.0 is no value of uint8"),
        (lambda _, card: card["bands"][0].update(mean=-1), "a mean of -1.0 is no value of uint8"),
        (lambda _, card: card.update(patch_px=100), "patch size must be a multiple of 32"),
        (lambda _, card: card.update(files={}), "files names no model.safetensors"),
        (lambda _, card: card["files"].update({"../../etc/passwd": "0" * 64}), "files"),
    ],
)
def test_a_card_that_does_not_hold(run: Try, good: Path, bundle: Path, change: Change, words: str) -> None:
    alter(bundle, change, honest=False)
    run(good, model=bundle).refused(NOTHING_STARTED, words)


@pytest.mark.parametrize("name", [WEIGHTS, IR_XML, IR_BIN])
def test_a_file_that_is_not_what_the_card_says(run: Try, good: Path, bundle: Path, name: str) -> None:
    alter(bundle, halve(name), honest=False)
    run(good, model=bundle).refused(NOTHING_STARTED, bundle / name, "digest", "damaged or altered")
    (bundle / name).unlink()
    run(good, model=bundle).refused(NOTHING_STARTED, bundle, f"names {name}, which is not there")


class Trap:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("ir", [True, False])
def test_a_pickle_under_the_name_of_safetensors_is_never_loaded(
    run: Try, good: Path, bundle: Path, tmp_path: Path, ir: bool
) -> None:
    mark = tmp_path / "executed"
    alter(bundle, lambda folder, _: (folder / WEIGHTS).write_bytes(pickle.dumps(Trap(mark))), ir=ir)
    run(good, model=bundle).refused(NOTHING_STARTED, bundle / WEIGHTS, "is not a safetensors file")
    assert not mark.exists()
    pickle.loads((bundle / WEIGHTS).read_bytes())
    assert mark.exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (halve(WEIGHTS), "is not a safetensors file"),
        (lambda folder, _: save_file({"a": np.zeros(3)}, folder / WEIGHTS), "does not fit DeepLabV3Plus"),
        (lambda _, card: card["bands"].pop(), "does not fit DeepLabV3Plus with mobilenet_v2"),
        (lambda _, card: card.update(architecture="Nonesuch"), "no network 'Nonesuch'"),
        (lambda _, card: card.update(encoder="../../x"), "no network 'DeepLabV3Plus' with encoder '../../x'"),
    ],
)
def test_weights_that_do_not_fit_the_card(
    run: Try, good: Path, bundle: Path, change: Change, words: str
) -> None:
    alter(bundle, change, ir=False)
    run(good, model=bundle).refused(NOTHING_STARTED, words)


@pytest.mark.parametrize(
    "change",
    [
        lambda folder, _: (folder / IR_XML).write_text("<net>broken"),
        halve(IR_XML),
        halve(IR_BIN),
        lambda _, card: card["bands"].pop(),
    ],
)
def test_a_broken_representation(run: Try, good: Path, bundle: Path, change: Change) -> None:
    alter(bundle, change)
    run(good, model=bundle).refused(NOTHING_STARTED, bundle / IR_XML, "OpenVINO cannot read the network")


def test_a_representation_with_other_classes(run: Try, good: Path, bundle: Path) -> None:
    alter(bundle, lambda _, card: card["classes"].pop())
    run(good, model=bundle).refused(NOTHING_STARTED, bundle / IR_XML, "answers 5 classes, the card names 4")


def test_a_broken_bundle_costs_every_scene_and_no_results(
    run: Try, good: Path, bundle: Path, tmp_path: Path
) -> None:
    alter(bundle, halve(IR_BIN))
    twin = Path(shutil.copy(good, tmp_path / "twin.tif"))
    tried = run(good, twin, model=bundle)
    assert tried.code == NOTHING_STARTED
    assert len(tried.errors) == len(tried.stderr) == 2
    assert not tried.published

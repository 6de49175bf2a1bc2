"""Cards that call logits probabilities, or the reverse, and statistics of values that were scaled before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError

from geoseg.errors import ModelError
from geoseg.legend import role_remarks
from geoseg.model.answers import fault
from geoseg.model.bundle import CARD, Bundle
from geoseg.model.card import WEIGHTS, ModelCard
from geoseg.model.importing import Foreign, import_model
from geoseg.run.models import verify
from tests.model.networks import card_of, write_onnx

RNG = np.random.default_rng(1)
LOGITS = arrays(np.float32, st.tuples(*[st.integers(1, 3), st.integers(1, 4), *[st.just(5)] * 2]),
                elements=st.floats(-30, 30, width=32))  # fmt: skip


def softmax(logits: np.ndarray) -> np.ndarray:
    odds = np.exp(logits - logits.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True) if logits.shape[1] > 1 else 1 / (1 + np.exp(-logits))


@given(LOGITS)
def test_probabilities_are_probabilities_and_no_logits(logits: np.ndarray) -> None:
    shares = softmax(logits)
    if shares.shape[1] == 1 and np.array_equal(shares, np.round(shares)):
        return
    assert fault(shares, "probabilities") is None
    assert "write onnx: {output: probabilities}" in str(fault(shares, "logits"))


@given(LOGITS, st.floats(2, 9))
def test_logits_beyond_0_and_1_are_logits_and_no_probabilities(logits: np.ndarray, beyond: float) -> None:
    logits[0, 0, 0, 0] = beyond + 0.5 - int(beyond) % 2 * 12
    logits[-1, -1, -1, -1] += np.float32(0.25)
    if np.array_equal(logits, np.round(logits)):
        return
    assert fault(logits, "logits") is None
    assert "write onnx: {output: logits}" in str(fault(logits, "probabilities"))


def test_other_answers_are_told_apart() -> None:
    each = RNG.uniform(0, 1, (2, 3, 8, 8))
    assert "exclude each other" in str(fault(each, "probabilities"))
    chosen = RNG.integers(0, 2, (2, 1, 8, 8)).astype(np.float32)
    for declared in ("logits", "probabilities"):
        assert "already chosen" in str(fault(chosen, declared))


def imported(folder: Path, network: dict[str, Any], **changes: Any) -> Bundle:
    card = card_of((120.0, 110.0, 100.0), (50.0, 45.0, 60.0), 4, **changes)
    folder.mkdir(exist_ok=True)
    given_ = {"weights": RNG.normal(0, 1.5, (4, 3)), "bias": RNG.normal(0, 0.5, 4)} | network
    source = write_onnx(folder / "net.onnx", **given_)
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    return import_model(Foreign.open(source), folder / "bundle", folder / "card.yaml")


@pytest.mark.parametrize("entry", ["normalized", "raw"])
@pytest.mark.parametrize(
    ("network", "declared", "words"),
    [
        ({"softmax": True}, "logits", "sum to 1 over the classes; write onnx: {output: probabilities}"),
        ({}, "probabilities", "no probabilities: they run from -.*; write onnx: {output: logits}"),
        ({"last": ("Sigmoid", {})}, "probabilities", "their sum over the classes runs from .* not 1"),
        ({"softmax": True}, "probabilities", None),
        ({}, "logits", None),
    ],
)
def test_an_import_holds_the_answers_to_the_card(
    tmp_path: Path, network: dict[str, Any], declared: str, words: str | None, entry: str
) -> None:
    """They gave a map with wrong classes or wrong confidence, without a word."""
    how = {"input": entry, "output": declared}
    if words is None:
        assert imported(tmp_path, network, onnx=how).card.onnx is not None
        return
    with pytest.raises(ModelError, match=words) as caught:
        imported(tmp_path, network, onnx=how)
    assert str(caught.value).startswith(str(tmp_path / "net.onnx")) and "\n" not in str(caught.value)
    assert not (tmp_path / "bundle").exists()


def test_verify_holds_them_too(tmp_path: Path) -> None:
    """A bundle, or an item of others, may come by another way than an import."""
    folder = imported(tmp_path, {"softmax": True}, onnx={"output": "probabilities"}).folder
    text = (folder / CARD).read_text()
    assert '"output": "probabilities"' in text
    (folder / CARD).write_text(text.replace('"output": "probabilities"', '"output": "logits"'))
    with pytest.raises(ModelError, match=r"write onnx: {output: probabilities}"):
        verify(str(folder))


def card_with(means: tuple[float, ...], stds: tuple[float, ...], dtype: str) -> ModelCard:
    fields = card_of(means, stds, 2, dtype=dtype, architecture="x", files={WEIGHTS: "0" * 64})
    return ModelCard.model_validate(fields)


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize(
    ("dtype", "words"),
    [("uint8", r"values 0\.\.255 are needed.*times 255"), ("uint16", "uint16"), ("int16", "int16")],
)
def test_statistics_of_scaled_values_are_refused(dtype: str, words: str) -> None:
    for means, stds in (IMAGENET, ((0.5,) * 3, (0.5,) * 3), ((0.0,), (0.0039,))):
        with pytest.raises(ValidationError, match=words):
            card_with(means, stds, dtype)
    card = card_with((120.0, 0.485), (50.0, 0.229), dtype).to_dict()
    card["bands"][1]["name"] = "Green"
    with pytest.raises(ValidationError, match="Green"):
        ModelCard.model_validate(card)


def test_other_statistics_stay() -> None:
    """Raw values, values divided by 255, a band of zeros and ones beside others, and pixels that are fractions."""
    card_with((0.0,) * 3, (1.0,) * 3, "uint8")
    card_with((0.0,) * 3, (255.0,) * 3, "uint8")
    card_with((0.4, 110.0), (0.3, 40.0), "uint8")
    card_with(*IMAGENET, "float32")


@settings(max_examples=30)
@given(st.floats(1.5, 250), st.floats(1, 120), st.sampled_from(["uint8", "uint16", "int16"]))
def test_statistics_of_whole_numbers_stay(mean: float, std: float, dtype: str) -> None:
    assert card_with((mean,), (std,), dtype).bands[0].mean == mean


@pytest.mark.parametrize(
    ("names", "roles", "told"),
    [
        (("buildings", "other"), (None, None), ["building"]),
        (("House", "main road"), (None, None), ["building", "road"]),
        (("building", "roads"), ("building", None), ["road"]),
        (("built", "other"), ("building", None), []),
        (("not building", "no_road"), (None, None), []),
        (("warehouses", "broad"), (None, None), []),
    ],
)
def test_a_class_named_so_without_the_role_is_told(names: Any, roles: Any, told: list[str]) -> None:
    card = card_with((100.0,), (50.0,), "uint8").to_dict()
    for entry, name, role in zip(card["classes"], names, roles, strict=True):
        entry |= {"name": name, "role": role}
    lines = role_remarks(ModelCard.model_validate(card).legend)
    assert [line.rpartition("role: ")[2] for line in lines] == told
    assert all(line.startswith("class ") and "\n" not in line for line in lines)

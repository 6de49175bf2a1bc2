from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from geoseg.errors import ModelError
from geoseg.grid.lattice import Block, Lattice
from geoseg.grid.window import Window
from geoseg.model.bundle import DEFAULT_BUNDLE, INCLUDED, Bundle, bundle_at
from geoseg.model.card import IR_BIN, IR_XML
from geoseg.model.export import write_card, write_ir
from geoseg.model.measure import compare_ways
from geoseg.model.openvino_segmenter import OpenVinoSegmenter
from geoseg.model.runtimes import MIN_EQUAL_LABELS, RuntimeChoice, SegmenterRecipe
from geoseg.pixels.labels import choose_labels
from geoseg.pixels.pixelblock import PixelBlock
from geoseg.spec import SegmentSpec
from geoseg.stages.segment import block_scores


def textures(count: int, side: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (count, 3, side // 16, side // 16), dtype=np.uint8)
    return coarse.repeat(16, 2).repeat(16, 3)


def recipe(bundle: Bundle, spec: SegmentSpec, runtime: str) -> SegmenterRecipe:
    return SegmenterRecipe.of(bundle, spec, RuntimeChoice.decide(bundle.card, runtime, "float32"))


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_the_graphs_choice_is_that_of_numpy_on_its_own_scores(tiny_bundle: Path, runtime: str) -> None:
    bundle, crop, whole = Bundle.open(tiny_bundle), SegmentSpec(256, 32), SegmentSpec(256, 32, "hann")
    choosing, scoring = recipe(bundle, crop, runtime).build(1, 1), recipe(bundle, whole, runtime).build(1, 1)
    for patch in textures(3, 256):
        ids, percent = choosing.classify(patch[None])
        scores = scoring.probabilities(patch[None])[0][:, 32:-32, 32:-32]
        np.testing.assert_allclose(scores.sum(axis=0), 1, atol=1e-5)
        labels, shares = choose_labels(scores, np.ones(scores.shape[1:], bool), bundle.card.legend)
        assert np.array_equal(ids[0], labels)
        assert np.abs(percent[0].astype(int) - shares).max() <= 1


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_equal_logits_go_to_the_lower_class(tiny_bundle: Path, tmp_path: Path, runtime: str) -> None:
    """A network whose last layer is zero has five equal logits everywhere."""
    from geoseg.model.export import write_bundle
    from geoseg.model.network import load_network

    bundle = Bundle.open(tiny_bundle)
    body = load_network(bundle).body
    for parameter in body.segmentation_head.parameters():
        parameter.zero_()
    card = bundle.card.model_dump(mode="json", exclude={"files"})
    flat = write_bundle(body, card, tmp_path / "flat")
    ids, percent = recipe(flat, SegmentSpec(256, 32), runtime).build(1, 1).classify(textures(1, 256))
    assert (ids == 1).all()
    assert (percent == 20).all()


def test_lanes_and_threads_change_no_bit_and_torch_repeats_itself(tiny_bundle: Path) -> None:
    bundle, spec = Bundle.open(tiny_bundle), SegmentSpec(256, 32)
    for runtime in ("openvino", "torch"):
        made = recipe(bundle, spec, runtime)
        assert (
            len({made.prove(made.build(lanes, threads)) for lanes, threads in ((1, 1), (1, 2), (2, 2))}) == 1
        )


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_an_answer_is_not_overwritten_by_the_next(tiny_bundle: Path, runtime: str) -> None:
    bundle, (first, second) = Bundle.open(tiny_bundle), textures(2, 256)
    scoring = recipe(bundle, SegmentSpec(256, 32, "hann"), runtime).build(1, 1)
    choosing = recipe(bundle, SegmentSpec(256, 32), runtime).build(1, 1)
    for answer in (scoring.probabilities, lambda patch: choosing.classify(patch)[0]):
        kept = answer(first[None])
        before = kept.copy()
        assert not np.array_equal(answer(second[None]), before)
        assert np.array_equal(kept, before)


def test_the_same_network_is_the_same_bytes(tiny_bundle: Path, tmp_path: Path) -> None:
    """Whatever the process has made before: a training that goes on ends with the bundle that is there already."""
    bundle = Bundle.open(tiny_bundle)
    for name in ("first", "second"):
        write_ir(bundle, tmp_path / name, bundle.card.patch_px)
    for file in (IR_XML, IR_BIN):
        first, second = ((tmp_path / name / file).read_bytes() for name in ("first", "second"))
        assert first == second == (tiny_bundle / file).read_bytes(), file


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_signal_finds_its_stack_after_networks_have_gone(tiny_bundle: Path, order: tuple[int, int]) -> None:
    """A process in which two networks of OpenVINO came and went handles signals; Ctrl-C is one of them."""
    code = f"""
import faulthandler, signal
from geoseg.model.bundle import Bundle
from geoseg.model.openvino_segmenter import OpenVinoSegmenter, native_bfloat16
from geoseg.spec import SegmentSpec

faulthandler.enable()
spec = SegmentSpec(256, 32)
networks = [OpenVinoSegmenter(Bundle.open({str(tiny_bundle)!r}), spec, "float32") for _ in range(2)]
native_bfloat16()
for n in {order}:
    networks[n] = None
signal.signal(signal.SIGINT, lambda *_: print("handled"))
signal.raise_signal(signal.SIGINT)
"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (process.returncode, process.stdout) == (0, "handled\n"), process.stderr


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_symmetries_are_averaged(tiny_bundle: Path, runtime: str) -> None:
    """One patch, against numpy's rotations and reflections written out."""
    bundle, spec = Bundle.open(tiny_bundle), SegmentSpec(256, 0, tta="d4")
    segmenter = recipe(bundle, spec, runtime).build(1, 1)
    (patch,) = textures(1, 256)
    expected = np.zeros((5, 256, 256))
    for flip in (False, True):
        for quarter in range(4):
            seen = np.rot90(patch[:, :, ::-1] if flip else patch, quarter, (1, 2)).copy()
            answer = np.rot90(segmenter.probabilities(seen[None])[0].copy(), -quarter, (1, 2))
            expected += (answer[:, :, ::-1] if flip else answer) / 8
    whole = Window(0, 0, 256, 256)
    pixels = PixelBlock(Block(0, 0, whole), whole, patch, np.ones((256, 256), bool))
    found = block_scores(pixels, segmenter, Lattice(256, 256, spec), 5)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_file_without_a_network_is_refused_in_one_line(tiny_bundle: Path, tmp_path: Path) -> None:
    """Though its digest is right."""
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "empty"))
    (folder / IR_XML).write_text('<?xml version="1.0"?><net name="x" version="11"><layers/><edges/></net>')
    bundle = write_card(folder, Bundle.open(tiny_bundle).card.to_dict())
    with pytest.raises(ModelError, match=r"must take one input|cannot read the network") as raised:
        OpenVinoSegmenter(bundle, SegmentSpec(256, 32), "float32")
    assert "\n" not in str(raised.value)


def test_another_model_under_the_same_name_is_refused(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    made = recipe(bundle, SegmentSpec(256, 32), "openvino")
    with pytest.raises(ModelError, match="another model"):
        SegmenterRecipe(made.bundle, "0" * 64, made.inputs, made.spec, made.choice).build(1, 1)


def test_the_bundled_model_holds_what_its_card_says() -> None:
    """Every precision that the default takes must answer as the reference does, here on drawn scenes."""
    from geoseg.demo.scene import render_demo

    bundle = Bundle.open(DEFAULT_BUNDLE)
    image = render_demo(seed=3, size=1024).image
    found = {
        way: e.labels for way, e in compare_ways(bundle, [image[:, :512, :512], image[:, 512:, 512:]]).items()
    }
    assert found["openvino-float32"] > 0.999
    for way, share in bundle.card.equal_labels.items():
        if way in found and share >= MIN_EQUAL_LABELS:
            assert found[way] >= MIN_EQUAL_LABELS - 0.003, way


def test_a_bundled_model_goes_by_its_name_where_no_file_has_it(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Bundle.open("buildings-drone").card.name == "buildings-drone"
    assert bundle_at("buildings-drone", tmp_path / "jobs") == INCLUDED / "buildings-drone"
    for other in (
        "jobs/buildings-drone",
        "./../buildings-drone",
        "",
        "..",
        "nonesuch",
        str(tmp_path / "landcover-rgb"),
    ):
        with pytest.raises(ModelError):
            Bundle.open(other)
    shutil.copytree(tiny_bundle, tmp_path / "buildings-drone")
    assert Bundle.open("buildings-drone").card.name == "tiny"


@pytest.mark.parametrize("folder", sorted(INCLUDED.iterdir()), ids=lambda folder: folder.name)
def test_a_bundled_model_fits_into_a_repository(folder: Path) -> None:
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 24e6

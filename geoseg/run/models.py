"""What the commands `geoseg models` and `geoseg model` do: list, show, verify, export, import."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from geoseg.demo.scene import MAX_SIZE, MIN_SIZE, render_demo
from geoseg.errors import ModelError, SpecError
from geoseg.grid.lattice import Blocks, Lattice
from geoseg.io.files import publish_bytes
from geoseg.io.sources import open_scene
from geoseg.legend import role_remarks
from geoseg.model.bundle import CARD, Bundle
from geoseg.model.card import ModelCard
from geoseg.model.measure import Equality, compare_ways, note_equal_labels
from geoseg.model.mlm import ITEM
from geoseg.model.runtimes import MIN_EQUAL_LABELS, RuntimeChoice
from geoseg.spec import SegmentSpec

Tell = Callable[[str], None]
"""Takes lines on what is being done."""
EXAMPLES = 4
"""Patches that runtimes are compared on."""
SEED = 3
ELSEWHERE = 0.005
"""How much less than on the patches of its card a lower precision may agree on others."""
MAX_DIFFERENCE = 0.02
"""Of a probability, between two runtimes in float32."""


def architectures() -> list[dict[str, Any]]:
    """All architectures, with parameters for their default encoder, three bands and five classes."""
    from geoseg.model.architectures import ARCHITECTURES, parameters_of

    return [
        {"name": a.name, "title": a.title, "encoder": a.encoder, "parameters": parameters_of(a)}
        for a in ARCHITECTURES.values()
    ]


def encoders(text: str) -> list[str]:
    """Names of encoders that have the text in them."""
    from geoseg.model.architectures import encoder_names

    return encoder_names(text)


def format_architectures(rows: list[dict[str, Any]]) -> str:
    """One line for each."""
    lines = [f"{'name':<14} {'parameters':>10}  {'with encoder':<25} what"]
    lines += [
        f"{r['name']:<14} {r['parameters'] / 1e6:>8.1f} M  {r['encoder']:<25} {r['title']}" for r in rows
    ]
    return "\n".join(lines)


def describe(source: str | None) -> dict[str, Any]:
    """A bundle, verified as a run would, as plain values: its card, digest, size, and what would run it here."""
    bundle = Bundle.open(source)
    choice = RuntimeChoice.decide(bundle.card)
    size = sum(bundle.path_of(name).stat().st_size for name in bundle.card.files)
    return {
        **bundle.card.to_dict(),
        "digest": bundle.card.digest,
        "bytes": size,
        "described_by": str(bundle.described_by),
        "default": {"runtime": choice.runtime, "precision": choice.precision, "device": choice.device},
    }


def format_description(told: dict[str, Any]) -> str:
    """The same for a person; classes with a patch of their color, where a terminal shows it."""
    gsd, default = told["gsd_m"], told["default"]
    network = " with ".join(part for part in (told["architecture"], told["encoder"]) if part)
    lines = [f"{told['name']} {told['version']}", told["description"], ""]
    rows = {
        "network": network + "".join(f", {k} {v}" for k, v in told.get("options", {}).items()),
        "digest": told["digest"],
        "size": f"{told['bytes'] / 1e6:.1f} MB: {', '.join(told['files'])}",
        "license": told["license"] or "not told",
        "pixels": f"{gsd['min']:g} to {gsd['max']:g} m, {told['dtype']}; patches of {told['patch_px']} px",
        "runs here": f"{default['runtime']} {default['precision']} on {default['device']}",
        "temperature": f"{told['temperature']:g}",
    }
    lines += [f"{name:<12} {text}" for name, text in rows.items()]
    lines += ["", f"{'bands':<20} {'mean':>10} {'std':>10}"]
    lines += [f"  {b['name']:<18} {b['mean']:>10g} {b['std']:>10g}" for b in told["bands"]]
    lines += ["", "classes"]
    lines += [_class_line(c, told.get("positive_class")) for c in told["classes"]]
    if told["equal_labels"]:
        lines += ["", f"{'runtimes':<20} {'equal labels':>12} {'largest difference':>20}"]
        largest = told.get("largest_difference", {})
        lines += [_way_line(way, share, largest.get(way)) for way, share in told["equal_labels"].items()]
    if told["scores"]:
        lines += ["", "scores", *(f"  {name:<34} {value:g}" for name, value in told["scores"].items())]
    for heading in ("training_data", "notes"):
        if told[heading]:
            lines += ["", heading.replace("_", " "), *(f"  {text}" for text in told[heading])]
    return "\n".join(line for index, line in enumerate(lines) if line or index != 1)


def _class_line(entry: dict[str, Any], positive: str | None) -> str:
    red, green, blue = entry["color"]
    role = f"  role {entry['role']}" if entry["role"] else ""
    only = " (the network's only output)" if entry["name"] == positive else ""
    swatch = f"\x1b[48;2;{red};{green};{blue}m  \x1b[0m"
    return f"  {entry['id']:>3} {swatch} #{red:02x}{green:02x}{blue:02x} {entry['name']}{only}{role}"


def _way_line(way: str, share: float, difference: float | None) -> str:
    return f"  {way:<18} {share:>12.4%} " + (f"{difference:>20.4f}" if difference is not None else "")


def verify(source: str | None, scene: str | None = None) -> str:
    """Hold a bundle to what it says: digests, card, weights, and each runtime to the reference.

    The figures, as text. Raises ModelError where something does not hold.
    """
    from geoseg.model.answers import check_answers
    from geoseg.model.openvino_network import read_network

    bundle = Bundle.open(source)
    if not bundle.card.is_onnx:
        from geoseg.model.network import load_network

        load_network(bundle)
    read_network(bundle, bundle.card.patch_px)
    check_answers(bundle)
    found = compare_ways(bundle, example_patches(bundle.card, scene))
    for way, equality in found.items():
        _hold(bundle, way, equality)
    told = [f"{bundle.card.name} {bundle.card.version}: card, digests and weights hold"]
    if found:
        told.append(f"{'equal labels':<20} {'on the card':>12} {'found':>12} {'largest difference':>20}")
    for way, equality in found.items():
        stated = f"{bundle.card.equal_labels[way]:.4%}" if way in bundle.card.equal_labels else "not told"
        told.append(f"  {way:<18} {stated:>12} {equality.labels:>12.4%} {equality.difference:>20.4f}")
    return "\n".join(told)


def _hold(bundle: Bundle, way: str, found: Equality) -> None:
    """Raises ModelError for a way that a run would take and that does not answer as the reference does, or clearly
    less so than the card says."""
    exact, stated = way.endswith("float32"), bundle.card.equal_labels.get(way, 0.0)
    if found.labels < stated - ELSEWHERE:
        raise ModelError(
            f"{way} agrees with the reference less than the card says: {found.labels:.2%} of labels are equal, "
            f"on the card {stated:.2%}",
            bundle.folder,
        )
    if not exact and stated < MIN_EQUAL_LABELS:
        return  # no run takes it unless it is asked for
    least = MIN_EQUAL_LABELS if exact else MIN_EQUAL_LABELS - ELSEWHERE
    if found.labels < least or (exact and found.difference > MAX_DIFFERENCE):
        raise ModelError(
            f"{way} does not answer as the reference does: {found.labels:.2%} of labels are equal "
            f"({least:.1%} are needed), and probabilities differ by up to {found.difference:.3f}",
            bundle.folder,
        )


def _silent(line: str) -> None:
    pass


def export(
    source: str | None, output: Path, kind: Any, overwrite: bool = False, tell: Tell = _silent
) -> Bundle:
    """Write a bundle anew with OpenVINO's files, as ONNX, or described by a STAC item; ONNX is compared with torch.

    Raises SpecError where a bundle is there already and is not to be replaced.
    """
    from geoseg.model.export import export_bundle

    _refuse_existing(output, overwrite)
    bundle = Bundle.open(source)
    if kind != "mlm":
        tell(f"converting the network to {'ONNX' if kind == 'onnx' else 'OpenVINO'}")
    written = export_bundle(bundle, output, kind)
    if kind == "onnx":
        return _noted(written, tell, reference=bundle)
    return written


def import_foreign(
    source: Path, output: Path, card_file: Path | None, overwrite: bool = False, tell: Tell = _silent
) -> Bundle:
    """Write a network of others as a bundle, with how well each runtime agrees on its card.

    Raises SpecError where a bundle is there already and is not to be replaced.
    """
    from geoseg.model.importing import Foreign, import_model

    foreign = Foreign.open(source)
    _refuse_existing(output, overwrite)
    bundle = import_model(foreign, output, card_file, tell)
    for remark in role_remarks(bundle.card.legend):
        tell(f"warning: {remark}")
    return _noted(bundle, tell)


def _noted(bundle: Bundle, tell: Tell, reference: Bundle | None = None) -> Bundle:
    tell(f"comparing runtimes on {EXAMPLES} patches of {bundle.card.patch_px} px")
    return note_equal_labels(bundle, example_patches(bundle.card), reference=reference)


def _refuse_existing(output: Path, overwrite: bool) -> None:
    if not overwrite and ((output / CARD).exists() or (output / ITEM).exists()):
        raise SpecError("is a bundle already; name another folder, or replace it with --overwrite", output)


def write_template(source: Path, path: Path, overwrite: bool = False) -> list[str]:
    """Write a card to fill in; the fields that it still lacks.

    Raises SpecError where a file is there already and is not to be replaced.
    """
    from geoseg.model.importing import Foreign, template

    if path.exists() and not overwrite:
        raise SpecError("is there already; name another file, or replace it with --overwrite", path)
    foreign = Foreign.open(source)
    text = template(foreign)
    publish_bytes(path, text.encode())
    return foreign.missing(yaml.safe_load(text))


def example_patches(card: ModelCard, scene: str | None = None) -> Iterator[np.ndarray]:
    """A few patches (band, row, col) of raw pixels, the same each time.

    From the scene, spread evenly; without one from a drawn scene where the network takes its bands, else textures
    with the card's means and deviations.
    """
    if scene is not None:
        return _from_scene(card, scene)
    if card.dtype == "uint8" and [band.name for band in card.bands] == ["red", "green", "blue"]:
        return _from_demo(card.patch_px)
    return (_texture(card, number) for number in range(EXAMPLES))


def _from_scene(card: ModelCard, path: str) -> Iterator[np.ndarray]:
    scene = open_scene(path, card.input_spec)
    lattice = Lattice(scene.grid.height, scene.grid.width, SegmentSpec(card.patch_px, 0, "hann"))
    blocks = Blocks.of(lattice, card.patch_px)
    step = max(1, len(blocks) // EXAMPLES)
    for number in range(0, min(len(blocks), EXAMPLES * step), step):
        block = blocks.at(*divmod(number, blocks.cols))
        read = scene.read(block, lattice)
        patch = next(lattice.patches(block.core))
        yield np.ascontiguousarray(read.pixels[(slice(None), *patch.within(read.window))])


def _from_demo(side: int) -> Iterator[np.ndarray]:
    size = min(max(2 * side, MIN_SIZE), MAX_SIZE)
    image = render_demo(seed=SEED, size=size).image
    for row in range(0, size - side + 1, side):
        for col in range(0, min(size, 2 * side) - side + 1, side):
            yield np.ascontiguousarray(image[:, row : row + side, col : col + side])
        if row >= side:
            return


def _texture(card: ModelCard, number: int) -> np.ndarray:
    """Noise of several grain sizes."""
    rng, side = np.random.default_rng([SEED, number]), card.patch_px
    noise = np.zeros((len(card.bands), side, side))
    for grain in (2, 8, 32):
        cells = -(-side // grain)
        coarse = rng.standard_normal((len(card.bands), cells, cells))
        noise += coarse.repeat(grain, 1).repeat(grain, 2)[:, :side, :side] / np.sqrt(3)
    mean, std = (np.array(v)[:, None, None] for v in zip(*((b.mean, b.std) for b in card.bands), strict=True))
    values = mean + std * noise
    if card.dtype == "float32":
        return values.astype(np.float32)
    limits = np.iinfo(card.dtype)
    return np.clip(np.round(values), limits.min, limits.max).astype(card.dtype)

"""Commands that train, list, show and exchange models."""

from __future__ import annotations

import sys

import click

from geoseg.cli.options import DISK
from geoseg.errors import GeosegError


@click.command()
@click.argument("config", type=click.Path())
@click.option("-o", "--output", required=True, type=DISK, metavar="BUNDLE", help="Folder of the new bundle.")
@click.option("--fresh", is_flag=True, help="Begin anew, though there is a checkpoint to go on from.")
def train(config: str, output: str, fresh: bool) -> None:
    """Train a network on scenes with labels, as TRAIN.yaml says, and write a model bundle.

    \b
    geoseg train town.yaml -o town
    tensorboard --logdir town.training/tensorboard

    Each validation prints a line and leaves a checkpoint in BUNDLE.training; without validation, every
    `validate_every` steps leave one. After a stop or a crash the same command goes on from there, and the bundle is
    the same as if nothing had been (on a CPU, without max_minutes). At the end a page tells how it went:
    BUNDLE.training/training.html.
    """
    from pathlib import Path

    try:
        from geoseg.train.terminal import tell_progress
        from geoseg.train.trainer import train as train_bundle
        from geoseg.train.trainer import training_folder
    except ModuleNotFoundError as error:
        raise click.ClickException(f"training needs {error.name}: pip install 'geoseg[train]'") from None
    from geoseg.report.training import write_training

    tell_progress()
    click.echo(train_bundle(Path(config), Path(output), fresh=fresh))
    click.echo(write_training(training_folder(Path(output))))


@click.command()
@click.option(
    "--encoders",
    is_flag=False,
    flag_value="",
    metavar="[TEXT]",
    help="List encoders instead: those with this text in their name, or all.",
)
@click.option("--json", "as_json", is_flag=True, help="As JSON on standard output.")
def models(encoders: str | None, as_json: bool) -> None:
    """List the architectures that a model may have, with their parameters, or the encoders.

    \b
    geoseg models
    geoseg models --encoders resnet

    Not every architecture takes every encoder; `geoseg train` says so before it begins.
    """
    import json

    from geoseg.run import models as commands

    if encoders is not None:
        names = commands.encoders(encoders)
        click.echo(json.dumps(names, indent=2) if as_json else "\n".join(names))
        return
    rows = commands.architectures()
    click.echo(json.dumps(rows, indent=2) if as_json else commands.format_architectures(rows))


@click.group()
def model() -> None:
    """Show, verify, export and import model bundles.

    BUNDLE is a folder with model.json, or a STAC item with the MLM extension.
    """


@model.command()
@click.argument("bundle", type=click.Path(), required=False)
@click.option("--json", "as_json", is_flag=True, help="As JSON on standard output.")
def show(bundle: str | None, as_json: bool) -> None:
    """Show a bundle's card: classes, bands, pixel sizes, scores, runtimes.  [default: landcover-rgb, included]"""
    import json

    from geoseg.run.models import describe, format_description

    told = describe(bundle)
    click.echo(json.dumps(told, indent=2, ensure_ascii=False) if as_json else format_description(told))


@model.command()
@click.argument("bundle", type=click.Path(), required=False)
@click.option(
    "--scene", type=click.Path(), metavar="SCENE.tif", help="Compare on this scene.  [default: drawn pixels]"
)
def verify(bundle: str | None, scene: str | None) -> None:
    """Hold a bundle to what it says: digests, card, weights, and that each runtime answers as torch in float32 does.

    Exit code 1, with one line, where something does not hold.
    """
    from geoseg.io.rasters import configure_gdal
    from geoseg.run.models import verify as verify_bundle

    configure_gdal()
    try:
        click.echo(verify_bundle(bundle, scene))
    except GeosegError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)


@model.command("export")
@click.argument("bundle", type=click.Path())
@click.option("-o", "--output", required=True, type=DISK, metavar="OUT", help="Folder of the new bundle.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["openvino", "onnx", "mlm"]),
    default="openvino",
    show_default=True,
    help="openvino: its files are added. onnx: ONNX takes the place of the weights (needs geoseg[onnx]). mlm: a STAC "
    "item with the MLM extension takes the place of the card.",
)
def export_model(bundle: str, output: str, kind: str) -> None:
    """Write a bundle anew for other programs; geoseg runs the result, too."""
    from pathlib import Path

    from geoseg.run.models import export

    click.echo(export(bundle, Path(output), kind).described_by)


@model.command("import")
@click.argument("source", type=click.Path())
@click.option("-o", "--output", type=DISK, metavar="BUNDLE", help="Folder of the new bundle.")
@click.option(
    "--card",
    type=click.Path(),
    metavar="CARD.yaml",
    help="What the network does not tell: bands, classes, ...",
)
@click.option("--template", type=click.Path(), metavar="CARD.yaml", help="Write a card to fill in, and stop.")
def import_model(source: str, output: str | None, card: str | None, template: str | None) -> None:
    """Make a bundle of a network from elsewhere.

    SOURCE is a folder that save_pretrained of segmentation-models-pytorch wrote, a .onnx file, or the weights of an
    architecture of `geoseg models` as a .safetensors file. Formats that can run code when they are read are refused.

    \b
    geoseg model import my_unet --template card.yaml
    geoseg model import my_unet --card card.yaml -o bundle
    """
    from pathlib import Path

    from geoseg.run.models import import_foreign, write_template

    if template is not None:
        lacking = write_template(Path(source), Path(template))
        click.echo(f"{template}: to be filled in: {', '.join(lacking)}")
        return
    if output is None:
        raise click.UsageError("Missing option '-o' / '--output', or '--template'.")
    click.echo(import_foreign(Path(source), Path(output), Path(card) if card else None).described_by)

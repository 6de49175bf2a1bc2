"""Commands that train, list, show and exchange models."""

from __future__ import annotations

import sys

import click

from geoseg.cli.options import DISK
from geoseg.errors import GeosegError, SpecError


@click.command()
@click.argument("config", type=click.Path(), required=False)
@click.option("-o", "--output", type=DISK, metavar="BUNDLE", help="Folder of the new bundle.")
@click.option("--fresh", is_flag=True, help="Begin anew, though the training is done or can go on.")
@click.option(
    "--template", type=click.Path(), metavar="TRAIN.yaml", help="Write a file to fill in, and stop."
)
def train(config: str | None, output: str | None, fresh: bool, template: str | None) -> None:
    """Train a network on scenes with labels, as a YAML file says, and write a model bundle.

    \b
    geoseg train --template town.yaml
    geoseg train town.yaml -o town
    tensorboard --logdir town.training/tensorboard

    \b
    What must be in the file (--template writes one with all keys):
      name: town
      version: "1"
      architecture: Unet                    # geoseg models
      encoder: tu-lcnet_050                 # geoseg models --encoders
      gsd_m: {min: 0.2, max: 0.6}           # pixel sizes that it will be good for
      classes:
        - {id: 1, name: building, color: [219, 68, 55], role: building}
        - {id: 2, name: other, color: [200, 200, 200]}
      datasets:
        - {scene: a.tif, labels: a_labels.tif, map_class: {0: other}}
        - {scene: b.tif, labels: b.geojson, every_polygon: building, background: other}
        - {scene: c.tif, labels: c.gpkg, class_field: kind, split: validation}
      steps: 3000

    In a label raster 0, where it is no class and not in map_class, and nodata teach nothing; any other value must be
    a class, or in map_class. Scenes that show the same ground though their georeferencing does not tell need the same
    `group`; to validate on a part of a scene, `validation_regions: {file: r.gpkg, field: region, names: [north]}`.
    bands and dtype are red, green, blue and uint8 if not given.

    Each validation prints a line and leaves a checkpoint in BUNDLE.training; without validation, every
    `validate_every` steps leave one. Ctrl-C leaves one after the step at hand. After a stop or a crash the same command
    goes on from there, and the weights are the same as if nothing had been (on a CPU, without max_minutes). At the end
    a page tells how it went: BUNDLE.training/training.html. Then BUNDLE.training/checkpoints may be deleted.
    """
    import os
    from pathlib import Path

    from geoseg.train.done import ALREADY, is_done, training_folder
    from geoseg.train.reading import load_config
    from geoseg.train.template import write_template

    if template is not None:
        write_template(Path(template))
        click.echo(f"{template}: put in your scenes, labels, classes and pixel sizes")
        return
    if config is None or output is None:
        raise click.UsageError(
            "Missing CONFIG or '-o' / '--output'; '--template' writes a file to begin with."
        )
    if not fresh and is_done(
        load_config(Path(config), os.environ), Path(output)
    ):  # before what takes long to import
        click.echo(ALREADY % output, err=True)
    else:
        try:
            from geoseg.train.terminal import progress_told
            from geoseg.train.trainer import train as train_bundle
        except ModuleNotFoundError as error:
            raise click.ClickException(f"training needs {error.name}: pip install 'geoseg[train]'") from None
        with progress_told():
            train_bundle(Path(config), Path(output), fresh=fresh)
    from geoseg.report.training import write_training

    click.echo(output)
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
        if not names:
            raise SpecError(f"no encoder has {encoders!r} in its name")
        click.echo(json.dumps(names, indent=2) if as_json else "\n".join(names))
        return
    rows = commands.architectures()
    click.echo(json.dumps(rows, indent=2) if as_json else commands.format_architectures(rows))


@click.group()
def model() -> None:
    """Show, verify, export and import model bundles.

    BUNDLE is a folder with model.json, or a STAC item with the MLM extension: its files lie in its folder, and fields
    of the card that MLM has no words for, as gsd_m, in its property "geoseg:card".
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

    The figures are measured anew, on patches of the scene or drawn ones, and stand beside those of the card: the share
    of pixels with the same class, and the largest difference of a probability. An ONNX network is compared with
    OpenVINO in float32, and its answers are held to what the card calls them.

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


def _tell(line: str) -> None:
    click.echo(line, err=True)


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
@click.option("--overwrite", is_flag=True, help="Replace a bundle that is there.")
def export_model(bundle: str, output: str, kind: str, overwrite: bool) -> None:
    """Write a bundle anew for other programs; geoseg runs the result, too."""
    from pathlib import Path

    from geoseg.run.models import export

    click.echo(export(bundle, Path(output), kind, overwrite, _tell).described_by)


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
@click.option("--overwrite", is_flag=True, help="Replace a bundle, or a card, that is there.")
def import_model(
    source: str, output: str | None, card: str | None, template: str | None, overwrite: bool
) -> None:
    """Make a bundle of a network from elsewhere.

    SOURCE is a folder that save_pretrained of segmentation-models-pytorch wrote, a .onnx file, or the weights of an
    architecture of `geoseg models` as a .safetensors file. Formats that can run code when they are read are refused.

    A network that was fed pixels of 0 to 255 with ImageNet's statistics has the means 123.7, 116.3, 103.5 and the
    deviations 58.4, 57.1, 57.4; one whose pixels were only divided by 255 has mean 0 and deviation 255.

    A network with one output, for buildings or not, needs a card of two classes, and in positive_class the name of the
    one that the output stands for: its probability is the sigmoid of the output, and the other class has the rest.

    \b
    geoseg model import my_unet --template card.yaml
    geoseg model import my_unet --card card.yaml -o bundle
    """
    from pathlib import Path

    from geoseg.run.models import import_foreign, write_template

    if template is not None:
        lacking = write_template(Path(source), Path(template), overwrite)
        click.echo(f"{template}: to be filled in: {', '.join(lacking)}")
        return
    if output is None:
        raise click.UsageError("Missing option '-o' / '--output', or '--template'.")
    card_file = Path(card) if card else None
    click.echo(import_foreign(Path(source), Path(output), card_file, overwrite, _tell).described_by)

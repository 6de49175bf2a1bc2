"""The command line. Heavy imports wait inside the commands, so that help is instant."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from geoseg.errors import GeosegError

INTERRUPTED = 130


def _numbers(_: click.Context, option: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.replace(" ", "").split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a list of whole numbers such as 4,3,2") from None


def _settings(_: click.Context, option: click.Parameter, pairs: tuple[str, ...]) -> dict[str, str]:
    for pair in pairs:
        if "=" not in pair:
            raise click.BadParameter(f"{pair!r} is not of the form KEY=VALUE")
    return dict(pair.split("=", 1) for pair in pairs)


def _areas(_: click.Context, option: click.Parameter, texts: tuple[str, ...]) -> dict[str, float]:
    """50, or road=100: square metres for all classes, or for one."""
    found = {}
    for text in texts:
        name, _sign, number = text.rpartition("=")
        try:
            found[name or "all"] = float(number)
        except ValueError:
            raise click.BadParameter(f"{text!r} is not of the form M2 or CLASS=M2") from None
    return found


def _version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from geoseg.run.versions import versions

        click.echo("\n".join(f"{name} {number}" for name, number in versions().items()))
        context.exit()


class Commands(click.Group):
    """Errors of geoseg read as one line and exit with 2, unless a command says otherwise."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except GeosegError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(2)
        except KeyboardInterrupt:
            click.echo("\nstopped; the same command goes on from here", err=True)
            sys.exit(INTERRUPTED)


@click.group(
    name="geoseg",
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show versions."
)
def main() -> None:
    """Turn large satellite and aerial GeoTIFFs into land-cover maps, buildings and roads.

    Start with:  geoseg demo -o demo    then:  geoseg run SCENE.tif -o OUT
    """


_GENERALIZING = [
    click.option(
        "--min-area",
        multiple=True,
        callback=_areas,
        metavar="[CLASS=]M2",
        help="Polygons below this go to the neighbor with the longest shared border; may be repeated for classes.",
    ),
    click.option(
        "--min-hole",
        multiple=True,
        callback=_areas,
        metavar="[CLASS=]M2",
        help="Holes below this in polygons of a class are filled; may be repeated.",
    ),
    click.option(
        "--coverage",
        is_flag=True,
        default=None,
        help="Add a layer landcover: all classes, simplified, without gap or overlap.",
    ),
]


_ABOUT_LABELS = [
    click.option(
        "--class-field", metavar="FIELD", help="The labels are polygons; their classes are in this field."
    ),
    click.option(
        "--map-class",
        multiple=True,
        callback=_settings,
        metavar="LABEL=CLASS",
        help="What the labels call a class (a name, or a value) and what the map calls it, as in house=building; "
        "nothing behind the = leaves it out. May be repeated.",
    ),
    click.option("--ignore", callback=_numbers, metavar="N,N", help="Values of a label raster to leave out."),
    click.option(
        "--background",
        metavar="CLASS",
        help="Class of the pixels in no polygon of the labels.  [default: left out]",
    ),
]
_ERRORS_HELP = (
    "write errors.tif, where the map is wrong: the id and color of the true class, 0 (transparent) where it is "
    "right, 255 where labels or map have no answer."
)


def _about_labels(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_ABOUT_LABELS):
        command = option(command)
    return command


def _generalizing(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_GENERALIZING):
        command = option(command)
    return command


_region_field = click.option(
    "--region-field",
    default="region",
    show_default=True,
    metavar="FIELD",
    help="Field that names the regions.",
)


def _class_raster(command: Callable[..., Any]) -> Callable[..., Any]:
    """How to read a class raster."""
    for option in (
        click.option(
            "--band", type=int, metavar="N", help="Band that holds the classes.  [default: the only one]"
        ),
        click.option(
            "--legend",
            type=click.Path(),
            metavar="FILE",
            help="Names of the classes: YAML, JSON or CSV with id, name and, optionally, color (#rrggbb) and role "
            "(building or road).  [default: what the raster tells]",
        ),
    ):
        command = option(command)
    return command


def _job_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a job: one per field of geoseg.run.job.Job."""
    path = click.Path()
    options = [
        click.argument("scenes", nargs=-1, type=path),
        click.option("-o", "--output", type=path, metavar="OUT", help="Folder for the results."),
        click.option(
            "--job",
            "job_file",
            type=path,
            metavar="FILE.yaml",
            help="Job file with any of these as fields; options win.",
        ),
        click.option(
            "--model",
            type=path,
            metavar="BUNDLE",
            help="Model bundle: a folder, or its STAC item.  [default: landcover-rgb, included]",
        ),
        click.option(
            "--labels", type=path, help="True classes, a raster or polygons (--class-field): adds scores."
        ),
        click.option("--regions", type=path, help="Named polygons, any vector file: scores for each."),
        click.option(
            "--region-field", metavar="FIELD", help="Field that names the regions.  [default: region]"
        ),
        *_ABOUT_LABELS,
        click.option(
            "--objects",
            is_flag=True,
            default=None,
            help="With labels: score buildings as objects and roads as lines, too; takes several times as long.",
        ),
        click.option("--errors", is_flag=True, default=None, help=f"With labels: {_ERRORS_HELP}"),
        click.option("--mask", type=path, help="What to leave out (clouds, ...): a raster, or polygons."),
        click.option(
            "--mask-values",
            callback=_numbers,
            metavar="N,N",
            help="Values of the mask raster that leave pixels out.  [default: all but 0]",
        ),
        click.option("--aoi", type=path, help="Area of interest: map only inside these polygons."),
        click.option(
            "--engine", type=click.Choice(["auto", "local", "ray"]), help="Where to run.  [default: auto]"
        ),
        click.option("--address", metavar="A", help="Ray cluster to join, such as auto or ray://host:10001."),
        click.option(
            "--workers",
            metavar="N|MIN:MAX",
            help="Blocks mapped at once; on Ray a range follows the cluster.  [default: one per core, or GPU]",
        ),
        click.option(
            "--worker-gpus",
            type=float,
            metavar="F",
            help="Share of a GPU that a worker on Ray claims.  [default: 1]",
        ),
        click.option(
            "--allow-partial",
            is_flag=True,
            default=None,
            help="Publish a scene though some of its blocks failed: they are nodata, and tried again next time.",
        ),
        click.option(
            "--block-px",
            type=int,
            metavar="N",
            help="Side of a block; changes speed and memory, never the map.",
        ),
        click.option(
            "--patch-px", type=int, metavar="N", help="Side of what the network sees.  [default: the model's]"
        ),
        click.option(
            "--margin-px", type=int, metavar="N", help="What each patch gives up on each side.  [default: 64]"
        ),
        click.option(
            "--blend", type=click.Choice(["crop", "hann"]), help="How patches meet.  [default: crop]"
        ),
        click.option(
            "--tta",
            type=click.Choice(["none", "d4"]),
            help="Average over the 8 symmetries: slower, a little better.  [default: none]",
        ),
        click.option(
            "--gsd", type=float, metavar="M", help="Resample to this ground sample distance in metres."
        ),
        click.option(
            "--bands",
            callback=_numbers,
            metavar="N,N,N",
            help="Bands of the scene, in the model's order.  [default: the first]",
        ),
        click.option(
            "--runtime",
            type=click.Choice(["auto", "openvino", "torch"]),
            help="What runs the network.  [default: auto]",
        ),
        click.option(
            "--precision",
            type=click.Choice(["auto", "float32", "bfloat16"]),
            help="[default: auto, bfloat16 where it is as good]",
        ),
        click.option(
            "--format",
            multiple=True,
            type=click.Choice(["gpkg", "parquet", "fgb", "geojson"]),
            help="Copy each vector layer to a file of its own, too; may be given several times.",
        ),
        click.option(
            "--crs", metavar="CRS", help="CRS of these copies, such as EPSG:4326.  [default: the scene's]"
        ),
        *_GENERALIZING,
        click.option(
            "--centerlines",
            is_flag=True,
            default=None,
            help="Add the road network: center lines with widths, and nodes. Takes about as long as mapping.",
        ),
        click.option(
            "--report/--no-report",
            default=None,
            help="Pages to look at, for each scene and for all.  [default: report]",
        ),
        click.option(
            "--hours",
            type=float,
            metavar="H",
            help="Stop after so many hours, leaving the rest to the next run.",
        ),
        click.option(
            "--overwrite",
            is_flag=True,
            default=None,
            help="Replace results of another model or other parameters.",
        ),
        click.option(
            "--config",
            multiple=True,
            callback=_settings,
            metavar="KEY=VALUE",
            help="GDAL option; may be repeated.",
        ),
        click.option("--json", is_flag=True, default=None, help="Events as JSON lines on standard output."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@main.command()
@_job_options
def run(job_file: str | None, **options: Any) -> None:
    """Map scenes: land cover, confidence, buildings, roads and, with labels, scores.

    \b
    geoseg run scene.tif -o out
    geoseg run scene.tif -o out --labels truth.tif --regions districts.gpkg
    geoseg run --job night.yaml --engine ray --address auto

    The results of x.tif are in OUT/x. A run that was stopped goes on where it was; one that is finished does nothing.

    Exit codes: 0 all done; 1 some scenes failed, the others are done; 2 nothing could start.
    """
    from geoseg.run.events import make_reporter
    from geoseg.run.job import make_job
    from geoseg.run.pipeline import Run

    job = make_job(options, job_file)
    sys.exit(Run(job, make_reporter(job.json_events)).go())


@main.command()
@_job_options
def plan(job_file: str | None, **options: Any) -> None:
    """Say what a run would take, and write nothing: blocks, patches, disk, memory, time.

    Takes the arguments of `geoseg run`. Maps a few patches to see how fast this machine is.
    """
    import json

    from geoseg.run.job import make_job
    from geoseg.run.planning import format_plan, plan_job

    job = make_job(options, job_file)
    planned = plan_job(job)
    click.echo(json.dumps(planned.to_dict(), indent=2) if job.json_events else format_plan(planned))
    sys.exit(1 if planned.refused else 0)


@main.command()
@click.argument("output", type=click.Path(), metavar="OUT")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def status(output: str, as_json: bool) -> None:
    """Say how far a run is, or how it ended, from any machine that sees its output folder.

    Takes some seconds where a run may be under way: it watches whether its heartbeat rises, and compares no clocks.

    Exit codes: 0 nothing has failed; 1 some scenes failed, or have holes; 2 there is no run.
    """
    import json
    from pathlib import Path

    from geoseg.run.status import format_status, status_of

    found = status_of(Path(output))
    click.echo(json.dumps(found.to_dict(), indent=2) if as_json else format_status(found))
    sys.exit(1 if found.failed else 0)


@main.command()
@click.argument("landcover", type=click.Path())
@click.argument("labels", type=click.Path())
@click.option("--regions", type=click.Path(), help="Named polygons, any vector file: scores for each.")
@_region_field
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    metavar="OUT",
    help="Folder for metrics.json, regions.csv and errors.tif.",
)
@click.option(
    "--confidence",
    type=click.Path(),
    metavar="RASTER",
    help="Whole percent on the map's grid: adds calibration.  [default: confidence.tif beside the map, if it fits]",
)
@_about_labels
@click.option(
    "--min-support",
    type=click.IntRange(0),
    default=100,
    show_default=True,
    metavar="N",
    help="Labelled pixels that a class needs to count in the supported means.",
)
@click.option(
    "--tolerance-px",
    type=click.IntRange(0, 100),
    default=3,
    show_default=True,
    metavar="N",
    help="How far boundaries and road lines may lie from the true ones.",
)
@click.option(
    "--objects/--no-objects",
    default=False,
    show_default=True,
    help="Score buildings as objects and roads as lines, too: takes several times as long.",
)
@click.option("--errors", is_flag=True, help=f"{_ERRORS_HELP[0].upper()}{_ERRORS_HELP[1:]}")
def evaluate(landcover: str, labels: str, regions: str | None, region_field: str, output: str | None,
    confidence: str | None, class_field: str | None, map_class: dict[str, str], ignore: tuple[int, ...] | None,
    background: str | None, min_support: int, tolerance_px: int, objects: bool, errors: bool,
) -> None:  # fmt: skip
    """Score a map against labels: IoU and more per class and region, each with its uncertainty.

    \b
    geoseg evaluate out/scene/landcover.tif truth.tif --regions districts.gpkg -o scores
    geoseg evaluate out/scene/landcover.tif truth.gpkg --class-field kind --map-class house=building --background land

    Labels on another grid, or in another CRS, are brought onto the map's, nearest neighbor.
    """
    from geoseg.io.labels import LabelOptions
    from geoseg.io.rasters import configure_gdal
    from geoseg.parallel import threaded_map
    from geoseg.run.evaluating import EvaluateOptions, evaluate_files, format_table
    from geoseg.stages.scores import ScoreSettings

    configure_gdal()
    options = EvaluateOptions(
        confidence,
        LabelOptions(class_field, map_class, ignore or (), background),
        ScoreSettings(min_support, tolerance_px, objects),
        errors,
    )

    def timer(stage: str, seconds: float) -> None:
        click.echo(f"{stage}: {seconds:.1f} s", err=True)

    scores = evaluate_files(landcover, labels, regions, region_field, output, threaded_map, options, timer)
    click.echo(format_table(scores))


@main.command()
@click.argument("landcover", type=click.Path())
@click.option(
    "-o", "--output", required=True, type=click.Path(), metavar="OUT.gpkg", help="GeoPackage to write."
)
@_class_raster
@click.option(
    "--confidence", type=click.Path(), metavar="RASTER", help="Whole percent on the same grid: adds fields."
)
@click.option(
    "--format",
    "formats",
    multiple=True,
    type=click.Choice(["gpkg", "parquet", "fgb", "geojson"]),
    help="Copy each layer to OUT_<layer>.<format>, too; may be given several times.",
)
@click.option("--crs", metavar="CRS", help="CRS of these copies, such as EPSG:4326.  [default: the raster's]")
@_generalizing
@click.option(
    "--centerlines",
    is_flag=True,
    help="Add the road network: center lines with widths, and nodes. Needs a class that is a road.",
)
@click.option("--raw", is_flag=True, help="Every polygon of every class, with class and area only.")
@click.option(
    "--block-px",
    type=int,
    metavar="N",
    help="Most rows and columns read at once; changes memory, never the polygons.  [default: 2048, or fewer]",
)
@click.option("--json", "as_json", is_flag=True, help="What was written, as JSON on standard output.")
def vectorize(
    landcover: str,
    output: str,
    raw: bool,
    block_px: int | None,
    coverage: bool | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Turn a class raster into polygons with areas: a map of geoseg's, or any other GeoTIFF, COG or VRT.

    \b
    geoseg vectorize out/scene/landcover.tif -o all.gpkg --confidence out/scene/confidence.tif
    geoseg vectorize worldcover.tif -o cover.gpkg --legend names.csv
    geoseg vectorize stack.tif -o parcels.gpkg --band 2 --format geojson --format parquet
    geoseg vectorize streets.tif -o streets.gpkg --legend names.csv --centerlines --json

    Layers buildings and roads where classes have these roles, else one layer, polygons, with all classes. Values are
    whole numbers from 0 to 254, of any data type; nodata may be any number.

    Names come from --legend, or geoseg's own tag, or a raster attribute table or category names beside the raster
    (.aux.xml); else classes go by their number. Where no roles are told, a class is a building or a road whose name
    has the word building, built structure, house, roof or rooftop, or road, street or highway (in one role only,
    singular or plural, without words such as "no" or "near"); an empty field role in --legend says that none is.
    """
    import json
    import time

    from geoseg.io.rasters import configure_gdal
    from geoseg.parallel import threaded_map
    from geoseg.run.events import make_reporter
    from geoseg.run.vectorizing import VectorizeOptions, vectorize_file

    configure_gdal()
    begin = time.perf_counter()
    written = vectorize_file(
        landcover, output, raw, block_px, threaded_map,
        VectorizeOptions(coverage=bool(coverage), **options), make_reporter(False),
    )  # fmt: skip
    if as_json:
        facts = written.to_dict() | {"seconds": round(time.perf_counter() - begin, 3)}
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        click.echo(f"{output}: " + ", ".join(f"{n} {layer}" for layer, n in written.layers.items()))


@main.command()
@click.argument("output", metavar="OUT", type=click.Path())
def report(output: str) -> None:
    """Make the pages of a run again, from its results alone: OUT/index.html, and a report in each scene's folder.

    Each page is one file that opens from disk and loads nothing. Exit code 1 where a scene's results are damaged
    (named, with the reason); the other pages are written.
    """
    from pathlib import Path

    from geoseg.io.rasters import configure_gdal
    from geoseg.report.everything import write_reports

    configure_gdal()
    written, failed = write_reports(Path(output))
    for path in written:
        click.echo(path)
    for error in failed:
        click.echo(f"error: {error}", err=True)
    sys.exit(1 if failed else 0)


@main.command()
@click.argument("config", type=click.Path())
@click.option(
    "-o", "--output", required=True, type=click.Path(), metavar="BUNDLE", help="Folder of the new bundle."
)
def train(config: str, output: str) -> None:
    """Train a network on scenes with labels, as TRAIN.yaml says, and write a model bundle."""
    from pathlib import Path

    try:
        from geoseg.train.trainer import train as train_bundle
    except ModuleNotFoundError as error:
        raise click.ClickException(f"training needs {error.name}: pip install 'geoseg[train]'") from None
    click.echo(train_bundle(Path(config), Path(output)))


@main.command()
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


@main.group()
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
@click.option(
    "-o", "--output", required=True, type=click.Path(), metavar="OUT", help="Folder of the new bundle."
)
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
@click.option("-o", "--output", type=click.Path(), metavar="BUNDLE", help="Folder of the new bundle.")
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


@main.command()
@click.argument("landcover", type=click.Path())
@click.argument("regions", type=click.Path(), required=False)
@_region_field
@click.option(
    "--labels", type=click.Path(), help="True classes, a raster on the map's grid: adds adjusted areas."
)
@click.option(
    "--metrics", type=click.Path(), metavar="FILE", help="The same from the metrics.json of an evaluation."
)
@_class_raster
@click.option("-o", "--output", type=click.Path(), metavar="AREAS.csv", help="Table to write.")
@click.option("--json", "as_json", is_flag=True, help="All figures as JSON on standard output.")
def areas(landcover: str, output: str | None, as_json: bool, **options: Any) -> None:
    """Measure a class raster: hectares and share of each class, per region and as a whole.

    \b
    geoseg areas out/scene/landcover.tif districts.gpkg -o areas.csv --labels truth.tif
    geoseg areas worldcover.tif districts.gpkg --legend names.csv

    A map of geoseg's, or any other GeoTIFF, COG or VRT of classes; names come from where `geoseg vectorize` takes
    them, and which that was is said. Areas are on the ellipsoid, whatever the CRS; pixels on a region's edge count by
    the share of them inside.
    """
    import json

    from geoseg.io.rasters import configure_gdal
    from geoseg.parallel import threaded_map
    from geoseg.run.areas import AreasOptions, areas_of_files, format_table

    configure_gdal()
    found = areas_of_files(landcover, threaded_map, AreasOptions(**options), output)
    click.echo(json.dumps(found.to_dict(), indent=2, ensure_ascii=False) if as_json else format_table(found))


@main.command()
@click.argument("before", type=click.Path())
@click.argument("after", type=click.Path())
@click.option("--regions", type=click.Path(), help="Named polygons, any vector file: a table for each.")
@_region_field
@click.option(
    "--overlap",
    type=float,
    default=0.25,
    show_default=True,
    help="Share of a building that the other side's must cover for it to be there still.",
)
@_class_raster
@click.option(
    "-o", "--output", required=True, type=click.Path(), metavar="OUT", help="Folder for the results."
)
def compare(before: str, after: str, output: str, **options: Any) -> None:
    """Say what changed between two maps: hectares from class to class, a raster, buildings gone and new.

    \b
    geoseg compare out_2020/scene out_2024/scene -o changes --regions districts.gpkg
    geoseg compare cover_2020.tif cover_2024.tif -o changes --legend names.csv

    BEFORE and AFTER are scene folders of results, such as OUT/x, or class rasters on one grid: maps of geoseg's, or
    any others. Classes are the same where they have the same name.
    """
    from geoseg.io.rasters import configure_gdal
    from geoseg.parallel import threaded_map
    from geoseg.run.compare import CompareOptions, compare_runs, format_tables

    configure_gdal()
    click.echo(format_tables(compare_runs(before, after, output, threaded_map, CompareOptions(**options))))


@main.command()
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(),
    metavar="OUT",
    help="Folder for the scene and its results.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed is another place.")
@click.option(
    "--size",
    type=click.IntRange(256, 4096),
    default=4096,
    show_default=True,
    help="Side of the scene in pixels.",
)
def demo(output: str, seed: int, size: int) -> None:
    """Draw a scene that looks like an aerial photograph, map it, score it, and say where everything is."""
    from pathlib import Path

    from geoseg.run.demo import run_demo
    from geoseg.run.events import make_reporter

    sys.exit(run_demo(Path(output), seed, size, make_reporter(False)))

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
            "--model", type=path, metavar="BUNDLE", help="Model bundle.  [default: landcover-rgb, included]"
        ),
        click.option("--labels", type=path, help="True classes, a raster on the scene's grid: adds scores."),
        click.option("--regions", type=path, help="Named polygons, any vector file: scores for each."),
        click.option(
            "--region-field", metavar="FIELD", help="Field that names the regions.  [default: region]"
        ),
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
            "--workers", type=int, metavar="N", help="Blocks mapped at once.  [default: one per core, or GPU]"
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
@click.argument("landcover", type=click.Path())
@click.argument("labels", type=click.Path())
@click.option("--regions", type=click.Path(), help="Named polygons, any vector file: scores for each.")
@click.option(
    "--region-field",
    default="region",
    show_default=True,
    metavar="FIELD",
    help="Field that names the regions.",
)
@click.option(
    "-o", "--output", type=click.Path(), metavar="OUT", help="Folder for metrics.json and regions.csv."
)
def evaluate(landcover: str, labels: str, regions: str | None, region_field: str, output: str | None) -> None:
    """Score a map against labels: IoU per class and region."""
    from geoseg.io.rasters import configure_gdal
    from geoseg.parallel import threaded_map
    from geoseg.run.evaluating import evaluate_files, format_table

    configure_gdal()
    click.echo(format_table(evaluate_files(landcover, labels, regions, region_field, output, threaded_map)))


@main.command()
@click.argument("landcover", type=click.Path())
@click.option(
    "-o", "--output", required=True, type=click.Path(), metavar="OUT.gpkg", help="GeoPackage to write."
)
@click.option("--raw", is_flag=True, help="Every polygon of every class, untouched.")
@click.option(
    "--block-px",
    type=int,
    default=2048,
    show_default=True,
    help="Side of the windows read; changes memory, never the polygons.",
)
def vectorize(landcover: str, output: str, raw: bool, block_px: int) -> None:
    """Turn a map's buildings and roads into polygons."""
    from geoseg.io.rasters import configure_gdal
    from geoseg.parallel import threaded_map
    from geoseg.run.vectorizing import vectorize_file

    configure_gdal()
    counts = vectorize_file(landcover, output, raw, block_px, mapper=threaded_map)
    click.echo(f"{output}: " + ", ".join(f"{n} {layer}" for layer, n in counts.items()))


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

"""Options that commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

Command = Callable[..., Any]
Decorator = Callable[[Command], Command]


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


class DiskPath(click.Path):
    """A place to write to that must be on disk."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if "://" in str(value):
            self.fail(f"{value} is in a bucket; this command writes to disk only", param, ctx)
        return super().convert(value, param, ctx)


DISK = DiskPath()


def _decorator(*options: Decorator) -> Decorator:
    """One decorator for these options, which help lists in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


ERRORS_HELP = (
    "write errors.tif, where the map is wrong: the id and color of the true class, 0 (transparent) where it is "
    "right, 255 where labels or map have no answer."
)

generalizing = _decorator(
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
)

about_labels = _decorator(
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
)

region_field = click.option(
    "--region-field",
    default="region",
    show_default=True,
    metavar="FIELD",
    help="Field that names the regions.",
)

# How to read a class raster.
class_raster = _decorator(
    click.option(
        "--legend",
        type=click.Path(),
        metavar="FILE",
        help="Names of the classes: YAML, JSON or CSV with id, name and, optionally, color (#rrggbb) and role "
        "(building or road).  [default: what the raster tells]",
    ),
    click.option(
        "--band", type=int, metavar="N", help="Band that holds the classes.  [default: the only one]"
    ),
)

# The options of a job: one per field of geoseg.run.job.Job.
job_options = _decorator(
    click.argument("scenes", nargs=-1, type=click.Path()),
    click.option("-o", "--output", type=click.Path(), metavar="OUT", help="Folder for the results."),
    click.option(
        "--job",
        "job_file",
        type=click.Path(),
        metavar="FILE.yaml",
        help="Job file with any of these as fields; options win.",
    ),
    click.option(
        "--model",
        type=click.Path(),
        metavar="BUNDLE",
        help="Model bundle: a folder, its STAC item, or the name of an included one: landcover-rgb (0.5 to 1.25 m) or "
        "buildings-drone (0.1 to 0.3 m).  [default: landcover-rgb]",
    ),
    click.option(
        "--labels",
        type=click.Path(),
        help="True classes, a raster or polygons (--class-field): adds scores.",
    ),
    click.option("--regions", type=click.Path(), help="Named polygons, any vector file: scores for each."),
    click.option("--region-field", metavar="FIELD", help="Field that names the regions.  [default: region]"),
    about_labels,
    click.option(
        "--objects",
        is_flag=True,
        default=None,
        help="With labels: score buildings as objects and roads as lines, too; takes several times as long.",
    ),
    click.option("--errors", is_flag=True, default=None, help=f"With labels: {ERRORS_HELP}"),
    click.option("--mask", type=click.Path(), help="What to leave out (clouds, ...): a raster, or polygons."),
    click.option(
        "--mask-values",
        callback=_numbers,
        metavar="N,N",
        help="Values of the mask raster that leave pixels out.  [default: all but 0]",
    ),
    click.option("--aoi", type=click.Path(), help="Area of interest: map only inside these polygons."),
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
        "--margin-px",
        type=int,
        metavar="N",
        help="What each patch gives up on each side.  [default: 64, a quarter of smaller patches]",
    ),
    click.option("--blend", type=click.Choice(["crop", "hann"]), help="How patches meet.  [default: crop]"),
    click.option(
        "--tta",
        type=click.Choice(["none", "d4"]),
        help="Average over the 8 symmetries: slower, a little better.  [default: none]",
    ),
    click.option("--gsd", type=float, metavar="M", help="Resample to this ground sample distance in metres."),
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
    generalizing,
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
)

"""Commands that make figures and polygons of class rasters."""

from __future__ import annotations

from typing import Any

import click

from geoseg.cli.options import DISK, ERRORS_HELP, about_labels, class_raster, generalizing, region_field


@click.command()
@click.argument("landcover", type=click.Path())
@click.argument("labels", type=click.Path())
@click.option("--regions", type=click.Path(), help="Named polygons, any vector file: scores for each.")
@region_field
@click.option(
    "-o",
    "--output",
    type=DISK,
    metavar="OUT",
    help="Folder for metrics.json, regions.csv and errors.tif.",
)
@click.option(
    "--confidence",
    type=click.Path(),
    metavar="RASTER",
    help="Whole percent on the map's grid: adds calibration.  [default: confidence.tif beside the map, if it fits]",
)
@about_labels
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
@click.option("--errors", is_flag=True, help=f"{ERRORS_HELP[0].upper()}{ERRORS_HELP[1:]}")
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


@click.command()
@click.argument("landcover", type=click.Path())
@click.argument("regions", type=click.Path(), required=False)
@region_field
@click.option(
    "--labels", type=click.Path(), help="True classes, a raster on the map's grid: adds adjusted areas."
)
@click.option(
    "--metrics", type=click.Path(), metavar="FILE", help="The same from the metrics.json of an evaluation."
)
@class_raster
@click.option("-o", "--output", type=DISK, metavar="AREAS.csv", help="Table to write.")
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


@click.command()
@click.argument("before", type=click.Path())
@click.argument("after", type=click.Path())
@click.option("--regions", type=click.Path(), help="Named polygons, any vector file: a table for each.")
@region_field
@click.option(
    "--overlap",
    type=float,
    default=0.25,
    show_default=True,
    help="Share of a building that the other side's must cover for it to be there still.",
)
@class_raster
@click.option("-o", "--output", required=True, type=DISK, metavar="OUT", help="Folder for the results.")
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


@click.command()
@click.argument("landcover", type=click.Path())
@click.option("-o", "--output", required=True, type=DISK, metavar="OUT.gpkg", help="GeoPackage to write.")
@class_raster
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
@generalizing
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

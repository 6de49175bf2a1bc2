"""Commands that map scenes, and that tell of runs."""

from __future__ import annotations

import sys
from typing import Any

import click

from geoseg.cli.options import DISK, job_options


@click.command()
@job_options
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


@click.command()
@job_options
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


@click.command()
@click.argument("output", type=click.Path(), metavar="OUT")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def status(output: str, as_json: bool) -> None:
    """Say how far a run is, or how it ended, from any machine that sees its output folder.

    Takes some seconds where a run may be under way: it watches whether its heartbeat rises, and compares no clocks.

    Exit codes: 0 nothing has failed; 1 some scenes failed, or have holes; 2 there is no run.
    """
    import json

    from geoseg.io.places import place_of
    from geoseg.run.status import format_status, status_of

    found = status_of(place_of(output))
    click.echo(json.dumps(found.to_dict(), indent=2) if as_json else format_status(found))
    sys.exit(1 if found.failed else 0)


@click.command()
@click.argument("output", metavar="OUT", type=click.Path())
def report(output: str) -> None:
    """Make the pages of a run again, from its results alone: OUT/index.html, and a report in each scene's folder.

    Each page is one file that opens from disk and loads nothing. Exit code 1 where a scene's results are damaged
    (named, with the reason); the other pages are written.
    """

    from geoseg.io.places import place_of
    from geoseg.io.rasters import configure_gdal
    from geoseg.report.everything import write_reports

    configure_gdal()
    written, failed = write_reports(place_of(output))
    for path in written:
        click.echo(path)
    for error in failed:
        click.echo(f"error: {error}", err=True)
    sys.exit(1 if failed else 0)


@click.command()
@click.option(
    "-o",
    "--output",
    required=True,
    type=DISK,
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

"""Say what lies in some regions: maps, hectares and scores per region, and the report, by one command.

python workflows/region_analysis.py workflows/region_analysis.yaml
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from geoseg.errors import GeosegError, OutputError, SourceError, SpecError
from geoseg.io.files import publish_bytes
from geoseg.io.rasters import configure_gdal
from geoseg.parallel import threaded_map
from geoseg.report.facts import INDEX, LANDCOVER, REPORT
from geoseg.run.areas import AREAS_FILE, AreasOptions, areas_of_files, format_table
from geoseg.run.evaluating import METRICS_FILE, REGIONS_FILE
from geoseg.run.events import Reporter, make_reporter
from geoseg.run.job import Job, SceneEntry, make_job
from geoseg.run.pipeline import Run

NOTHING_DONE, INTERRUPTED = 2, 130
TABLES = {AREAS_FILE: "region_areas.csv", REGIONS_FILE: "region_scores.csv"}
"""Files of each scene, and those that hold them for all scenes."""


def analyze(job: Job, reporter: Reporter) -> int:
    """Map the scenes of a job, tell what lies in their regions, and write the tables of all scenes.

    Returns the exit code of the run. Raises GeosegError where nothing could start, or a table cannot be made.
    """
    without = [scene.path for scene in job.scenes if scene.regions is None]
    if without:
        raise SpecError("names no regions; add 'regions: FILE' to this scene", without[0])
    run = Run(job, reporter)
    code = run.go()
    names = {report.name for report in run.reports if report.error is None}
    done = [scene for scene in job.scenes if scene.name in names]
    output = Path(job.output)
    for scene in done:
        click.echo(f"\n{scene.name}\n{describe(scene, output / scene.name, job.region_field)}")
    tables = [output / TABLES[name] for name in TABLES if gather(name, done, output)]
    pages = [output / INDEX, *(output / scene.name / REPORT for scene in done)]
    click.echo("\n" + "\n".join(f"{path}" for path in (*tables, *pages) if path.is_file()))
    return code


def describe(scene: SceneEntry, folder: Path, region_field: str) -> str:
    """Hectares of each class per region as a table; corrected for the map's errors where there are labels."""
    metrics = str(folder / METRICS_FILE) if scene.labels else None
    options = AreasOptions(scene.regions, region_field, metrics=metrics)
    return format_table(areas_of_files(str(folder / LANDCOVER), threaded_map, options))


def gather(name: str, scenes: Sequence[SceneEntry], output: Path) -> bool:
    """Write a table of all scenes, with the scene in its first column. False, and no file, where no scene has one."""
    target, text = output / TABLES[name], io.StringIO()
    writer = None
    for path in (output / scene.name / name for scene in scenes):
        if not path.is_file():
            continue
        try:
            with path.open(newline="", encoding="utf-8") as stream:
                table = csv.DictReader(stream)
                if writer is None:
                    writer = csv.DictWriter(text, ["scene", *(table.fieldnames or ())], lineterminator="\n")
                    writer.writeheader()
                writer.writerows({"scene": path.parent.name, **row} for row in table)
        except (OSError, ValueError, csv.Error) as error:
            raise SourceError(
                f"cannot be read as a table ({error}); delete it and run again", path
            ) from error
    if writer is not None:
        publish_bytes(target, text.getvalue().encode())
        return True
    try:
        target.unlink(missing_ok=True)  # of an earlier analysis that had more
    except OSError as error:
        raise OutputError(f"cannot be removed ({error.strerror or error})", target) from error
    return False


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("job", metavar="JOB.yaml", type=click.Path())
@click.option(
    "-o", "--output", type=click.Path(), metavar="OUT", help="Folder for the results, instead of the job's."
)
def main(job: str, output: str | None) -> None:
    """Say what lies in some regions: how much of each class, how sure that is, and where to look.

    JOB.yaml is a job of `geoseg run` in which each scene names its regions and, where they are known, labels:

    \b
      output: harbour
      scenes:
        - path: north.tif
          regions: districts.gpkg    # polygons of any vector file, in any CRS
          labels: north_truth.tif    # true classes: adds scores, and areas corrected by them
        - {path: south.tif, regions: districts.gpkg}
      region_field: name             # the field that names the regions; 'region' if not given
      aoi: districts.gpkg            # map only inside these polygons: faster for a few regions of a large scene

    All other fields of a job may be added (`geoseg run --help` lists them). A table per scene is printed. OUT holds
    what `geoseg run` makes; region_areas.csv and, with labels, region_scores.csv of all scenes; and index.html, which
    leads to the report of each scene. A second run with the same job maps nothing again.

    Exit codes: 0 all done; 1 some scenes failed, the others are done; 2 nothing could start.
    """
    configure_gdal()
    try:
        asked = make_job({"output": output}, job)
        sys.exit(analyze(asked, make_reporter(asked.json_events)))
    except GeosegError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(NOTHING_DONE)
    except KeyboardInterrupt:
        click.echo("\nstopped; the same command goes on from here", err=True)
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()

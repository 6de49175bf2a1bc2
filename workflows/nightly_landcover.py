"""Map every night what is new or changed, on this machine or on a Ray cluster, and say what became of it.

python workflows/nightly_landcover.py workflows/nightly_landcover.yaml
"""

from __future__ import annotations

import json
import sys

import click

from geoseg.errors import GeosegError
from geoseg.io.rasters import configure_gdal
from geoseg.report.nights import write_nights
from geoseg.run.events import make_reporter
from geoseg.run.nights import list_scenes, output_of, read_night_job, run_night

NOTHING_STARTED, INTERRUPTED = 2, 130


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("job", metavar="NIGHT.yaml", type=click.Path())
@click.option("--list", "only_list", is_flag=True, help="Say which scenes there are, and map nothing.")
@click.option(
    "--json", "as_json", is_flag=True, help="Events, and the night, as JSON lines on standard output."
)
def main(job: str, only_list: bool, as_json: bool) -> None:
    """Map what is new or changed since the last good night; leave the rest as it is, and say so.

    NIGHT.yaml says where scenes come from, and how they are mapped; paths start from its folder:

    \b
      sources:                        # one or more
        - glob: incoming/**/*.tif     # files, or objects: s3://bucket/incoming/**/*.tif
        - prefix: s3://bucket/scenes  # all rasters below
        - csv: scenes.csv             # columns path and, where wanted, labels, regions, mask
        - stac: archive/catalog.json  # a static STAC catalog, on disk or in a bucket
          asset: visual               # the asset to map; 'image' if not given
          mask_asset: clouds          # the asset that leaves pixels out
      mask: "{stem}_clouds.tif"       # the mask that lies beside each scene, where it is there
      keep_nights: 30                 # results of a scene that is listed no more stay for so many nights
      job:                            # the fields of a job of `geoseg run`, but the scenes
        output: results               # or s3://bucket/results
        mask_values: [3, 8, 9]
        hours: 6                      # then no block is begun; the next night goes on
        address: auto                 # the Ray cluster to join

    A scene is mapped again where its content, its mask, the model or a parameter has changed. One that fails stops no
    other, and is tried again the next night. OUT holds what `geoseg run` makes, nights.html (what each night did, area
    by class and its change) and nights.json (the same for programs). `geoseg status OUT` watches from elsewhere.

    Exit codes: 0 all done, or postponed for lack of time; 1 some scenes failed, the others are done; 2 nothing could
    start.
    """
    configure_gdal()
    try:
        night, base = read_night_job(job)
        if only_list:
            listing = list_scenes(night, base)
            for name, files in listing.scenes.items():
                click.echo(f"{name}: {', '.join(f'{kind} {path}' for kind, path in files.items())}")
            for reason in listing.refused.values():
                click.echo(f"error: {reason}", err=True)
            sys.exit(1 if listing.refused else 0)
        record = run_night(night, base, make_reporter(as_json))
        page = write_nights(output_of(night, base))
    except GeosegError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(NOTHING_STARTED)
    except KeyboardInterrupt:
        click.echo("\nstopped; the same command goes on from here", err=True)
        sys.exit(INTERRUPTED)
    if as_json:
        click.echo(json.dumps({"event": "night", **record.__dict__}, ensure_ascii=False))
    else:
        counts = {
            "mapped": record.done, "unchanged": record.unchanged, "postponed": record.postponed,
            "failed": record.failed, "removed": record.removed,
        }  # fmt: skip
        said = ", ".join(f"{len(names)} {what}" for what, names in counts.items() if names) or "no scenes"
        click.echo(f"night {record.number}: {said}; {page}")
    sys.exit(record.exit_code)


if __name__ == "__main__":
    main()

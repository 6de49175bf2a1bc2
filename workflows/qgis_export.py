"""Hand a finished run over: a folder, and if wanted a ZIP, that opens in QGIS wherever it is put.

python workflows/qgis_export.py workflows/qgis_export.yaml
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from geoseg.errors import GeosegError
from geoseg.io.rasters import configure_gdal
from geoseg.run.handover import export, read_job

NOTHING_DONE, INTERRUPTED = 2, 130


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("job", metavar="JOB.yaml", type=click.Path())
def main(job: str) -> None:
    """Make a folder that can be handed over from the results of `geoseg run`.

    It holds, for each finished scene, the rasters with styles, vectors.gpkg, a QGIS project with relative paths,
    copies of the layers in other formats, a STAC item and, over all, a catalog and a README.txt that says what it
    is. A scene that failed or is not finished is named and left out. JOB.yaml:

    \b
      results: out               # output folder of geoseg run
      output: for_the_town       # folder to make
      scenes: [north, south]     # all finished ones if not given
      title: Land cover 2026     # of the catalog
      format: [parquet, geojson] # copies of each layer: gpkg, parquet, fgb, geojson
      crs: EPSG:4326             # of these copies; that of the scene if not given
      zip: true                  # for_the_town.zip, too
      overwrite: true            # replace an earlier export

    Only `results` and `output` must be there; both start from the job file's folder. The folder appears whole or not
    at all.

    Exit codes: 0 all done; 1 some scenes were left out, the others are done; 2 nothing was made.
    """
    configure_gdal()
    try:
        sys.exit(export(read_job(Path(job)), lambda line: click.echo(line, err=True)))
    except GeosegError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(NOTHING_DONE)
    except KeyboardInterrupt:
        click.echo("\nstopped", err=True)
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()

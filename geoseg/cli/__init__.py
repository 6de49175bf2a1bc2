"""The command line. Heavy imports wait inside the commands, so that help is instant."""

from __future__ import annotations

import sys
from typing import Any

import click

from geoseg.cli import figures, models, run
from geoseg.errors import GeosegError

INTERRUPTED = 130


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
        except OSError as error:  # a bucket that cannot be asked
            if "://" not in str(error.filename):
                raise
            click.echo(f"error: {error.filename}: {error.strerror}", err=True)
            sys.exit(2)
        except KeyboardInterrupt:
            click.echo("\nstopped; the same command goes on from here", err=True)
            sys.exit(INTERRUPTED)


@click.group(
    name="geoseg",
    cls=Commands,
    commands=[
        run.run,
        run.plan,
        run.status,
        run.report,
        run.demo,
        figures.evaluate,
        figures.areas,
        figures.compare,
        figures.vectorize,
        models.train,
        models.models,
        models.model,
    ],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show versions."
)
def main() -> None:
    """Turn large satellite and aerial GeoTIFFs into land-cover maps, buildings and roads.

    Start with:  geoseg demo -o demo    then:  geoseg run SCENE.tif -o OUT
    """

"""One try of the command line, and the rule: bad input gets one line, the right exit code, and no half results."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from click.testing import CliRunner

from geoseg.cli import main
from tests.run.results import TRANSFORM

DONE, SOME_FAILED, NOTHING_STARTED = 0, 1, 2


@dataclass(frozen=True)
class Attempt:
    """What a command answered. stderr: its lines. published: files under final names."""

    code: int
    stderr: list[str]
    stdout: str
    published: list[str]

    @property
    def errors(self) -> list[str]:
        return [line.removeprefix("error: ") for line in self.stderr if line.startswith("error: ")]

    @property
    def warnings(self) -> list[str]:
        return [line.removeprefix("warning: ") for line in self.stderr if line.startswith("warning: ")]

    def refused(self, code: int, *words: object) -> None:
        """Holds the rule: `code`, one error line with these words and no other noise, nothing published."""
        assert self.code == code, self.stderr
        assert len(self.errors) == 1, self.stderr
        assert len(self.warnings) == len(self.stderr) - 1, self.stderr
        assert not any("unexpected" in line or "Traceback" in line for line in self.stderr), self.stderr
        for word in words:
            assert str(word) in self.errors[0]
        assert not self.published


Try = Callable[..., Attempt]


def attempt(output: Path, *arguments: object, command: str = "run") -> Attempt:
    """Run a command in this process; an exception that a user would see as a traceback fails the test."""
    result = CliRunner().invoke(main, [command, *map(str, arguments), "-o", str(output)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Attempt(result.exit_code, result.stderr.splitlines(), result.stdout, published(output))


def attempt_in_shell(output: Path, *arguments: object) -> Attempt:
    """The same through the installed command, in a process of its own."""
    command = [str(Path(sys.executable).with_name("geoseg")), "run", *map(str, arguments), "-o", str(output)]
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("GDAL_", "CPL_"))
    }
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    return Attempt(done.returncode, done.stderr.splitlines(), done.stdout, published(output))


OF_THE_RUN = ("run.json", "catalog.json", "index.html")


def published(output: Path) -> list[str]:
    """Files that look finished; half-written ones among them would be lies."""
    files = [p.relative_to(output) for p in output.rglob("*") if p.is_file()] if output.is_dir() else []
    assert not [f for f in files if f.name.endswith(".part")]
    return sorted(str(f) for f in files if ".geoseg" not in f.parts and f.name not in OF_THE_RUN)


def write_raster(path: Path, pixels: np.ndarray, **profile: Any) -> Path:
    """pixels: (band, row, col). A GeoTIFF at the place of the other test scenes, unless told otherwise."""
    bands, height, width = pixels.shape
    size = {"driver": "GTiff", "count": bands, "height": height, "width": width, "dtype": pixels.dtype}
    with rasterio.open(path, "w", **{"crs": "EPSG:32640", "transform": TRANSFORM, **size, **profile}) as out:
        out.write(pixels)
    return path


def write_vrt(path: Path, height: int, width: int, bands: int = 3, source: str | None = None) -> Path:
    """A VRT of any size in a few hundred bytes; source: a file beside it that all bands are read from."""
    name = f'<SourceFilename relativeToVRT="1">{source}</SourceFilename><SourceBand>1</SourceBand>'
    inside = f"<SimpleSource>{name}</SimpleSource>" if source else ""
    transform = ", ".join(map(str, TRANSFORM.to_gdal()))
    layers = (f'<VRTRasterBand dataType="Byte" band="{b + 1}">{inside}</VRTRasterBand>' for b in range(bands))
    head = f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}"><SRS>EPSG:32640</SRS>'
    path.write_text(f"{head}<GeoTransform>{transform}</GeoTransform>{''.join(layers)}</VRTDataset>")
    return path


def cut_short(path: Path, size: int | float) -> Path:
    """Keep the first bytes of a file: so many, or that share of it, or all but so many where below zero."""
    content = path.read_bytes()
    path.write_bytes(content[: int(size * len(content)) if isinstance(size, float) else size])
    return path

"""Versions of what decides a result."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from geoseg import __version__


def versions() -> dict[str, str]:
    """geoseg, Python and the libraries below it; imports GDAL and PROJ, but neither torch nor ray."""
    import pyproj
    import rasterio

    found = {"geoseg": __version__, "python": platform.python_version()}
    found |= {"gdal": rasterio.__gdal_version__, "proj": pyproj.proj_version_str}
    for package in ("torch", "ray", "openvino"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found

"""QGIS plugin: geoseg's commands as algorithms of the Processing toolbox."""

from __future__ import annotations

from typing import Any


def classFactory(iface: Any) -> Any:
    """What QGIS calls for the plugin. iface: None in qgis_process, which has no window."""
    from .provider import Plugin

    return Plugin()

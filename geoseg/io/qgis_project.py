"""A QGIS project over the results of a scene: layers in groups, relative paths, the scene in view."""

from __future__ import annotations

import io
import uuid
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from geoseg.grid.geogrid import GeoGrid
from geoseg.io.qgis_styles import DOCTYPE, QGIS_VERSION, Style, element, xml_text

ZIP_TIME = (1980, 1, 1, 0, 0, 0)
NAMESPACE = uuid.UUID("4f0c7a6e-2f0b-5c55-9a43-6d1d5d2a6b11")


@dataclass(frozen=True)
class ProjectLayer:
    """A layer of a project. geometry: None for a raster. source: relative to the project's folder."""

    title: str
    geometry: str | None
    source: str
    style: Style
    visible: bool = True

    def id(self, grid: GeoGrid) -> str:
        """The same for the same content. (QGIS replaces ids of ten characters or fewer.)"""
        content = f"{self.title}\n{self.source}\n{grid}\n{self.style.qml()}"
        name = self.source.rpartition("=")[2].partition(".")[0]
        return f"{name}_{uuid.uuid5(NAMESPACE, content)}".replace("-", "_")


def project_archive(title: str, grid: GeoGrid, groups: Mapping[str, Sequence[ProjectLayer]]) -> bytes:
    """A .qgz: a ZIP with one .qgs, the same bytes for the same arguments. groups and their layers: top first."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        entry = zipfile.ZipInfo("project.qgs", ZIP_TIME)
        entry.compress_type = zipfile.ZIP_DEFLATED
        entry.create_system, entry.external_attr = 3, 0o644 << 16
        archive.writestr(entry, DOCTYPE + project_xml(title, grid, groups))
    return stream.getvalue()


def project_xml(title: str, grid: GeoGrid, groups: Mapping[str, Sequence[ProjectLayer]]) -> str:
    """The project as QGIS reads it."""
    layers = [layer for group in groups.values() for layer in group]
    root = element(
        "qgis",
        {"projectname": title, "version": QGIS_VERSION},
        element("homePath", {"path": ""}),
        element("title", text=title),
        *_crs("projectCrs", grid),
        _tree(grid, groups),
        element("projectlayers", None, *(_map_layer(layer, grid) for layer in layers)),
        _canvas(grid),
        _view(grid),
        _settings(grid),
    )
    return xml_text(root)


def _crs(tag: str, grid: GeoGrid) -> list[Element]:
    """The raster's CRS under some tag; nothing where it has none. QGIS finds the EPSG code itself."""
    if grid.crs is None:
        return []
    return [
        element(tag, None, element("spatialrefsys", {"nativeFormat": "Wkt"}, element("wkt", text=grid.crs)))
    ]


def _tree(grid: GeoGrid, groups: Mapping[str, Sequence[ProjectLayer]]) -> Element:
    shown = {True: "Qt::Checked", False: "Qt::Unchecked"}
    branches = []
    for name, layers in groups.items():
        leaves = [
            element(
                "layer-tree-layer",
                {
                    "id": layer.id(grid),
                    "name": layer.title,
                    "source": f"./{layer.source}",
                    "providerKey": _provider(layer),
                    "checked": shown[layer.visible],
                    "expanded": int(layer.visible),
                },
            )
            for layer in layers
        ]
        branches.append(
            element("layer-tree-group", {"name": name, "checked": shown[True], "expanded": 1}, *leaves)
        )
    return element("layer-tree-group", None, *branches)


def _provider(layer: ProjectLayer) -> str:
    return "ogr" if layer.geometry else "gdal"


def _map_layer(layer: ProjectLayer, grid: GeoGrid) -> Element:
    kind = {"type": "vector", "geometry": layer.geometry} if layer.geometry else {"type": "raster"}
    return element(
        "maplayer",
        {**kind, "styleCategories": "AllStyleCategories", **layer.style.attributes},
        element("id", text=layer.id(grid)),
        element("datasource", text=f"./{layer.source}"),
        element("layername", text=layer.title),
        *_crs("srs", grid),
        element("provider", {"encoding": "UTF-8"} if layer.geometry else None, text=_provider(layer)),
        *layer.style.parts,
    )


def extent(grid: GeoGrid) -> dict[str, float]:
    """The raster's bounding box."""
    corners = [(0, 0), (grid.width, 0), (grid.width, grid.height), (0, grid.height)]
    xs, ys = zip(*(grid.transform @ corner for corner in corners), strict=True)
    return {"xmin": min(xs), "ymin": min(ys), "xmax": max(xs), "ymax": max(ys)}


def _canvas(grid: GeoGrid) -> Element:
    sides = [element(side, text=repr(value)) for side, value in extent(grid).items()]
    return element(
        "mapcanvas",
        {"name": "theMapCanvas", "annotationsVisible": 1},
        element("extent", None, *sides),
        element("rotation", text="0"),
        *_crs("destinationsrs", grid),
    )


def _view(grid: GeoGrid) -> Element:
    box = element("DefaultViewExtent", {side: repr(value) for side, value in extent(grid).items()})
    box.extend(part for holder in _crs("holder", grid) for part in holder)
    return element("ProjectViewSettings", {"UseProjectScales": 0}, element("Scales"), box)


def _settings(grid: GeoGrid) -> Element:
    """Paths are relative; without the switch for projections QGIS passes over the project's CRS."""
    absolute = element("Absolute", {"type": "bool"}, text="false")
    projected = element("ProjectionsEnabled", {"type": "int"}, text="0" if grid.crs is None else "1")
    return element(
        "properties",
        None,
        element("Paths", None, absolute),
        element("SpatialRefSys", None, projected),
    )

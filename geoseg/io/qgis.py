"""What makes a scene's results open in QGIS with names, colors and place: styles beside the files, and a project."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from geoseg.grid.geogrid import GeoGrid
from geoseg.io.files import publish_bytes
from geoseg.io.qgis_project import ProjectLayer, project_archive
from geoseg.io.qgis_styles import attribute_table, class_style, percent_style, score_style, vector_style
from geoseg.io.vectors import output_errors
from geoseg.legend import Legend
from geoseg.stages.mistakes import missed_classes

PROJECT = "project.qgz"
SIDECARS = ("landcover.qml", "landcover.tif.aux.xml", "confidence.qml", PROJECT)
STYLE_NAME = "geoseg"

VECTOR_LAYERS = {
    "regions": ("Regions", "Polygon"),
    "road_nodes": ("Road nodes", "Point"),
    "road_centerlines": ("Road centerlines", "Line"),
    "buildings": ("Buildings", "Polygon"),
    "roads": ("Roads", "Polygon"),
    "landcover": ("Land cover, simplified", "Polygon"),
}
"""Title and geometry of the layers of vectors.gpkg, in the order in which they lie upon each other."""

STYLE_TABLE = """
CREATE TABLE IF NOT EXISTS "layer_styles" ("id" INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
 "f_table_catalog" TEXT(256), "f_table_schema" TEXT(256), "f_table_name" TEXT(256), "f_geometry_column" TEXT(256),
 "styleName" TEXT(30), "styleQML" TEXT, "styleSLD" TEXT, "useAsDefault" BOOLEAN, "description" TEXT,
 "owner" TEXT(30), "ui" TEXT(30), "update_time" DATETIME DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ','now')))"""


def write_qgis(
    folder: Path,
    legend: Legend,
    grid: GeoGrid,
    layers: Sequence[str],
    region_columns: Sequence[str],
    title: str = "Land cover",
) -> None:
    """Write styles and a project for landcover.tif, confidence.tif, vectors.gpkg and, if it is there, errors.tif in
    `folder`.

    layers: those of vectors.gpkg, any of VECTOR_LAYERS. region_columns: the fields of `regions`; where miou is among
    them, that is shown. title: of the project. All paths are relative, so the folder may be moved; the same arguments
    give the same bytes. Raises OutputError where the disk refuses or vectors.gpkg lacks a layer.
    """
    ordered = sorted(layers, key=list(VECTOR_LAYERS).index)
    styles = {layer: vector_style(layer, legend, region_columns) for layer in ordered}
    store_styles(folder / "vectors.gpkg", {layer: style.qml() for layer, style in styles.items()})
    classes = class_style(legend)
    vectors = [
        ProjectLayer(*VECTOR_LAYERS[layer], f"vectors.gpkg|layername={layer}", style)
        for layer, style in styles.items()
    ]
    if "regions" in styles and "miou" in region_columns:
        scores = score_style(filled=True)
        vectors.append(
            ProjectLayer(
                "Regions by mIoU", "Polygon", "vectors.gpkg|layername=regions", scores, visible=False
            )
        )
    rasters = [
        ProjectLayer("Confidence", None, "confidence.tif", percent_style(opacity=0.7), visible=False),
        ProjectLayer("Land cover", None, "landcover.tif", classes),
    ]
    if (folder / "errors.tif").is_file():
        missed = class_style(missed_classes(legend))
        rasters.insert(0, ProjectLayer("Errors, by true class", None, "errors.tif", missed, visible=False))
    publish_bytes(folder / "landcover.qml", classes.qml().encode())
    publish_bytes(folder / "landcover.tif.aux.xml", attribute_table(legend).encode())
    publish_bytes(folder / "confidence.qml", percent_style().qml().encode())
    publish_bytes(folder / PROJECT, project_archive(title, grid, {"Vectors": vectors, "Rasters": rasters}))


def store_styles(path: Path, styles: Mapping[str, str]) -> None:
    """Keep a QML text per layer in a GeoPackage, where QGIS looks for default styles.

    In one transaction; a file that holds them already is not touched. Times are those of the file's own layers.
    """
    with (
        output_errors(path),
        closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)) as database,
    ):  # fmt: skip
        columns = dict(database.execute("SELECT table_name, column_name FROM gpkg_geometry_columns"))
        if missing := sorted(set(styles) - set(columns)):
            raise sqlite3.DataError(f"has no layer {', '.join(missing)}")
        wanted = [(layer, columns[layer], qml) for layer, qml in styles.items()]
        if _stored(database) == wanted:
            return
        database.execute("BEGIN IMMEDIATE")
        with database:
            _replace(database, wanted)


def _stored(database: sqlite3.Connection) -> list[tuple[str, str, str]]:
    if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'layer_styles'").fetchone():
        return []
    query = (
        "SELECT f_table_name, f_geometry_column, styleQML FROM layer_styles WHERE styleName = ? ORDER BY id"
    )
    return database.execute(query, (STYLE_NAME,)).fetchall()


def _replace(database: sqlite3.Connection, rows: Sequence[tuple[str, str, str]]) -> None:
    (time,) = database.execute("SELECT max(last_change) FROM gpkg_contents").fetchone()
    database.execute(STYLE_TABLE)
    database.execute("DELETE FROM layer_styles WHERE styleName = ?", (STYLE_NAME,))
    database.executemany(
        "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, f_geometry_column, styleName, "
        "styleQML, styleSLD, useAsDefault, description, owner, update_time) "
        "VALUES ('', '', ?, ?, ?, ?, '', 1, '', '', ?)",
        [(layer, column, STYLE_NAME, qml, time) for layer, column, qml in rows],
    )
    database.execute(
        "INSERT OR REPLACE INTO gpkg_contents (table_name, data_type, identifier, description, last_change) "
        "VALUES ('layer_styles', 'attributes', 'layer_styles', '', ?)",
        (time,),
    )

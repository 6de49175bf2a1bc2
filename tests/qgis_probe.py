"""What QGIS makes of files: run by a Python that has PyQGIS, prints one JSON object.

    QT_QPA_PLATFORM=offscreen /usr/bin/python3 tests/qgis_probe.py [--png FOLDER] FILE...

FILE: a raster, a layer as in vectors.gpkg|layername=roads, or a project. Layers are opened as drag and drop does, with
the default style that QGIS finds by itself.
"""

import json
import os
import sys
from collections import Counter

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from qgis.core import (
    Qgis,
    QgsApplication,
    QgsMapRendererSequentialJob,
    QgsMapSettings,
    QgsProject,
    QgsRasterLayer,
    QgsRectangle,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QSize
from qgis.PyQt.QtGui import QColor


def describe(layer):
    crs, box = layer.crs(), layer.extent()
    facts = {
        "name": layer.name(),
        "id": layer.id(),
        "valid": layer.isValid(),
        "crs": crs.authid(),
        "wkt": crs.toWkt(),
        "extent": [box.xMinimum(), box.yMinimum(), box.xMaximum(), box.yMaximum()],
    }
    if not layer.isValid():
        return facts
    renderer = layer.renderer()
    facts["renderer"] = renderer.type()
    if isinstance(layer, QgsRasterLayer):
        facts["opacity"] = renderer.opacity()
        if renderer.type() == "paletted":
            facts["classes"] = [[c.value, c.label, c.color.name()] for c in renderer.classes()]
        elif renderer.type() == "singlebandpseudocolor":
            ramp = renderer.shader().rasterShaderFunction()
            facts["classes"] = [
                [item.value, item.label, item.color.name()] for item in ramp.colorRampItemList()
            ]
        return facts
    facts["features"] = layer.featureCount()
    facts["labels"] = layer.labeling().settings().fieldName if layer.labelsEnabled() else None
    facts["classes"] = [[item.label(), item.symbol().color().name()] for item in renderer.legendSymbolItems()]
    if renderer.type() == "singleSymbol":
        facts["symbol"] = renderer.symbol().symbolLayer(0).properties()
    return facts


def draw(layers, crs, box, png):
    """The share of each color in a picture of the layers."""
    settings = QgsMapSettings()
    settings.setLayers(layers)
    settings.setDestinationCrs(crs)
    settings.setExtent(box)
    settings.setOutputSize(QSize(800, 800))
    settings.setOutputDpi(96)
    settings.setBackgroundColor(QColor("white"))
    job = QgsMapRendererSequentialJob(settings)
    job.start()
    job.waitForFinished()
    image = job.renderedImage()
    if png:
        image.save(png)
    colors = Counter(
        image.pixelColor(x, y).name() for y in range(0, image.height(), 4) for x in range(0, image.width(), 4)
    )
    return {
        "colors": {name: n / sum(colors.values()) for name, n in colors.most_common(40)},
        "distinct": len(colors),
        "errors": [error.message for error in job.errors()],
    }


def look_at_project(path, png):
    project = QgsProject()
    read = project.read(path)
    leaves = project.layerTreeRoot().findLayers()
    shown = [leaf.layer() for leaf in leaves if leaf.isVisible() and leaf.layer()]
    box = QgsRectangle(project.viewSettings().defaultViewExtent())
    return {
        "read": read,
        "error": project.error(),
        "title": project.title(),
        "crs": project.crs().authid(),
        "wkt": project.crs().toWkt(),
        "view": [box.xMinimum(), box.yMinimum(), box.xMaximum(), box.yMaximum()],
        "groups": {
            group.name(): [leaf.name() for leaf in group.findLayers()]
            for group in project.layerTreeRoot().findGroups()
        },
        "shown": [layer.name() for layer in shown],
        "layers": [describe(leaf.layer()) for leaf in leaves if leaf.layer()],
        "map": draw(shown, project.crs(), box, png),
    }


def look_at_layer(path, png):
    if path.endswith(".tif"):
        layer = QgsRasterLayer(path, os.path.basename(path), "gdal")
    else:
        layer = QgsVectorLayer(path, path.rpartition("=")[2], "ogr")
    facts = describe(layer)
    if layer.isValid():
        facts["map"] = draw([layer], layer.crs(), layer.extent(), png)
    return facts


def main(arguments):
    folder = None
    if arguments[0] == "--png":
        folder, arguments = arguments[1], arguments[2:]
    QgsApplication.setPrefixPath("/usr", True)
    application = QgsApplication([], False)
    application.initQgis()
    found = {"qgis": Qgis.QGIS_VERSION}
    for path in arguments:
        name = os.path.basename(path).rpartition("=")[2]
        png = os.path.join(folder, f"{name}.png") if folder else None
        look = look_at_project if path.endswith((".qgs", ".qgz")) else look_at_layer
        found[name] = look(path, png)
    print(json.dumps(found))
    sys.stdout.flush()
    os._exit(0)  # taking PyQGIS down in order can crash


main(sys.argv[1:])

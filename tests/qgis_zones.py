"""What QGIS finds of a raster below each polygon: run by a Python that has PyQGIS, prints JSON.

    QT_QPA_PLATFORM=offscreen /usr/bin/python3 tests/qgis_zones.py POLYGONS RASTER

A list of [class_id, area, number of pixels, least value, largest value], one for each polygon.
"""

import json
import os
import sys

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from qgis.analysis import QgsZonalStatistics as Zonal
from qgis.core import QgsApplication, QgsRasterLayer, QgsVectorLayer

WANTED = [Zonal.Count, Zonal.Min, Zonal.Max]


def zones(polygons, raster):
    layer, sides = raster.dataProvider(), (raster.rasterUnitsPerPixelX(), raster.rasterUnitsPerPixelY())
    for feature in polygons.getFeatures():
        shape = feature.geometry()
        found = Zonal.calculateStatistics(layer, shape, *sides, 1, Zonal.Count | Zonal.Min | Zonal.Max)
        yield [feature["class_id"], shape.area(), *(found.get(key) for key in WANTED)]


def main(polygons, raster):
    application = QgsApplication([], False)
    application.initQgis()
    layers = QgsVectorLayer(polygons, "polygons", "ogr"), QgsRasterLayer(raster, "raster", "gdal")
    print(json.dumps(list(zones(*layers))))
    sys.stdout.flush()
    os._exit(0)  # taking PyQGIS down in order can crash


main(*sys.argv[1:])

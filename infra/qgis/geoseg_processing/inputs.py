"""Files for geoseg from what a user chose in QGIS: layers of a project, files, selections, layers in memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsFeature,
    QgsFeatureRequest,
    QgsFeatureSink,
    QgsField,
    QgsFields,
    QgsMapLayer,
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeatureSource,
    QgsProcessingFeatureSourceDefinition,
    QgsProcessingFeedback,
    QgsProcessingUtils,
    QgsProviderRegistry,
    QgsRasterLayer,
    QgsVectorFileWriter,
    QgsVectorLayer,
    QgsWkbTypes,
)
from qgis.PyQt.QtCore import QVariant


def raster_file(layer: QgsRasterLayer) -> str:
    """The file behind a raster layer, or GDAL's name for it. Raises where GDAL does not serve it."""
    if layer.providerType() != "gdal":
        raise QgsProcessingException(
            f"layer {layer.name()!r} comes from {layer.providerType()!r}, not from a file; "
            "save it as GeoTIFF first (Export > Save As...)"
        )
    parts = QgsProviderRegistry.instance().decodeUri("gdal", layer.source())
    path = Path(parts.get("path") or "")
    plain = path.is_file() and not parts.get("layerName") and not parts.get("vsiPrefix")
    return str(path.absolute()) if plain else str(layer.source())


def warn_of_other_crs(layer: QgsRasterLayer, feedback: QgsProcessingFeedback) -> None:
    """geoseg reads the file, and so knows nothing of a CRS that was set in QGIS."""
    told = layer.dataProvider().crs()
    if layer.crs() != told:
        feedback.pushWarning(
            f"layer {layer.name()!r} is shown in {layer.crs().authid() or 'a CRS of its own'}, but its file says "
            f"{told.authid() or 'no CRS that has a code'}, which is what geoseg uses; "
            "state it in the file, for example with gdal_edit.py"
        )


@dataclass(frozen=True)
class File:
    """A vector file that geoseg can read as it is."""

    path: str

    def file(self, feedback: QgsProcessingFeedback) -> str:
        """The path for geoseg."""
        return self.path


@dataclass(frozen=True)
class Features:
    """Features that geoseg cannot find in a file. field: the only one that it wants, if any."""

    name: str
    field: str | None
    source: QgsProcessingFeatureSource

    def file(self, feedback: QgsProcessingFeedback) -> str:
        """The path of a temporary FlatGeobuf.

        The same features give the same bytes under the same name, so that geoseg knows them again when it resumes.
        """
        target = str(QgsProcessingUtils.generateTempFilename(f"{self.name}.fgb"))
        feedback.pushInfo(f"{self.source.sourceName()}: exported to {target}")
        fields = QgsFields()
        if self.field is not None:
            fields.append(QgsField(self.field, QVariant.String))
        options = QgsVectorFileWriter.SaveVectorOptions()
        options.driverName = "FlatGeobuf"
        options.layerOptions = ["SPATIAL_INDEX=NO"]  # an index reorders features
        kind = QgsWkbTypes.multiType(QgsWkbTypes.flatType(self.source.wkbType()))
        crs, context = self.source.sourceCrs(), QgsProcessingContext().transformContext()
        writer = QgsVectorFileWriter.create(target, fields, kind, crs, context, options)
        for feature in self._features(fields):
            if writer.hasError() or not writer.addFeature(feature, QgsFeatureSink.FastInsert):
                break
        problem, message = writer.hasError(), writer.errorMessage()
        del writer  # closes the file
        if problem:
            raise QgsProcessingException(f"{target}: cannot be written ({message})")
        return target

    def _features(self, fields: QgsFields) -> Any:
        # geoseg repairs invalid polygons itself.
        flag = QgsProcessingFeatureSource.FlagSkipGeometryValidityChecks
        for feature in self.source.getFeatures(QgsFeatureRequest(), flag):
            out = QgsFeature(fields)
            geometry = feature.geometry()
            if not geometry.isNull():
                geometry.convertToMultiType()
                geometry.get().dropZValue()
                geometry.get().dropMValue()
                out.setGeometry(geometry)
            if self.field is not None:
                value = feature[self.field]
                out[self.field] = None if value is None or value == QVariant() else str(value)
            yield out


def polygons(
    algorithm: QgsProcessingAlgorithm, parameters: dict[str, Any], name: str, context: QgsProcessingContext,
    field: str | None = None,
) -> File | Features | None:  # fmt: skip
    """The vector input of a parameter; None where none was chosen. To be called in the thread of the layers."""
    if parameters.get(name) in (None, ""):
        return None
    source = algorithm.parameterAsSource(parameters, name, context)
    if source is None:
        raise QgsProcessingException(algorithm.invalidSourceError(parameters, name))
    if field is not None and source.fields().lookupField(field) < 0:
        there = ", ".join(source.fields().names())
        raise QgsProcessingException(
            f"{source.sourceName()}: has no field {field!r}; its fields are: {there}"
        )
    layer = algorithm.parameterAsVectorLayer(parameters, name, context)
    path = None if layer is None or _is_part(parameters[name]) else _plain_file(layer, field)
    return Features(name.lower(), field, source) if path is None else File(path)


def _is_part(value: Any) -> bool:
    """Whether only some of a layer's features are meant."""
    if not isinstance(value, QgsProcessingFeatureSourceDefinition):
        return False
    return bool(
        value.selectedFeaturesOnly or value.featureLimit >= 0 or getattr(value, "filterExpression", "")
    )


def _plain_file(layer: QgsVectorLayer, field: str | None) -> str | None:
    """The file that holds exactly what a layer shows, where geoseg will find the same in it; else None."""
    parts = QgsProviderRegistry.instance().decodeUri("ogr", layer.source())
    path = Path(parts.get("path") or "")
    if (
        layer.providerType() != "ogr"
        or not path.is_file()
        or parts.get("vsiPrefix")
        or layer.subsetString()
        or layer.isModified()
        or layer.crs() != layer.dataProvider().crs()
        or (field is not None and layer.dataProvider().fields().lookupField(field) < 0)
    ):
        return None
    inside = QgsProviderRegistry.instance().querySublayers(str(path))
    with_polygons = [
        part for part in inside if part.wkbType() not in (QgsWkbTypes.NoGeometry, QgsWkbTypes.Point)
    ]
    return str(path.absolute()) if len(with_polygons) == 1 else None


def is_raster(layer: QgsMapLayer) -> bool:
    """As opposed to polygons, where both may be given."""
    return isinstance(layer, QgsRasterLayer)

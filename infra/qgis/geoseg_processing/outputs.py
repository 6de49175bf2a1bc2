"""Results of geoseg as layers: found in their files, and loaded into the project with their styles."""

from __future__ import annotations

from qgis.core import (
    QgsMapLayer,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProcessingLayerPostProcessorInterface,
    QgsProcessingUtils,
    QgsProviderRegistry,
    QgsWkbTypes,
)

TITLES = {
    "confidence.tif": "Confidence",
    "landcover.tif": "Land cover",
    "landcover": "Land cover, simplified",
    "roads": "Roads",
    "buildings": "Buildings",
    "road_centerlines": "Road centerlines",
    "road_nodes": "Road nodes",
    "regions": "Regions",
}
"""What rasters and layers are called in the project, lowest first."""
HIDDEN = ("landcover",)
"""It would lie over the others in QGIS before 3.32, which sorts layers by the names of their files."""

_waiting: list[QgsProcessingLayerPostProcessorInterface] = []
"""QGIS holds only the C++ half of these, and would find them empty."""


class _OwnStyle(QgsProcessingLayerPostProcessorInterface):  # type: ignore[misc]
    """Takes the style that geoseg wrote beside a raster or into the GeoPackage, which Processing passes over."""

    def __init__(self, hidden: bool) -> None:
        super().__init__()
        self.hidden = hidden

    def postProcessLayer(
        self, layer: QgsMapLayer, context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> None:
        layer.reload()  # a layer of an earlier run may be in the project
        layer.loadDefaultStyle()
        node = context.project().layerTreeRoot().findLayer(layer)
        if self.hidden and node is not None:
            node.setItemVisibilityChecked(False)
        layer.triggerRepaint()
        _waiting.remove(self)


def geopackage_layers(path: str) -> dict[str, str]:
    """The layers of a GeoPackage that have geometries: name and source."""
    return {
        part.name(): part.uri()
        for part in QgsProviderRegistry.instance().querySublayers(path)
        if part.wkbType() != QgsWkbTypes.NoGeometry
    }


def load(name: str, sources: dict[str, str], context: QgsProcessingContext) -> None:
    """Have results (file or layer: source) loaded with their styles when the algorithm has finished."""
    order = list(TITLES)
    for key, source in sources.items():
        title, hint = f"{name}: {TITLES.get(key, key)}", QgsProcessingUtils.LayerHint.UnknownType
        details = QgsProcessingContext.LayerDetails(title, context.project(), title, hint)
        details.forceName = True
        details.layerSortKey = order.index(key) if key in order else len(order)  # heeded from 3.32 on
        style = _OwnStyle(key in HIDDEN)
        _waiting.append(style)
        details.setPostProcessor(style)
        context.addLayerToLoadOnCompletion(source, details)

"""The provider: what the Processing toolbox lists under "geoseg", and its one setting."""

from __future__ import annotations

from pathlib import Path

from processing.core.ProcessingConfig import ProcessingConfig, Setting
from qgis.core import QgsApplication, QgsProcessingProvider
from qgis.PyQt.QtGui import QIcon

from .algorithms import MapLandCover, VectorizeClassMap
from .process import SETTING

ICON = str(Path(__file__).with_name("icon.svg"))


class Provider(QgsProcessingProvider):  # type: ignore[misc]
    """Algorithms that start geoseg as a process."""

    def id(self) -> str:
        return "geoseg"

    def name(self) -> str:
        return "geoseg"

    def longName(self) -> str:
        return "geoseg: land cover, buildings and roads"

    def icon(self) -> QIcon:
        return QIcon(ICON)

    def svgIconPath(self) -> str:
        return ICON

    def load(self) -> bool:
        ProcessingConfig.settingIcons[self.name()] = self.icon()
        text = "Program geoseg (if empty: environment variable GEOSEG, else the PATH)"
        ProcessingConfig.addSetting(Setting(self.name(), SETTING, text, "", valuetype=Setting.FILE))
        ProcessingConfig.readSettings()
        self.refreshAlgorithms()
        return True

    def unload(self) -> None:
        ProcessingConfig.removeSetting(SETTING)

    def loadAlgorithms(self) -> None:
        self.addAlgorithm(MapLandCover())
        self.addAlgorithm(VectorizeClassMap())


class Plugin:
    """Adds the provider, with and without a window."""

    def __init__(self) -> None:
        self.provider: Provider | None = None

    def initProcessing(self) -> None:
        self.provider = Provider()
        QgsApplication.processingRegistry().addProvider(self.provider)

    def initGui(self) -> None:
        self.initProcessing()

    def unload(self) -> None:
        QgsApplication.processingRegistry().removeProvider(self.provider)

"""The algorithms: parameters in, a command line of geoseg, results back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingOutputFile,
    QgsProcessingOutputHtml,
    QgsProcessingOutputRasterLayer,
    QgsProcessingOutputVectorLayer,
    QgsProcessingParameterDefinition,
)
from qgis.PyQt.QtGui import QIcon

from . import parameters as definitions
from .inputs import is_raster, polygons, raster_file, warn_of_other_crs
from .outputs import TITLES, geopackage_layers, load
from .process import run_geoseg
from .progress import RunProgress

ICON = str(Path(__file__).with_name("icon.svg"))
VECTORS = ("buildings", "roads", "regions")
OPTIONAL = QgsProcessingParameterDefinition.FlagOptional
PROGRAM = (
    "Where geoseg is not on the PATH, name it under Settings > Options > Processing > Providers > geoseg."
)

Values = dict[str, Any]


class Algorithm(QgsProcessingAlgorithm):  # type: ignore[misc]
    """What both have in common."""

    def icon(self) -> QIcon:
        return QIcon(ICON)

    def svgIconPath(self) -> str:
        return ICON

    def createInstance(self) -> Algorithm:
        return type(self)()

    def raster(
        self, values: Values, name: str, context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> str:
        """The file of a raster parameter; an empty string where it was not given."""
        if self.parameterDefinition(name).flags() & OPTIONAL and values.get(name) in (None, ""):
            return ""
        layer = self.parameterAsRasterLayer(values, name, context)
        if layer is None:
            raise QgsProcessingException(self.invalidRasterError(values, name))
        warn_of_other_crs(layer, feedback)
        return raster_file(layer)

    def copies(self, values: Values, context: QgsProcessingContext) -> list[str]:
        """Options for copies of the layers."""
        names = self.parameterAsEnumStrings(values, "FORMATS", context)
        options = [f"--format={name}" for name in names if name]
        crs = self.parameterAsCrs(values, "CRS", context)
        if crs.isValid():
            options.append(f"--crs={crs.authid() or crs.toWkt(crs.WKT2_2019)}")
        return options

    def generalizing(self, values: Values, context: QgsProcessingContext) -> list[str]:
        """Options for small polygons and the simplified layer."""
        options = ["--coverage"] if self.parameterAsBoolean(values, "COVERAGE", context) else []
        for name in ("MIN_AREA", "MIN_HOLE"):
            areas = self.parameterAsString(values, name, context).replace(",", " ").split()
            options += [f"--{name.lower().replace('_', '-')}={area}" for area in areas]
        return options

    def load(self, name: str, sources: dict[str, str], values: Values, context: QgsProcessingContext) -> None:
        """Add results (file or layer: source) to the project, if that is wanted and there is one."""
        if self.parameterAsBoolean(values, "LOAD", context) and context.project() is not None:
            load(name, sources, context)


class MapLandCover(Algorithm):
    """`geoseg run` with one scene."""

    def name(self) -> str:
        return "maplandcover"

    def displayName(self) -> str:
        return "Map land cover"

    def tags(self) -> list[str]:
        return ["segmentation", "classification", "buildings", "roads", "deep learning", "confidence"]

    def shortDescription(self) -> str:
        return "Turns an aerial or satellite image into land cover, confidence, buildings and roads"

    def shortHelpString(self) -> str:
        return (
            "Turns an aerial or satellite image into land cover, confidence, buildings and roads with geoseg, which "
            "runs as a process of its own.\n\n"
            "The results of x.tif are put into the folder x inside the output folder: landcover.tif, confidence.tif, "
            "vectors.gpkg, project.qgz, and with labels metrics.json and regions.csv.\n\n"
            "Cancel stops geoseg. What is mapped by then is kept: started again with the same input and output folder, "
            f"it goes on from there. A run that is finished does nothing and loads the results.\n\n{PROGRAM}"
        )

    def initAlgorithm(self, configuration: Values | None = None) -> None:
        for parameter in definitions.map_land_cover():
            self.addParameter(parameter)
        self.addOutput(QgsProcessingOutputRasterLayer("LANDCOVER", "Land cover"))
        self.addOutput(QgsProcessingOutputRasterLayer("CONFIDENCE", "Confidence"))
        for layer in VECTORS:
            self.addOutput(QgsProcessingOutputVectorLayer(layer.upper(), TITLES[layer]))
        self.addOutput(QgsProcessingOutputFile("PROJECT", "QGIS project"))
        self.addOutput(QgsProcessingOutputHtml("REPORT", "Report"))

    def prepareAlgorithm(
        self, values: Values, context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> bool:
        """Look at layers in their own thread."""
        field = self.parameterAsString(values, "REGION_FIELD", context)
        self.scene = self.raster(values, "INPUT", context, feedback)
        self.options = [f"--region-field={field}"] if field else []
        if labels := self.raster(values, "LABELS", context, feedback):
            self.options.append(f"--labels={labels}")
        self.vectors = {
            "--regions": polygons(self, values, "REGIONS", context, field or "region"),
            "--aoi": polygons(self, values, "AOI", context),
        }
        mask = self.parameterAsLayer(values, "MASK", context) if values.get("MASK") else None
        if mask is not None and is_raster(mask):
            self.options.append(f"--mask={raster_file(mask)}")
        else:
            self.vectors["--mask"] = polygons(self, values, "MASK", context)
        return True

    def processAlgorithm(
        self, values: Values, context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> Values:
        output = Path(self.parameterAsString(values, "OUTPUT", context)).absolute()
        command = ["run", "--json", f"--output={output}", *self.options, *self.copies(values, context)]
        command += self.generalizing(values, context)
        for option, vector in self.vectors.items():
            if vector is not None:
                command.append(f"{option}={vector.file(feedback)}")
        for name in ("MODEL", "BANDS", "MASK_VALUES", "BLEND"):
            if value := self.parameterAsString(values, name, context):
                command.append(f"--{name.lower().replace('_', '-')}={value}")
        if values.get("GSD") is not None:
            command.append(f"--gsd={self.parameterAsDouble(values, 'GSD', context)!r}")
        if values.get("WORKERS") is not None:
            command.append(f"--workers={self.parameterAsInt(values, 'WORKERS', context)}")
        for name in ("OVERWRITE", "CENTERLINES"):
            if self.parameterAsBoolean(values, name, context):
                command.append(f"--{name.lower()}")
        if not self.parameterAsBoolean(values, "PAGES", context):
            command.append("--no-report")
        progress = RunProgress(feedback)
        if not run_geoseg([*command, "--", self.scene], feedback, progress):
            feedback.pushInfo(
                "Stopped. Started again with the same input and output folder, geoseg goes on from here."
            )
            return {"OUTPUT": str(output)}
        if progress.scene is None:
            raise QgsProcessingException(
                "geoseg ended without naming the scene; it may be of another version"
            )
        folder = output / progress.scene
        rasters = {name: str(folder / name) for name in ("landcover.tif", "confidence.tif")}
        vectors = geopackage_layers(str(folder / "vectors.gpkg"))
        self.load(progress.scene, {**rasters, **vectors}, values, context)
        results = {"LANDCOVER": rasters["landcover.tif"], "CONFIDENCE": rasters["confidence.tif"]}
        results.update({name.upper(): vectors[name] for name in VECTORS if name in vectors})
        for name, file in (("PROJECT", "project.qgz"), ("REPORT", "report.html")):
            if (folder / file).is_file():
                results[name] = str(folder / file)
        return {"OUTPUT": str(output), **results}


class VectorizeClassMap(Algorithm):
    """`geoseg vectorize`."""

    def name(self) -> str:
        return "vectorizeclassmap"

    def displayName(self) -> str:
        return "Vectorize a class map"

    def tags(self) -> list[str]:
        return ["polygonize", "buildings", "roads", "raster to vector"]

    def shortDescription(self) -> str:
        return "Turns a class raster into polygons"

    def shortHelpString(self) -> str:
        return (
            "Turns a class raster into polygons with geoseg, which runs as a process of its own: buildings and roads, "
            "or, raw or where no class is one of these, polygons of every class.\n\n"
            f"Cancel stops geoseg and leaves no half-written file; started again, it begins anew.\n\n{PROGRAM}"
        )

    def initAlgorithm(self, configuration: Values | None = None) -> None:
        for parameter in definitions.vectorize_class_map():
            self.addParameter(parameter)

    def prepareAlgorithm(
        self, values: Values, context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> bool:
        """Look at layers in their own thread."""
        self.landcover = self.raster(values, "INPUT", context, feedback)
        self.confidence = self.raster(values, "CONFIDENCE", context, feedback)
        return True

    def processAlgorithm(
        self, values: Values, context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> Values:
        output = Path(self.parameterAsFileOutput(values, "OUTPUT", context)).absolute()
        command = ["vectorize", f"--output={output}", *self.copies(values, context)]
        command += self.generalizing(values, context)
        if self.parameterAsBoolean(values, "RAW", context):
            command.append("--raw")
        if values.get("BAND") not in (None, ""):
            command.append(f"--band={self.parameterAsInt(values, 'BAND', context)}")
        if legend := self.parameterAsFile(values, "LEGEND", context):
            command.append(f"--legend={legend}")
        if self.confidence:
            command.append(f"--confidence={self.confidence}")
        if not run_geoseg([*command, "--", self.landcover], feedback, feedback.pushInfo):
            feedback.pushInfo("Stopped; nothing was written.")
            return {}
        self.load(output.stem, geopackage_layers(str(output)), values, context)
        return {"OUTPUT": str(output)}

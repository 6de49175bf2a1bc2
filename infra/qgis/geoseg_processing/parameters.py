"""The parameters of the algorithms, with the words that explain them."""

from __future__ import annotations

from qgis.core import (
    QgsProcessing,
    QgsProcessingParameterBand,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterCrs,
    QgsProcessingParameterEnum,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterFile,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterFolderDestination,
    QgsProcessingParameterMapLayer,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
)
from qgis.core import QgsProcessingParameterDefinition as Parameter

FORMATS = ["gpkg", "parquet", "fgb", "geojson"]
BLENDS = ["crop", "hann"]
POLYGON = [QgsProcessing.TypeVectorPolygon]
RASTER_OR_POLYGON = [QgsProcessing.TypeRaster, QgsProcessing.TypeVectorPolygon]
WHOLE, REAL = QgsProcessingParameterNumber.Integer, QgsProcessingParameterNumber.Double


def explained(parameter: Parameter, text: str) -> Parameter:
    """A parameter with its help."""
    parameter.setHelp(text)
    return parameter


def advanced(parameter: Parameter, text: str) -> Parameter:
    """One that is folded away."""
    parameter.setFlags(parameter.flags() | Parameter.FlagAdvanced)
    return explained(parameter, text)


def map_land_cover() -> list[Parameter]:
    """Those of `geoseg run` with one scene."""
    return [
        explained(
            QgsProcessingParameterRasterLayer("INPUT", "Scene"),
            "The image: a GeoTIFF, COG or VRT with the bands and the dtype that the model was trained on.",
        ),
        explained(
            QgsProcessingParameterFile(
                "MODEL", "Model bundle", QgsProcessingParameterFile.Folder, optional=True
            ),
            "A folder with model.json and model.safetensors. Not given: landcover-rgb, which comes with geoseg.",
        ),
        explained(
            QgsProcessingParameterRasterLayer("LABELS", "Labels", optional=True),
            "The true classes on the scene's grid: adds scores.",
        ),
        explained(
            QgsProcessingParameterFeatureSource("REGIONS", "Regions", POLYGON, optional=True),
            "Named polygons, each of which is scored by itself.",
        ),
        explained(
            QgsProcessingParameterField(
                "REGION_FIELD", "Name of the regions", parentLayerParameterName="REGIONS", optional=True
            ),
            "The field that names them. Not given: region.",
        ),
        explained(
            QgsProcessingParameterFeatureSource("AOI", "Area of interest", POLYGON, optional=True),
            "Only inside these polygons is anything mapped.",
        ),
        explained(
            QgsProcessingParameterMapLayer("MASK", "Mask", optional=True, types=RASTER_OR_POLYGON),
            "What to leave out, as clouds: polygons, or a raster where it is not 0 or has one of the values below.",
        ),
        *copies(),
        explained(
            QgsProcessingParameterBoolean("CENTERLINES", "Road network", False),
            "Adds center lines of roads with their widths, and nodes. Takes about as long as mapping.",
        ),
        coverage(),
        explained(
            QgsProcessingParameterBoolean("PAGES", "Report", True),
            "Pages to look at: report.html and quicklook.png for the scene, index.html for all in the output folder.",
        ),
        *least_areas(),
        advanced(
            QgsProcessingParameterString("MASK_VALUES", "Values of the mask raster", optional=True),
            "Those that leave pixels out, as in 3,8,9.",
        ),
        advanced(
            QgsProcessingParameterString("BANDS", "Bands", optional=True),
            "Bands of the scene in the model's order, counted from 1, as in 4,3,2. Not given: the first.",
        ),
        advanced(
            QgsProcessingParameterNumber("GSD", "Resample to (m)", REAL, None, optional=True, minValue=1e-6),
            "Ground sample distance in metres, for scenes whose pixels are not as large as the model knows them.",
        ),
        advanced(
            QgsProcessingParameterEnum(
                "BLEND", "How patches meet", BLENDS, defaultValue="crop", usesStaticStrings=True
            ),
            "crop is fast; hann blends overlapping patches and leaves no seams.",
        ),
        advanced(
            QgsProcessingParameterNumber("WORKERS", "Blocks at once", WHOLE, None, optional=True, minValue=1),
            "Fewer take less memory. Not given: one a core, or GPU.",
        ),
        advanced(
            QgsProcessingParameterBoolean("OVERWRITE", "Replace results of other parameters", False),
            "Without it, geoseg refuses to replace results of another model or other parameters.",
        ),
        loading(),
        explained(
            QgsProcessingParameterFolderDestination("OUTPUT", "Output folder"),
            "The results of x.tif are put into its folder x. A run that was stopped goes on in the same folder.",
        ),
    ]


def vectorize_class_map() -> list[Parameter]:
    """Those of `geoseg vectorize`."""
    return [
        explained(
            QgsProcessingParameterRasterLayer("INPUT", "Class map"),
            "Class numbers from 0 to 254, as landcover.tif of 'Map land cover': a GeoTIFF, COG or VRT.",
        ),
        explained(
            QgsProcessingParameterBoolean("RAW", "Every polygon of every class", False),
            "All classes, with class and area only, instead of buildings and roads.",
        ),
        explained(
            QgsProcessingParameterFile("LEGEND", "Legend", optional=True),
            "YAML, JSON or CSV with id, name and, optionally, color (#rrggbb) and role (building or road). "
            "Not given: what the raster tells.",
        ),
        explained(
            QgsProcessingParameterRasterLayer("CONFIDENCE", "Confidence", optional=True),
            "Percent on the same grid, as confidence.tif of 'Map land cover': each polygon says how sure it is.",
        ),
        *copies(),
        coverage(),
        *least_areas(),
        advanced(
            QgsProcessingParameterBand("BAND", "Band", parentLayerParameterName="INPUT", optional=True),
            "The band that holds the classes, where there are several.",
        ),
        loading(),
        explained(
            QgsProcessingParameterFileDestination("OUTPUT", "Polygons", "GeoPackage (*.gpkg)"),
            "A GeoPackage with a layer for each kind of polygon.",
        ),
    ]


def copies() -> list[Parameter]:
    """Formats and CRS of copies of the layers."""
    kinds = QgsProcessingParameterEnum(
        "FORMATS", "Copies of the layers", FORMATS, True, None, optional=True, usesStaticStrings=True
    )
    text = "Copies each vector layer to a file of its own, too: gpkg, parquet (GeoParquet), fgb (FlatGeobuf), geojson."
    crs = QgsProcessingParameterCrs("CRS", "CRS of the copies", optional=True)
    return [
        explained(kinds, text),
        explained(crs, "Not given: that of the raster. GeoJSON is always in WGS 84."),
    ]


def coverage() -> Parameter:
    """Whether there is a layer of all classes."""
    parameter = QgsProcessingParameterBoolean("COVERAGE", "Layer of all classes, simplified", False)
    return explained(parameter, "Adds a layer landcover, without gap or overlap.")


def least_areas() -> list[Parameter]:
    """How small polygons and their holes may be."""
    area = QgsProcessingParameterString("MIN_AREA", "Least area (m²)", optional=True)
    hole = QgsProcessingParameterString("MIN_HOLE", "Least hole (m²)", optional=True)
    form = "For all classes, as in 20, or for some, as in building=10, road=50."
    return [
        advanced(area, f"Smaller polygons go to the neighbor with the longest shared border. {form}"),
        advanced(hole, f"Smaller holes in polygons are filled. {form}"),
    ]


def loading() -> Parameter:
    """Whether the project gets the results."""
    parameter = QgsProcessingParameterBoolean("LOAD", "Add the results to the project", True)
    return explained(parameter, "Loads them with names and colors when all is done.")

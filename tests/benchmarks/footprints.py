"""Buildings squared by `geoseg vectorize`: how near to their labels, how long, how much memory.

Near: label polygons are burnt at the pixel of their imagery, without and with the mistakes that maps make, and
vectorized with and without squaring. Cost: rasters that are hard to square, each in a process of its own.
"""

from __future__ import annotations

import resource
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import rasterio
import rasterio.features
import shapely
from affine import Affine
from scipy import ndimage
from shapely import affinity

from geoseg.grid.window import Window
from geoseg.io.rasters import configure_gdal
from geoseg.parallel import threaded_map
from geoseg.pixels.matching import Objects, ObjectSet
from geoseg.pixels.polygons import polygonize_block
from geoseg.pixels.sweep import MOST_VERTICES
from geoseg.run.vectorizing import VectorizeOptions, vectorize_file
from tests.benchmarks.memory import peak_mb
from tests.data import DATA

PLACES = {
    "banepa": ("banepa_buildings", "banepa_train"),
    "zanzibar": ("zanzibar_tz_buildings", "zanzibar_tz_a"),
    "catanduanes": ("catanduanes_ph_buildings", "catanduanes_ph_a"),
    "kavre": ("kavre_np_buildings", "kavre_np_a"),
}
COARSER = (1, 4)
"""Pixels of a mask are as wide as those of the imagery, or four times as wide."""
RIGHT_DEGREES = 2
STRAY_M = 0.5
"""The standard deviation of mistakes, in metres of the map."""
MOST_F1_LOST = 0.01
LEGEND = "id,name,role\n1,house,building\n2,shed,building\n"
PIXEL_M = 0.3


@dataclass(frozen=True, eq=False)
class Town:
    """Labels of one image, (polygon,) in map coordinates, and the grid of a mask."""

    labels: np.ndarray
    shape: tuple[int, int]
    transform: Affine
    crs: str

    @classmethod
    def read(cls, image: Path, labels: Path, coarser: int) -> Town:
        """Labels touch and overlap; a mask of one class holds their union only."""
        with rasterio.open(image) as source:
            frame, crs = shapely.box(*source.bounds), source.crs
            shape = source.height // coarser, source.width // coarser
            transform = source.transform @ Affine.scale(coarser)
        drawn = geopandas.read_file(labels).to_crs(crs).geometry.make_valid().to_numpy()
        inside = shapely.intersection(shapely.union_all(drawn), frame)
        return cls(_parts(inside), shape, transform, crs.to_wkt())

    def mask(self, polygons: np.ndarray) -> np.ndarray:
        return self.burnt(polygons, [1] * len(polygons), "uint8")

    def burnt(self, polygons: np.ndarray, values: Sequence[int], dtype: str) -> np.ndarray:
        drawn = zip(polygons, values, strict=True)
        return rasterio.features.rasterize(drawn, self.shape, transform=self.transform, dtype=dtype)


def _parts(geometries: shapely.Geometry | np.ndarray) -> np.ndarray:
    """All polygons in some geometries."""
    parts = shapely.get_parts(shapely.get_parts(geometries))
    kept: np.ndarray = parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON]
    return kept


def exact(town: Town, _random: np.random.Generator) -> np.ndarray:
    return town.mask(town.labels)


def moved(town: Town, random: np.random.Generator) -> np.ndarray:
    """Each building is shifted, and drawn a little too large or too small."""
    count = len(town.labels)
    shifts, grown = random.normal(0, STRAY_M, (count, 2)), random.uniform(-STRAY_M, STRAY_M, count)
    there = [affinity.translate(one, *shift) for one, shift in zip(town.labels, shifts, strict=True)]
    found = shapely.buffer(there, grown, join_style="mitre")
    return town.mask(found[~shapely.is_empty(found)])


def ragged(town: Town, random: np.random.Generator) -> np.ndarray:
    """Outlines stray smoothly, and corners are rounded, as those of networks are."""
    mask, stray = exact(town, random) > 0, STRAY_M / town.transform.a
    height = ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)
    noise = ndimage.gaussian_filter(random.normal(size=mask.shape), max(1, 2 * stray))
    field = ndimage.gaussian_filter(np.clip(height, -20, 20), stray) + noise * (stray / noise.std())
    return (field > 0).astype(np.uint8)


MISTAKES: dict[str, Callable[[Town, np.random.Generator], np.ndarray]] = {
    "none": exact,
    "moved": moved,
    "ragged": ragged,
}


def main(_pairs: int) -> None:
    """Two tables; ends with 1 if squaring lowers an F1 of all places together by more than it may."""
    configure_gdal()
    lost = quality()
    print(f"\nthe most that squaring lowers F1 by: {lost:.4f}\n")
    cost()
    if lost > MOST_F1_LOST:
        sys.exit("squaring lowers F1 by too much")


def quality() -> float:
    """A row per pixel, kind of mistake and place, traced > squared; the most that F1 of all places falls by."""
    print("| pixel | mistakes | place | buildings | squared | vertices each | right angles | IoU | "
          "F1, polygons | F1, pixels |")  # fmt: skip
    print("| --- " * 10 + "|")
    lost = 0.0
    for coarser in COARSER:
        for kind, mistake in MISTAKES.items():
            rows = [_place(place, coarser, mistake) for place in PLACES]
            sides = [sum(side, start=NOTHING) for side in zip(*rows, strict=True)]
            for place, row in zip((*PLACES, "all"), (*rows, sides), strict=True):
                print(f"| {coarser} | {kind} | {place} | {row[1].found} | {row[1].changed / row[1].found:.0%} | "
                      + " | ".join(f"{getattr(row[0], name):{form}} > {getattr(row[1], name):{form}}"
                                   for name, form in SHOWN.items()) + " |", flush=True)  # fmt: skip
            lost = max(lost, sides[0].f1 - sides[1].f1, sides[0].pixel_f1 - sides[1].pixel_f1)
    return lost


def _place(
    place: str, coarser: int, mistake: Callable[[Town, np.random.Generator], np.ndarray]
) -> tuple[Counts, Counts]:
    labels, image = (DATA / "buildings" / name for name in PLACES[place])
    town = Town.read(image.with_suffix(".tif"), labels.with_suffix(".geojson"), coarser)
    traced, squared = vectorized(mistake(town, np.random.default_rng(1)), town)
    fine = Town.read(image.with_suffix(".tif"), labels.with_suffix(".geojson"), 1)
    return Counts.of(*traced, fine), Counts.of(*squared, fine)


def vectorized(mask: np.ndarray, town: Town) -> list[tuple[np.ndarray, np.ndarray]]:
    """Polygons of a mask and which of them are squared: as traced, and as the product gives them."""
    with tempfile.TemporaryDirectory() as name:
        raster = write(Path(name), mask, town.transform, town.crs)
        legend = Path(name, "legend.csv")
        legend.write_text(LEGEND)
        found = []
        for raw, layer in ((True, "polygons"), (False, "buildings")):
            output = Path(name, f"{layer}.gpkg")
            options = VectorizeOptions(legend=str(legend))
            vectorize_file(str(raster), str(output), raw, None, threaded_map, options)
            frame = pyogrio.read_dataframe(output, layer=layer)
            flags = np.zeros(len(frame), bool) if raw else frame["squared"].to_numpy(bool)
            found.append((frame.geometry.to_numpy(), flags))
    return found


def write(folder: Path, values: np.ndarray, transform: Affine, crs: str) -> Path:
    path = folder / "classes.tif"
    with rasterio.open(
        path, "w", driver="GTiff", height=values.shape[0], width=values.shape[1], count=1, dtype="uint8",
        crs=crs, transform=transform, nodata=0, tiled=True, compress="zstd",
    ) as target:  # fmt: skip
        target.write(values, 1)
    return path


@dataclass(frozen=True)
class Counts:
    """What is counted of some polygons and the labels that they should be: adds up over places.

    labels, found, changed: polygons. corners, right: of all rings. iou_sum: of each polygon's best one. hits: of an IoU
    above 0.5. objects, matched: on pixels, by geoseg's own count.
    """

    labels: int = 0
    found: int = 0
    changed: int = 0
    corners: int = 0
    right: int = 0
    iou_sum: float = 0.0
    hits: int = 0
    objects: int = 0
    matched: int = 0

    @classmethod
    def of(cls, found: np.ndarray, changed: np.ndarray, town: Town) -> Counts:
        corners = np.concatenate([bends(ring) for ring in shapely.get_rings(found)])
        right, best = np.abs(corners - 90) <= RIGHT_DEGREES, best_iou(found, town.labels)
        return cls(
            len(town.labels), len(found), int(changed.sum()), len(corners), int(right.sum()), float(best.sum()),
            int((best > 0.5).sum()), *on_pixels(found, town),
        )  # fmt: skip

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def vertices(self) -> float:
        return self.corners / self.found

    @property
    def right_angles(self) -> float:
        return self.right / self.corners

    @property
    def iou(self) -> float:
        return self.iou_sum / self.found

    @property
    def f1(self) -> float:
        return 2 * self.hits / (self.labels + self.found)

    @property
    def pixel_f1(self) -> float:
        return 2 * self.matched / self.objects


NOTHING = Counts()
SHOWN = {"vertices": ".1f", "right_angles": ".0%", "iou": ".4f", "f1": ".3f", "pixel_f1": ".3f"}


def bends(ring: shapely.LinearRing) -> np.ndarray:
    """By how many degrees a ring turns at each corner. Web Mercator keeps angles."""
    side = np.diff(shapely.get_coordinates(ring), axis=0)
    heading = np.degrees(np.arctan2(side[:, 1], side[:, 0]))
    return np.abs((heading - np.roll(heading, 1) + 180) % 360 - 180)


def best_iou(found: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The greatest IoU of each polygon with a label: above 0.5, no two share one."""
    label, near = shapely.STRtree(found).query(labels, predicate="intersects")
    both = shapely.area(shapely.intersection(labels[label], found[near]))
    best = np.zeros(len(found))
    np.maximum.at(best, near, both / (shapely.area(labels[label]) + shapely.area(found[near]) - both))
    return best


def on_pixels(found: np.ndarray, town: Town) -> tuple[int, int]:
    """Objects of both sides that have pixels, and those that match; an object is a polygon, whatever it touches."""
    truth, mapped = (town.burnt(side, range(1, len(side) + 1), "int32") for side in (town.labels, found))
    (t, m), count = np.unique(np.stack([truth.ravel(), mapped.ravel()]), axis=1, return_counts=True)
    sets = [_object_set(one, count, len(side)) for one, side in ((t, town.labels), (m, found))]
    both = (t > 0) & (m > 0)
    score = Objects(*sets, np.stack([t[both] - 1, m[both] - 1, count[both]])).score(ranked=False)
    return score.truth + score.mapped, score.matched


def _object_set(owner: np.ndarray, count: np.ndarray, objects: int) -> ObjectSet:
    pixels = np.bincount(owner, count, objects + 1)[1:].astype(np.int64)
    return ObjectSet(pixels, pixels, pixels * 0, pixels * 0, np.zeros((3, 0), np.int64))


def houses(rows: int, columns: int = 100) -> np.ndarray:
    """Turned houses, one per 60 x 60 px, half of them with an L's outline."""
    random = np.random.default_rng(2)
    ell = shapely.Polygon([(-20, -16), (20, -16), (20, 0), (-2, 0), (-2, 16), (-20, 16)])
    drawn = []
    for row in range(rows):
        for col in range(columns):
            house = ell if random.random() < 0.5 else shapely.box(-18, -12, 18, 12)
            turned = affinity.rotate(house, random.uniform(0, 90), origin=(0, 0))
            drawn.append(affinity.translate(turned, 60 * col + 30, 60 * row + 30))
    return rasterio.features.rasterize(drawn, (60 * rows, 60 * columns), dtype=np.uint8)


def terrace(count: int) -> np.ndarray:
    """One row of houses that share walls."""
    drawn = [
        (affinity.rotate(shapely.box(20, at, 120, at + 24), -20, origin=(70, 0)), 1 + at // 24 % 2)
        for at in range(0, 24 * count, 24)
    ]
    width = int(np.sin(np.radians(20)) * 24 * count) + 150
    return rasterio.features.rasterize(drawn, (23 * count + 30, width), dtype=np.uint8)


def leaning(count: int) -> np.ndarray:
    """Houses that lean, each a pixel above the next: squared alone, each would turn into its neighbors."""
    house = affinity.skew(shapely.box(0, 0, 24, 40), xs=12, origin=(0, 0))
    drawn = [affinity.translate(house, 20, 41 * number) for number in range(count)]
    return rasterio.features.rasterize(drawn, (41 * count, 80), dtype=np.uint8)


def mesh(count: int) -> np.ndarray:
    """Walls around about so many yards, all of one polygon, and a house in each yard."""
    side = int(np.sqrt(count))
    places = [(70 * col, 70 * row) for row in range(side) for col in range(side)]
    yards = shapely.union_all([shapely.box(x + 8, y + 8, x + 70, y + 70) for x, y in places])
    drawn = [shapely.box(0, 0, 70 * side + 8, 70 * side + 8) - yards]
    for x, y in places:
        house = affinity.rotate(shapely.box(-20, -16, 20, 16), (x + 3 * y) % 90, origin=(0, 0))
        drawn.append(affinity.translate(house, x + 39, y + 39))
    turned = shapely.transform(drawn, lambda xy: xy @ [[0.94, 0.34], [-0.34, 0.94]] + (25 * side, 5))
    return rasterio.features.rasterize(turned, (92 * side + 20,) * 2, dtype=np.uint8)


def at_limit(draw: Callable[[int], np.ndarray], share: float) -> np.ndarray:
    """A drawing of so many things that their vertices are a share of the limit of squaring."""
    few = 36
    pieces = polygonize_block(draw(few), Window(0, 0, *draw(few).shape), (1, 2))
    return draw(int(share * MOST_VERTICES * few / len(pieces.coords)))


def salted(side: int, classes: int) -> np.ndarray:
    """Houses of which each fifth pixel is another one."""
    random = np.random.default_rng(3)
    labels = np.tile(houses(4, 4), (side // 240 + 1,) * 2)[:side, :side]
    spots = random.random(labels.shape) < 0.2
    return np.where(spots, random.integers(0, classes + 1, labels.shape), labels).astype(np.uint8)


RASTERS: dict[str, Callable[[], np.ndarray]] = {
    "2,500 houses": lambda: houses(25),
    "10,000 houses": lambda: houses(100),
    "20,000 houses": lambda: houses(200),
    "a terrace at the limit": lambda: at_limit(terrace, 0.95),
    "a terrace beyond it": lambda: at_limit(terrace, 1.2),
    "a chain at the limit": lambda: at_limit(leaning, 0.95),
    "a mesh at the limit, with houses": lambda: at_limit(mesh, 1.3),
    "noise, 1,500 px": lambda: salted(1500, 1),
    "noise, 1,500 px, two classes": lambda: salted(1500, 2),
    "noise, 3,000 px": lambda: salted(3000, 1),
}


def cost() -> None:
    """A row per raster: time of the processor and peak memory of the whole command, without and with squaring."""
    print("| raster | Mpx | polygons | vertices | squared | CPU s | MB |\n" + "| --- " * 7 + "|")
    for name, draw in RASTERS.items():
        with tempfile.TemporaryDirectory() as folder:
            values = draw()
            raster = write(Path(folder), values, Affine(PIXEL_M, 0, 5e5, 0, -PIXEL_M, 3e6), "EPSG:32645")
            Path(folder, "legend.csv").write_text(LEGEND)
            megapixels = values.size / 1e6
            del values
            traced, squared = (_run(raster, mode) for mode in ("traced", "squared"))
            changed = pyogrio.read_dataframe(Path(folder, "squared.gpkg"), layer="buildings")["squared"]
            outlines = pyogrio.raw.read(Path(folder, "traced.gpkg"), layer="polygons", columns=[])[2]
            vertices = shapely.get_num_coordinates(shapely.from_wkb(outlines))
            print(f"| {name} | {megapixels:.1f} | {len(changed)} | {vertices.sum()} | {changed.sum()} | "
                  f"{traced[0]:.1f} > {squared[0]:.1f} | {traced[1]:.0f} > {squared[1]:.0f} |", flush=True)  # fmt: skip


def _run(raster: Path, mode: str) -> tuple[float, float]:
    """Seconds of the processor and peak MB of a process that only vectorizes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    peak = peak_mb([sys.executable, "-m", "tests.benchmarks.footprints", str(raster), mode])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, peak


def _vectorize(raster: str, mode: str) -> None:
    configure_gdal()
    options = VectorizeOptions(legend=str(Path(raster).with_name("legend.csv")))
    vectorize_file(
        raster, str(Path(raster).with_name(f"{mode}.gpkg")), mode == "traced", None, threaded_map, options
    )


if __name__ == "__main__":
    _vectorize(*sys.argv[1:])

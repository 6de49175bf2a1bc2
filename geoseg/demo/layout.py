"""The plan of a place: its valid outline, its shore, its districts and its main roads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import shapely
from rasterio.features import rasterize
from scipy import ndimage
from shapely.geometry import LineString, MultiLineString, MultiPoint, Point, Polygon, box

from .canvas import Points
from .noise import BoolArray, FloatArray
from .shore import draw_shores

Scalar = TypeVar("Scalar", bound=np.generic)

COLLAR_DEGREES = (0.95, 1.5)
"""Rotation of the valid outline; an inscribed square then leaves 3.5 to 5.5 % of the raster invalid."""

DISTRICT_NAMES: dict[str, tuple[str, ...]] = {
    "sea": ("Outer Bay", "North Roads", "Open Gulf"),
    "harbour": ("Harbour", "Creek Mouth", "Marina"),
    "villas": ("Palm Gardens", "Al Noor Villas", "Jasmine Hills", "The Springs", "Falcon Heights"),
    "old_town": ("Old Town", "Souk Quarter", "Al Bahr", "Fort Quarter"),
    "industry": ("Works Estate", "Depot Quarter", "Kiln Yards"),
    "fields": ("North Fields", "Well Farms", "Date Groves"),
    "park": ("Links Park", "Green Mile", "Oasis Park"),
    "desert": ("Dune Edge", "East Sands", "Gravel Plain"),
    "towers": ("Tower Row", "Bay Towers", "New Centre"),
    "new_town": ("New Plots", "Airfield Plots", "South Extension"),
}

QUARTER_SIDE = 560.0
"""Aimed side of a quarter, pixels."""

MAX_QUARTERS = 7

HARBOUR_WATER = 0.04
"""Least share of water in the district that becomes the harbour."""

ODD_QUARTERS: dict[str, tuple[str, ...]] = {
    "villas": ("park", "new_town", "towers", "old_town", "villas"),
    "old_town": ("towers", "villas", "park"),
    "new_town": ("villas", "desert", "industry"),
    "fields": ("desert", "villas", "park"),
    "park": ("villas", "villas"),
    "industry": ("new_town", "desert"),
    "towers": ("park", "villas"),
}
"""What a quarter may be instead of the kind of its district."""

_FIRST_KINDS = ("villas", "park", "old_town", "desert", "fields")
_MORE_KINDS = ("industry", "towers", "new_town", "villas", "villas")


@dataclass(frozen=True)
class District:
    """One named part of the place; ``kind`` is a key of DISTRICT_NAMES."""

    name: str
    kind: str
    outline: Polygon


@dataclass(frozen=True)
class Quarter:
    """A part of a district with streets or fields of one direction."""

    kind: str  # mostly that of its district
    outline: Polygon
    angle: float  # radians, direction of its streets


@dataclass(frozen=True)
class Layout:
    """The plan; arrays are (size, size)."""

    size: int
    frame: Polygon  # outline of the valid area, pixels
    valid: BoolArray
    districts: tuple[District, ...]
    quarters: tuple[Quarter, ...]
    zones: npt.NDArray[np.uint8]  # 1 + index of the quarter, 0 outside
    shore: FloatArray  # pixels to the waterline, negative in the water
    coast: FloatArray  # the same from a straightened waterline
    borders: tuple[LineString, ...]  # lines between districts: the main roads
    lanes: tuple[LineString, ...]  # lines between the quarters of a district: the collector roads
    junctions: tuple[Point, ...]  # where three districts meet

    def sample(self, raster: npt.NDArray[Scalar], points: Points) -> npt.NDArray[Scalar]:
        """Values of a (size, size) raster at ``points`` (..., 2), clamped to its edge."""
        cols, rows = (np.clip(points[..., k].astype(np.intp), 0, self.size - 1) for k in (0, 1))
        return np.asarray(raster[rows, cols])


def _frame(rng: np.random.Generator, size: int) -> Polygon:
    """The valid outline: a square turned by a degree or so, inscribed in the raster."""
    degrees = float(rng.uniform(*COLLAR_DEGREES)) * float(rng.choice([-1.0, 1.0]))
    turn = math.radians(degrees)
    side = 0.998 * size / (math.cos(turn) + abs(math.sin(turn)))
    square = box(-side / 2, -side / 2, side / 2, side / 2)
    turned = [
        (
            size / 2 + x * math.cos(turn) - y * math.sin(turn),
            size / 2 + x * math.sin(turn) + y * math.cos(turn),
        )
        for x, y in list(square.exterior.coords)[:4]
    ]
    return Polygon(turned)


def _cells(rng: np.random.Generator, size: int) -> list[Polygon]:
    """Six to nine cells that tile the plane around the raster, relaxed to similar sizes."""
    count = 6 if size < 1024 else int(rng.integers(7, 10)) if size >= 2048 else int(rng.integers(6, 9))
    sites = rng.uniform(0.1, 0.9, (count, 2)) * size
    square = box(0, 0, size, size)
    for _ in range(4):
        voronoi = shapely.voronoi_polygons(MultiPoint(sites), extend_to=square.buffer(size))
        cells = list(voronoi.geoms)
        sites = np.array([cell.intersection(square).centroid.coords[0] for cell in cells])
        sites += rng.normal(0.0, 0.012 * size, sites.shape)
    return cells


def _bend(rng: np.random.Generator, cells: list[Polygon], size: int) -> list[Polygon]:
    """Move every cell by one smooth field, so that shared borders curve alike."""
    phases = rng.uniform(0, 2 * math.pi, 4)
    waves = rng.uniform(3.0, 7.0, 4) / size
    reach = 0.028 * size

    def move(points: Points) -> Points:
        x, y = points[:, 0], points[:, 1]
        dx = np.sin(waves[0] * y + phases[0]) + 0.5 * np.sin(2.1 * waves[1] * y + phases[1])
        dy = np.sin(waves[2] * x + phases[2]) + 0.5 * np.sin(2.1 * waves[3] * x + phases[3])
        return np.asarray(np.round(points + reach * np.stack([dx, dy], axis=1), 2))

    return [Polygon(move(np.array(shapely.segmentize(c, size / 24).exterior.coords))) for c in cells]


def _kinds(rng: np.random.Generator, wet: list[float], remote: list[float]) -> list[str]:
    """Choose what each cell is, from its share of water and its distance to the middle."""
    kinds = ["sea" if share > 0.72 else "" for share in wet]
    order = sorted((k for k, kind in enumerate(kinds) if not kind), key=lambda k: -wet[k])
    if wet[order[0]] > HARBOUR_WATER:
        kinds[order.pop(0)] = "harbour"
    more = list(rng.permutation(np.array(_MORE_KINDS)))
    wanted = [*_FIRST_KINDS, *(str(kind) for kind in more)][: len(order)]
    order.sort(key=lambda k: -remote[k])
    for kind in ("desert", "fields"):
        if kind in wanted:
            kinds[order.pop(0)] = kind
            wanted.remove(kind)
    for k, kind in zip(order, rng.permutation(np.array(wanted)), strict=True):
        kinds[k] = str(kind)
    return kinds


def _names(rng: np.random.Generator, kinds: list[str]) -> list[str]:
    """A name of its own for each district."""
    stock = {kind: list(rng.permutation(np.array(names))) for kind, names in DISTRICT_NAMES.items()}
    names: list[str] = []
    for kind in kinds:
        waiting = stock[kind]
        names.append(str(waiting.pop(0)) if waiting else f"{kind.replace('_', ' ').title()} {len(names)}")
    return names


def _junctions(cells: list[Polygon], frame: Polygon) -> tuple[Point, ...]:
    """Corners that three or more cells share, inside the frame."""
    corners: dict[tuple[int, int], set[int]] = {}
    for number, cell in enumerate(cells):
        for x, y in cell.exterior.coords:
            corners.setdefault((round(x), round(y)), set()).add(number)
    return tuple(Point(c) for c, owners in corners.items() if len(owners) > 2 and frame.contains(Point(c)))


def _borders(cells: list[Polygon], frame: Polygon) -> tuple[LineString, ...]:
    """The lines between each pair of neighbouring cells, cut to the frame."""
    owners: dict[frozenset[tuple[float, float]], list[int]] = {}
    for number, cell in enumerate(cells):
        ring = [(float(x), float(y)) for x, y in cell.exterior.coords]
        for edge in pairwise(ring):
            owners.setdefault(frozenset(edge), []).append(number)
    shared: dict[tuple[int, ...], list[LineString]] = {}
    for ends, numbers in owners.items():
        if len(numbers) == 2 and len(ends) == 2:
            shared.setdefault(tuple(numbers), []).append(LineString(sorted(ends)))
    merged = (shapely.line_merge(MultiLineString(edges)).intersection(frame) for edges in shared.values())
    parts = (part for lines in merged for part in shapely.get_parts(lines))
    return tuple(part for part in parts if isinstance(part, LineString) and part.length > 8.0)


def _split(rng: np.random.Generator, outline: Polygon) -> list[Polygon]:
    """Cut a district into quarters of about QUARTER_SIDE pixels."""
    count = min(MAX_QUARTERS, round(outline.area / QUARTER_SIDE**2))
    if count < 2:
        return [outline]
    left, top, right, bottom = outline.bounds
    sites = rng.uniform((left, top), (right, bottom), (count, 2))
    cells: list[Polygon] = []
    for _ in range(3):
        voronoi = shapely.voronoi_polygons(MultiPoint(sites), extend_to=outline.envelope.buffer(10.0))
        pieces = [cell.intersection(outline) for cell in voronoi.geoms]
        cells = [max(shapely.get_parts(piece), key=lambda p: p.area) for piece in pieces if piece.area > 1.0]
        sites = np.array([cell.centroid.coords[0] for cell in cells])
    return cells


def _quarters(rng: np.random.Generator, districts: tuple[District, ...]) -> tuple[Quarter, ...]:
    """The quarters of all districts; a few differ in kind from their district."""
    quarters = []
    for district in districts:
        whole = district.kind in ("sea", "desert")
        cells = [district.outline] if whole else _split(rng, district.outline)
        angle = float(rng.uniform(-math.pi / 2, math.pi / 2))
        for cell in cells:
            kind = district.kind
            if len(cells) > 2 and kind in ODD_QUARTERS and rng.random() < 0.3:
                kind = str(rng.choice(np.array(ODD_QUARTERS[kind])))
            quarters.append(Quarter(kind, cell, angle))
            angle += float(rng.normal(0.0, 0.5))
    return tuple(quarters)


def _lanes(districts: tuple[District, ...], quarters: tuple[Quarter, ...]) -> tuple[LineString, ...]:
    """The lines between the quarters, inside their districts."""
    edges = shapely.unary_union([quarter.outline.boundary for quarter in quarters])
    inner = shapely.unary_union([district.outline.buffer(-2.0) for district in districts])
    parts = shapely.get_parts(shapely.line_merge(edges.intersection(inner)))
    return tuple(part for part in parts if isinstance(part, LineString) and part.length > 20.0)


def _number(outlines: list[Polygon], size: int) -> npt.NDArray[np.uint8]:
    """A (size, size) raster of 1 + index of the outline that covers each pixel."""
    shapes = [(outline, k + 1) for k, outline in enumerate(outlines)]
    return np.asarray(rasterize(shapes, out_shape=(size, size), dtype="uint8"), np.uint8)


def draw_layout(rng: np.random.Generator, size: int) -> Layout:
    """Plan a place of (size, size) pixels."""
    frame = _frame(rng, size)
    shore, coast = draw_shores(rng, size)
    cells = [
        c for c in _bend(rng, _cells(rng, size), size) if c.intersection(frame).area > 0.01 * size * size
    ]
    outlines = [max(shapely.get_parts(c.intersection(frame)), key=lambda part: part.area) for c in cells]
    zones = _number(outlines, size)
    numbers = np.arange(1, len(cells) + 1)
    wet = ndimage.mean(shore[::8, ::8] < 0, zones[::8, ::8], numbers)
    remote = [o.centroid.distance(Point(size / 2, size / 2)) for o in outlines]
    kinds = _kinds(rng, [float(w) for w in wet], remote)
    names = _names(rng, kinds)
    districts = tuple(
        District(name, kind, outline) for name, kind, outline in zip(names, kinds, outlines, strict=True)
    )
    valid = rasterize([frame], out_shape=(size, size), dtype="uint8") > 0
    quarters = _quarters(rng, districts)
    return Layout(
        size=size,
        frame=frame,
        valid=valid,
        districts=districts,
        quarters=quarters,
        zones=_number([quarter.outline for quarter in quarters], size),
        shore=shore,
        coast=coast,
        borders=_borders(cells, frame),
        lanes=_lanes(districts, quarters),
        junctions=_junctions(cells, frame),
    )

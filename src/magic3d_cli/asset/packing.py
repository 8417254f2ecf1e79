"""Pack the charts of an atlas tighter: upright, long ones cut, by their outlines, at the largest scale that fits.

xatlas leaves half of the texture unused: it packs once, at a scale that it guesses, and one long or branching chart
keeps the scale of all others small.
"""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import ConvexHull, QhullError

from magic3d_cli.asset.mesh import Faces, vertex_components
from magic3d_cli.asset.uv_raster import Ownership
from magic3d_cli.kernels.numba_cache import CACHE

LONGEST = 0.45
"""A chart longer than this share of the texture's side is cut in two."""
SPARSE, SMALL = 0.5, 0.005
"""A chart that fills less than SPARSE of its rectangle is cut too, unless its area is below SMALL of the texture."""
MOST_CHARTS = 1000
"""Above this, as in the fall-back atlas of pure noise, packing by outlines would take longer than xatlas."""
_CELLS = 1024  # of the grid that charts are placed on, along one side, at most
_TIGHTEST = 0.85  # share of the cells that outlines may take: more was never seen to fit
_ORDERS: tuple[Callable[[np.ndarray], int], ...] = (
    lambda mask: int(mask.sum()),
    lambda mask: sum(mask.shape),
)
"""In which charts are set down, the greatest first: by area, by the sum of its sides."""
_TRIES = 6  # scales tried: coverage within 0.7 % of the best
_COVERAGE = (0.40, 0.82)  # between which the best is looked for


def repack(
    uvs: Float[np.ndarray, "W 2"], faces: Faces, size: int, padding: int
) -> tuple[Int[np.ndarray, "U"], Faces, Float[np.ndarray, "U 2"]] | None:
    """The same charts, some cut in two, turned and moved, all at one scale.

    Args:
        uvs: in [0, 1] on a square texture, charts without overlap.
        size: texels per side.
        padding: texels between charts.

    Returns:
        for each new vertex the one that it copies, faces over new vertices, and their texture coordinates; None when
        no scale in `_COVERAGE` was found to fit.
    """
    if int(_chart_of(faces, len(uvs)).max()) >= MOST_CHARTS:
        return None
    copied, faces, uvs = _cut(uvs, faces)
    chart = _chart_of(faces, len(uvs))
    order = np.argsort(chart[faces[:, 0]], kind="stable")
    parts = np.split(faces[order], np.cumsum(np.bincount(chart[faces[:, 0]]))[:-1])
    low = np.stack([uvs[part].reshape(-1, 2).min(0) for part in parts])
    local = (uvs - low[chart]) * size
    covered = float(_areas(local[faces]).sum()) / size**2
    smallest, largest = _COVERAGE
    best = None
    for _ in range(_TRIES):
        coverage = (smallest + largest) / 2
        placed = _place(local * np.sqrt(coverage / max(covered, 1e-12)), parts, chart, size, padding)
        if placed is None:
            largest = coverage
        else:
            best, smallest = placed, coverage
    return None if best is None else (copied, faces, best / size)


def _turning(corners: Float[np.ndarray, "F 3 2"]) -> Float[np.ndarray, "F"]:
    """Twice the signed area."""
    one, other = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]


def _areas(corners: Float[np.ndarray, "F 3 2"]) -> Float[np.ndarray, "F"]:
    return np.abs(_turning(corners)) / 2


def _chart_of(faces: Faces, vertices: int) -> Int[np.ndarray, "W"]:
    """Chart number of each vertex of the atlas, from 0 without gaps."""
    return np.unique(vertex_components(vertices, faces), return_inverse=True)[1].reshape(-1)


def _upright(points: Float[np.ndarray, "N 2"]) -> Float[np.ndarray, "N 2"]:
    """Turned so that the upright rectangle round them is the smallest one: a side of it lies along the hull."""
    try:
        hull = points[ConvexHull(points).vertices]
    except QhullError:  # all on one line
        return points
    edges = np.roll(hull, -1, axis=0) - hull
    best, turned = np.inf, points
    for angle in np.unique(np.round(np.arctan2(edges[:, 1], edges[:, 0]) % (np.pi / 2), 6)):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        if (box := float(np.ptp(hull @ turn, axis=0).prod())) < best:
            best, turned = box, points @ turn
    return turned


def _cut(uvs: Float[np.ndarray, "W 2"], faces: Faces) -> tuple[Int[np.ndarray, "U"], Faces, Float[np.ndarray, "U 2"]]:
    """Charts upright and none a mirror image; long and sparse ones cut across their middle until none is left."""
    copied, uvs = np.arange(len(uvs)), uvs.copy()
    for _ in range(8):
        chart = _chart_of(faces, len(uvs))
        of_face = chart[faces[:, 0]]
        count = int(chart.max()) + 1
        area = np.bincount(of_face, _areas(uvs[faces]), count)
        mirrored = np.bincount(of_face, _turning(uvs[faces]), count) > 0  # v points down
        members = np.split(np.argsort(of_face, kind="stable"), np.cumsum(np.bincount(of_face))[:-1])
        beyond = np.zeros(len(faces), np.int64)
        for number, mine in enumerate(members):
            own = np.unique(faces[mine])
            points = _upright(uvs[own])
            uvs[own] = points = points * (-1.0, 1.0) if mirrored[number] else points
            extent = np.ptp(points, axis=0)
            sparse = area[number] > SMALL and area[number] < SPARSE * extent.prod()
            if len(mine) > 8 and (extent.max() > LONGEST or sparse):
                along = int(extent.argmax())
                middle = (points[:, along].min() + points[:, along].max()) / 2
                beyond[mine] = uvs[faces[mine], along].mean(1) > middle
        if not beyond.any():
            break
        kept, index = np.unique(faces * 2 + beyond[:, None], return_inverse=True)
        faces = index.reshape(-1, 3)
        copied, uvs = copied[kept // 2], uvs[kept // 2]
    return copied, faces, uvs


def _place(
    local: Float[np.ndarray, "W 2"], parts: list[Faces], chart: Int[np.ndarray, "W"], size: int, padding: int
) -> Float[np.ndarray, "W 2"] | None:
    """Vertices in texels on the texture; None where a chart finds no place at this scale.

    The largest chart first, in one of `_ORDERS`, each in the quarter turn in which its top comes out lowest.
    """
    cell = -(-size // _CELLS)
    rim = max(0, padding // 2 - 1)  # of what is kept round a chart, this much may lie outside the texture
    side = (size + 2 * rim) // cell
    margin = padding / 2 + 2 * cell
    # A cell whose centre is nearer than half the padding; on a coarse grid any part of it.
    reach = padding / 2 / cell + (0.0 if cell == 1 else 0.71)
    if local.max() > size:
        return None
    outlines = [_outline((local[part] + margin) / cell, reach) for part in parts]
    masks = [mask for mask, _ in outlines]
    if sum(int(mask.sum()) for mask in masks) > _TIGHTEST * side * side:
        return None
    found = next(filter(None, (_set_down(masks, greatness, side) for greatness in _ORDERS)), None)
    if found is None:
        return None
    placed = np.empty_like(local)
    for number, (turn, y, x) in enumerate(found):
        mask, corner = outlines[number]
        mine = chart == number
        u, v = (local[mine] + margin - corner * cell).T
        tall, wide = (cells * cell for cells in mask.shape)
        for _ in range(turn):  # np.rot90: what was at the right comes to the top
            u, v, tall, wide = v, wide - u, wide, tall
        placed[mine] = np.stack([u, v], 1) + np.array([x, y]) * cell - rim
    inside = placed.min() >= 0 and placed.max() <= size
    return placed if inside else None


def _set_down(
    masks: list[Bool[np.ndarray, "H W"]], greatness: Callable[[Bool[np.ndarray, "H W"]], int], side: int
) -> list[tuple[int, int, int]] | None:
    """Quarter turns and first cell (y, x) of each chart, the greatest set down first; None where one has no place."""
    room, widest = np.zeros((side, side), np.int64), np.zeros(side, np.int64)
    taken = np.zeros((side, side), np.bool_)
    _measure_room(taken, room, widest, 0, side)
    found: dict[int, tuple[int, int, int]] = {}
    for number in sorted(range(len(masks)), key=lambda n: -greatness(masks[n])):
        lowest = side + 1
        for turn in range(4):
            turned = np.rot90(masks[number], turn)
            height, width = turned.shape
            y, x = _lowest(room, widest, *_runs(turned), width, lowest)
            if y >= 0:
                lowest, found[number] = y + height, (turn, y, x)
        if number not in found:
            return None
        turn, y, x = found[number]
        turned = np.rot90(masks[number], turn)
        taken[y : y + turned.shape[0], x : x + turned.shape[1]] |= turned
        _measure_room(taken, room, widest, y, y + turned.shape[0])
    return [found[number] for number in range(len(masks))]


def _outline(corners: Float[np.ndarray, "F 3 2"], reach: float) -> tuple[Bool[np.ndarray, "H W"], Int[np.ndarray, "2"]]:
    """The cells within reach of a chart, without empty rows and columns, and how many of these came first (x, y)."""
    width, height = np.ceil(corners.reshape(-1, 2).max(0) + reach + 1).astype(int)
    mask = Ownership(corners, int(height), int(width), reach).owner >= 0
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    cropped = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.ascontiguousarray(cropped), np.array([columns[0], rows[0]])


def _runs(mask: Bool[np.ndarray, "H W"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First cell and length of each run of cells, and where the runs of each row begin in these lists."""
    edge = np.diff(np.pad(mask.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    row, first = np.nonzero(edge == 1)
    last = np.nonzero(edge == -1)[1]
    return first, last - first, np.searchsorted(row, np.arange(len(mask) + 1))


@numba.njit(cache=CACHE, nogil=True)
def _measure_room(taken, room, widest, top, bottom):  # pragma: no cover - compiled
    """For each cell of these rows: how many free cells begin here, or minus how many taken ones. And the row's most."""
    for y in range(top, bottom):
        run = 0
        widest[y] = 0
        for x in range(taken.shape[1] - 1, -1, -1):
            run = min(run, 0) - 1 if taken[y, x] else max(run, 0) + 1
            room[y, x] = run
            widest[y] = max(widest[y], run)


@numba.njit(cache=CACHE, nogil=True)
def _lowest(room, widest, first, length, row, width, below):  # pragma: no cover - compiled
    """The first place, row by row, where the runs of a chart meet free cells and its top stays under `below`.

    Returns (-1, -1) where there is none. A run that meets a taken cell moves the chart past all the taken ones there.
    """
    side, height = room.shape[0], len(row) - 1
    longest = np.zeros(height, np.int64)
    for r in range(height):
        for i in range(row[r], row[r + 1]):
            longest[r] = max(longest[r], length[i])
    start = 0  # the row that was in the way last is tried first
    for y in range(min(side - height, below - height - 1) + 1):
        x = 0
        for r in range(height):
            if widest[y + r] < longest[r]:
                x = side  # no place along this whole row
                break
        while x + width <= side:
            step = 0
            for k in range(height):
                r = (start + k) % height
                for i in range(row[r], row[r + 1]):
                    at = x + first[i]
                    free = room[y + r, at]
                    if free >= length[i]:
                        continue
                    free = max(free, 0)
                    step = free - room[y + r, at + free]
                    start = r
                    break
                if step > 0:
                    break
            if step == 0:
                return y, x
            x += step
    return -1, -1

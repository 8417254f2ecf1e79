"""Rasterise triangles in texture space: which face owns each texel, and where on that face it lies."""

from __future__ import annotations

import numba
import numpy as np
from jaxtyping import Float, Int

from magic3d_cli.kernels.numba_cache import CACHE

REACH = 1.5
"""Texels whose centre is this close to a chart, in texels, take its colour: bilinear lookups touch them."""


@numba.njit(cache=CACHE, nogil=True)
def _closest(px, py, ax, ay, bx, by, cx, cy):  # pragma: no cover - compiled
    """Squared distance to a 2D triangle and the barycentric weights of its closest point."""
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    if abs(area) > 1e-12:
        wa = ((bx - px) * (cy - py) - (by - py) * (cx - px)) / area
        wb = ((cx - px) * (ay - py) - (cy - py) * (ax - px)) / area
        wc = 1.0 - wa - wb
        if wa >= 0 and wb >= 0 and wc >= 0:
            return 0.0, wa, wb, wc
    best, ra, rb, rc = np.inf, 1.0, 0.0, 0.0
    for side in range(3):
        if side == 0:
            x0, y0, x1, y1 = ax, ay, bx, by
        elif side == 1:
            x0, y0, x1, y1 = bx, by, cx, cy
        else:
            x0, y0, x1, y1 = cx, cy, ax, ay
        dx, dy = x1 - x0, y1 - y0
        length = dx * dx + dy * dy
        t = 0.0
        if length > 0:
            t = min(max(((px - x0) * dx + (py - y0) * dy) / length, 0.0), 1.0)
        ex, ey = px - x0 - t * dx, py - y0 - t * dy
        d = ex * ex + ey * ey
        if d < best:
            best = d
            if side == 0:
                ra, rb, rc = 1 - t, t, 0.0
            elif side == 1:
                ra, rb, rc = 0.0, 1 - t, t
            else:
                ra, rb, rc = t, 0.0, 1 - t
    return best, ra, rb, rc


@numba.njit(cache=CACHE, nogil=True)
def _own(corners, height, width, reach, owner, weights, distance, texels, contested):  # pragma: no cover
    """Serial, so that ties always go to the lower face index."""
    for f in range(corners.shape[0]):
        ax, ay = corners[f, 0, 0], corners[f, 0, 1]
        bx, by = corners[f, 1, 0], corners[f, 1, 1]
        cx, cy = corners[f, 2, 0], corners[f, 2, 1]
        x0 = max(0, int(np.floor(min(ax, bx, cx) - reach - 0.5)))
        x1 = min(width - 1, int(np.ceil(max(ax, bx, cx) + reach - 0.5)))
        y0 = max(0, int(np.floor(min(ay, by, cy) - reach - 0.5)))
        y1 = min(height - 1, int(np.ceil(max(ay, by, cy) + reach - 0.5)))
        for y in range(y0, y1 + 1):
            for x in range(x0, x1 + 1):
                d, wa, wb, wc = _closest(x + 0.5, y + 0.5, ax, ay, bx, by, cx, cy)
                if d > reach * reach:
                    continue
                if d == 0.0:
                    texels[f] += 1
                    # Clearly inside two faces, not on an edge they share.
                    if distance[y, x] == 0.0 and min(wa, wb, wc) > 1e-3 and weights[y, x].min() > 1e-3:
                        contested[y, x] = f
                if d < distance[y, x]:
                    distance[y, x] = d
                    owner[y, x] = f
                    weights[y, x, 0], weights[y, x, 1], weights[y, x, 2] = wa, wb, wc


class Ownership:
    """What each texel of a height x width texture shows.

    Attributes:
        owner: int32 [H, W], face index or -1.
        weights: float32 [H, W, 3], barycentric coordinates on that face.
        distance: float32 [H, W], texels from the centre to the face; 0 inside.
        texels: int64 [F], number of texel centres inside each face.
        contested: int32 [H, W], a second face that has the texel's centre well inside it, or -1.
    """

    def __init__(self, corners: Float[np.ndarray, "F 3 2"], height: int, width: int, reach: float = REACH) -> None:
        self.owner: Int[np.ndarray, "H W"] = np.full((height, width), -1, np.int32)
        self.weights: Float[np.ndarray, "H W 3"] = np.zeros((height, width, 3), np.float32)
        squared = np.full((height, width), np.inf, np.float32)
        self.texels: Int[np.ndarray, "F"] = np.zeros(len(corners), np.int64)
        self.contested: Int[np.ndarray, "H W"] = np.full((height, width), -1, np.int32)
        _own(
            np.ascontiguousarray(corners, np.float64),
            height,
            width,
            reach,
            self.owner,
            self.weights,
            squared,
            self.texels,
            self.contested,
        )
        self.distance: Float[np.ndarray, "H W"] = np.sqrt(squared)

    @property
    def overlap(self) -> float:
        """Share of covered texels that two faces claim."""
        return float((self.contested >= 0).sum() / max(1, (self.distance == 0).sum()))


def own_texels(
    uvs: Float[np.ndarray, "V 2"], faces: Int[np.ndarray, "F 3"], size: int, reach: float = REACH
) -> Ownership:
    """Ownership for texture coordinates in [0, 1] (origin top left) on a square texture."""
    return Ownership(uvs[faces] * size, size, size, reach)

"""How like a real model a mesh is: of pictures (silhouettes, colours, a second face) and of surfaces (distance, angle).

Pictures are RGBA in [0, 1] of shape [H, W, 4], straight alpha. Surfaces are points and normals, in units of the radius
of the bounding sphere, with the reference picture's camera at azimuth 0.
"""

from __future__ import annotations

import itertools

import numpy as np
from scipy.spatial import cKDTree

SCALES = np.linspace(0.6, 1.6, 11)
"""Of the depth, among which the one is looked for that brings two surfaces nearest."""
SHIFTS = np.linspace(-0.2, 0.2, 5)
"""Along the reference's axis, radii."""


def likeness(ours: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """Overlap of silhouettes, and PSNR before white: of all pixels and of those that either covers."""
    a, b = ours[..., 3] > 0.5, real[..., 3] > 0.5
    error = ((over_white(ours) - over_white(real)) ** 2).mean(-1)
    union = a | b
    return {
        "iou": float((a & b).sum() / max(union.sum(), 1)),
        "psnr": float(-10 * np.log10(max(error.mean(), 1e-9))),
        "psnr_inside": float(-10 * np.log10(max(error[union].mean(), 1e-9))) if union.any() else 90.0,
    }


def over_white(image: np.ndarray) -> np.ndarray:
    """Before a white ground: [H, W, 3]."""
    return (image[..., :3] * image[..., 3:] + 1 - image[..., 3:]).clip(0, 1)


def second_face(front: np.ndarray, back: np.ndarray) -> float:
    """How like its mirrored front the back is, in colours where both are: 1 is the same. A Janus head scores high."""
    flipped = front[:, ::-1]
    both = (flipped[..., 3] > 0.5) & (back[..., 3] > 0.5)
    return float(1 - np.abs(flipped[..., :3] - back[..., :3])[both].mean()) if both.any() else 0.0


def on_triangles(triangles: np.ndarray, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points spread evenly over triangles [F, 3, 3], and the unit normals there."""
    random = np.random.default_rng(seed)
    a, b, c = (triangles[:, k].astype(float) for k in range(3))
    cross = np.cross(b - a, c - a)
    area = np.linalg.norm(cross, axis=1)
    face = random.choice(len(triangles), count, p=area / area.sum())
    u, v = random.random((2, count, 1))
    u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
    return a[face] + u * (b - a)[face] + v * (c - a)[face], cross[face] / area[face, None]


def turned(points: np.ndarray, azimuth: float) -> np.ndarray:
    """Points or normals as a camera at this azimuth (degrees) sees them from azimuth 0."""
    a = np.deg2rad(-azimuth)
    return points @ np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]]).T


def chamfer(one: np.ndarray, other: np.ndarray) -> float:
    """Mean distance to the nearest point of the other surface, averaged over both directions."""
    return float((cKDTree(other).query(one)[0].mean() + cKDTree(one).query(other)[0].mean()) / 2)


def chamfer_fitted(ours: np.ndarray, real: np.ndarray, elevation: float, count: int = 1500) -> float:
    """The same after ours are scaled and moved along the reference's axis as suits best, judged by `count` points.

    One picture does not tell how deep a thing is: what is left is the error of the shape.
    """
    e = np.deg2rad(elevation)
    axis = np.array([0, np.sin(e), np.cos(e)])

    def fitted(points: np.ndarray, scale: float, shift: float) -> np.ndarray:
        return points + ((scale - 1) * (points @ axis) + shift)[:, None] * axis

    few = [(chamfer(fitted(ours[:count], *how), real[:count]), how) for how in itertools.product(SCALES, SHIFTS)]
    return min(chamfer(fitted(ours, *min(few)[1]), real), chamfer(ours, real))


def normal_angle(ours: tuple[np.ndarray, np.ndarray], real: tuple[np.ndarray, np.ndarray]) -> float:
    """Mean angle, degrees, between the normals of nearest points, both ways; which side of a face is out is ignored:
    game models have walls without an inside."""
    angles = []
    for (points, normals), (others, theirs) in ((ours, real), (real, ours)):
        nearest = cKDTree(others).query(points)[1]
        cosine = np.abs((normals * theirs[nearest]).sum(1)).clip(0, 1)
        angles.append(np.degrees(np.arccos(cosine)).mean())
    return float(np.mean(angles))

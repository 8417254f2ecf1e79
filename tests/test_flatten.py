"""Walls that wave become flat, creases and round things stay."""

from __future__ import annotations

import numpy as np
import trimesh

from magic3d_cli.asset.flatten import FARTHEST, flatten
from magic3d_cli.asset.mesh import face_vectors, unit


def dented_box() -> tuple[np.ndarray, np.ndarray]:
    """A box of edge 1 with walls that wave by some degrees."""
    box = trimesh.creation.box((1.0, 1.0, 1.0)).subdivide().subdivide().subdivide().subdivide()
    points = np.asarray(box.vertices)
    inner = (np.abs(points) < 0.49).sum(1) == 2  # neither edge nor corner
    waves = 0.006 * np.sin(17 * points[:, [1, 2, 0]] + 3 * points[:, [2, 0, 1]])
    return points + np.where((np.abs(points) > 0.49) & inner[:, None], waves, 0), np.asarray(box.faces)


def slopes(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Degrees between each face and the wall of the box that it belongs to."""
    return np.degrees(np.arccos(np.clip(np.abs(unit(face_vectors(vertices, faces))).max(1), 0, 1)))


def test_walls_come_within_two_degrees_of_flat_and_creases_stay():
    vertices, faces = dented_box()
    flat = flatten(vertices, faces)
    assert np.median(slopes(vertices, faces)) > 2.5
    assert np.median(slopes(flat, faces)) < 1.0
    assert np.linalg.norm(flat - vertices, axis=1).max() <= FARTHEST * 1.001
    corners = np.abs(vertices).min(1) > 0.49
    assert np.linalg.norm((flat - vertices)[corners], axis=1).max() < 0.008  # sharp as before


def test_a_ball_stays_a_ball():
    ball = trimesh.creation.icosphere(3)
    flat = flatten(np.asarray(ball.vertices), np.asarray(ball.faces))
    np.testing.assert_array_equal(flat, ball.vertices)

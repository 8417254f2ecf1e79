"""Pictures of a written asset, made from the file's own bytes with textured software rendering."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from magic3d_cli.asset.bake import to_bytes
from magic3d_cli.asset.check import FileMesh, read_mesh, sample
from magic3d_cli.asset.clean import merge_vertices
from magic3d_cli.asset.mesh import vertex_normals
from magic3d_cli.kernels.dispatch import rasterize
from magic3d_cli.scene.shading import shade
from magic3d_cli.scene.views import Views

SUPERSAMPLING = 2


def render_glb(path: Path | str, views: Views, size: int) -> UInt8[np.ndarray, "B size size 3"]:
    """Render a GLB (or OBJ) file.

    The object is centred and scaled so that its bounding sphere has radius 1: it fits every view whose frame
    is 1 or more, whatever the file's units. Shading, light and backdrop are the views' own.

    Raises UsageError when the file holds no textured mesh.
    """
    return render_mesh(read_mesh(path), views, size)


def render_mesh(mesh: FileMesh, views: Views, size: int) -> UInt8[np.ndarray, "B size size 3"]:
    """See `render_glb`."""
    welded, faces = merge_vertices(mesh.positions, mesh.faces)
    if len(faces) != len(mesh.faces):
        welded, faces = mesh.positions, mesh.faces
    normals = vertex_normals(welded, faces)
    centre = (welded.min(0) + welded.max(0)) / 2
    points = (welded - centre) / np.linalg.norm(welded - centre, axis=1).max()
    images = [_render_one(mesh, points, faces, normals, views[i : i + 1], size) for i in range(len(views))]
    return np.stack(images)


def _render_one(
    mesh: FileMesh,
    points: Float[np.ndarray, "V 3"],
    faces: np.ndarray,
    normals: Float[np.ndarray, "V 3"],
    view: Views,
    size: int,
) -> UInt8[np.ndarray, "size size 3"]:
    large = size * SUPERSAMPLING
    homogeneous = torch.from_numpy(np.concatenate([points, np.ones((len(points), 1))], 1)).float()
    clip = homogeneous @ view.world_to_clip()[0].T
    ids = rasterize(clip[None], torch.from_numpy(faces), large)[0].numpy()
    rows, columns = np.nonzero(ids >= 0)
    face = ids[rows, columns]
    weights = _perspective_weights(clip.numpy()[faces[face]].astype(float), rows, columns, large)
    uvs = (mesh.uvs[mesh.faces[face]] * weights[:, :, None]).sum(1)
    normal = (normals[faces[face]] * weights[:, :, None]).sum(1)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    colour = shade(_batch(sample(mesh.texture, uvs)), _batch(normal), view)[0].numpy()
    image = np.empty((large, large, 3), np.float32)
    image[:] = view.backdrop[0].numpy()
    image[rows, columns] = colour
    return to_bytes(image.reshape(size, SUPERSAMPLING, size, SUPERSAMPLING, 3).mean((1, 3)))


def _batch(array: np.ndarray) -> Float[Tensor, "1 N 3"]:
    return torch.from_numpy(array.astype(np.float32))[None]


def _perspective_weights(
    clip: Float[np.ndarray, "N 3 4"], rows: np.ndarray, columns: np.ndarray, size: int
) -> Float[np.ndarray, "N 3"]:
    """Perspective-correct barycentric coordinates at pixel centres (Olano and Greer 1997)."""
    pixel = np.stack([(columns + 0.5) / size * 2 - 1, 1 - (rows + 0.5) / size * 2, np.ones(len(rows))], 1)
    a, b, c = (clip[:, i, [0, 1, 3]] for i in range(3))
    volume = [(pixel * np.cross(p, q)).sum(1) for p, q in ((b, c), (c, a), (a, b))]
    weights = np.stack(volume, 1)
    total = weights.sum(1, keepdims=True)
    weights = np.where(np.abs(total) > 1e-20, weights / np.where(total == 0, 1, total), 1 / 3)
    # Coverage is decided on snapped vertices, so a centre may lie a hair outside.
    weights = np.clip(weights, 0, None)
    return weights / np.maximum(weights.sum(1, keepdims=True), 1e-12)

"""Read a written asset back as a stranger would, and measure it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from jaxtyping import Float, Int, UInt8

from magic3d_cli.asset.clean import merge_vertices
from magic3d_cli.asset.mesh import face_areas, half_edges, is_manifold, is_watertight
from magic3d_cli.asset.uv_raster import Ownership, own_texels
from magic3d_cli.errors import UsageError, first_line


@dataclass(frozen=True)
class FileMesh:
    """A textured mesh as found in a file.

    Attributes:
        positions: float64 [V, 3], as written.
        uvs: float64 [V, 2], origin at the texture's top left whatever the format.
        faces: int64 [F, 3].
        texture: uint8 [H, W, 3].
    """

    positions: Float[np.ndarray, "V 3"]
    uvs: Float[np.ndarray, "V 2"]
    faces: Int[np.ndarray, "F 3"]
    texture: UInt8[np.ndarray, "H W 3"]


def read_mesh(path: Path | str) -> FileMesh:
    """Load a GLB or OBJ through trimesh. Raises UsageError when it holds no single textured mesh."""
    if not Path(path).is_file():
        raise UsageError(f"There is no file {path}.", "Give the path of a .glb or .obj file.")
    try:
        mesh: Any = trimesh.load(path, force="mesh", process=False)
    except Exception as error:  # trimesh has no error of its own
        raise UsageError(f"{path} cannot be read as a mesh: {first_line(error)}", "Give another file.") from error
    uvs = getattr(mesh.visual, "uv", None)
    material = getattr(mesh.visual, "material", None)
    image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    if uvs is None or image is None:
        raise UsageError(f"{path} holds no textured mesh.", "Give a .glb or .obj file written by magic3d.")
    # trimesh hands out bottom-left texture coordinates for every format.
    flipped = np.stack([uvs[:, 0], 1 - uvs[:, 1]], 1)
    texture = np.asarray(image.convert("RGB"))
    return FileMesh(np.asarray(mesh.vertices, float), flipped, np.asarray(mesh.faces, np.int64), texture)


def sample(texture: UInt8[np.ndarray, "H W 3"], uvs: Float[np.ndarray, "N 2"]) -> Float[np.ndarray, "N 3"]:
    """Bilinear lookup, colours in [0, 1]; texel centres lie at half-integers, edges are clamped."""
    height, width = texture.shape[:2]
    x = np.clip(uvs[:, 0] * width - 0.5, 0, width - 1)
    y = np.clip(uvs[:, 1] * height - 0.5, 0, height - 1)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    fx, fy = (x - left)[:, None], (y - top)[:, None]
    upper = texture[top, left] * (1 - fx) + texture[top, right] * fx
    lower = texture[bottom, left] * (1 - fx) + texture[bottom, right] * fx
    return (upper * (1 - fy) + lower * fy) / 255


def seam_error(mesh: FileMesh, steps: int = 5) -> float:
    """Mean absolute colour difference between the two sides of texture seams, in [0, 1]."""
    _, welded = merge_vertices(mesh.positions, mesh.faces)
    directed, edge = half_edges(welded)
    order = np.argsort(edge, kind="stable")
    counts = np.bincount(edge)
    start = (np.cumsum(counts) - counts)[counts == 2]
    first, second = order[start], order[start + 1]
    flat, ahead = mesh.faces.reshape(-1), np.roll(mesh.faces, -1, axis=1).reshape(-1)

    def ends(half: Int[np.ndarray, "P"]) -> Float[np.ndarray, "P 2 2"]:
        pair = np.stack([mesh.uvs[flat[half]], mesh.uvs[ahead[half]]], 1)
        backward = directed[half, 0] > directed[half, 1]
        return np.where(backward[:, None, None], pair[:, ::-1], pair)

    one, other = ends(first), ends(second)
    seam = np.abs(one - other).max((1, 2)) > 1e-6
    if not seam.any():
        return 0.0
    t = np.linspace(0, 1, steps)[:, None, None]
    a, b = ((pair[seam, 0] * (1 - t) + pair[seam, 1] * t).reshape(-1, 2) for pair in (one, other))
    return float(np.abs(sample(mesh.texture, a) - sample(mesh.texture, b)).mean())


def texel_coverage(positions: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"], ownership: Ownership) -> float:
    """Share of the surface's area on faces that own at least one texel."""
    area = face_areas(positions, faces)
    return float(area[ownership.texels > 0].sum() / area.sum())


def measure(mesh: FileMesh) -> dict[str, Any]:
    """What can be known from the file alone."""
    ownership = own_texels(mesh.uvs, mesh.faces, mesh.texture.shape[0])
    _, welded = merge_vertices(mesh.positions, mesh.faces)
    return {
        "faces": len(mesh.faces),
        "vertices": len(mesh.positions),
        "watertight": is_watertight(welded),
        "manifold": is_manifold(welded),
        "texture_size": mesh.texture.shape[0],
        "texture_used": round(float((ownership.distance == 0).mean()), 4),
        "texel_coverage": round(texel_coverage(mesh.positions, mesh.faces, ownership), 5),
        "uv_overlap": round(ownership.overlap, 6),
        "seam_error": round(seam_error(mesh), 5),
    }


def check(path: Path | str) -> dict[str, Any]:
    """`measure` of a written file. Raises UsageError when it holds no textured mesh."""
    return measure(read_mesh(path))

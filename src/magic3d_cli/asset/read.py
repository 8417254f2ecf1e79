"""Read somebody's mesh: any file that trimesh opens, with whatever colours it has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from jaxtyping import Float, Int, UInt8

from magic3d_cli.asset.check import sample
from magic3d_cli.asset.mesh import at_samples, surface_samples
from magic3d_cli.errors import UsageError
from magic3d_cli.scene.shape import scale_into_scene

_GREY = 0.7  # of a mesh without colours
_TURN = {  # by which axis of the file points upwards; "y" is glTF's. Rows: the axes that become the world's x, y, z
    "y": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "z": [[1, 0, 0], [0, 0, 1], [0, -1, 0]],
    "x": [[0, -1, 0], [1, 0, 0], [0, 0, 1]],
    "-y": [[-1, 0, 0], [0, -1, 0], [0, 0, 1]],
    "-z": [[1, 0, 0], [0, 0, -1], [0, 1, 0]],
    "-x": [[0, 1, 0], [-1, 0, 0], [0, 0, 1]],
}


@dataclass(frozen=True)
class ColouredMesh:
    """A mesh of any kind, open, crossing itself or of many parts, in the world's box, +Y up.

    Attributes:
        vertices: float64 [V, 3]; faces: int64 [F, 3].
        uvs: float64 [V, 2], origin at the texture's top left, with `texture`: uint8 [H, W, 3]; or both None.
        colours: float64 [V, 3] of the vertices, 0..1, where there is no texture.
    """

    vertices: Float[np.ndarray, "V 3"]
    faces: Int[np.ndarray, "F 3"]
    uvs: Float[np.ndarray, "V 2"] | None
    texture: UInt8[np.ndarray, "H W 3"] | None
    colours: Float[np.ndarray, "V 3"]

    def samples(self, count: int) -> tuple[Float[np.ndarray, "N 3"], Float[np.ndarray, "N 3"]]:
        """Points spread evenly over the surface and their colours, 0..1; the same ones every time."""
        face, weight = surface_samples(self.vertices, self.faces, count)
        points = at_samples(self.vertices, self.faces, face, weight)
        if self.uvs is None or self.texture is None:
            return points, at_samples(self.colours, self.faces, face, weight)
        return points, sample(self.texture, at_samples(self.uvs, self.faces, face, weight) % 1.0)


def read_coloured(path: Path, up: str = "y") -> ColouredMesh:
    """A mesh file, turned upright, centred and scaled into the scene.

    Faces with coordinates that are not finite are left out. Raises UsageError for a file that is missing, that trimesh
    cannot read, or that holds no surface.
    """
    if not path.is_file():
        raise UsageError(f"There is no file {path}.", "Give the path of a mesh: .glb, .obj, .stl, .ply, ...")
    try:
        mesh: Any = trimesh.load(path, force="mesh", process=False)
        vertices, faces = np.asarray(mesh.vertices, float), np.asarray(mesh.faces, np.int64)
        uvs, texture, colours = _colours(mesh, len(vertices))
    except Exception as error:  # each reader raises its own kinds, MemoryError too for a size that is a lie
        raise UsageError(
            f"{path} cannot be read as a mesh: {str(error) or type(error).__name__}",
            "Write it anew as .glb, .obj, .stl or .ply, for instance with Blender.",
        ) from error
    faces = faces[np.isfinite(vertices[faces]).all((1, 2))] if len(faces) else faces.reshape(0, 3)
    if len(faces):
        used = vertices[np.unique(faces)]
        half = (used.max(0) - used.min(0)) / 2
    if not len(faces) or not half.max() > 0:
        raise UsageError(f"{path} holds no surface.", "Give a mesh that has triangles of some size.")
    scale = scale_into_scene(half)
    centred = np.where(np.isfinite(vertices), (vertices - used.min(0) - half) * scale, 0.0)
    return ColouredMesh(centred @ np.array(_TURN[up], float).T, faces, uvs, texture, colours)


def _colours(mesh: Any, count: int) -> tuple[Any, Any, Float[np.ndarray, "V 3"]]:
    """Texture coordinates and texture, or None and None; and a colour for each vertex."""
    visual = mesh.visual
    material = getattr(visual, "material", None)
    grey = np.full((count, 3), _GREY)
    if material is None:
        known = getattr(visual, "kind", None) in ("vertex", "face")
        return None, None, np.asarray(visual.vertex_colors, float)[:, :3] / 255 if known else grey
    image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    uvs = getattr(visual, "uv", None)
    if image is not None and uvs is not None:
        return np.stack([uvs[:, 0], 1 - uvs[:, 1]], 1), np.asarray(image.convert("RGB")), grey
    factor = getattr(material, "baseColorFactor", None)
    factor = getattr(material, "diffuse", None) if factor is None else factor
    return None, None, grey if factor is None else np.broadcast_to(np.asarray(factor, float)[:3] / 255, (count, 3))

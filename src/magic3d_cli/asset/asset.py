"""A finished asset in memory: what every format is written from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from magic3d_cli.asset.material import DEFAULT, Material


@dataclass(frozen=True)
class Asset:
    """A textured triangle mesh, ready to write.

    Attributes:
        positions: float32 [V, 3], metres, +Y up, facing +Z, standing on y = 0.
        normals: float32 [V, 3], unit.
        uvs: float32 [V, 2] in [0, 1], origin at the texture's top left.
        faces: int [F, 3], counter-clockwise from outside.
        texture: uint8 [S, S, 3], display-referred base colour; row 0 is the top.
        report: what was done and measured.
        material: metallic and roughness of the surface, or of most of it.
        surface: uint8 [S, S, 2], roughness and metallic of each texel; None where the material's serve everywhere.
        point: int [V], the point of the surface that each vertex is: the vertices on the two sides of a texture seam
            are one point. None: each vertex is a point of its own.
        about: where the asset comes from ("prompt", "seed", "prior", ...); written where a format has room for it.
        occlusion: uint8 [S, S], how much of the sky each texel sees, 255 all; None where it was not asked for.
        normal_map: uint8 [S, S, 3], glTF's encoding, of the surface before it was simplified; None likewise.
        tangents: float32 [V, 4], of the frames that the normal map is in: unit, and the side of the bitangent, 1 or -1.
        levels: the same thing with ever fewer triangles, for a renderer that is far away; complete assets.
    """

    positions: Float[np.ndarray, "V 3"]
    normals: Float[np.ndarray, "V 3"]
    uvs: Float[np.ndarray, "V 2"]
    faces: Int[np.ndarray, "F 3"]
    texture: UInt8[np.ndarray, "S S 3"]
    report: dict[str, Any] = field(default_factory=dict)
    material: Material = DEFAULT
    point: Int[np.ndarray, "V"] | None = None
    about: dict[str, Any] = field(default_factory=dict)
    surface: UInt8[np.ndarray, "S S 2"] | None = None
    occlusion: UInt8[np.ndarray, "S S"] | None = None
    normal_map: UInt8[np.ndarray, "S S 3"] | None = None
    tangents: Float[np.ndarray, "V 4"] | None = None
    levels: tuple[Asset, ...] = ()

    def shared(self) -> tuple[Int[np.ndarray, "P"], Int[np.ndarray, "V"]]:
        """One vertex of each point, and the point of each vertex: for formats that index positions by themselves."""
        point = np.arange(len(self.positions)) if self.point is None else self.point
        _, first, index = np.unique(point, return_index=True, return_inverse=True)
        return first, index.reshape(-1)

"""Binary PLY: shared positions with normals and a colour each, +Z up."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from magic3d_cli.asset.asset import Asset
from magic3d_cli.asset.formats.common import one_line, z_up
from magic3d_cli.version import __version__

_VERTEX = np.dtype([("position", "<f4", 3), ("normal", "<f4", 3), ("colour", "u1", 3)])
_FACE = np.dtype([("count", "u1"), ("corners", "<i4", 3)])


def ply_bytes(asset: Asset, name: str) -> bytes:
    """The file, in metres. Its colours are the texture's at the vertices: detail between them is lost."""
    first, point = asset.shared()
    vertices = np.zeros(len(first), _VERTEX)
    vertices["position"] = z_up(asset.positions[first])
    vertices["normal"] = z_up(asset.normals[first])
    vertices["colour"] = np.rint(vertex_colours(asset) * 255)
    faces = np.zeros(len(asset.faces), _FACE)
    faces["count"], faces["corners"] = 3, point[asset.faces]
    header = "\n".join(
        [
            "ply",
            "format binary_little_endian 1.0",
            f"comment magic3d {__version__}: {one_line(name)}, metres, Z up",
            f"element vertex {len(vertices)}",
            *(f"property float {axis}" for axis in ("x", "y", "z", "nx", "ny", "nz")),
            *(f"property uchar {channel}" for channel in ("red", "green", "blue")),
            f"element face {len(faces)}",
            "property list uchar int vertex_indices",
            "end_header\n",
        ]
    )
    return header.encode("ascii", errors="replace") + vertices.tobytes() + faces.tobytes()


def vertex_colours(asset: Asset) -> Float[np.ndarray, "P 3"]:
    """Display-referred colour of each point: the mean of the texture on the sides of a seam."""
    from magic3d_cli.asset.check import sample

    first, point = asset.shared()
    colours = sample(asset.texture, asset.uvs.astype(np.float64))
    total = np.stack([np.bincount(point, colours[:, channel], len(first)) for channel in range(3)], 1)
    return total / np.bincount(point, minlength=len(first))[:, None]

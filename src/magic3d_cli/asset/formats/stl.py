"""Binary STL for printing: triangles alone, in millimetres, +Z up."""

from __future__ import annotations

import numpy as np

from magic3d_cli.asset.asset import Asset
from magic3d_cli.asset.formats.common import MILLIMETRES, z_up
from magic3d_cli.version import __version__

_FACET = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def stl_bytes(asset: Asset) -> bytes:
    """The file. Its numbers have no unit; slicers take them for millimetres."""
    corners = z_up(asset.positions.astype(np.float64))[asset.faces] * MILLIMETRES
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    facets = np.zeros(len(corners), _FACET)
    facets["normal"] = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    facets["corners"] = corners
    # A header that begins with "solid" would be taken for the text form.
    header = f"magic3d {__version__}, millimetres, Z up".encode().ljust(80)
    return header + np.uint32(len(facets)).astype("<u4").tobytes() + facets.tobytes()

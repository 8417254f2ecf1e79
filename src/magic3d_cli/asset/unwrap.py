"""Texture coordinates: xatlas in a child process under a time limit, our own atlases when that fails."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from magic3d_cli.asset.atlas import box_atlas, grid_atlas
from magic3d_cli.asset.mesh import Faces, Vertices
from magic3d_cli.asset.packing import repack
from magic3d_cli.asset.uv_raster import Ownership, own_texels

WORKER = (sys.executable, "-m", "magic3d_cli.asset.unwrap_worker")
OVERLAP_LIMIT = 0.002
"""An xatlas result in which more texels than this belong to two faces is replaced."""
CRUMBS = 0.2
"""Charts that use less of the texture are mostly single faces, as of noise: a grid of faces shows more detail."""
MEASURED = 2048
"""Texels per side at which layouts are compared, at most: on 8192 a comparison would take gigabytes."""
_CHANCE = 1e-5  # of the texels: one centre or two that fall on a sliver folded in its own chart


@dataclass(frozen=True)
class Unwrapping:
    """Texture coordinates of a mesh whose seams have split the vertices.

    Attributes:
        vertex: for each of W new vertices, the index of the vertex it copies.
        faces: indices of new vertices; face f is still face f of the given mesh.
        uvs: texture coordinates in [0, 1], origin at the top left.
        size: texels per side of the texture they were laid out for.
        method: "xatlas", "box" or "grid".
        reason: why not xatlas; empty otherwise.
    """

    vertex: Int[np.ndarray, "W"]
    faces: Int[np.ndarray, "F 3"]
    uvs: Float[np.ndarray, "W 2"]
    size: int
    method: str
    reason: str = ""


def unwrap(
    vertices: Vertices,
    faces: Faces,
    normals: Float[np.ndarray, "V 3"],
    size: int,
    padding: int,
    seconds: float,
    worker: Sequence[str] = WORKER,
) -> Unwrapping:
    """Lay a clean mesh out on a square texture. Always succeeds.

    Args:
        vertices, faces, normals: the mesh; normals are unit vectors per vertex.
        size: texels per side.
        padding: texels between charts.
        seconds: time allowed to xatlas; it is killed after that.
        worker: command line of the child process.
    """
    layout = _run_xatlas(vertices, faces, normals, size, padding, seconds, worker)
    if isinstance(layout, Unwrapping):
        layout, owned = _tighter(layout, padding)
        if owned.overlap > OVERLAP_LIMIT:
            layout = f"xatlas laid {owned.overlap:.1%} of the texels over each other"
        elif _used(owned) < CRUMBS:
            return _grid(vertices, faces, size, padding, f"xatlas used {_used(owned):.0%} of the texture")
        else:
            return layout
    vertex, split, uvs, grown = box_atlas(vertices, faces, size, padding)
    boxes, owned = _tighter(Unwrapping(vertex, split, uvs, grown, "box", layout), padding)
    return boxes if _used(owned) >= CRUMBS else _grid(vertices, faces, size, padding, boxes.reason)


def _grid(vertices: Vertices, faces: Faces, size: int, padding: int, reason: str) -> Unwrapping:
    vertex, split, uvs, grown = grid_atlas(vertices, faces, size, padding)
    return Unwrapping(vertex, split, uvs, grown, "grid", reason)


def _used(owned: Ownership) -> float:
    return float((owned.distance == 0).mean())


def _tighter(found: Unwrapping, padding: int) -> tuple[Unwrapping, Ownership]:
    """The same charts on more of the texture, unless something would come to lie over another by it."""
    measured = min(found.size, MEASURED)
    owned = own_texels(found.uvs, found.faces, measured)
    packed = repack(found.uvs, found.faces, found.size, padding)
    if packed is None:
        return found, owned
    copied, faces, uvs = packed
    again = own_texels(uvs, faces, measured)
    if again.overlap > owned.overlap + _CHANCE or _used(again) < _used(owned):
        return found, owned
    return replace(found, vertex=found.vertex[copied], faces=faces, uvs=uvs), again


def _run_xatlas(
    vertices: Vertices,
    faces: Faces,
    normals: Float[np.ndarray, "V 3"],
    size: int,
    padding: int,
    seconds: float,
    worker: Sequence[str],
) -> Unwrapping | str:
    """The unwrapping, or why there is none."""
    # ignore_cleanup_errors: on Windows a killed child may hold its file a moment longer.
    with tempfile.TemporaryDirectory(prefix="magic3d-unwrap-", ignore_cleanup_errors=True) as folder:
        source, target = Path(folder, "mesh.npz"), Path(folder, "atlas.npz")
        np.savez(
            source,
            positions=vertices.astype(np.float32),
            faces=faces.astype(np.uint32),
            normals=normals.astype(np.float32),
            resolution=size,
            padding=padding + 1,  # the atlas may come out larger than asked and is then scaled down
        )
        command = [*worker, str(source), str(target), str(seconds + 5)]
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            code = child.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return f"xatlas took longer than {seconds:g} s"
        finally:
            # Also on Ctrl-C or any other exception of the parent.
            child.kill()
            child.wait()
        if code != 0 or not target.exists():
            return f"xatlas failed with exit code {code}"
        with np.load(target) as data:
            vertex, split, uvs = data["vertex"], data["faces"], data["uvs"]
            # xatlas normalises each axis by its own extent; the texture is square.
            scale = data["size"] / data["size"].max()
    vertex, split = vertex.astype(np.int64), split.astype(np.int64)
    if split.shape != faces.shape or not np.array_equal(vertex[split], faces) or not np.isfinite(uvs).all():
        return "xatlas returned another mesh than it was given"
    return Unwrapping(vertex, split, np.clip(uvs * scale, 0, 1), size, "xatlas")

"""The tetrahedral grid: a body-centred cubic lattice, the most even way to fill space with tetrahedra.

Its vertices are the corners of cubic cells followed by the cells' centres. Two neighbouring centres and an
edge of the face between them span one tetrahedron; all tetrahedra are congruent (Labelle and Shewchuk,
"Isosurface stuffing", 2007, section 2).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

MARGIN = 2.0
"""Cells of free space around what a lattice is laid over."""


@dataclass(frozen=True)
class Lattice:
    """A box of `cells` cubic cells of edge `cell` (world units), its lowest corner at `low`."""

    low: tuple[float, float, float]
    cell: float
    cells: tuple[int, int, int]

    @staticmethod
    def around(low: Float[Tensor, "3"], high: Float[Tensor, "3"], grid_size: int) -> Lattice:
        """The lattice over the box [low, high] with MARGIN cells of free space on every side.

        Along the longest side there are grid_size / 2^(1/3) cells, so that a cube holds as many vertices as a
        plain cubic grid of `grid_size` does.
        """
        count = max(8, round(grid_size / 2 ** (1 / 3)))
        extent = (high - low).double()
        cell = float(extent.max()) / (count - 2 * MARGIN)
        cells = torch.ceil(extent / cell + 2 * MARGIN - 1e-6).long()
        start = (low + high).double() / 2 - cells * cell / 2
        return Lattice(tuple(start.tolist()), cell, tuple(cells.tolist()))

    @staticmethod
    def from_json(data: dict[str, Any]) -> Lattice:
        return Lattice(tuple(data["low"]), float(data["cell"]), tuple(data["cells"]))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def spacing(self) -> float:
        """Half a cubic cell: the distance between neighbouring layers of vertices, world units."""
        return self.cell / 2

    def vertices(self) -> Float[Tensor, "V 3"]:
        """World positions: corners first, then centres, x slowest."""
        low = torch.tensor(self.low, dtype=torch.float64)
        nx, ny, nz = self.cells
        corners = _indices(nx + 1, ny + 1, nz + 1).double()
        centres = _indices(nx, ny, nz).double() + 0.5
        return (low + self.cell * torch.cat([corners, centres])).float()

    def tetrahedra(self) -> Int[Tensor, "T 4"]:
        """int32 vertex indices, every tetrahedron positively oriented: det(v1 - v0, v2 - v0, v3 - v0) > 0."""
        corner, centre = self._numbering()
        found = []
        for axis in range(3):
            count = self.cells[axis]
            behind, ahead = centre.narrow(axis, 0, count - 1), centre.narrow(axis, 1, count - 1)
            face = corner.narrow(axis, 1, count - 1)
            u, v = (axis + 1) % 3, (axis + 2) % 3
            ring = [
                face.narrow(u, i, self.cells[u]).narrow(v, j, self.cells[v])
                for i, j in ((0, 0), (1, 0), (1, 1), (0, 1))
            ]  # counter-clockwise about `axis`, as (axis, u, v) is right-handed
            for k in range(4):
                found.append(torch.stack([behind, ahead, ring[k], ring[(k + 1) % 4]], -1).reshape(-1, 4))
        return torch.cat(found).int()

    def boundary(self) -> Bool[Tensor, "V"]:
        """Vertices on the outside of the tetrahedra: a surface that reached them would be left open."""
        outer = []
        for grid in self._numbering():
            mask = torch.ones(grid.shape, dtype=torch.bool)
            mask[1:-1, 1:-1, 1:-1] = False
            outer.append(mask.reshape(-1))
        return torch.cat(outer)

    def padded(self, before: tuple[int, int, int], after: tuple[int, int, int]) -> Lattice:
        """The same lattice with whole cells added on the low and the high sides of each axis."""
        low = tuple(start - n * self.cell for start, n in zip(self.low, before, strict=True))
        cells = tuple(b + n + a for b, n, a in zip(before, self.cells, after, strict=True))
        return Lattice(low, self.cell, cells)  # type: ignore[arg-type]

    def positions_in(self, larger: Lattice, before: tuple[int, int, int]) -> Int[Tensor, "V"]:
        """Where this lattice's vertices are numbered in `larger = self.padded(before, ...)`."""
        inner = []
        for mine, theirs in zip(self._numbering(), larger._numbering(), strict=True):
            for axis in range(3):
                theirs = theirs.narrow(axis, before[axis], mine.shape[axis])
            inner.append(theirs.reshape(-1))
        return torch.cat(inner)

    def _numbering(self) -> tuple[Int[Tensor, "X Y Z"], Int[Tensor, "x y z"]]:
        nx, ny, nz = self.cells
        corners = (nx + 1) * (ny + 1) * (nz + 1)
        corner = torch.arange(corners).view(nx + 1, ny + 1, nz + 1)
        return corner, corners + torch.arange(nx * ny * nz).view(nx, ny, nz)


def _indices(nx: int, ny: int, nz: int) -> Int[Tensor, "N 3"]:
    return torch.cartesian_prod(torch.arange(nx), torch.arange(ny), torch.arange(nz))

"""The shape's parameters: a signed distance and a displacement at every vertex of the tetrahedral grid."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree
from torch import Tensor, nn

from magic3d_cli.fine.marching_tetrahedra import marching_tetrahedra
from magic3d_cli.fine.tetrahedra import Lattice
from magic3d_cli.scene.region import SHAPE, Region

_ROOM = 1.5  # the grid grows when the surface comes this close to its outside, cells
_GROWTH = 3  # by this many cells
LEAST_OUTSIDE = 1e-2
"""Signed distance, in cells, that vertices on the outside of the grid have at least: no surface is left open."""
_LIMIT = 1.3  # never past this coordinate: cameras stand 1.5 or more from the origin


class Geometry(nn.Module):
    """Parameters are in units of one cubic cell, so that a learning rate means the same on every grid."""

    grid: Float[Tensor, "V 3"]
    tetrahedra: Int[Tensor, "T 4"]
    boundary: Bool[Tensor, "V"]

    def __init__(self, lattice: Lattice, sdf: Float[Tensor, "V"]) -> None:
        """`sdf` is in world units, negative inside."""
        super().__init__()
        self._changing: Region | None = None  # None: all of it
        self._lay(lattice)
        self.sdf = nn.Parameter((sdf / lattice.cell).float().clone())
        self.displacement = nn.Parameter(torch.zeros(len(sdf), 3))

    def _lay(self, lattice: Lattice, device: torch.device | str = "cpu") -> None:
        self.lattice = lattice
        for name, value in (
            ("grid", lattice.vertices()),
            ("tetrahedra", lattice.tetrahedra()),
            ("boundary", lattice.boundary()),
        ):
            self.register_buffer(name, value.to(device), persistent=False)
        self._free = None if self._changing is None else self._changing.share(self.grid, SHAPE) > 0.5

    def hold_outside(self, region: Region) -> None:
        """From now on nothing outside the region learns."""
        self._changing = region
        self._lay(self.lattice, self.sdf.device)

    def surface(self) -> tuple[Float[Tensor, "V 3"], Int[Tensor, "F 3"]]:
        """The mesh, differentiable; faces wound outward. It is always closed.

        A vertex moves by at most half the spacing of the lattice's layers, so that neighbours never pass each
        other along an axis (Shen et al., arXiv 2111.04276, section 3.1).
        """
        reach = self.lattice.spacing / 2
        sdf: Tensor = self.sdf
        displacement: Tensor = self.displacement
        if self._free is not None:
            sdf = torch.where(self._free, sdf, sdf.detach())
            displacement = torch.where(self._free[:, None], displacement, displacement.detach())
        moved = self.grid + reach * torch.tanh(displacement * (self.lattice.cell / reach))
        sdf = torch.where(self.boundary, sdf.clamp(min=LEAST_OUTSIDE), sdf)
        return marching_tetrahedra(moved, sdf * self.lattice.cell, self.tetrahedra)

    @torch.no_grad()
    def grow_around(self, surface: Float[Tensor, "N 3"], optimizer: torch.optim.Optimizer) -> bool:
        """Add cells on every side that `surface` has come close to; True if it did.

        Nothing that exists changes: old vertices keep their values and the optimiser its moments.
        """
        lattice = self.lattice
        low = torch.tensor(lattice.low, device=surface.device)
        high = low + lattice.cell * torch.tensor(lattice.cells, device=surface.device)
        room = _ROOM * lattice.cell
        more_low = (surface.amin(0) - low < room) & (low - _GROWTH * lattice.cell > -_LIMIT)
        more_high = (high - surface.amax(0) < room) & (high + _GROWTH * lattice.cell < _LIMIT)
        if not (more_low.any() or more_high.any()):
            return False
        before = tuple(_GROWTH * int(x) for x in more_low)
        after = tuple(_GROWTH * int(x) for x in more_high)
        larger = lattice.padded(before, after)  # type: ignore[arg-type]
        where = lattice.positions_in(larger, before).to(surface.device)  # type: ignore[arg-type]
        apart, nearest = cKDTree(self.grid.cpu().numpy()).query(larger.vertices().numpy(), workers=2)
        outside = self.sdf.cpu().clamp(min=0)[torch.from_numpy(nearest)]
        beyond = (outside + torch.from_numpy(apart).float() / lattice.cell).to(surface.device)
        for name, fresh in (("sdf", beyond), ("displacement", torch.zeros_like(larger.vertices()))):
            old = getattr(self, name)
            new = nn.Parameter(_embed(old, where, fresh.to(surface.device)))
            setattr(self, name, new)
            _replace(optimizer, old, new, where)
        self._lay(larger, surface.device)
        return True


def _embed(values: Float[Tensor, "V *c"], where: Int[Tensor, "V"], into: Float[Tensor, "W *c"]) -> Tensor:
    return into.index_copy(0, where, values)


def _replace(optimizer: torch.optim.Optimizer, old: Tensor, new: Tensor, where: Tensor) -> None:
    """Let the optimiser go on with `new`, which holds `old`'s rows at `where`."""
    for group in optimizer.param_groups:
        group["params"] = [new if p is old else p for p in group["params"]]
    moments = optimizer.state.pop(old, {})
    for name, value in moments.items():
        if value.shape == old.shape:
            moments[name] = _embed(value, where, torch.zeros_like(new))
    if moments:
        optimizer.state[new] = moments

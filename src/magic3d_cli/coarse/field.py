"""The coarse scene: a multi-resolution hash grid and two small heads (Magic3D, section 4.1; Instant-NGP)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize, softplus

from magic3d_cli.kernels.hash_encode import hash_encode, level_resolutions
from magic3d_cli.settings import FieldSettings

_ROWS = 8192  # a batch of rows whose activations stay in cache: twice as fast as one large batch on a CPU
_FEATURE_SCALE = 1e-4  # initial table entries, U(-s, s) [Instant-NGP, section 4]


class FieldSample(NamedTuple):
    """The field at N points."""

    density: Float[Tensor, "N"]  # per world unit, >= 0
    albedo: Float[Tensor, "N 3"]  # display-referred, 0..1
    normal: Float[Tensor, "N 3"]  # unit, from the second head


class HashField(nn.Module):
    """Density and albedo from one head, normals from another, both on the same hash-grid features.

    Density is softplus(net + bias (1 - r / radius)): a soft ball that score distillation carves (Magic3D, section
    4.1). All points are world coordinates in [-1, 1]^3.
    """

    def __init__(self, settings: FieldSettings, generator: torch.Generator) -> None:
        super().__init__()
        self.settings = settings
        self.resolutions = level_resolutions(
            settings.levels, settings.base_resolution, settings.finest_resolution
        )
        shape = (settings.levels, 2**settings.log2_size, settings.features)
        table = (torch.rand(shape, generator=generator) * 2 - 1) * _FEATURE_SCALE
        self.table = nn.Parameter(table)
        width = settings.levels * settings.features
        self.surface = _head(width, settings.hidden, 4, generator)
        self.normals = _head(width, settings.hidden, 3, generator)

    def features(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N F"]:
        return hash_encode((points + 1) / 2, self.table, self.resolutions)

    def density(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        return self._density(_in_rows(self.surface, self.features(points))[:, 0], points)

    def albedo(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        return torch.sigmoid(_in_rows(self.surface, self.features(points))[:, 1:])

    def forward(self, points: Float[Tensor, "N 3"]) -> FieldSample:
        features = self.features(points)
        surface = _in_rows(self.surface, features)
        normal = normalize(_in_rows(self.normals, features), dim=-1)
        return FieldSample(self._density(surface[:, 0], points), torch.sigmoid(surface[:, 1:]), normal)

    def _density(self, raw: Float[Tensor, "N"], points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        radius = points.norm(dim=-1)
        return softplus(raw + self.settings.density_bias * (1 - radius / self.settings.bias_radius))

    @torch.no_grad()
    def density_normal(self, points: Float[Tensor, "N 3"], step: float) -> Float[Tensor, "N 3"]:
        """Unit normals from central differences of the density over `step` world units."""
        offsets = step * torch.eye(3, device=points.device)
        corners = torch.cat([points + o for o in offsets] + [points - o for o in offsets])
        density = self.density(corners).view(6, -1)
        return normalize((density[3:] - density[:3]).T, dim=-1)


def _head(width: int, hidden: int, out: int, generator: torch.Generator) -> nn.Sequential:
    """One hidden layer, initialised from the given generator so that a seed fixes everything."""
    head = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, out))
    for layer in (head[0], head[2]):
        bound = (6 / layer.in_features) ** 0.5 if layer is head[0] else layer.in_features**-0.5
        layer.weight.data = (torch.rand(layer.weight.shape, generator=generator) * 2 - 1) * bound
        layer.bias.data.zero_()
    return head


def _in_rows(head: nn.Sequential, features: Float[Tensor, "N F"]) -> Float[Tensor, "N C"]:
    if features.device.type != "cpu" or len(features) <= _ROWS:
        return head(features)
    return torch.cat([head(rows) for rows in features.split(_ROWS)])

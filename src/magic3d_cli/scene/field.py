"""The coarse scene: density, colour and normals from a multi-resolution hash grid (Magic3D section 4.1)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from magic3d_cli.kernels.dispatch import hash_encode
from magic3d_cli.kernels.hash_encode import level_resolutions
from magic3d_cli.settings import FieldSettings

_ROWS = 16384  # rows of a matrix product at a time: its hidden layer then stays in the processor's cache

LEAST_SLOPE = 0.01
"""Added to the derivative of the density's softplus, which vanishes where there is nothing: what has faded there could
not come back."""


class HashField(nn.Module):
    """A hash grid with two single-hidden-layer heads: albedo and density, and normals [paper, section 4.1].

    Points are world coordinates in [-1, 1]^3. The density is softplus(gain net + bias (1 - r / radius)), r the
    distance from the origin: a soft ball to begin with.
    """

    def __init__(self, settings: FieldSettings, generator: torch.Generator) -> None:
        super().__init__()
        self.settings = settings
        self.resolutions = level_resolutions(settings.levels, settings.base_resolution, settings.finest_resolution)
        entries = torch.rand(settings.levels, 2**settings.log2_size, settings.features, generator=generator)
        self.table = nn.Parameter((entries * 2 - 1) * 1e-4)  # [Instant-NGP, section 4]
        width = settings.levels * settings.features
        self.surface = Head(width, settings.hidden, 4, generator)
        self.normal = Head(width, settings.hidden, 3, generator)

    def features(self, points: Float[Tensor, "N 3"], known: Float[Tensor, "N E"] | None = None) -> Float[Tensor, "N E"]:
        """The hash grid's encoding; `known`, if given, is its value and only the gradient is added."""
        return hash_encode((points + 1) / 2, self.table, self.resolutions, known)

    def density(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """Per world unit of length."""
        return F.softplus(self.density_logit(points))

    def density_logit(
        self, points: Float[Tensor, "N 3"], features: Float[Tensor, "N E"] | None = None
    ) -> Float[Tensor, "N"]:
        """The density before its softplus: the same level sets, but its slope does not vanish outside."""
        features = self.features(points) if features is None else features
        return self._logit(self.surface(features, outputs=1), points)

    def albedo(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """Display-referred, 0..1."""
        return self.density_and_albedo(points, self.features(points))[1]

    def density_and_albedo(
        self, points: Float[Tensor, "N 3"], features: Float[Tensor, "N E"]
    ) -> tuple[Float[Tensor, "N"], Float[Tensor, "N 3"]]:
        """Density and albedo from features already encoded."""
        logit, albedo = self.logit_and_albedo(points, features)
        return F.softplus(logit) + LEAST_SLOPE * (logit - logit.detach()), albedo

    def logit_and_albedo(
        self, points: Float[Tensor, "N 3"], features: Float[Tensor, "N E"]
    ) -> tuple[Float[Tensor, "N"], Float[Tensor, "N 3"]]:
        """As `density_logit` and `albedo`, from features already encoded."""
        raw = self.surface(features)
        return self._logit(raw, points), torch.sigmoid(raw[:, 1:])

    def normals(self, features: Float[Tensor, "N E"]) -> Float[Tensor, "N 3"]:
        """Predicted unit normals from features already encoded."""
        return F.normalize(self.normal(features), dim=-1, eps=1e-6)

    def density_normal(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """Unit normals of the density itself, by central differences.

        The step is about a cell of the finest level, but at least 0.014: a smaller one sees only noise, a larger one
        no detail. Six probes, since the error of four at the corners of a tetrahedron is of first order: where the
        surface is twisted it tilts the normal by the step. (Theirs were 0.017 away, with the same noise.)
        """
        size = math.sqrt(2) * max(2 / self.settings.finest_resolution, 1e-2)
        shifts = size * torch.eye(3, device=points.device)
        probes = points[:, None, None] + torch.stack([shifts, -shifts])  # N 2 3 3
        ahead, behind = self.density_logit(probes.reshape(-1, 3)).view(-1, 2, 3).unbind(1)
        slope = (ahead - behind) / (2 * size)
        # The constant, small beside the initial ball's slope of 20, keeps the gradient finite.
        return -slope / torch.sqrt((slope**2).sum(-1, keepdim=True) + 1e-2)

    def _logit(self, raw: Tensor, points: Tensor) -> Tensor:
        ball = self.settings.density_bias * (1 - points.norm(dim=-1) / self.settings.bias_radius)
        return self.settings.density_gain * raw[:, 0] + ball


class Head(nn.Module):
    """Linear, ReLU, Linear, run over a few thousand rows at a time."""

    def __init__(self, inputs: int, hidden: int, outputs: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight_in = nn.Parameter(_uniform((hidden, inputs), math.sqrt(6 / inputs), generator))
        self.bias_in = nn.Parameter(torch.zeros(hidden))
        self.weight_out = nn.Parameter(_uniform((outputs, hidden), math.sqrt(1 / hidden), generator))
        self.bias_out = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Float[Tensor, "N I"], outputs: int | None = None) -> Float[Tensor, "N O"]:
        """`outputs` keeps only the first few outputs."""
        weight, bias = self.weight_out[:outputs], self.bias_out[:outputs]
        rows = _ROWS if x.device.type == "cpu" else max(len(x), 1)
        parts = [F.linear(F.relu(F.linear(part, self.weight_in, self.bias_in)), weight, bias) for part in x.split(rows)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def _uniform(shape: tuple[int, int], bound: float, generator: torch.Generator) -> Tensor:
    return (torch.rand(shape, generator=generator) * 2 - 1) * bound

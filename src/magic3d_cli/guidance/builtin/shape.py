"""The built-in prior's own idea of a caption as a shape to begin with: its volume, painted as the caption asks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from magic3d_cli.guidance.builtin.volume import CaptionVolume
from magic3d_cli.guidance.builtin.voxels import weighted
from magic3d_cli.kernels.volume import EMPTY, SHARPNESS

_POINTS = 1 << 18


class VolumeShape:
    """`scene.shape.InitialShape` of one caption's volume."""

    @torch.no_grad()
    def __init__(self, volume: CaptionVolume, text: Float[Tensor, "1 L D"]) -> None:
        """`text` are the caption's states, as its prior encodes them."""
        text = text.to(next(volume.parameters()))
        self._network, self._text, self._extent = volume, text, volume.extent
        self._volume = volume.imagine(text)[0].movedim(-1, 0)[None]  # 1 7 J I K: indexed y, x, z
        self._weighted = weighted(self._volume[0].movedim(0, -1))[:, 1:]

    @torch.no_grad()
    def density(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
        """As the volume is rendered: softplus of the trilinear raw density, nothing outside its cube."""
        raw = self._sample(self._volume[:, :1], points)[:, 0]
        there = (raw > EMPTY) & (points.abs().amax(-1) < self._extent)
        return torch.where(there, SHARPNESS * F.softplus(raw), 0)

    @torch.no_grad()
    def albedo(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        """The volume's own colours, painted as the caption asks, each point for itself."""
        weighted = self._sample(self._weighted, points)
        surface = weighted[:, 1:] / weighted[:, :1]
        maps = torch.cat([torch.ones_like(surface[:, :1]), surface, points], 1)  # opacity, normal, colour, position
        return self._network.paint(maps.T[None, :, None].float(), self._text)[0, :, 0].T

    @torch.no_grad()
    def surface(self, count: int, generator: torch.Generator) -> Float[Tensor, "N 3"]:
        """Centres of voxels that are neither full nor empty beside their neighbours, moved about in their voxels."""
        raw = self._volume[:, :1].clamp(-8, 8)
        spread = F.max_pool3d(raw, 3, 1, 1) + F.max_pool3d(-raw, 3, 1, 1)
        solid = F.max_pool3d(raw, 3, 1, 1) > -1
        j, i, k = ((spread > 3) & solid)[0, 0].nonzero().unbind(1)
        if len(j) == 0:  # a caption that names nothing
            return torch.rand(count, 3, generator=generator) * 2 - 1
        size = raw.shape[-1]
        places = torch.stack([i, j, k], 1).cpu()
        chosen = places[torch.randint(len(places), (count,), generator=generator)]
        inside = torch.rand(count, 3, generator=generator)
        return ((chosen + inside) / size * 2 - 1) * self._extent

    def _sample(self, volume: Float[Tensor, "1 C J I K"], points: Float[Tensor, "N 3"]) -> Float[Tensor, "N C"]:
        """Trilinear values; outside the cube those of its faces."""
        # grid_sample's x, y, z run over the last, second last and third last dimension: z, x, y of the world.
        grid = (points / self._extent).roll(1, -1)
        parts = [
            F.grid_sample(volume, part[None, :, None, None], padding_mode="border", align_corners=False)
            for part in grid.split(_POINTS)
        ]
        return torch.cat([part[0, :, :, 0, 0].T for part in parts])

"""What the built-in prior knows of the things that captions name: their shapes and colours, as volumes.

A caption is decoded to a volume of density, normal and own colour, the asked camera's rays are composited through it,
and a small network paints each point as the caption asks. All views of a caption share its volume, so they agree with
each other by construction, which is what score distillation needs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from magic3d_cli.guidance.builtin.layers import Residual, unit_gain
from magic3d_cli.kernels.dispatch import composite_volume
from magic3d_cli.kernels.volume import occupied_blocks
from magic3d_cli.scene.shading import shade
from magic3d_cli.scene.views import Views, views_from_features

SURFACE, PLACE = 6, 3
"""Features of a voxel: world normal and own colour; and the numbers of a position."""
CHILDREN = 2
"""Voxels along the side of a cell."""
FULL = 10.0
"""Raw density of voxels inside things, far from their surface; minus this outside."""
NEAR = -2.0
"""Logit above which a cell's voxels are read: a surface left out is a black spot, and costs more than it saves."""
WAVES = (2.0, 4.0, 8.0)
"""Frequencies at which the painter is told a point's position, half-waves per world unit: grain and veins need them."""


@dataclass(frozen=True)
class Look:
    """What a caption's thing looks like from B views.

    `maps` [B, 10, S, S]: opacity, then world normal, own colour and position, times opacity. `shown` [B, 3, S, S]: the
    painted, lit picture before its backdrop, in [-1, 1]. `wording` [B, E]: the caption as pictures are told it.
    """

    maps: Tensor
    shown: Tensor
    wording: Tensor


class CaptionVolume(ModelMixin, ConfigMixin):
    """From captions to volumes and their pictures.

    A caption's latent is a coarse triplane (EG3D, Chan et al. 2022), a mean and some share of each of the principal
    components of all models' latents, which are kept as 8-bit numbers. Convolutions refine it to three planes of twice
    the size; a small network reads each voxel off them. Only the voxels near surfaces are read: which those are is
    decided by cells of 2 x 2 x 2.

    Args:
        cross_attention_dim: width of the text states.
        latent_size, latent_channels: of each of the latent planes (y x, y z and x z).
        width: channels of the convolutions. voxel_width: of the planes that voxels are read off.
        samples: points along a ray. extent: half-side of the volume's cube.
        painter_width: of the network that gives each point the caption's colour and material.
        embedding: width of the wording. shape_embedding: numbers that a caption's shape is known by, one of them for
            whether it names anything; with one more than there are models, all can be told apart.
    """

    config_name: str = "config.json"  # type: ignore[assignment]

    @register_to_config
    def __init__(
        self,
        cross_attention_dim: int = 192,
        latent_size: int = 64,
        latent_channels: int = 6,
        width: int = 64,
        voxel_width: int = 48,
        samples: int = 128,
        extent: float = 0.95,
        painter_width: int = 96,
        embedding: int = 256,
        shape_embedding: int = 468,
    ) -> None:
        super().__init__()
        self.samples, self.extent = samples, extent
        self.latent_shape = (3, latent_channels, latent_size, latent_size)
        # Two readings of the caption: shapes do not depend on its colours and materials, pictures do.
        self.caption, self.wording = (
            nn.Sequential(nn.Linear(cross_attention_dim, out), nn.SiLU(), nn.Linear(out, out))
            for out in (shape_embedding, embedding)
        )
        numbers = math.prod(self.latent_shape)
        self.register_buffer("components", torch.zeros(shape_embedding - 1, numbers, dtype=torch.int8))
        self.register_buffer("scales", torch.zeros(shape_embedding - 1))
        self.register_buffer("mean", torch.zeros(numbers))
        self.cell_width = voxel_width // 2
        self.planes = nn.Sequential(
            nn.Conv2d(latent_channels, width, 1),
            Residual(width, width, norm=False), Residual(width, width, norm=False),
            nn.SiLU(), nn.Conv2d(width, self.cell_width + CHILDREN**2 * voxel_width, 1),
        )  # fmt: skip
        self.voxel, self.cell = (
            nn.Sequential(nn.SiLU(), nn.Linear(read, hidden), nn.SiLU(), nn.Linear(hidden, out))
            for read, hidden, out in ((voxel_width, 64, 1 + SURFACE), (self.cell_width, 32, 2))
        )
        self.painter = Painter(SURFACE + PLACE + 6 * len(WAVES), painter_width, embedding)
        unit_gain(self)
        with torch.no_grad():  # else its sigmoid may start, and stay, at one end
            self.painter.layers[-1].get_parameter("weight").mul_(0.2)
            self.voxel.get_parameter("3.bias")[0] = -2.0  # nearly transparent
        self._imagined: tuple[Tensor, Tensor, Tensor] | None = None

    def forward(
        self,
        text: Float[Tensor, "N L D"],
        features: Float[Tensor, "B 23"],
        size: int,
        jitter: Float[Tensor, "B S S"] | None = None,
    ) -> Look:
        """What N captions look like from B / N consecutive views each, at `size` pixels; `jitter` as for `render`."""
        views = views_from_features(features.float())
        volume, blocks = self._recall(text)
        maps = self.render(volume, views, size, jitter, blocks)
        wording = self.wording(words(text)).repeat_interleave(len(features) // len(text), 0)
        albedo = self.painter(maps.to(wording.dtype), wording).float()
        return Look(maps, picture(maps[:, :1], maps[:, 1:4], albedo, views), wording)

    def imagine(self, text: Float[Tensor, "C L D"]) -> Float[Tensor, "C J I K 7"]:
        """The volume of each caption over the cube of half-side `extent`, indexed y, x, z, upward.

        Of each voxel the raw density (before its softplus), world normal and own colour. A caption that names nothing
        has an empty volume.
        """
        code = self.caption(words(text))
        volume = self.decode(self.latent(code[:, :-1]))
        volume[..., 0] = torch.where(code[:, -1, None, None, None] > 0, volume[..., 0], -FULL)
        return volume

    def latent(self, code: Float[Tensor, "C E"]) -> Float[Tensor, "C 3 E s s"]:
        """The latent with these shares of the principal components."""
        latent = (code * self.scales) @ self.components.to(code.dtype) + self.mean
        return latent.unflatten(1, self.latent_shape)

    @torch.no_grad()
    def factorise(self, latents: Float[Tensor, "S N"]) -> Float[Tensor, "S E"]:
        """Take over the latents' principal components; the code of each latent."""
        mean = latents.mean(0)
        left, sizes, right = torch.linalg.svd(latents - mean, full_matrices=False)
        unit = sizes.square().mean().sqrt() / math.sqrt(len(latents))  # so that codes are of unit scale
        count = min(len(self.scales), len(sizes))
        scales = right[:count].abs().amax(1) / 127
        self.components[:count] = (right[:count] / scales[:, None]).round().to(torch.int8)
        self.components[count:] = 0
        self.scales[:count] = scales * unit
        self.mean.copy_(mean)
        return F.pad((left * sizes / unit)[:, :count], (0, len(self.scales) - count))

    def refine(self, latent: Float[Tensor, "C 3 E s s"]) -> tuple[Tensor, Tensor]:
        """The planes that cells [C, 3, s, s, V] and voxels [C, 3, s, s, 4, W], four to a cell, are read off."""
        planes = self.planes(latent.flatten(0, 1).contiguous(memory_format=torch.channels_last))
        planes = planes.permute(0, 2, 3, 1).unflatten(0, (-1, 3))
        coarse, fine = planes.tensor_split([self.cell_width], -1)
        return coarse, fine.unflatten(-1, (CHILDREN**2, -1))

    def voxels(self, planes: tuple[Tensor, Tensor], places: Int[Tensor, "P"]) -> Float[Tensor, "P 7"]:
        """Raw density and surface at some places: flat indices into all volumes of these planes."""
        return self.voxel(_gather(planes[1], places))

    def cells(
        self, planes: tuple[Tensor, Tensor], places: Int[Tensor, "P"] | None = None
    ) -> Float[Tensor, "P 2"] | Float[Tensor, "C s s s 2"]:
        """Whether cells are near a surface, and whether they are inside things if they are not, as logits."""
        if places is not None:
            return self.cell(_gather(planes[0][..., None, :], places))
        return torch.stack([self.cell(a[:, :, None] + b[:, None] + c) for a, b, c in planes[0]])

    def decode(self, latent: Float[Tensor, "C 3 E s s"]) -> Float[Tensor, "C J I K 7"]:
        """The volume of each latent, float32: voxels of cells near surfaces, the rest full or empty."""
        planes = self.refine(latent)
        near, inside = self.cells(planes).float().unbind(-1)
        places = children(near > NEAR).flatten().nonzero()[:, 0]
        return fill(inside > 0, places, self.voxels(planes, places))

    def _recall(self, text: Float[Tensor, "C L D"]) -> tuple[Tensor, Tensor]:
        """`imagine`, but not again for the text of the last call: a run asks for one caption at every step.

        The volume and its occupied blocks.
        """
        if self._imagined is None or not torch.equal(self._imagined[0], text):
            volume = self.imagine(text)
            self._imagined = text.clone(), volume, occupied_blocks(volume)
        return self._imagined[1:]

    def render(
        self,
        volume: Float[Tensor, "C J I K 7"],
        views: Views,
        size: int,
        jitter: Float[Tensor, "B S S"] | None = None,
        blocks: Bool[Tensor, "C j i k"] | None = None,
    ) -> Float[Tensor, "B 10 S S"]:
        """The volumes' feature image, opacity first, for views that come in C groups of equal size.

        `jitter`, in [0, 1), places each ray's points within their steps, None in the middle; `blocks` are the volume's
        `occupied_blocks`, if they are known.
        """
        origins, directions = views.rays(size)
        jitter = torch.full(directions.shape[:3], 0.5, device=directions.device) if jitter is None else jitter
        maps = composite_volume(
            volume, origins[:, 0, 0], directions.flatten(1, 2), views.distance - self.extent, jitter.flatten(1),
            self.samples, self.extent, blocks,
        )  # fmt: skip
        return maps.unflatten(-1, (size, size))


class Painter(nn.Module):
    """Own colour, normal and position of a point, and the caption, to the colour that the caption asks for.

    Each point for itself, so that a colour is learned once for all shapes.
    """

    def __init__(self, inputs: int, width: int, embedding: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in ((inputs, width), (width, width), (width, 4)))
        self.film = nn.ModuleList(nn.Linear(embedding, 2 * width) for _ in range(2))

    def forward(self, maps: Float[Tensor, "B 10 H W"], wording: Float[Tensor, "B E"]) -> Float[Tensor, "B 3 H W"]:
        """Albedo in [0, 1], not multiplied by opacity; 0 where there is nothing, which is most of a picture."""
        view, row, column = (maps[:, 0] > 0).nonzero(as_tuple=True)
        points = maps.movedim(1, -1)[view, row, column]
        x = points[:, 1:] / points[:, :1].clamp(min=0.05)
        own = x[:, 3:6]
        angles = torch.cat([x[:, -3:] * (math.pi * wave) for wave in WAVES], 1)
        x = torch.cat([x, angles.sin(), angles.cos()], 1)
        for layer, film in zip(self.layers, self.film, strict=False):
            scale, shift = film(F.silu(wording))[view].chunk(2, 1)
            x = F.silu(layer(x) * (1 + scale) + shift)
        colour, share = self.layers[-1](x).sigmoid().split([3, 1], 1)
        painted = maps.new_zeros((len(maps), *maps.shape[2:], 3))
        painted[view, row, column] = (own + share * (colour - own)).to(painted.dtype)
        return painted.movedim(-1, 1)


def words(text: Float[Tensor, "C L D"]) -> Float[Tensor, "C D"]:
    """A caption's words together, of about unit scale; their order says nothing."""
    return text.sum(1) / 2


def children(cells: Tensor) -> Tensor:
    """Cells [C, h, h, h] as voxels [C, 2 h, 2 h, 2 h]."""
    for axis in (1, 2, 3):
        cells = cells.repeat_interleave(CHILDREN, axis)
    return cells


def fill(inside: Tensor, places: Int[Tensor, "P"], found: Float[Tensor, "P 7"]) -> Float[Tensor, "C J I K 7"]:
    """Volumes with the voxels `found` at some places, flat indices; the rest full or empty as cells [C, h, h, h]."""
    inside = children(inside)
    volume = found.new_zeros((*inside.shape, found.shape[-1]), dtype=torch.float32)
    volume[..., 0] = torch.where(inside, FULL, -FULL)
    volume.flatten(0, 3)[places] = found.float()
    return volume


def picture(
    opacity: Float[Tensor, "B 1 H W"], normal: Float[Tensor, "B 3 H W"], albedo: Float[Tensor, "B 3 H W"], views: Views
) -> Float[Tensor, "B 3 H W"]:
    """What these show under the views' light and before their backdrop, in [-1, 1]."""
    opacity, normal, albedo = (part.movedim(1, -1) for part in (opacity, normal, albedo))
    backdrop = torch.where(views.plain[:, None] > 0.5, views.backdrop, 0.5)[:, None, None]
    shown = opacity * shade(albedo, F.normalize(normal, dim=-1), views) + (1 - opacity) * backdrop
    return shown.movedim(-1, 1) * 2 - 1


def _gather(planes: Float[Tensor, "C 3 s s K W"], places: Int[Tensor, "P"]) -> Float[Tensor, "P W"]:
    """The three planes' sum at some places: flat indices into the cubes that the planes span.

    A pixel of a plane has K = 1 or 4 places, and so the cubes s or 2 s along each side, a power of two.
    """
    half = planes.shape[-2] // 3  # 0 or 1: a step of 1 leaves a pixel, or not
    bits = planes.shape[2].bit_length() - 1
    side = bits + half
    mask = (1 << side) - 1
    caption, j, i, k = places >> 3 * side, places >> 2 * side & mask, places >> side & mask, places & mask
    rows = []
    for n, (a, b) in enumerate(((j, i), (j, k), (i, k))):
        row = (((caption * 3 + n) << bits | a >> half) << bits) | b >> half
        rows.append(row << 2 | (a & 1) << 1 | b & 1 if half else row)
    return F.embedding(torch.stack(rows), planes.flatten(0, 4)).sum(0)

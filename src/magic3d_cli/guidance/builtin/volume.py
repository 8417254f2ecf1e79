"""Text-to-volume decoder of the built-in prior: the shape and the colours of what a caption names.

A caption is decoded to a volume of density, normal and own colour, the asked camera's rays are composited through it,
and each point is painted as the caption asks. All views of a caption share its volume, so they agree with
each other by construction, which is what score distillation needs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from magic3d_cli.guidance.builtin.latents import AXES, Box, Latent, decode, encode
from magic3d_cli.guidance.builtin.layers import Residual, unit_gain
from magic3d_cli.guidance.builtin.mixture import mixture
from magic3d_cli.guidance.builtin.paint import COLOURS, MATERIALS, Tones, paint
from magic3d_cli.guidance.builtin.palette import Dress
from magic3d_cli.guidance.builtin.voxels import FULL, mended
from magic3d_cli.kernels.dispatch import composite_volume
from magic3d_cli.kernels.volume import occupied_blocks
from magic3d_cli.scene.shading import shade
from magic3d_cli.scene.views import Views, views_from_embedding

SURFACE, PLACE = 6, 3
"""Features of a voxel: world normal and own colour; and the numbers of a position."""
CHILDREN = 2
"""Voxels along the side of a cell."""
NEAR = -2.0
"""Logit above which a cell's voxels are read: a surface left out is a black spot, and costs more than it saves."""
REMEMBERED = ("known", "means", "paints", "tones", "stored_ends", "stored_bytes")
"""Buffers of `CaptionVolume` that `remember` fills; all other weights are learned."""
LIKE = 0.8
"""Of a word's state and a key, as a share of the key: the same word has 1, other words about 0."""


@dataclass(frozen=True)
class Look:
    """What a caption's thing looks like from B views.

    `maps` [B, 10, S, S]: opacity, then world normal, own colour and position, times opacity. `rgb` [B, 3, S, S]: the
    painted, lit picture before its backdrop, in [-1, 1]. `caption_embedding` [B, E]: what the
    denoiser is told of the caption.
    """

    maps: Tensor
    rgb: Tensor
    caption_embedding: Tensor


class CaptionVolume(ModelMixin, ConfigMixin):
    """From captions to volumes and their pictures.

    A caption names one of the models that are remembered (`remember`), by a word of its own or by its noun's. Each
    model's latent is a coarse triplane (EG3D, Chan et al. 2022), kept rounded and deflated (latents.py). Convolutions
    refine it to three planes of twice the size; a small network reads each voxel off them. Only voxels near surfaces
    are read: which those are is decided by cells of 2 x 2 x 2.

    Args:
        cross_attention_dim: width of the text states.
        latent_size, latent_channels: of each of the latent planes (y x, y z and x z).
        width: channels of the convolutions. voxel_width: of the planes that voxels are read off.
        samples: points along a ray. extent: half-side of the volume's cube.
        embedding: width of the caption embedding.
        names, models, stored: words that name a model, models, and bytes of their latents; `remember` sets them.
    """

    config_name: str = "config.json"  # type: ignore[assignment]
    known: Tensor
    means: Tensor
    paints: Tensor
    tones: Tensor
    stored_ends: Tensor
    stored_bytes: Tensor

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
        embedding: int = 256,
        names: int = 0,
        models: int = 0,
        stored: int = 0,
    ) -> None:
        super().__init__()
        self.samples, self.extent = samples, extent
        self.latent_shape = (3, latent_channels, latent_size, latent_size)
        width_in, width_out = cross_attention_dim, embedding
        self.wording = nn.Sequential(nn.Linear(width_in, width_out), nn.SiLU(), nn.Linear(width_out, width_out))
        self.register_buffer("known", torch.zeros(names, cross_attention_dim))
        self.register_buffer("means", torch.zeros(names, dtype=torch.int64))
        self.register_buffer("paints", torch.zeros(len(COLOURS) + len(MATERIALS), cross_attention_dim))
        self.register_buffer("tones", torch.zeros(models, len(Tones._fields)))
        self.register_buffer("stored_ends", torch.zeros(models, dtype=torch.int64))
        self.register_buffer("stored_bytes", torch.zeros(stored, dtype=torch.uint8))
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
        unit_gain(self)
        with torch.no_grad():
            self.voxel.get_parameter("3.bias")[0] = -2.0  # nearly transparent
        self._imagined: tuple[Tensor, Tensor, Tensor] | None = None
        self._instead: dict[int, Tensor] = {}
        self._other_tones: dict[int, Tensor] = {}
        self.dress: Dress | None = None
        """What the painted colours of points become, see `palette.dress`; None: they stay."""

    def forward(
        self,
        text: Float[Tensor, "N L D"],
        features: Float[Tensor, "B 23"],
        size: int,
        jitter: Float[Tensor, "B S S"] | None = None,
    ) -> Look:
        """What N captions look like from B / N consecutive views each, at `size` pixels; `jitter` as for `render`."""
        views = views_from_embedding(features.float())
        volume, blocks = self._recall(text)
        maps = self.render(volume, views, size, jitter, blocks)
        caption_embedding = self.wording(words(text)).repeat_interleave(len(features) // len(text), 0)
        albedo = self.paint(maps, text)
        return Look(maps, picture(maps[:, :1], maps[:, 1:4], albedo, views), caption_embedding)

    def paint(self, maps: Float[Tensor, "B 10 H W"], text: Float[Tensor, "N L D"]) -> Float[Tensor, "B 3 H W"]:
        """Albedo in [0, 1] as captions ask, not multiplied by opacity; 0 where there is nothing: most of a picture."""
        view, row, column = (maps[:, 0] > 0).nonzero(as_tuple=True)
        points = maps.movedim(1, -1)[view, row, column].float()
        x = points[:, 1:] / points[:, :1].clamp(min=0.05)
        caption = view // (len(maps) // len(text))
        model, (colour, material) = self.find(text), self._paints(text)
        tones = self._tones_of(model)[caption] if len(self.tones) else x.new_ones(len(x), 6)
        normal, own = F.normalize(x[:, :3], dim=1), x[:, 3:6].clamp(0, 1)
        albedo = paint(own, normal, x[:, 6:], tones, colour[caption], material[caption])
        albedo = albedo if self.dress is None else self.dress(albedo, x[:, 6:])
        painted = maps.new_zeros((len(maps), *maps.shape[2:], 3))
        painted[view, row, column] = albedo.to(painted.dtype)
        return painted.movedim(-1, 1)

    def painted(self, text: Float[Tensor, "1 L D"]) -> Float[Tensor, "J I K 7"]:
        """The volume of a caption, its own colours painted as the caption asks."""
        volume = self.imagine(text)[0]
        model, (colour, material) = self.find(text), self._paints(text)
        if int(model) < 0 or (int(colour) < 0 and int(material) < 0):
            return volume
        places = (volume[..., 0] > -FULL).nonzero()
        chosen = volume[tuple(places.T)]
        centres = (places[:, [1, 0, 2]] + 0.5) / volume.shape[0] * 2 - 1  # x, y, z
        colours = paint(
            chosen[:, 4:].clamp(0, 1), F.normalize(chosen[:, 1:4], dim=1), centres * self.extent,
            *(row.expand(len(places), *row.shape[1:]) for row in (self._tones_of(model), colour, material)),
        )  # fmt: skip
        volume = volume.clone()
        volume[tuple(places.T)] = torch.cat([chosen[:, :4], colours], 1)
        return volume

    def _paints(self, text: Float[Tensor, "N L D"]) -> tuple[Int[Tensor, "N"], Int[Tensor, "N"]]:
        """Colour and material that each caption asks for, indices into COLOURS and MATERIALS, -1 for none."""
        hits = _likeness(text, self.paints).tensor_split([len(COLOURS)], 1)
        best = [torch.where(most > LIKE, place, -1) for most, place in (part.max(1) for part in hits)]
        return best[0], best[1]

    def imagine(self, text: Float[Tensor, "C L D"]) -> Float[Tensor, "C J I K 7"]:
        """The volume of each caption over the cube of half-side `extent`, indexed y, x, z, upward.

        Of each voxel the raw density (before its softplus), world normal and own colour. A caption that names nothing
        has an empty volume; one that names two models by their own words has a mixture of them (mixture.py).
        """
        return torch.stack([self._caption_volume(caption[None]) for caption in text])

    def find(self, text: Float[Tensor, "C L D"]) -> Int[Tensor, "C"]:
        """The model that each caption names, -1 for none. Words of earlier keys go first: a model's own, then nouns.

        Of two models that are named by their own words, the first named.
        """
        if not len(self.known):
            return torch.full((len(text),), -1)
        named = _likeness(text, self.known) > LIKE
        hit, first = named.max(1)
        found = torch.where(hit, self.means[first], -1)
        for caption in (named[:, : len(self.tones)].sum(1) > 1).nonzero()[:, 0].tolist():  # rarely any
            own = self._own_words(text[caption])
            if len(own) > 1:
                found[caption] = own[0]
        return found

    def _own_words(self, words: Float[Tensor, "L D"]) -> list[int]:
        """The models that a caption names by their own words, in its order."""
        keys = self.known[: len(self.tones)].float()
        like = words.float() @ (keys / keys.square().sum(1, keepdim=True).clamp(min=1e-9)).T
        most, which = like.max(1)
        return list(dict.fromkeys(self.means[which[most > LIKE]].tolist()))

    def show_own(self) -> None:
        """Undo `show_instead`: every model is shown as it is known."""
        if self._instead:
            self._instead, self._other_tones, self._imagined = {}, {}, None

    def show_instead(
        self, model: int, volume: Float[Tensor, "J I K 7"], tones: Float[Tensor, "6"] | None = None
    ) -> None:
        """From now on a caption that names this model is shown as another volume, for instance a picture's.

        `tones` are the other thing's, by default those of the model.
        """
        self._instead[model], self._imagined = volume, None
        if tones is not None:
            self._other_tones[model] = tones.to(self.tones.device, torch.float32)

    def _tones_of(self, models: Int[Tensor, "N"]) -> Float[Tensor, "N 6"]:
        """Tones of models, or of what is shown in their place; of -1 the first's."""
        tones = self.tones.float()[models.clamp(min=0)]
        for model, own in self._other_tones.items():
            tones = torch.where((models == model)[:, None], own, tones)
        return tones

    def _caption_volume(self, text: Float[Tensor, "1 L D"]) -> Float[Tensor, "J I K 7"]:
        """The volume of one caption, in its own colours."""
        model = int(self.find(text))
        own = self._own_words(text[0]) if model >= 0 and model not in self._instead else []
        if len(own) < 2:
            return self._model_volume(model)
        painted = any(int(part) >= 0 for part in self._paints(text))  # by the first's tones, so it keeps its colours
        tones = None if painted else (self.tones[own[0]], self.tones[own[1]])
        return mixture(self._model_volume(own[0]), self._model_volume(own[1]), tones)

    def _model_volume(self, model: int) -> Float[Tensor, "J I K 7"]:
        """What stands in a model's place, or the model itself; empty for -1."""
        if model in self._instead:
            return self._instead[model]
        if model >= 0:
            return mended(self.volume_of(self.latent(model)))
        side = CHILDREN * self.latent_shape[-1]
        volume = self.known.new_zeros(side, side, side, 1 + SURFACE, dtype=torch.float32)
        volume[..., 0] = -FULL
        return volume

    def latent(self, model: int) -> Latent:
        """The latent of a model that is remembered."""
        start = int(self.stored_ends[model - 1]) if model else 0
        packed = self.stored_bytes[start : int(self.stored_ends[model])].cpu().numpy().tobytes()
        stored = decode(packed, self.latent_shape[1])
        like = self.wording[0].get_parameter("weight")
        return Latent(stored.box, tuple(plane.to(like.device, like.dtype) for plane in stored.planes))

    @torch.no_grad()
    def remember(
        self,
        latents: list[Latent],
        tones: Float[Tensor, "S 6"],
        keys: Float[Tensor, "N D"],
        named: Int[Tensor, "N"],
        paints: Float[Tensor, "M D"],
    ) -> None:
        """Keep these models and what names them.

        Args:
            latents, tones: of the models; see `Tones`.
            keys, named: text states of the words that name one, and the model of each; a model's own words first.
            paints: text states of the words for COLOURS and MATERIALS, in their order.
        """
        packed = [encode(latent) for latent in latents]
        device = self.known.device
        self.stored_ends = torch.tensor([len(data) for data in packed]).cumsum(0).to(device)
        self.stored_bytes = torch.frombuffer(bytearray(b"".join(packed)), dtype=torch.uint8).to(device)
        self.known, self.means = keys.to(device, self.known.dtype), named.to(device)
        self.paints, self.tones = paints.to(device, self.known.dtype), tones.to(device, self.known.dtype)
        self.register_to_config(names=len(keys), models=len(packed), stored=len(self.stored_bytes))

    def volume_of(self, latent: Latent) -> Float[Tensor, "J I K 7"]:
        """A latent's volume, float32: voxels of cells near surfaces, the rest full or empty; empty outside its box."""
        coarse, fine = self.refine_box(latent)
        near, inside = self.cells_of(coarse).float().unbind(-1)
        y, x, z = (slice(low, high) for low, high in latent.box)
        side = self.latent_shape[-1]
        whole = torch.zeros(2, side, side, side, dtype=torch.bool, device=near.device)
        whole[0, y, x, z], whole[1, y, x, z] = near > NEAR, inside > 0
        places = children(whole[:1]).flatten().nonzero()[:, 0]
        at = torch.stack(torch.unravel_index(places, (CHILDREN * side,) * 3))
        return fill(whole[1:], places, self.voxels_at(fine, latent.box, at))[0]

    def refine_box(self, latent: Latent) -> tuple[list[Tensor], list[Tensor]]:
        """The planes in the box of a latent: [h, w, V] for cells and [h, w, 4, W] for voxels, four to a cell."""
        coarse, fine = [], []
        for plane in latent.planes:
            refined = self.planes(plane[None].contiguous(memory_format=torch.channels_last))[0].permute(1, 2, 0)
            cells, voxels = refined.tensor_split([self.cell_width], -1)
            coarse.append(cells)
            fine.append(voxels.unflatten(-1, (CHILDREN**2, -1)))
        return coarse, fine

    def cells_of(self, coarse: list[Tensor]) -> Float[Tensor, "h w d 2"]:
        """All cells of a box; see `cells`."""
        a, b, c = coarse
        return self.cell(a[:, :, None] + b[:, None] + c[None])

    def cells_at(self, coarse: list[Tensor], box: Box, at: Int[Tensor, "3 P"]) -> Float[Tensor, "P 2"]:
        """Cells at some places y, x, z of the cube, all in the box; see `cells`."""
        low = torch.tensor([ends[0] for ends in box], device=at.device)[:, None]
        return self.cell(_gather_box([plane[:, :, None] for plane in coarse], at - low))

    def voxels_at(self, fine: list[Tensor], box: Box, at: Int[Tensor, "3 P"]) -> Float[Tensor, "P 7"]:
        """Raw density and surface of the voxels at some places y, x, z of the cube, all in the box."""
        low = torch.tensor([CHILDREN * ends[0] for ends in box], device=at.device)[:, None]
        return self.voxel(_gather_box(fine, at - low))

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


def _likeness(text: Float[Tensor, "C L D"], keys: Float[Tensor, "N D"]) -> Float[Tensor, "C N"]:
    """How much of each key there is in the most similar word of each caption."""
    keys = keys.float()
    return (text.float() @ (keys / keys.square().sum(1, keepdim=True).clamp(min=1e-9)).T).amax(1)


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
    backdrop = torch.where(views.solid_background[:, None] > 0.5, views.backdrop, 0.5)[:, None, None]
    rgb = opacity * shade(albedo, F.normalize(normal, dim=-1), views) + (1 - opacity) * backdrop
    return rgb.movedim(-1, 1) * 2 - 1


def _gather_box(planes: list[Tensor], at: Int[Tensor, "3 P"]) -> Float[Tensor, "P W"]:
    """The sum of three planes [h, w, K, W] at places y, x, z counted from their box's corner; K = 1 or 4 to a pixel."""
    total = at.new_zeros(1, dtype=planes[0].dtype)
    for plane, (rows, columns) in zip(planes, AXES, strict=True):
        a, b, half = at[rows], at[columns], plane.shape[2] // 3
        row = (a >> half) * plane.shape[1] + (b >> half)
        row = row << 2 | (a & 1) << 1 | b & 1 if half else row
        total = total + F.embedding(row, plane.reshape(-1, plane.shape[-1]))
    return total


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

"""The built-in prior's network: a denoiser that imagines the captioned object in 3D before it paints the view.

A convolutional UNet told the camera by numbers alone has to learn from images how every object turns; on two CPU
cores it did not. Here the caption becomes a feature volume, the asked camera's rays are composited through it, and
the UNet denoises with that feature image beside the noisy one. All views of a caption share the volume, so they
agree with each other by construction, which is what score distillation needs. Denoisers with a 3D latent inside:
RenderDiffusion (Anciukevicius et al. 2023), Viewset Diffusion (Szymanowicz et al. 2023).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import BaseOutput
from jaxtyping import Float, Int
from torch import Tensor, nn

from magic3d_cli.kernels.volume import composite_volume
from magic3d_cli.views import FEATURES, Views, shade, views_from_features

SURFACE, PLACE = 6, 3
"""Features of a voxel: world normal and own colour; and the numbers of a position."""
WAVES = (2.0, 4.0, 8.0)
"""Frequencies at which the painter is told a point's position, half-waves per world unit: grain and veins need them."""


@dataclass
class VolumeUNetOutput(BaseOutput):
    """`sample` [B, C, h, w] is the prediction."""

    sample: Tensor


class VolumeUNet(ModelMixin, ConfigMixin):
    """Noisy image, caption and camera to the clean image.

    Args:
        sample_size: side of the (space-to-depth) image.
        in_channels, out_channels: of the image.
        cross_attention_dim: width of the text states.
        projection_class_embeddings_input_dim: length of the view features.
        class_embed_type: "projection", as diffusers calls continuous conditioning.
        widths: channels of the UNet from full to quarter resolution.
        latent_size, latent_channels: of each of a caption's three latent planes (y x, y z and x z), a coarse triplane
            (EG3D, Chan et al. 2022).
        plane_widths: channels of their decoder from the latent's size upward, doubling the side each time.
        voxel_width: of the network that reads a voxel off the three planes, which decides how sharp it can be.
        rays: along each side of a (space-to-depth) pixel. samples: points along a ray.
        extent: half-side of the volume's cube.
        painter_width: of the network that gives each point of the feature image the caption's colour and material.
        embedding: width of the conditioning vectors. shape_embedding: width of the caption as the latent's source;
            with as many as there are models, the latents of all can be told apart linearly.
    """

    config_name: str = "config.json"  # type: ignore[assignment]

    @register_to_config
    def __init__(
        self,
        sample_size: int = 32,
        in_channels: int = 12,
        out_channels: int = 12,
        cross_attention_dim: int = 192,
        projection_class_embeddings_input_dim: int = FEATURES,
        class_embed_type: str = "projection",
        widths: tuple[int, int, int] = (48, 96, 160),
        latent_size: int = 32,
        latent_channels: int = 6,
        plane_widths: tuple[int, ...] = (64, 64),
        voxel_width: int = 64,
        rays: int = 2,
        samples: int = 64,
        extent: float = 0.95,
        painter_width: int = 96,
        embedding: int = 256,
        shape_embedding: int = 512,
    ) -> None:
        super().__init__()
        self.rays, self.samples, self.extent = rays, samples, extent
        self.latent_shape = (3, latent_channels, latent_size, latent_size)
        # Two readings of the caption: shapes do not depend on its colours and materials, pictures do.
        self.caption, self.wording = (
            nn.Sequential(nn.Linear(cross_attention_dim, width), nn.SiLU(), nn.Linear(width, width))
            for width in (shape_embedding, embedding)
        )
        self.embed = nn.Sequential(
            nn.Linear(64 + projection_class_embeddings_input_dim + embedding, embedding),
            nn.SiLU(),
            nn.Linear(embedding, embedding),
        )
        self.root = nn.Linear(shape_embedding, 3 * latent_channels * latent_size**2)
        first, last = plane_widths[0], plane_widths[-1]
        self.planes = nn.ModuleList([nn.Conv2d(latent_channels, first, 1), Residual(first, first, norm=False)])
        self.planes.extend(Residual(a, b, norm=False) for a, b in pairwise(plane_widths))
        self.planes.append(nn.Conv2d(last, voxel_width, 1))
        self.voxel = nn.Sequential(nn.Linear(voxel_width, voxel_width), nn.SiLU(), nn.Linear(voxel_width, 1 + SURFACE))
        self.painter = Painter(SURFACE + PLACE + 6 * len(WAVES), painter_width, embedding)
        a, b, c = widths
        self.enter = nn.Conv2d(2 * in_channels + (1 + SURFACE + PLACE) * rays**2, a, 3, padding=1)
        self.down = nn.ModuleList([Residual(a, a, embedding), Residual(a, b, embedding), Residual(b, c, embedding)])
        self.middle = Residual(c, c, embedding)
        self.up = nn.ModuleList(
            [Residual(c + c, c, embedding), Residual(c + b, b, embedding), Residual(b + a, a, embedding)]
        )
        self.leave = nn.Conv2d(a, out_channels, 3, padding=1)
        # Shares in the output of the noisy image (nearly all where noise is small) and of the imagined one.
        self.keep = nn.Linear(embedding, 2)
        self._initialise()
        self._imagined: tuple[Tensor, Tensor] | None = None

    def _initialise(self) -> None:
        """Unit gain in every conditioning layer: at PyTorch's default the caption hardly reaches the picture."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=1.3 / math.sqrt(module.in_features))
                nn.init.zeros_(module.bias)
        with torch.no_grad():  # else its sigmoid may start, and stay, at one end
            self.painter.layers[-1].get_parameter("weight").mul_(0.2)
        nn.init.zeros_(self.keep.get_parameter("weight"))
        self.keep.get_parameter("bias").data[1] = 0.9
        self.voxel.get_parameter("2.bias").data[0] = -2.0  # nearly transparent

    def imagine(self, text: Float[Tensor, "C L D"]) -> Float[Tensor, "C J I K 7"]:
        """The volume of each caption over the cube of half-side `extent`, indexed y, x, z, upward.

        Of each voxel the raw density (before its softplus), world normal and own colour.
        """
        return self.decode(self.latent(text))

    def latent(self, text: Float[Tensor, "C L D"]) -> Float[Tensor, "C 3 E s s"]:
        """What a caption is known as before it is decoded to a volume."""
        return self.root(self.caption(words(text))).unflatten(1, self.latent_shape)

    def decode(
        self, latent: Float[Tensor, "C 3 E s s"], places: Int[Tensor, "P"] | None = None
    ) -> Float[Tensor, "C J I K 7"] | Float[Tensor, "P 7"]:
        """The volume of each latent, or what they have at some places: flat indices into all of them."""
        x = latent.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        enter, block, *blocks, leave = self.planes
        x = block(enter(x))
        for block in blocks:
            x = block(F.interpolate(x, scale_factor=2.0))
        x = leave(F.silu(x)).permute(0, 2, 3, 1).unflatten(0, (-1, 3))  # C 3 n n W
        if places is None:  # one at a time: the hidden numbers of a volume are many
            return torch.stack([self.voxel(F.silu(a[:, :, None] + b[:, None] + c)) for a, b, c in x])
        side = x.shape[2]
        caption, j, i, k = places // side**3 * 3, places // side**2 % side, places // side % side, places % side
        rows = [((caption + n) * side + a) * side + b for n, (a, b) in enumerate(((j, i), (j, k), (i, k)))]
        table = x.flatten(0, 3)
        hidden = F.embedding(rows[0], table) + F.embedding(rows[1], table) + F.embedding(rows[2], table)
        return self.voxel(F.silu(hidden))

    def _recall(self, text: Float[Tensor, "C L D"]) -> Float[Tensor, "C J I K 7"]:
        """`imagine`, but not again for the text of the last call: a run asks for one caption at every step."""
        if self.training:
            return self.imagine(text)
        if self._imagined is None or not torch.equal(self._imagined[0], text):
            self._imagined = text.clone(), self.imagine(text)
        return self._imagined[1]

    def render(
        self, volume: Float[Tensor, "C J I K 7"], views: Views, size: int, jitter: Float[Tensor, "B h w"] | None = None
    ) -> Float[Tensor, "B 10 h w"]:
        """The volumes' feature image, opacity first, for views that come in C groups of equal size.

        `jitter`, in [0, 1), places each ray's points within their steps; None puts them in the middle.
        """
        origins, directions = views.rays(size)
        jitter = torch.full(directions.shape[:3], 0.5, device=directions.device) if jitter is None else jitter
        maps = composite_volume(
            volume, origins[:, 0, 0], directions.flatten(1, 2), views.distance - self.extent, jitter.flatten(1),
            self.samples, self.extent,
        )  # fmt: skip
        return maps.unflatten(-1, (size, size))

    def forward(
        self,
        sample: Float[Tensor, "B C h w"],
        timestep: Int[Tensor, "B"],
        encoder_hidden_states: Float[Tensor, "N L D"],
        class_labels: Float[Tensor, "B 23"],
        jitter: Tensor | None = None,
        return_dict: bool = True,
    ) -> VolumeUNetOutput | tuple[Tensor, ...]:
        """Predict the clean image. N captions serve B / N consecutive images each."""
        views = views_from_features(class_labels.float())
        with torch.no_grad():  # volumes learn from the models alone: a young denoiser's gradients would blur them
            maps = self.render(self._recall(encoder_hidden_states), views, sample.shape[-1] * self.rays, jitter)
        wording = self.wording(words(encoder_hidden_states))
        wording = wording.repeat_interleave(len(sample) // len(wording), 0)
        frequencies = torch.exp(-math.log(1000.0) * torch.arange(32, device=sample.device) / 32)
        angles = timestep[:, None].float() * 0.1 * frequencies
        time = torch.cat([angles.sin(), angles.cos()], -1)
        told = self.embed(torch.cat([time, class_labels.float(), wording.float()], -1).to(sample.dtype))
        albedo = self.painter(maps.to(sample.dtype), wording).float()
        shown = picture(maps[:, :1], maps[:, 1:4], albedo, views)
        shown = space_to_depth(shown, sample.shape).to(sample.dtype)
        seen = F.pixel_unshuffle(maps.to(sample.dtype), self.rays)
        x = self.enter(torch.cat([sample, shown, seen], 1).contiguous(memory_format=torch.channels_last))
        kept = []
        for i, block in enumerate(self.down):
            x = block(x if i == 0 else F.avg_pool2d(x, 2), told)
            kept.append(x)
        x = self.middle(x, told)
        for i, block in enumerate(self.up):
            x = block(torch.cat([x if i == 0 else F.interpolate(x, scale_factor=2.0), kept.pop()], 1), told)
        noisy, imagined = self.keep(told)[:, :, None, None].chunk(2, 1)
        output = self.leave(F.silu(x)) + noisy * sample + imagined * shown
        return VolumeUNetOutput(sample=output) if return_dict else (output,)


class Painter(nn.Module):
    """Own colour, normal and position of a point, and the caption, to the colour that the caption asks for.

    Each point for itself, so that a colour is learned once for all shapes.
    """

    def __init__(self, inputs: int, width: int, embedding: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(i, o, 1) for i, o in ((inputs, width), (width, width), (width, 4)))
        self.film = nn.ModuleList(nn.Linear(embedding, 2 * width) for _ in range(2))

    def forward(self, maps: Float[Tensor, "B 10 H W"], wording: Float[Tensor, "B E"]) -> Float[Tensor, "B 3 H W"]:
        """Albedo in [0, 1], not multiplied by opacity."""
        x = maps[:, 1:] / maps[:, :1].clamp(min=0.05)
        own = x[:, 3:6]
        angles = torch.cat([x[:, -3:] * (math.pi * wave) for wave in WAVES], 1)
        x = torch.cat([x, angles.sin(), angles.cos()], 1)
        for layer, film in zip(self.layers, self.film, strict=False):
            scale, shift = film(F.silu(wording))[:, :, None, None].chunk(2, 1)
            x = F.silu(layer(x) * (1 + scale) + shift)
        colour, share = self.layers[-1](x).sigmoid().split([3, 1], 1)
        return own + share * (colour - own)


def words(text: Float[Tensor, "C L D"]) -> Float[Tensor, "C D"]:
    """A caption's words together, of about unit scale; their order says nothing."""
    return text.sum(1) / 2


def picture(
    opacity: Float[Tensor, "B 1 H W"], normal: Float[Tensor, "B 3 H W"], albedo: Float[Tensor, "B 3 H W"], views: Views
) -> Float[Tensor, "B 3 H W"]:
    """What these show under the views' light and before their backdrop, in [-1, 1]."""
    opacity, normal, albedo = (part.movedim(1, -1) for part in (opacity, normal, albedo))
    backdrop = torch.where(views.plain[:, None] > 0.5, views.backdrop, 0.5)[:, None, None]
    shown = opacity * shade(albedo, F.normalize(normal, dim=-1), views) + (1 - opacity) * backdrop
    return shown.movedim(-1, 1) * 2 - 1


def space_to_depth(image: Float[Tensor, "B 3 H W"], shape: torch.Size) -> Float[Tensor, "B C h w"]:
    """An image resampled and packed as the network packs its own, which are of this `shape`."""
    patch = math.isqrt(shape[1] // 3)
    image = F.interpolate(image, size=(shape[2] * patch, shape[3] * patch), mode="bilinear", align_corners=False)
    return F.pixel_unshuffle(image, patch)


class Residual(nn.Module):
    """Two convolutions; with an embedding, its normalised input is scaled and shifted by the conditioning (FiLM)."""

    def __init__(self, width: int, out: int, embedding: int = 0, norm: bool = True) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.GroupNorm(8, channels) if norm else nn.Identity() for channels in (width, out))
        self.conv1 = nn.Conv2d(width, out, 3, padding=1)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.film = nn.Linear(embedding, 2 * out) if embedding else None
        self.skip = nn.Conv2d(width, out, 1) if width != out else nn.Identity()

    def forward(self, x: Float[Tensor, "B C h w"], told: Float[Tensor, "B E"] | None = None) -> Tensor:
        hidden = self.norm2(self.conv1(F.silu(self.norm1(x))))
        if self.film is not None and told is not None:
            scale, shift = self.film(F.silu(told))[:, :, None, None].chunk(2, 1)
            hidden = hidden * (1 + scale) + shift
        return self.skip(x) + self.conv2(F.silu(hidden))

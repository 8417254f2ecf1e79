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

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import BaseOutput
from jaxtyping import Float, Int
from torch import Tensor, nn

from magic3d_cli.kernels.volume import composite_volume
from magic3d_cli.views import FEATURES, Views, views_from_features

SUPERVISED = 7
"""Leading channels of the feature image that training ties to the model: opacity, world normal, own colour."""


@dataclass
class VolumeUNetOutput(BaseOutput):
    """`sample` [B, C, h, w] is the prediction, `maps` [B, volume_features, h, w] the composited feature image."""

    sample: Tensor
    maps: Tensor | None = None


class VolumeUNet(ModelMixin, ConfigMixin):
    """Noisy image, caption and camera to the clean image.

    Args:
        sample_size: side of the (space-to-depth) image; also the number of rays along it.
        in_channels, out_channels: of the image.
        cross_attention_dim: width of the text states.
        projection_class_embeddings_input_dim: length of the view features.
        class_embed_type: "projection", as diffusers calls continuous conditioning.
        widths: channels of the UNet from full to quarter resolution.
        volume_widths: channels of the volume's decoder from 4 x 4 upward, doubling the side each time; it decodes
            the front view's columns, each a run of voxels along z.
        volume_features: channels of a voxel. samples: points along a ray. extent: half-side of the volume's cube.
        embedding: width of the conditioning vectors.
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
        volume_widths: tuple[int, ...] = (256, 192, 128, 64),
        volume_features: int = 16,
        samples: int = 24,
        extent: float = 0.95,
        embedding: int = 256,
    ) -> None:
        super().__init__()
        self.features, self.samples, self.extent = volume_features, samples, extent
        self.caption = nn.Sequential(
            nn.Linear(cross_attention_dim, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        self.embed = nn.Sequential(
            nn.Linear(64 + projection_class_embeddings_input_dim + embedding, embedding),
            nn.SiLU(),
            nn.Linear(embedding, embedding),
        )
        self.root = nn.Linear(embedding, volume_widths[0] * 16)
        ends = [*volume_widths[1:], volume_widths[-1]]
        self.decoder = nn.ModuleList(Residual(a, b, embedding) for a, b in zip(volume_widths, ends, strict=True))
        self.columns = nn.Conv2d(volume_widths[-1], (2 << len(volume_widths)) * volume_features, 1)
        a, b, c = widths
        self.enter = nn.Conv2d(in_channels + volume_features, a, 3, padding=1)
        self.down = nn.ModuleList([Residual(a, a, embedding), Residual(a, b, embedding), Residual(b, c, embedding)])
        self.middle = Residual(c, c, embedding)
        self.up = nn.ModuleList(
            [Residual(c + c, c, embedding), Residual(c + b, b, embedding), Residual(b + a, a, embedding)]
        )
        self.leave = nn.Conv2d(a, out_channels, 3, padding=1)
        self._initialise()
        self._imagined: tuple[Tensor, Tensor, Tensor] | None = None

    def _initialise(self) -> None:
        """Unit gain in every conditioning layer: at PyTorch's default the caption hardly reaches the picture."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=1.3 / math.sqrt(module.in_features))
                nn.init.zeros_(module.bias)
        columns = self.columns.get_parameter("bias").data
        columns.zero_()[:: self.features] = -2.0  # density: nearly transparent

    def imagine(self, text: Float[Tensor, "C L D"]) -> tuple[Float[Tensor, "C E"], Float[Tensor, "C Y X Z F"]]:
        """Caption vector and feature volume of each caption."""
        caption = self.caption(text.sum(1) / 2)
        x = self.root(caption).view(len(caption), -1, 4, 4).contiguous(memory_format=torch.channels_last)
        for i, block in enumerate(self.decoder):
            x = block(x if i == 0 else F.interpolate(x, scale_factor=2.0), caption)
        columns = self.columns(F.silu(x)).permute(0, 2, 3, 1).flip(1)  # image rows run down, the world's y up
        return caption, columns.unflatten(-1, (-1, self.features))

    def _recall(self, text: Float[Tensor, "C L D"]) -> tuple[Float[Tensor, "C E"], Float[Tensor, "C Y X Z F"]]:
        """`imagine`, but not again for the text of the last call: a run asks for one caption at every step."""
        if self.training:
            return self.imagine(text)
        if self._imagined is None or not torch.equal(self._imagined[0], text):
            self._imagined = (text.clone(), *self.imagine(text))
        return self._imagined[1:]

    def render(
        self, volume: Float[Tensor, "C Y X Z F"], views: Views, size: int, jitter: Float[Tensor, "B h w"] | None = None
    ) -> Float[Tensor, "B F h w"]:
        """The volumes' feature image, opacity first, for views that come in C groups of equal size.

        `jitter`, in [0, 1), places each ray's points within their steps; None puts them in the middle.
        """
        origins, directions = views.rays(size)
        jitter = torch.full(directions.shape[:3], 0.5, device=volume.device) if jitter is None else jitter
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
        caption, volume = self._recall(encoder_hidden_states)
        maps = self.render(volume, views_from_features(class_labels.float()), sample.shape[-1], jitter)
        caption = caption.repeat_interleave(len(sample) // len(caption), 0)
        frequencies = torch.exp(-math.log(1000.0) * torch.arange(32, device=sample.device) / 32)
        angles = timestep[:, None].float() * 0.1 * frequencies
        time = torch.cat([angles.sin(), angles.cos()], -1)
        told = self.embed(torch.cat([time, class_labels.float(), caption.float()], -1).to(sample.dtype))
        x = self.enter(torch.cat([sample, maps.to(sample.dtype)], 1).contiguous(memory_format=torch.channels_last))
        kept = []
        for i, block in enumerate(self.down):
            x = block(x if i == 0 else F.avg_pool2d(x, 2), told)
            kept.append(x)
        x = self.middle(x, told)
        for i, block in enumerate(self.up):
            x = block(torch.cat([x if i == 0 else F.interpolate(x, scale_factor=2.0), kept.pop()], 1), told)
        output = self.leave(F.silu(x))
        return VolumeUNetOutput(sample=output, maps=maps) if return_dict else (output, maps)


class Residual(nn.Module):
    """Two convolutions whose normalised input is scaled and shifted by the conditioning (FiLM)."""

    def __init__(self, width: int, out: int, embedding: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, width), nn.GroupNorm(8, out)
        self.conv1 = nn.Conv2d(width, out, 3, padding=1)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        self.film = nn.Linear(embedding, 2 * out)
        self.skip = nn.Conv2d(width, out, 1) if width != out else nn.Identity()

    def forward(self, x: Float[Tensor, "B C h w"], told: Float[Tensor, "B E"]) -> Float[Tensor, "B D h w"]:
        scale, shift = self.film(F.silu(told))[:, :, None, None].chunk(2, 1)
        hidden = self.conv1(F.silu(self.norm1(x)))
        hidden = self.conv2(F.silu(self.norm2(hidden) * (1 + scale) + shift))
        return self.skip(x) + hidden

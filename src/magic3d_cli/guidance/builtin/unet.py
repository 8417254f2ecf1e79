"""The built-in prior's network: a denoiser that is shown what the caption's volume looks like from the asked camera.

A convolutional UNet told the camera by numbers alone has to learn from images how every object turns; on two CPU
cores it did not. Here the caption becomes a volume (volume.py) and the UNet denoises beside its picture.
Denoisers with a 3D latent inside: RenderDiffusion (Anciukevicius et al. 2023), Viewset Diffusion (Szymanowicz et al.
2023).
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

from magic3d_cli.guidance.builtin.layers import Residual, unit_gain
from magic3d_cli.guidance.builtin.volume import PLACE, SURFACE, Look
from magic3d_cli.scene.views import CAMERA_EMBEDDING


@dataclass
class VolumeUNetOutput(BaseOutput):
    """`sample` [B, C, h, w] is the prediction."""

    sample: Tensor


class VolumeUNet(ModelMixin, ConfigMixin):
    """Noisy image, caption, camera and the volume's look to the clean image.

    Args:
        sample_size: side of the (space-to-depth) image.
        in_channels, out_channels: of the image.
        projection_class_embeddings_input_dim: length of the view features.
        class_embed_type: "projection", as diffusers calls continuous conditioning.
        widths: channels from full to quarter resolution.
        embedding: width of the conditioning vectors, and of the caption embedding.
    """

    config_name: str = "config.json"  # type: ignore[assignment]

    @register_to_config
    def __init__(
        self,
        sample_size: int = 32,
        in_channels: int = 12,
        out_channels: int = 12,
        projection_class_embeddings_input_dim: int = CAMERA_EMBEDDING,
        class_embed_type: str = "projection",
        widths: tuple[int, int, int] = (48, 96, 160),
        embedding: int = 256,
    ) -> None:
        super().__init__()
        self.patch = math.isqrt(in_channels // 3)
        self.embed = nn.Sequential(
            nn.Linear(64 + projection_class_embeddings_input_dim + embedding, embedding),
            nn.SiLU(),
            nn.Linear(embedding, embedding),
        )
        a, b, c = widths
        self.conv_in = nn.Conv2d(2 * in_channels + (1 + SURFACE + PLACE) * self.patch**2, a, 3, padding=1)
        self.down = nn.ModuleList([Residual(a, a, embedding), Residual(a, b, embedding), Residual(b, c, embedding)])
        self.middle = Residual(c, c, embedding)
        self.up = nn.ModuleList(
            [Residual(c + c, c, embedding), Residual(c + b, b, embedding), Residual(b + a, a, embedding)]
        )
        self.conv_out = nn.Conv2d(a, out_channels, 3, padding=1)
        # Shares in the output of the noisy image (nearly all where noise is small) and of the imagined one.
        self.blend = nn.Linear(embedding, 2)
        unit_gain(self)
        nn.init.zeros_(self.blend.get_parameter("weight"))
        self.blend.get_parameter("bias").data[1] = 0.9

    def forward(
        self,
        sample: Float[Tensor, "B C h w"],
        timestep: Int[Tensor, "B"],
        class_labels: Float[Tensor, "B 23"],
        look: Look,
        return_dict: bool = True,
    ) -> VolumeUNetOutput | tuple[Tensor, ...]:
        """Predict the clean image; `look` is the caption's from the same views, at the size of the unpacked image."""
        rgb = F.pixel_unshuffle(look.rgb, self.patch).to(sample.dtype)
        maps = F.pixel_unshuffle(look.maps, self.patch).to(sample.dtype)
        frequencies = torch.exp(-math.log(1000.0) * torch.arange(32, device=sample.device) / 32)
        angles = timestep[:, None].float() * 0.1 * frequencies
        time = torch.cat([angles.sin(), angles.cos()], -1)
        emb = self.embed(torch.cat([time, class_labels.float(), look.caption_embedding.float()], -1).to(sample.dtype))
        x = self.conv_in(torch.cat([sample, rgb, maps], 1).contiguous(memory_format=torch.channels_last))
        skips = []
        for i, block in enumerate(self.down):
            x = block(x if i == 0 else F.avg_pool2d(x, 2), emb)
            skips.append(x)
        x = self.middle(x, emb)
        for i, block in enumerate(self.up):
            x = block(torch.cat([x if i == 0 else F.interpolate(x, scale_factor=2.0), skips.pop()], 1), emb)
        noisy, imagined = self.blend(emb)[:, :, None, None].chunk(2, 1)
        output = self.conv_out(F.silu(x)) + noisy * sample + imagined * rgb
        return VolumeUNetOutput(sample=output) if return_dict else (output,)

"""Priors of the exact shapes of the big ones with random weights: what they cost can be measured without them.

A step costs the same whatever the weights are. The numbers are those of each model's own configuration files; the
tests count their parameters without making any.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from magic3d_cli.guidance.diffusers.mvdream import CAMERA_SETTINGS, SET_SIZE
from magic3d_cli.guidance.diffusers.prior import DiffusersPrior, default_dtype
from magic3d_cli.guidance.diffusers.spec import Component, class_named, describe

_SD_VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 512,
    "scaling_factor": 0.18215,
}
_SD_NOISE = {"_class_name": "DDPMScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
_IF_NOISE = {"_class_name": "DDPMScheduler", "beta_schedule": "squaredcos_cap_v2", "variance_type": "learned_range"}


def _if_unet(width: int) -> dict[str, Any]:
    """DeepFloyd IF's first stage at one of its three widths."""
    return {
        "sample_size": 64,
        "in_channels": 3,
        "out_channels": 6,
        "block_out_channels": [width, 2 * width, 3 * width, 4 * width],
        "layers_per_block": 3,
        "down_block_types": ["ResnetDownsampleBlock2D"] + ["SimpleCrossAttnDownBlock2D"] * 3,
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
        "up_block_types": ["SimpleCrossAttnUpBlock2D"] * 3 + ["ResnetUpsampleBlock2D"],
        "cross_attention_dim": 4 * width,
        "cross_attention_norm": "group_norm",
        "encoder_hid_dim": 4096,
        "encoder_hid_dim_type": "text_proj",
        "addition_embed_type": "text",
        "addition_embed_type_num_heads": 64,
        "attention_head_dim": 64,
        "act_fn": "gelu",
        "resnet_time_scale_shift": "scale_shift",
        "resnet_skip_time_act": True,
    }


SHAPES: dict[str, dict[str, dict[str, Any]]] = {
    "sd15": {"unet": {"sample_size": 64, "cross_attention_dim": 768}, "vae": _SD_VAE, "scheduler": _SD_NOISE},
    "minisd": {"unet": {"sample_size": 32, "cross_attention_dim": 768}, "vae": _SD_VAE, "scheduler": _SD_NOISE},
    "sd21": {
        "unet": {
            "sample_size": 64,
            "cross_attention_dim": 1024,
            "attention_head_dim": [5, 10, 20, 20],
            "use_linear_projection": True,
        },
        "vae": _SD_VAE,
        "scheduler": _SD_NOISE,
    },
    "mvdream": {
        "unet": {
            "sample_size": 32,
            "cross_attention_dim": 1024,
            "attention_head_dim": [5, 10, 20, 20],
            "use_linear_projection": True,
            **CAMERA_SETTINGS,
        },
        "vae": _SD_VAE,
        "scheduler": _SD_NOISE,
    },
    "deepfloyd-if-m": {"unet": _if_unet(192), "scheduler": _IF_NOISE},
    "deepfloyd-if-l": {"unet": _if_unet(320), "scheduler": _IF_NOISE},
    "deepfloyd-if-xl": {"unet": _if_unet(704), "scheduler": _IF_NOISE},
}
"""Configuration of each component that costs time, as far as it differs from diffusers' defaults."""


def set_size(name: str) -> int:
    """Views that the prior of this name is shown together."""
    return SET_SIZE if SHAPES.get(name, {}).get("unet", {}).keys() >= CAMERA_SETTINGS.keys() else 1


class RandomPrior(DiffusersPrior):
    """A prior of one of the SHAPES that knows nothing: for measuring speed, never for making anything."""

    def __init__(self, name: str, folder: Path, device: torch.device | str, small: bool = False) -> None:
        """`folder` is empty; the configuration is written there, the weights never are. `small` as in `load_prior`."""
        self.shape = SHAPES[name]
        index: dict[str, Any] = {"_class_name": "DiffusionPipeline", "text_encoder": ["transformers", "CLIPTextModel"]}
        classes = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "scheduler": "DDPMScheduler"}
        if small and "vae" in self.shape:
            classes["vae"] = "AutoencoderTiny"
            self.shape = {**self.shape, "vae": {}}  # diffusers' defaults are TAESD's shape
        for part, config in self.shape.items():
            (folder / part).mkdir()
            file = "scheduler_config.json" if part == "scheduler" else "config.json"
            (folder / part / file).write_text(json.dumps(config))
            index[part] = ["diffusers", classes[part]]
        (folder / "model_index.json").write_text(json.dumps(index))
        device = torch.device(device)
        super().__init__(describe(folder, f"random weights in the shape of {name}"), device, default_dtype(device))

    def component(self, part: Component, dtype: torch.dtype) -> Any:
        # Made where they are used: random numbers for billions of weights take minutes on a CPU.
        with torch.device(self.device):
            model = class_named(part.cls)(**self.shape[part.folder.name])
        return model.to(dtype).eval().requires_grad_(False)

    def encode_prompt(self, prompts: list[str]) -> Float[Tensor, "B L D"]:
        """Noise where the text encoder's states would be."""
        config = self.network.config
        width = config.get("encoder_hid_dim") or config.cross_attention_dim
        return torch.randn(len(prompts), 77, width, generator=torch.Generator().manual_seed(0)).to(self.device)

"""Priors that are shown four views of a thing together (MVDream, arXiv 2308.16512).

The network is Stable Diffusion's, with two changes: self-attention goes over the tokens of all views of a set, and the
camera's matrix goes through two layers into what the network knows of the time. Both are in diffusers' own class: the
layers are its `class_embedding`, and attention over views is a processor. Three layouts of the files are read:

- as diffusers saves that class, with `class_embed_type` "projection" and 16 numbers;
- the class without the camera, and its two layers beside it in `camera_proj/`;
- the authors' own names and settings, as `MultiViewUNetModel` in a diffusers directory. No code of it is run.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from jaxtyping import Float
from torch import Tensor

from magic3d_cli.errors import EnvironmentFault, first_line
from magic3d_cli.guidance.diffusers.files import renewal, weight_files
from magic3d_cli.scene.views import CAMERA_MATRIX

MULTI_VIEW = "MultiViewUNetModel"
"""The class with the authors' own names."""
SET_SIZE = 4
"""Views of a set: those that MVDream was taught with, a quarter of a turn apart."""
CAMERA_SETTINGS = {"class_embed_type": "projection", "projection_class_embeddings_input_dim": CAMERA_MATRIX}
"""How diffusers' class is told the camera."""

_OUTSIDE = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "camera_embed.0": "class_embedding.linear_1",
    "camera_embed.2": "class_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
    "middle_block.0": "mid_block.resnets.0",
    "middle_block.1": "mid_block.attentions.0",
    "middle_block.2": "mid_block.resnets.1",
}
_IN_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}


class AcrossViews(AttnProcessor2_0):
    """Self-attention of every view's tokens to those of all views of its set; rows are sets, one after the other."""

    def __init__(self, views: int) -> None:
        super().__init__()
        self.views = views

    def __call__(
        self, attn: Any, hidden_states: Float[Tensor, "N L D"], *arguments: Any, **more: Any
    ) -> Float[Tensor, "N L D"]:
        sets = hidden_states.unflatten(0, (-1, self.views)).flatten(1, 2)
        attended: Tensor = super().__call__(attn, sets, *arguments, **more)
        return attended.unflatten(1, (self.views, -1)).flatten(0, 1)


def attend_across_views(network: Any, views: int) -> None:
    """Have the self-attention of a `UNet2DConditionModel` go over sets of views; cross-attention stays each view's."""
    processors = network.attn_processors
    across = {name: AcrossViews(views) for name in processors if name.endswith("attn1.processor")}
    network.set_attn_processor(processors | across)


def unet_settings(authors: dict[str, Any], file: Path) -> dict[str, Any]:
    """diffusers' settings for the authors' own, read from `file`. Raises EnvironmentFault for what is not MVDream's."""
    try:
        width, factors, deep = authors["model_channels"], authors["channel_mult"], authors["attention_resolutions"]
        layers, depth = authors["num_res_blocks"], authors.get("transformer_depth", 1)
        channels = [int(width * factor) for factor in factors]
        heads = [channel // int(authors["num_head_channels"]) for channel in channels]
        crossed = [2**level in deep for level in range(len(channels))]
        settings = {
            "sample_size": authors["image_size"],
            "in_channels": authors["in_channels"],
            "out_channels": authors["out_channels"],
            "cross_attention_dim": authors["context_dim"],
            "layers_per_block": int(layers),
            "transformer_layers_per_block": int(depth),
        }
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise EnvironmentFault(f"{file} has no usable settings of {MULTI_VIEW}: {error!r}.", renewal(file)) from error
    if authors.get("camera_dim") != CAMERA_MATRIX or authors.get("ip_dim"):
        raise EnvironmentFault(
            f"{file}: this network takes {authors.get('camera_dim')} numbers of the camera and "
            f"{authors.get('ip_dim') or 0} tokens of a picture; MVDream's takes {CAMERA_MATRIX} and none.",
            "ImageDream, which is shown a picture, is not supported; use --prior mvdream, or with a picture --prior "
            "zero123-xl.",
        )
    return {
        **settings,
        **CAMERA_SETTINGS,
        "block_out_channels": channels,
        "down_block_types": ["CrossAttnDownBlock2D" if cross else "DownBlock2D" for cross in crossed],
        "up_block_types": ["CrossAttnUpBlock2D" if cross else "UpBlock2D" for cross in reversed(crossed)],
        "attention_head_dim": heads,  # diffusers means how many there are
        "use_linear_projection": True,
    }


def renamed(key: str, layers: int) -> str:
    """diffusers' name of one of the authors' tensors, in a network of so many `layers` a block."""
    for old, new in _OUTSIDE.items():
        if key.startswith(f"{old}."):
            return _inside(new + key.removeprefix(old))
    if (match := re.fullmatch(r"(input|output)_blocks\.(\d+)\.(\d+)\.(.+)", key)) is None:
        return key
    side, index, part, rest = match[1], int(match[2]), int(match[3]), match[4]
    # The first block down is conv_in; a level's last one is its downsampler. Up, the upsampler is in the last block.
    level, layer = divmod(index - (side == "input"), layers + 1)
    block = f"{'down' if side == 'input' else 'up'}_blocks.{level}"
    if rest.startswith("op."):
        return f"{block}.downsamplers.0.conv.{rest.removeprefix('op.')}"
    if rest.startswith("conv."):
        return f"{block}.upsamplers.0.{rest}"
    return _inside(f"{block}.{'attentions' if part else 'resnets'}.{layer}.{rest}")


def _inside(key: str) -> str:
    """A residual block's own parts."""
    for old, new in _IN_RESNET.items() if ".resnets." in key else ():
        key = key.replace(f".{old}.", f".{new}.")
    return key


def camera_name(key: str) -> str:
    """diffusers' name of a tensor of `camera_proj/`."""
    return f"class_embedding.{key}"


def load_network(
    cls: Any, settings: dict[str, Any], folder: Path, camera: Path | None, layers: int | None, dtype: torch.dtype
) -> Any:
    """diffusers' network from files in another layout than its own.

    Args:
        folder: of its weights; `camera`: of those of the camera's layers, where they lie beside it.
        layers: a block, where names are the authors'.

    Raises EnvironmentFault for files that cannot be read or do not fit.
    """
    tensors = {renamed(key, layers) if layers else key: tensor for key, tensor in _tensors(folder).items()}
    if camera is not None:
        tensors |= {camera_name(key): tensor for key, tensor in _tensors(camera).items()}
    with torch.device("meta"):  # the tensors of the files take the place of its own
        network = cls.from_config(settings)
    try:
        network.load_state_dict({key: tensor.to(dtype) for key, tensor in tensors.items()}, assign=True)
    except RuntimeError as error:
        raise EnvironmentFault(
            f"{folder} cannot be loaded: {first_line(error)}", "The prior is incomplete or damaged; fetch it again."
        ) from error
    return network


def _tensors(folder: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = {}
    for path in weight_files(folder):
        try:
            tensors |= load_file(path)
        except (SafetensorError, OSError) as error:
            raise EnvironmentFault(f"{path} cannot be read: {first_line(error)}", renewal(path)) from error
    return tensors

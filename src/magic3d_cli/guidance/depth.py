"""Depth of a picture, estimated by a network of transformers' kind, where a person asks for it: `--depth auto`.

Depth Anything V2 (Yang et al. 2024, arXiv 2406.09414); its small model alone is free for every use. Magic123 and
DreamCraft3D estimate theirs with MiDaS and Omnidata. What such networks tell is right up to scale and shift, which the
loss leaves free (1 - Pearson's correlation).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image

from magic3d_cli.errors import EnvironmentFault, UsageError, first_line
from magic3d_cli.guidance.diffusers.files import read_json, weight_variant
from magic3d_cli.guidance.diffusers.hub import ABSENT, INSTALLED, HubPrior, snapshot
from magic3d_cli.picture_request import AUTO_DEPTH
from magic3d_cli.reference import Cutout, scaled_depth

DEPTH_MODEL = HubPrior(
    "depth-anything/Depth-Anything-V2-Small-hf",
    revision="5426e4f0f36572d16453bbda7a8389317b1bef99",
    licence="Apache-2.0",
    gigabytes=0.1,
)
_FILES = ["config.json", "preprocessor_config.json", "model.safetensors"]
_METRIC = ("zoedepth", "glpn", "depth_pro")
"""Kinds of networks that tell distances; all others tell how near things are, unless their settings say otherwise."""
_MARGIN = 0.15  # of the thing's longer side, left around it: a thing that the edge cuts off is judged badly


def with_depth(cutout: Cutout, name: str, tell: Callable[[str], None]) -> Cutout:
    """A cutout with its depth estimated; as it is where the network sees none.

    Args:
        name: "auto" for `DEPTH_MODEL`, which is downloaded once, or a folder with a network of transformers' kind.

    Raises EnvironmentFault where the network cannot be had.
    """
    folder = depth_model(name, tell)
    far = estimated(folder, cutout)
    try:
        scaled = scaled_depth(far / max(float(np.abs(far).max()), 1e-9), cutout.rgba[..., 3], Path(cutout.name))
    except UsageError:
        tell(f"{folder.name if name != AUTO_DEPTH else DEPTH_MODEL.repository} sees no depth in {cutout.name}.")
        return cutout
    return replace(cutout, depth=scaled)


def depth_model(name: str, tell: Callable[[str], None]) -> Path:
    """The folder of the network, downloaded first if it is `DEPTH_MODEL` and not in the cache."""
    if name != AUTO_DEPTH:
        return Path(name)
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(DEPTH_MODEL.repository, file, revision=DEPTH_MODEL.revision) for file in _FILES)
    state = INSTALLED if all(isinstance(path, str) for path in found) else ABSENT
    return snapshot(DEPTH_MODEL, _FILES, state, "leave out --depth auto", tell)


def estimated(folder: Path, cutout: Cutout) -> Float[np.ndarray, "h w"]:
    """How far each pixel of a cutout is, in units that mean nothing. The network sees the thing before white.

    Raises EnvironmentFault for a folder that holds no network that estimates depth.
    """
    weight_variant(folder)  # refuses pickled weights
    kind = read_json(folder / "config.json")
    rgba = cutout.rgba.astype(np.float32)
    alpha = rgba[..., 3:] / 255
    margin = round(_MARGIN * max(rgba.shape[:2]))
    seen = np.pad(rgba[..., :3] * alpha + 255 * (1 - alpha), ((margin, margin), (margin, margin), (0, 0)),
                  constant_values=255)  # fmt: skip
    try:
        from transformers import AutoImageProcessor, AutoModelForDepthEstimation

        processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
        network = AutoModelForDepthEstimation.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        inputs = processor(images=Image.fromarray(seen.round().astype(np.uint8)), return_tensors="pt")
        with torch.inference_mode():
            found = network.eval().float()(**inputs).predicted_depth[:, None].float()
    except Exception as error:  # whatever transformers and safetensors trip over in files of others
        raise EnvironmentFault(
            f"{folder} holds no network that estimates depth: {first_line(error)}",
            "Use --depth auto, or a folder of a model for depth estimation with .safetensors.",
        ) from error
    whole = F.interpolate(found, size=seen.shape[:2], mode="bicubic", align_corners=False)[0, 0].numpy()
    inner = whole[margin : margin + rgba.shape[0], margin : margin + rgba.shape[1]]
    metric = kind.get("model_type") in _METRIC or kind.get("depth_estimation_type") == "metric"
    return np.ascontiguousarray(inner if metric else -inner)

"""A metal's base colour: what it reflects, which is far brighter than the colour of a photograph of it.

Priors paint a picture of gold: a brown of (162, 122, 51), lit from above. As a metal's base colour that is the share of
the surroundings that it mirrors, and looks like old oil; measured metals lie above 180 in every chart
(`material.py` has the sources).
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from magic3d_cli import srgb
from magic3d_cli.asset.bake import Albedo, evaluate

KEPT = 0.3
"""Exponent of what is left of the field's own differences in brightness and in hue, in linear light: most of them are
baked lighting, which a metal's reflectance has none of, the rest is patina and parts of another colour."""
_DARK = 1e-3  # linear; below it is no colour but noise


def reflecting(
    albedo: Albedo,
    reflectance: tuple[float, float, float],
    points: Float[np.ndarray, "N 3"],
    device: torch.device | str,
) -> Albedo:
    """The field with its median colour moved to a metal's reflectance.

    Args:
        albedo: display-referred colours at world positions.
        reflectance: at normal incidence, linear RGB.
        points: spread evenly over the surface, to find the median.
        device: where `albedo` wants its points.
    """
    target = np.array(reflectance, np.float32)

    def split(colour: Float[np.ndarray, "N 3"]) -> tuple[Float[np.ndarray, "N 1"], Float[np.ndarray, "N 3"]]:
        linear = np.maximum(srgb.linear(colour.astype(np.float32)), np.float32(_DARK))
        luminance = (linear * np.array(srgb.LUMINANCE, np.float32)).sum(-1, keepdims=True)
        return luminance, linear / luminance

    seen = split(evaluate(albedo, points, device))
    usual_luminance, usual_hue = (np.quantile(part, 0.5, axis=0, method="lower") for part in seen)

    def metal(positions: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        colour = albedo(positions)
        luminance, hue = split(colour.detach().cpu().numpy())
        # Not above the brightest that this metal can be: clipping one channel alone would shift the hue.
        brightness = np.minimum((luminance / usual_luminance) ** KEPT, 1 / max(reflectance))
        bright = srgb.displayed(target * brightness * (hue / usual_hue) ** KEPT)
        return torch.from_numpy(bright.astype(np.float32)).to(colour.device)

    return metal

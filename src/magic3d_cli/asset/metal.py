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

from magic3d_cli.asset.bake import Albedo, evaluate

KEPT = 0.3
"""Exponent of what is left of the field's own differences in brightness and in hue, in linear light: most of them are
baked lighting, which a metal's reflectance has none of, the rest is patina and parts of another colour."""
_LUMINANCE = (0.2126, 0.7152, 0.0722)  # of linear sRGB
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
    weights = torch.tensor(_LUMINANCE, device=device)
    target = torch.tensor(reflectance, device=device)

    def split(colour: Float[Tensor, "N 3"]) -> tuple[Float[Tensor, "N 1"], Float[Tensor, "N 3"]]:
        linear = _linear(colour.float()).clamp(min=_DARK)
        luminance = (linear * weights).sum(-1, keepdim=True)
        return luminance, linear / luminance

    seen = torch.from_numpy(evaluate(albedo, points, device)).to(device)
    usual_luminance, usual_hue = (part.median(0).values for part in split(seen))

    def metal(positions: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        luminance, hue = split(albedo(positions))
        # Not above the brightest that this metal can be: clipping one channel alone would shift the hue.
        brightness = ((luminance / usual_luminance) ** KEPT).clamp(max=1 / max(reflectance))
        return _displayed(target * brightness * (hue / usual_hue) ** KEPT)

    return metal


def _linear(display: Float[Tensor, "*d"]) -> Float[Tensor, "*d"]:
    """IEC 61966-2-1 (sRGB)."""
    display = display.clamp(0, 1)
    return torch.where(display <= 0.04045, display / 12.92, ((display + 0.055) / 1.055) ** 2.4)


def _displayed(linear: Float[Tensor, "*d"]) -> Float[Tensor, "*d"]:
    linear = linear.clamp(0, 1)
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp(min=1e-9) ** (1 / 2.4) - 0.055)

"""sRGB's transfer between what a display is told and linear light (IEC 61966-2-1)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

LUMINANCE = (0.2126, 0.7152, 0.0722)
"""Of linear red, green and blue."""


def linear(display: Float[np.ndarray, "*d"]) -> Float[np.ndarray, "*d"]:
    """Display-referred values, clipped to [0, 1], as linear light."""
    display = np.clip(display, 0, 1)
    return np.where(display <= 0.04045, display / 12.92, ((display + 0.055) / 1.055) ** 2.4)


def displayed(light: Float[np.ndarray, "*d"]) -> Float[np.ndarray, "*d"]:
    """Linear light, clipped to [0, 1], as display-referred values."""
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)

"""What several formats need."""

from __future__ import annotations

import io
import re

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

MILLIMETRES = 1000.0  # in a metre


def png_bytes(texture: UInt8[np.ndarray, "S S *c"]) -> bytes:
    """The texture as a PNG file, grey or of three channels."""
    buffer = io.BytesIO()
    Image.fromarray(texture).save(buffer, "PNG")
    return buffer.getvalue()


def z_up(vectors: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 3"]:
    """From +Y up, facing +Z, to +Z up, facing -Y: the axes of Blender, of slicers and of CAD."""
    return np.stack([vectors[:, 0], -vectors[:, 2], vectors[:, 1]], 1)


def one_line(name: str, otherwise: str = "object") -> str:
    """A name without line breaks, for formats of lines."""
    return " ".join(name.split()) or otherwise


def identifier(name: str) -> str:
    """A name of letters, digits and underscores that does not begin with a digit."""
    plain = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:60] or "object"
    return plain if not plain[0].isdigit() else f"_{plain}"

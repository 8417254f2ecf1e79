"""What colours and materials that captions ask for do to a thing's own colours.

Materials are painted as they would be baked (sheen depends on the surface normal, not on the camera), because
distillation moves them into a texture. A colour without a material goes onto the body of a thing alone, as in a paint
shop: windows, tyres, handles and faces keep their own. Which colours are the body's is known of every model (`Tones`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

COLOURS: dict[str, tuple[tuple[str, ...], tuple[float, float, float]]] = {
    "red": (("red", "crimson", "scarlet"), (0.85, 0.08, 0.08)),
    "maroon": (("maroon", "burgundy"), (0.42, 0.05, 0.1)),
    "orange": (("orange",), (0.95, 0.5, 0.08)),
    "yellow": (("yellow",), (0.96, 0.85, 0.12)),
    "lime": (("lime",), (0.6, 0.92, 0.15)),
    "green": (("green",), (0.13, 0.62, 0.17)),
    "cyan": (("cyan", "turquoise", "teal"), (0.12, 0.75, 0.78)),
    "blue": (("blue",), (0.1, 0.25, 0.85)),
    "navy": (("navy",), (0.05, 0.09, 0.32)),
    "purple": (("purple", "violet"), (0.5, 0.15, 0.7)),
    "pink": (("pink", "magenta"), (0.95, 0.5, 0.7)),
    "brown": (("brown",), (0.42, 0.25, 0.12)),
    "beige": (("beige", "cream", "tan"), (0.88, 0.78, 0.6)),
    "black": (("black",), (0.09, 0.09, 0.1)),
    "white": (("white",), (0.94, 0.94, 0.94)),
    "gray": (("gray", "grey"), (0.5, 0.5, 0.5)),
}
"""Names of colours, words that mean them, RGB in [0, 1]."""
MATERIALS: dict[str, tuple[str, ...]] = {
    "metal": ("metal", "metallic", "steel", "iron", "silver", "chrome"),
    "gold": ("gold", "golden"),
    "wood": ("wood", "wooden"),
    "stone": ("stone", "rock", "granite", "concrete"),
    "clay": ("clay", "terracotta", "ceramic"),
    "plastic": ("plastic",),
    "bronze": ("bronze", "copper"),
    "marble": ("marble",),
    "glass": ("glass", "crystal", "ice"),
    "jade": ("jade", "emerald"),
}
"""Names of materials and words that mean them."""
LUMA = (0.299, 0.587, 0.114)


class Tones(NamedTuple):
    """A model's own colours: their mean luminance, and which of them are its body's.

    `light`, `red` and `blue` are the middle of the body's colours: half the luminance, and red and blue above the
    luminance. Colours up to `near` away are painted wholly, those from `far` not at all. Numbers, or tensors [P, 1].
    """

    mean: float | Tensor
    light: float | Tensor
    red: float | Tensor
    blue: float | Tensor
    near: float | Tensor
    far: float | Tensor


def paint(
    own: Float[Tensor, "P 3"],
    normal: Float[Tensor, "P 3"],
    place: Float[Tensor, "P 3"],
    tones: Float[Tensor, "P 6"],
    colour: Int[Tensor, "P"],
    material: Int[Tensor, "P"],
) -> Float[Tensor, "P 3"]:
    """Albedo in [0, 1] of points after repainting; every model of this project was painted by the same formulas.

    Args:
        own, normal, place: own colour, unit normal and position of the points.
        tones: of each point's model, in the order of `Tones`.
        colour, material: indices into COLOURS and MATERIALS, -1 for none.
    """
    about = Tones(*tones.split(1, 1))
    luma = own @ own.new_tensor(LUMA)[:, None]
    ratio = (luma / about.mean).clamp(max=1.5)
    out = own.clone()
    for index, name in enumerate(MATERIALS):
        chosen = material == index
        if chosen.any():
            out[chosen] = _materials(name, own[chosen], normal[chosen], place[chosen], luma[chosen], ratio[chosen])
    tinted = colour >= 0
    if tinted.any():
        named = Tones(*tones[tinted].split(1, 1))
        out[tinted] = _tinted(colour[tinted], material[tinted] >= 0, out[tinted], own[tinted], luma[tinted], named)
    return out.clamp(0, 1)


def _tinted(colour: Tensor, made: Tensor, out: Tensor, own: Tensor, luma: Tensor, tones: Tones) -> Tensor:
    """A colour over what is there: over a material wholly, else over the body alone."""
    tint = out.new_tensor([rgb for _, rgb in COLOURS.values()])[colour]
    apart = torch.cat([luma / 2 - tones.light, own[:, :1] - luma - tones.red, own[:, 2:] - luma - tones.blue], 1)
    share = (tones.far - apart.norm(dim=1, keepdim=True)) / (tones.far - tones.near + 1e-6)
    share = torch.where(made[:, None], 1.0, share.clamp(0, 1))
    bright = ((luma + 0.02) / (2 * tones.light + 0.02)).clamp(max=1.5)
    value = torch.where(made[:, None], (out @ out.new_tensor(LUMA)[:, None]) / 0.5, bright)
    painted = tint * (0.08 + 0.92 * value) + (value - 1.15).clamp(min=0) * 0.5  # highlights run to white
    return out + share * (painted.clamp(max=1) - out)


def _materials(name: str, own: Tensor, n: Tensor, p: Tensor, luma: Tensor, ratio: Tensor) -> Tensor:
    """The albedo of points [P, 3] of one material."""

    def between(low: tuple[float, ...], high: tuple[float, ...], share: Tensor) -> Tensor:
        a, b = own.new_tensor(low), own.new_tensor(high)
        return a + (b - a) * share

    def gleam(power: int, most: float) -> Tensor:
        return (n @ own.new_tensor((0.45, 0.8, 0.4))[:, None]).clamp(min=0) ** power * most

    if name in ("metal", "gold", "bronze"):  # polished: bright sky, dark ground, a sharp band between
        s = 0.5 + 0.5 * n[:, 1:2]
        band = torch.exp(-(((s - 0.8) / 0.08) ** 2)) * 0.45 + torch.exp(-(((s - 0.45) / 0.05) ** 2)) * 0.25
        v = ((0.12 + 0.5 * s) * (0.6 + 0.4 * ratio) + band).clamp(0, 1)
        if name == "metal":
            return between((0.1, 0.11, 0.13), (0.93, 0.95, 0.98), v)
        if name == "gold":
            return between((0.3, 0.16, 0.02), (1.0, 0.85, 0.38), v)
        patina = (2.5 * noise(p, 5.0) - 1.4).clamp(0, 0.6)
        bare = between((0.16, 0.07, 0.02), (0.85, 0.52, 0.28), v)
        return bare + (own.new_tensor((0.25, 0.5, 0.42)) - bare) * patina
    if name == "wood":
        grain = 0.5 + 0.5 * torch.sin(26.0 * (p[:, :1] + 0.6 * p[:, 2:] + 0.35 * noise(p, 2.5)))
        return between((0.25, 0.12, 0.04), (0.72, 0.48, 0.25), (0.25 + 0.75 * grain) * (0.55 + 0.45 * ratio))
    if name == "stone":
        v = (0.45 + 0.4 * noise(p, 9.0) + 0.25 * (noise(p, 23.0) - 0.5)) * (0.5 + 0.5 * ratio)
        return v * own.new_tensor((1.0, 0.97, 0.9))
    if name == "clay":
        return (0.65 + 0.35 * ratio) * own.new_tensor((0.74, 0.4, 0.26))
    if name == "plastic":
        gloss = gleam(24, 0.6)
        return (0.1 + 0.9 * (luma + 1.6 * (own - luma))).clamp(0, 1) * (1 - gloss) + gloss
    if name == "marble":
        vein = (2 * noise(p + 0.25 * noise(p, 7.0), 3.0) - 1).abs()
        v = (0.62 + 0.38 * (vein * 4).clamp(max=1)) * (0.7 + 0.3 * ratio)
        return v * own.new_tensor((0.96, 0.95, 0.93))
    if name == "glass":
        v = (0.35 + 0.45 * (1 - n[:, 1:2].abs())) * (0.7 + 0.3 * ratio) + gleam(20, 0.7)
        return own.new_tensor((0.1, 0.28, 0.36)) + own.new_tensor((0.75, 0.72, 0.68)) * v
    v = (0.25 + 0.6 * noise(p, 4.0)) * (0.6 + 0.4 * ratio) + gleam(16, 0.45)  # jade
    return own.new_tensor((0.02, 0.22, 0.12)) + own.new_tensor((0.62, 0.72, 0.62)) * v


def noise(place: Float[Tensor, "P 3"], scale: float) -> Float[Tensor, "P 1"]:
    """Trilinear value noise of points, about [0, 1]."""
    q = (place + 4.0) * scale
    low = q.floor()
    share, corner = q - low, low.long()
    total = torch.zeros_like(q[:, :1])
    for step in torch.cartesian_prod(*[torch.arange(2, device=q.device)] * 3):
        weight = torch.where(step > 0, share, 1 - share).prod(1, keepdim=True)
        total = total + weight * _hash(corner + step)
    return total


def _hash(corner: Int[Tensor, "P 3"]) -> Float[Tensor, "P 1"]:
    """Value noise in [0, 1) on an integer lattice."""
    x, y, z = corner.unbind(1)
    n = (x * 73856093) ^ (y * 19349663) ^ (z * 83492791)
    n = (n ^ (n >> 13)) * 1274126177
    return (((n ^ (n >> 16)) & 0xFFFF).float() / 65536.0)[:, None]

"""Several materials on one surface: where each is, and what becomes of its colours.

Several things in one scene make them, and an edit of a part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from magic3d_cli.asset.bake import Albedo, evaluate, to_bytes
from magic3d_cli.asset.delight import delit
from magic3d_cli.asset.material import Material
from magic3d_cli.asset.metal import reflecting

Share = Callable[[Float[Tensor, "N 3"]], Float[Tensor, "N"]]
"""World positions to how much of what is there is of a material, 0 to 1."""
_FEW = 1000  # points that are mostly of a material: with fewer its light is found on the whole surface
LEAST = 0.01
"""Share of the surface below which a material is left out: a border's blur is none."""


@dataclass(frozen=True)
class Cover:
    """A material and where it lies over those before it; `share` is evaluated where colours are."""

    material: Material
    share: Share


def everywhere(points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
    """A share of all of every place."""
    return torch.ones(len(points), device=points.device)


@dataclass(frozen=True)
class Part:
    """A material of a surface.

    Attributes:
        size: its share of the surface.
        weight: its share of a place; over all parts of a surface they add up to 1.
    """

    material: Material
    size: float
    weight: Share


def parts_of(
    material: Material, covers: Sequence[Cover], points: Float[np.ndarray, "N 3"], device: torch.device | str = "cpu"
) -> list[Part]:
    """The materials that are seen of a surface, the one with most of it first.

    Args:
        material: what lies under all covers.
        covers: from the lowest to the highest.
        points: spread evenly over the surface.
    """
    layers = [Cover(material, everywhere), *covers]
    kinds = list(dict.fromkeys(layer.material for layer in layers))

    def weights(places: Float[Tensor, "N 3"]) -> Float[Tensor, "N K"]:
        found = torch.zeros(len(places), len(kinds), device=places.device)
        for layer in layers:
            share = layer.share(places)
            found *= 1 - share[:, None]
            found[:, kinds.index(layer.material)] += share
        return found

    sizes = evaluate(weights, points, device).mean(0)
    seen = [number for number in np.argsort(-sizes, kind="stable").tolist() if sizes[number] >= LEAST]

    def weight(number: int) -> Share:
        def of(places: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
            found = weights(places)[:, seen]
            return found[:, seen.index(number)] / found.sum(1).clamp(min=1e-6)

        return of

    return [Part(kinds[number], float(sizes[number]), weight(number)) for number in seen]


def as_baked(
    albedo: Albedo,
    parts: Sequence[Part],
    points: Float[np.ndarray, "N 3"],
    normals: Float[np.ndarray, "N 3"],
    device: torch.device | str = "cpu",
) -> Albedo:
    """The field without light, and where it is a bare metal in what that reflects; each part for itself.

    Args:
        albedo: display-referred colours at world positions.
        points, normals: spread evenly over the surface.
        device: where `albedo` wants its points.
    """
    fields = []
    for part in parts:
        inside = _at(part.weight, points, device) > 0.5
        if inside.sum() < _FEW:
            inside[:] = True
        own = delit(albedo, points[inside], normals[inside], part.material.uniform, device)
        if part.material.reflectance is not None:
            own = reflecting(own, part.material.reflectance, points[inside][:20_000], device)
        fields.append(own)
    if len(parts) == 1:
        return fields[0]

    def blended(places: Float[Tensor, "N 3"]) -> Float[Tensor, "N 3"]:
        out = torch.zeros(len(places), 3, device=places.device)
        for part, field in zip(parts, fields, strict=True):
            share = part.weight(places)
            there = share > 0
            out[there] += share[there, None] * field(places[there])
        return out

    return blended


def surface_bytes(
    parts: Sequence[Part], points: Float[np.ndarray, "N 3"], device: torch.device | str = "cpu"
) -> UInt8[np.ndarray, "N 2"]:
    """Roughness and metallic at some places."""
    values = [(part.material.roughness, part.material.metallic) for part in parts]
    return to_bytes(np.stack([_at(part.weight, points, device) for part in parts], 1) @ np.array(values))


def _at(share: Share, points: Float[np.ndarray, "N 3"], device: torch.device | str) -> Float[np.ndarray, "N"]:
    return evaluate(lambda places: share(places)[:, None].expand(-1, 1), points, device)[:, 0]

"""A thing of a person's own as the built-in prior's volume, and the file that keeps it.

The volume itself is kept, near the surface alone, rounded to bytes and deflated: a hundred kilobytes or some. The
prior's own models are kept as latents, which are smaller, because there are more than a thousand; each of these had to
be found by optimisation, and loses a little. A thing shown in a model's place is painted, lit and put beside others as
the model would be.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from magic3d_cli.atomic import write_atomically
from magic3d_cli.errors import UsageError
from magic3d_cli.guidance.adapters import SUBJECT, Adapter, header_of
from magic3d_cli.guidance.builtin.mixture import SLOPE
from magic3d_cli.guidance.builtin.paint import Tones
from magic3d_cli.guidance.builtin.tones import find_tones
from magic3d_cli.guidance.builtin.vocabulary import Caption
from magic3d_cli.guidance.builtin.volume import CHILDREN, CaptionVolume
from magic3d_cli.guidance.builtin.voxels import FULL
from magic3d_cli.scene.shape import DENSITY, InitialShape

BAND = 2
"""Voxels on either side of the surface that keep their normal and colour: rays interpolate."""
_EDGE = 6.0  # log-odds of a shape's density up to which a voxel tells how steep its surface is
_CHUNK = 1 << 18


@dataclass(frozen=True)
class Subject:
    """A thing, and the known noun and style whose place it takes.

    Attributes:
        volume: [J I K 7], as `CaptionVolume.imagine` gives it, over a cube of half-side `extent`.
        tones: see `Tones`.
    """

    word: str
    noun: str
    style: str | None
    volume: Float[Tensor, "J I K 7"]
    tones: Float[Tensor, "6"]
    extent: float


@torch.no_grad()
def volume_of(shape: InitialShape, side: int, extent: float) -> Float[Tensor, "J I K 7"]:
    """Any shape with colours as a volume of `side` voxels over +-`extent`: raw density, normal, own colour."""
    edge = 2 * extent / side
    line = (torch.arange(side) + 0.5) * edge - extent
    y, x, z = torch.meshgrid(line, line, line, indexing="ij")
    centres = torch.stack([x, y, z], -1).reshape(-1, 3)
    density = torch.cat([shape.density(part) for part in centres.split(_CHUNK)])
    depth = _depth((density / DENSITY).view(side, side, side))
    raw = (SLOPE * depth).clamp(-FULL, FULL)
    volume = torch.zeros(side, side, side, 7)
    volume[..., 0] = raw
    places = _band(raw)
    slope = torch.stack([g.flatten()[places] for g in torch.gradient(_smooth(depth))])
    volume.view(-1, 7)[places, 1:4] = F.normalize(-slope[[1, 0, 2]].T, dim=1)
    volume.view(-1, 7)[places, 4:] = _colours(shape, centres[places], edge)
    return volume


def tones_of(volume: Float[Tensor, "J I K 7"]) -> Float[Tensor, "6"]:
    """Which colours are the body's, by all voxels at the surface: seen or not."""
    raw = volume[..., 0]
    outside = F.max_pool3d(-raw[None, None], 3, 1, 1)[0, 0] > 0
    colours = volume[(raw > 0) & outside][:, 4:].clamp(0, 1)
    if len(colours) == 0:
        raise ValueError("the volume is empty")
    tones: Tones = find_tones(colours.double().numpy())
    return torch.tensor([float(number) for number in tones])


def save_subject(path: Path, subject: Subject, about: dict[str, Any]) -> None:
    """Write the file; `about` joins its metadata. Raises OSError."""
    raw = subject.volume[..., 0]
    places = _band(raw)
    kept = subject.volume.view(-1, 7)[places]
    scaled = torch.cat([kept[:, :1] / FULL, kept[:, 1:4]], 1).clamp(-1, 1) * 127
    parts = [
        np.packbits((raw > 0).flatten().numpy()).tobytes(),
        np.packbits(_mask(places, raw.numel())).tobytes(),
        scaled.round().to(torch.int8).T.contiguous().numpy().tobytes(),
        (kept[:, 4:].clamp(0, 1) * 255).round().to(torch.uint8).T.contiguous().numpy().tobytes(),
    ]
    packed = torch.frombuffer(bytearray(zlib.compress(b"".join(parts), 9)), dtype=torch.uint8)
    tensors = {"volume": packed, "tones": subject.tones.float().contiguous()}
    meta = {
        **about,
        "kind": SUBJECT,
        "word": subject.word,
        "noun": subject.noun,
        "style": subject.style,
        "side": len(raw),
        "extent": subject.extent,
    }
    write_atomically(path, safetensors.torch.save(tensors, header_of(meta)))


def load_subject(adapter: Adapter) -> Subject:
    """The thing of an adapter of that kind. Raises UsageError where its file is damaged."""
    try:
        tensors, meta = safetensors.torch.load(adapter.path.read_bytes()), adapter.meta
        side = int(meta["side"])
        if not 2 <= side <= 512 or tensors["tones"].shape != (6,):
            raise ValueError("its numbers are out of range")
        volume = _unpacked(tensors["volume"].numpy().tobytes(), side)
        return Subject(
            meta["word"], meta["noun"], meta["style"], volume, tensors["tones"].float(), float(meta["extent"])
        )
    except (KeyError, TypeError, ValueError, OSError, zlib.error, safetensors.SafetensorError) as error:
        raise UsageError(
            f"The adapter {adapter.path} is damaged: {error}.", "Copy it again, or make it anew."
        ) from error


def show_subject(
    network: CaptionVolume, subjects: Mapping[str, Subject], encode: Callable[[list[str]], Tensor], thing: Caption
) -> None:
    """Have the prior's volume show a person's own thing in its place, and for any other thing what it knows.

    `encode` are the prior's text states [C, L, D] of captions. Raises UsageError where the thing was made for a prior
    whose volumes are of another size.
    """
    network.show_own()
    subject = subjects.get(thing.noun) if thing.stands else None
    if subject is None:
        return
    check_fits(subject, CHILDREN * network.latent_shape[-1], network.extent)
    weight = next(network.parameters())
    model = int(network.find(encode([replace(thing, others=()).text]).to(weight))[0])
    network.show_instead(model, subject.volume.to(weight.device), subject.tones)


def check_fits(subject: Subject, side: int, extent: float) -> None:
    """Raises UsageError where a prior's volumes are of another size."""
    if len(subject.volume) != side or abs(subject.extent - extent) > 1e-4:
        raise UsageError(
            f"{subject.word!r} was made for another prior: it has {len(subject.volume)}^3 voxels, and this prior's "
            f"things have {side}^3.",
            "Make it anew for this prior: magic3d personalise",
        )


def _unpacked(data: bytes, side: int) -> Float[Tensor, "J I K 7"]:
    """Inverse of what `save_subject` packs. Raises ValueError for another length."""
    count = side**3
    whole = zlib.decompressobj().decompress(data, 10 * count + 64)  # no more than any volume has
    head = -(-count // 8)
    if len(whole) < 2 * head:
        raise ValueError("its volume is cut short")
    inside = np.unpackbits(np.frombuffer(whole, np.uint8, head), count=count)
    places = np.flatnonzero(np.unpackbits(np.frombuffer(whole, np.uint8, head, head), count=count))
    if len(whole) != 2 * head + 7 * len(places):
        raise ValueError("its volume has another length than its mask")
    signed = np.frombuffer(whole, np.int8, 4 * len(places), 2 * head).reshape(4, -1).T.astype(np.float32) / 127
    colours = np.frombuffer(whole, np.uint8, 3 * len(places), 2 * head + 4 * len(places)).reshape(3, -1).T
    volume = np.zeros((count, 7), np.float32)
    volume[:, 0] = np.where(inside, FULL, -FULL)
    volume[places, 0] = signed[:, 0] * FULL
    volume[places, 1:4] = signed[:, 1:]
    volume[places, 4:] = colours.astype(np.float32) / 255
    return torch.from_numpy(volume).view(side, side, side, 7)


def _band(raw: Float[Tensor, "J I K"]) -> Int[Tensor, "P"]:
    """Flat indices of the voxels near the surface."""
    sign = (raw > 0).float()[None, None]
    width = 2 * BAND + 1
    mixed = F.max_pool3d(sign, width, 1, BAND) - -F.max_pool3d(-sign, width, 1, BAND) > 0
    return (mixed[0, 0] | (raw.abs() < FULL)).flatten().nonzero()[:, 0]


def _mask(places: Int[Tensor, "P"], count: int) -> np.ndarray:
    mask = np.zeros(count, np.uint8)
    mask[places.numpy()] = 1
    return mask


def _depth(share: Float[Tensor, "J I K"]) -> Float[Tensor, "J I K"]:
    """How deep voxels lie inside, in voxels, negative outside, near the surface; from a share of the full density.

    Shapes let their density fall as a logistic function of the depth, each in its own steepness.
    """
    odds = torch.logit(share.clamp(1e-6, 1 - 1e-6))
    slopes = torch.stack(torch.gradient(odds)).norm(dim=0)[odds.abs() < _EDGE]
    return odds / (slopes.median() if len(slopes) else odds.new_tensor(1.0)).clamp(min=1.0)


def _smooth(depth: Float[Tensor, "J I K"]) -> Float[Tensor, "J I K"]:
    """Less of the steps that a distance in voxels has: normals are read off its slope."""
    return F.avg_pool3d(F.pad(depth[None, None], (1,) * 6, mode="replicate"), 3, 1)[0, 0]


def _colours(shape: InitialShape, centres: Float[Tensor, "P 3"], edge: float) -> Float[Tensor, "P 3"]:
    """The mean colour of eight places in each voxel."""
    corners = torch.cartesian_prod(*[torch.tensor([-0.25, 0.25]) * edge] * 3)
    total = torch.zeros_like(centres)
    for corner in corners:
        total += torch.cat([shape.albedo(part + corner) for part in centres.split(_CHUNK)])
    return (total / len(corners)).clamp(0, 1)

"""What `--style` takes of a picture: its colours and how they lie in it, which the built-in prior paints with, and a
small copy that other priors are shown by an IP-Adapter. No tensors here."""

from __future__ import annotations

import base64
import hashlib
import io
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from magic3d_cli import srgb
from magic3d_cli.checks import expanded
from magic3d_cli.errors import UsageError
from magic3d_cli.picture_file import read_picture

MOST = 6
"""Colours that are told apart in a picture: more are shades of these."""
_SIDE = 96  # pixels of the longer side of what is looked at: dots are blended, areas stay
_SAME, _RARE = 0.06, 0.02  # distance in Oklab that is one colour still; share of a picture below which one is left out
_LAYERED = 0.6  # share of the colours' variance that rows explain in a sunset, and do not in a pattern
_PATCHES = (2.0, 8.0)  # fewer are one colour a side of a thing, more are finer than the built-in prior's voxels
_ROUNDS = 20
_CLIP = 224  # pixels of the side that CLIP's image encoders see
_LONGEST = 4  # sides of a square; of a longer picture only its middle is scaled, and of that CLIP sees a square
_LMS = np.array([[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
                 [0.0883024619, 0.2817188376, 0.6299787005]])  # fmt: skip
_LAB = np.array([[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
                 [0.0259040371, 0.7827717662, -0.8086757660]])  # fmt: skip


@dataclass(frozen=True)
class Style:
    """The palette of a picture, and the picture itself as small as it is looked at.

    Attributes:
        name: of its file, for people.
        digest: of the picture's pixels, whole and as kept.
        colours: display-referred RGB, the darkest first.
        shares: of the picture, for each colour; their sum is 1.
        heights: 0 to 1, where in the picture each colour lies on average; 1 is its top.
        patches: how many patches of colour lie side by side in it; 0 where its colours lie in layers, as in a sunset.
        picture: its middle square of 224 pixels, what is transparent white: a PNG file in base64.
    """

    name: str
    digest: str
    colours: tuple[tuple[float, ...], ...]
    shares: tuple[float, ...]
    heights: tuple[float, ...]
    patches: float
    picture: str

    @property
    def pixels(self) -> UInt8[np.ndarray, "S S 3"]:
        """The picture as kept."""
        with Image.open(io.BytesIO(base64.b64decode(self.picture))) as image:
            return np.array(image.convert("RGB"))

    @property
    def summary(self) -> str:
        """For a person: "5 colours of sunset.png: #2a1b3d (31 %), ..."."""
        named = [
            "#" + "".join(f"{round(255 * part):02x}" for part in colour) + f" ({share:.0%})"
            for colour, share in zip(self.colours, self.shares, strict=True)
        ]
        count = "One colour" if len(named) == 1 else f"{len(named)} colours"
        return f"{count} of {self.name}, {'in layers' if self.patches == 0 else 'in patches'}: {', '.join(named)}."

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> Style:
        """Inverse of `to_json`. Raises KeyError or TypeError for what is none."""
        colours = tuple(tuple(map(float, colour)) for colour in data["colours"])
        shares, heights = (tuple(map(float, data[key])) for key in ("shares", "heights"))
        return Style(data["name"], data["digest"], colours, shares, heights, float(data["patches"]), data["picture"])


def read_style(path: Path) -> Style:
    """The style of a picture file; of an animation its first picture's.

    Raises UsageError as `read_picture` does, and for a picture in which nothing is opaque.
    """
    image, _ = read_picture(expanded(path))
    small = _as_clip_sees(image)
    image = image.convert("RGBA").convert("RGBa")  # what is transparent has no colour
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX)
    pixels = np.asarray(image.convert("RGBA"))
    seen = pixels[..., 3] > 127
    if not seen.any():
        raise UsageError(f"{path.name} is transparent everywhere.", "Give a picture that shows something.")
    digest = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes() + small.tobytes()).hexdigest()[:16]
    lab = oklab(pixels[..., :3] / 255)
    label, centres = _clusters(lab[seen])
    shares = np.bincount(label, minlength=len(centres)) / len(label)
    row = np.broadcast_to(np.linspace(1, 0, len(pixels))[:, None], seen.shape)[seen]
    heights = np.bincount(label, row, minlength=len(centres)) / np.maximum(shares * len(label), 1)
    order = np.argsort(centres[:, 0])
    colours = np.array([np.median(pixels[seen][label == k, :3], 0) for k in order]) / 255
    everywhere = np.full(seen.shape, -1)
    everywhere[seen] = label
    return Style(
        path.name,
        digest,
        tuple(tuple(round(float(part), 4) for part in colour) for colour in colours),
        tuple(round(float(shares[k]), 4) for k in order),
        tuple(round(float(heights[k]), 4) for k in order),
        0.0 if _in_layers(lab, seen) else _patches(everywhere),
        _png(small),
    )


def style_of(header: dict[str, Any]) -> Style | None:
    """The style that a checkpoint's run was painted in. Raises UsageError where it is damaged."""
    if not header.get("style"):
        return None
    try:
        return Style.from_json(header["style"])
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError("The checkpoint's style cannot be read.", "Make it anew: magic3d generate --style") from error


def _as_clip_sees(image: Image.Image) -> Image.Image:
    """The middle square, scaled as transformers' CLIPImageProcessor does: first scaled, then cropped."""
    white = Image.new("RGBA", image.size, "white")
    whole = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    short = min(whole.size)
    whole = _middle(whole, *(min(side, _LONGEST * short) for side in whole.size))
    width, height = (int(_CLIP * side / short) for side in whole.size)
    return _middle(whole.resize((width, height), Image.Resampling.BICUBIC), _CLIP, _CLIP)


def _middle(image: Image.Image, width: int, height: int) -> Image.Image:
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _png(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def oklab(rgb: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
    """Display-referred colours in Oklab (Ottosson 2020): lightness, green to red, blue to yellow, evenly seen."""
    return np.cbrt(srgb.linear(rgb) @ _LMS.T) @ _LAB.T


def _clusters(lab: Float[np.ndarray, "N 3"]) -> tuple[Int[np.ndarray, "N"], Float[np.ndarray, "K 3"]]:
    """k-means begun with colours that lie far from each other, without those that are alike or rare."""
    centres = lab[:1]
    while len(centres) < MOST:
        apart = np.linalg.norm(lab[:, None] - centres, axis=2).min(1)
        centres = np.concatenate([centres, lab[[np.argsort(apart)[int(0.99 * (len(lab) - 1))]]]])
    for _ in range(_ROUNDS):
        label = _nearest(lab, centres)
        found = np.bincount(label, minlength=len(centres))
        centres = np.array([lab[label == k].mean(0) for k in np.flatnonzero(found)])
    while True:
        label = _nearest(lab, centres)
        count = np.bincount(label, minlength=len(centres))
        if count.min() < _RARE * len(lab):
            centres = np.delete(centres, count.argmin(), 0)
            continue
        apart = np.linalg.norm(centres[:, None] - centres, axis=2) + np.eye(len(centres)) * 9
        if len(centres) == 1 or apart.min() > _SAME:
            return label, centres
        one, other = np.unravel_index(apart.argmin(), apart.shape)
        centres[one] = np.average(centres[[one, other]], 0, count[[one, other]])
        centres = np.delete(centres, other, 0)


def _nearest(lab: Float[np.ndarray, "N 3"], centres: Float[np.ndarray, "K 3"]) -> Int[np.ndarray, "N"]:
    return np.linalg.norm(lab[:, None] - centres, axis=2).argmin(1)


def _in_layers(lab: Float[np.ndarray, "H W 3"], seen: np.ndarray) -> bool:
    """Whether colours change from top to bottom, and hardly from left to right."""
    total = ((lab[seen] - lab[seen].mean(0)) ** 2).sum(1).mean()
    rows = [row[mask] - row[mask].mean(0) for row, mask in zip(lab, seen, strict=True) if mask.any()]
    return bool((np.concatenate(rows) ** 2).sum(1).mean() < (1 - _LAYERED) * total)


def _patches(label: Int[np.ndarray, "H W"]) -> float:
    """Patches of colour along the longer side, by the changes of colour along rows and columns."""
    changes = [(np.diff(label, axis=axis) != 0).mean() for axis in (0, 1) if label.shape[axis] > 1]
    return float(np.clip(np.mean(changes or [0.0]) * max(label.shape), *_PATCHES).round(2))

"""Which of the built-in prior's models a picture looks like, and from which side: thumbnails are compared.

`looks.webp` beside the prior's weights holds every model from VIEWS sides, made by examples/builtin_prior/looks.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from magic3d_cli.errors import EnvironmentFault
from magic3d_cli.guidance.builtin.vocabulary import Caption, Vocabulary
from magic3d_cli.scene.views import Views, turntable

SIDE = 32
"""Pixels of a thumbnail."""
AZIMUTHS, ELEVATIONS = 12, (0.0, 15.0, 35.0)
"""Views around a model, and their elevations in degrees."""
VIEWS = AZIMUTHS * len(ELEVATIONS)
PER_LINE = 5
"""Models side by side in the sheet: WebP's sides end at 16,383 pixels."""
FOV = 35.0  # degrees
_LIKELY, _GLANCE = 120, 0.07
"""Models that are compared where it is known which are likely, and the weight of their log-probabilities [m]."""
_AT_ONCE = 40  # models compared at a time: bounds the memory
_SHARP = 128  # opacity above which a pixel is the thing
_COLOUR, _PATTERN, _FRONT = 0.5, 0.5, 0.08
"""Weights of the likeness of colours and of the pattern of light and dark, beside that of the silhouettes (1); and what
a view from the front has ahead of one from the side, and that of one from behind: people photograph fronts."""


@dataclass(frozen=True)
class Sighting:
    """A model that a picture looks like, seen from one side."""

    caption: Caption  # the noun and its style
    azimuth: float  # degrees
    elevation: float  # degrees
    score: float
    overlap: float  # of the silhouettes, intersection over union
    chance: float = 0.0  # of the score, for being a likely model; the likeliest has 0, others less


def looks_views() -> Views:
    """The views of each model's thumbnails, in their order: all azimuths of the first elevation, then the next."""
    return Views.concatenate([turntable(AZIMUTHS, elevation=e, fov=FOV, half_height=1.05) for e in ELEVATIONS])


def front_bonus(azimuth: Float[np.ndarray, "*n"] | float) -> Float[np.ndarray, "*n"]:
    """How much likelier a picture is from there, degrees, in units of the score."""
    return _FRONT * np.cos(np.deg2rad(azimuth))


def thumbnail(image: UInt8[np.ndarray, "H W 4"], fill: bool = False) -> UInt8[np.ndarray, "SIDE SIDE 4"]:
    """What is opaque in an image with straight alpha, cut out, centred, and as large as the thumbnail allows.

    With `fill` it is stretched to the whole thumbnail.
    """
    solid = image[..., 3] >= _SHARP
    if not solid.any():
        return np.zeros((SIDE, SIDE, 4), np.uint8)
    rows, columns = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
    cut = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float32)
    cut[..., :3] *= cut[..., 3:] / 255  # colours of transparent pixels must not bleed in
    scale = SIDE / max(cut.shape[:2])
    size = (SIDE, SIDE) if fill else tuple(max(round(side * scale), 1) for side in cut.shape[1::-1])
    small = np.stack(
        [np.asarray(Image.fromarray(cut[..., c]).resize(size, Image.Resampling.BOX)) for c in range(4)], -1
    )
    small[..., :3] /= np.maximum(small[..., 3:] / 255, 1e-3)
    out = np.zeros((SIDE, SIDE, 4), np.uint8)
    top, left = (SIDE - size[1]) // 2, (SIDE - size[0]) // 2
    out[top : top + size[1], left : left + size[0]] = small.clip(0, 255).round()
    return out


@dataclass(frozen=True)
class Looks:
    """The thumbnails of all models: straight colours and opacities."""

    captions: tuple[Caption, ...]
    thumbnails: UInt8[np.ndarray, "N V SIDE SIDE 4"]

    @staticmethod
    def load(folder: Path, vocabulary: Vocabulary) -> Looks:
        """Read the sheet of the prior in `folder`. Raises EnvironmentFault where it is missing or of another prior."""
        return _load(folder / "looks.webp", tuple(
            Caption(noun, style=style) for noun, styles in vocabulary.styles.items() for style in styles
        ))  # fmt: skip

    def like(
        self,
        picture: UInt8[np.ndarray, "H W 4"],
        count: int,
        *,
        azimuth: float | None = None,
        elevation: float | None = None,
        noun: str | None = None,
        likely: Mapping[str, float] | None = None,
    ) -> list[Sighting]:
        """The `count` models most like a cut-out picture, the best first, each from the side that is most like it.

        Args:
            azimuth, elevation: degrees, where they are known: views more than 20 degrees from them do not count.
            noun: only models of this one.
            likely: log-probabilities of models by their styles: the least likely are not even compared.
        """
        small = thumbnail(picture).astype(np.float32) / 255
        compared, chance = self._worth_comparing(noun, likely)
        starts = range(0, len(compared), _AT_ONCE)
        parts = [self._compared(compared[start : start + _AT_ONCE], small) for start in starts]
        score, overlap = (np.concatenate(part) for part in zip(*parts, strict=True))
        score = score + chance[:, None]
        score = score + np.tile(front_bonus(np.arange(AZIMUTHS) * 360.0 / AZIMUTHS), len(ELEVATIONS))
        if elevation is not None:
            known = np.clip(elevation, ELEVATIONS[0], ELEVATIONS[-1])
            score = np.where(np.abs(np.repeat(ELEVATIONS, AZIMUTHS) - known) <= 20.0, score, -np.inf)
        if azimuth is not None:
            away = np.tile(np.arange(AZIMUTHS) * 360.0 / AZIMUTHS, len(ELEVATIONS)) - azimuth
            score = np.where(np.abs((away + 180) % 360 - 180) <= 20.0, score, -np.inf)
        best = score.argmax(1)
        order = np.argsort(-score.max(1), kind="stable")[:count]
        return [
            Sighting(
                self.captions[compared[n]],
                float(best[n] % AZIMUTHS) * 360.0 / AZIMUTHS,
                ELEVATIONS[best[n] // AZIMUTHS],
                float(score[n, best[n]]),
                float(overlap[n, best[n]]),
                float(chance[n]),
            )
            for n in order
            if score[n, best[n]] > -np.inf
        ]

    def _worth_comparing(
        self, noun: str | None, likely: Mapping[str, float] | None
    ) -> tuple[Int[np.ndarray, "n"], Float[np.ndarray, "n"]]:
        """The models whose thumbnails are compared, and what each has ahead for being likely."""
        if noun is not None or likely is None:
            known = np.array([noun in (None, caption.noun) for caption in self.captions])
            return np.flatnonzero(known), np.zeros(known.sum())
        even = -math.log(len(self.captions))  # of models that nothing is known of: all of them are compared
        chance = np.array([likely.get(caption.style or "", even) for caption in self.captions])
        known = np.array([(caption.style or "") in likely for caption in self.captions])
        rank = np.argsort(np.argsort(np.where(known, -chance, np.inf), kind="stable"))
        most = np.flatnonzero(~known | (rank < _LIKELY))
        return most, _GLANCE * (chance[most] - chance.max())

    def _compared(
        self, rows: Int[np.ndarray, "n"], small: Float[np.ndarray, "SIDE SIDE 4"]
    ) -> tuple[Float[np.ndarray, "n V"], Float[np.ndarray, "n V"]]:
        """Scores of some models' views against a thumbnail, and the overlap of the silhouettes."""
        rgba = self.thumbnails[rows].astype(np.float32) / 255
        theirs, opacity, mask = rgba[..., :3], rgba[..., 3], small[..., 3]
        both = np.minimum(opacity, mask)
        area = both.sum((-1, -2)) + 1e-6
        overlap = area / np.maximum(opacity, mask).sum((-1, -2))
        apart = (np.abs(theirs - small[..., :3]).mean(-1) * both).sum((-1, -2)) / area
        grey, ours = theirs.mean(-1), np.broadcast_to(small[..., :3].mean(-1), both.shape)
        grey, ours = (g - ((g * both).sum((-1, -2)) / area)[..., None, None] for g in (grey, ours))
        norm = np.sqrt((grey**2 * both).sum((-1, -2)) * (ours**2 * both).sum((-1, -2)))
        pattern = (grey * ours * both).sum((-1, -2)) / (norm + 0.003 * area)  # flat colours say nothing
        return overlap + _COLOUR * (1 - apart) + _PATTERN * pattern, overlap


@lru_cache(1)
def _load(path: Path, captions: tuple[Caption, ...]) -> Looks:
    try:
        with Image.open(path) as image:
            sheet = np.asarray(image.convert("RGBA"))
        lines = sheet.reshape(-1, SIDE, PER_LINE, VIEWS, SIDE, 4).transpose(0, 2, 3, 1, 4, 5)
    except (OSError, ValueError) as error:
        raise EnvironmentFault(
            f"The prior's pictures {path} cannot be read: {error}.", "Reinstall magic3d, or say in words what it shows."
        ) from error
    rows = lines.reshape(-1, VIEWS, SIDE, SIDE, 4)
    if not len(captions) <= len(rows) < len(captions) + PER_LINE:
        raise EnvironmentFault(
            f"{path} shows {len(rows)} models, and the prior has {len(captions)}.", "Reinstall magic3d."
        )
    return Looks(captions, rows[: len(captions)])

"""Pictures of one thing of a person's own: which files they are, and from where each was taken."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from magic3d_cli.checks import expanded, in_range, place_of
from magic3d_cli.errors import UsageError
from magic3d_cli.picture_file import read_picture
from magic3d_cli.picture_request import (
    SUFFIXES,
    PictureRequest,
    check_numbers,
    pictures_in,
    read_pictures,
)
from magic3d_cli.reference import read_cutout

MOST_PICTURES, LEAST_PHOTOS = 20, 3


def are_pictures(sources: Sequence[str]) -> bool:
    """Whether pictures are named, or a folder of them, and not a mesh."""
    path, _ = place_of(sources[0])
    return len(sources) > 1 or path.is_dir() or path.suffix.lower() in SUFFIXES


def read_sources(sources: Sequence[str], elevation: float | None) -> PictureRequest:
    """Pictures one by one, or those of a folder; their names may end in their azimuths: left@90.png.

    Those of a folder are in the order of their azimuths, and those without one last. Raises UsageError for none, for
    too many, and for what cannot be read.
    """
    check_numbers(elevation)
    folder = expanded(sources[0])
    if not folder.is_dir():
        if len(sources) > MOST_PICTURES:
            raise _too_many(len(sources))
        places = [_named(text) for text in sources]
        return read_pictures([f"{path}" if at is None else f"{path}@{at}" for path, at in places], elevation=elevation)
    if len(sources) > 1:
        raise UsageError("A folder is given, and more beside it.", "Give one folder, or the pictures one by one.")
    paths = pictures_in(folder)
    if len(paths) > MOST_PICTURES:
        raise _too_many(len(paths))
    azimuths = [_azimuth(path) for path in paths]
    order = sorted(range(len(paths)), key=lambda n: (azimuths[n] is None, abs(azimuths[n] or 0.0)))
    cutouts = tuple(read_cutout(paths[n]) for n in order)
    return PictureRequest(cutouts, tuple(azimuths[n] for n in order), elevation)


def _too_many(count: int) -> UsageError:
    return UsageError(f"There are {count} pictures; {MOST_PICTURES} are the most.", "Leave out those that say least.")


@dataclass(frozen=True)
class Photo:
    """A photo as it is, with its background; `azimuth` in degrees where its name or the command says it."""

    image: Image.Image  # RGB, square
    name: str
    azimuth: float | None


def read_photos(sources: Sequence[str], least: int = LEAST_PHOTOS) -> list[Photo]:
    """Photos for a prior that learns from pictures as they are: cut square about their middle, over white.

    Sources as for `read_sources`. Raises UsageError for fewer than the `least`, for too many, and for what cannot be
    read.
    """
    if len(sources) == 1 and (folder := expanded(sources[0])).is_dir():
        sources = [str(path) for path in pictures_in(folder)]
    if len(sources) > MOST_PICTURES:
        raise _too_many(len(sources))
    if len(sources) < least:
        raise UsageError(
            f"There {'is 1 photo' if len(sources) == 1 else f'are {len(sources)} photos'}; {least} are the least "
            "that this prior learns from.",
            "Take some more, from other sides and before other backgrounds; one is enough for --method word.",
        )
    return [Photo(_square(path), path.name, azimuth) for path, azimuth in map(_named, sources)]


def _named(text: str) -> tuple[Path, float | None]:
    """A file, and the azimuth after its @ or at the end of its name."""
    path, azimuth = place_of(text)
    return path, _azimuth(path) if azimuth is None else azimuth


def _azimuth(path: Path) -> float | None:
    """Degrees at the end of a file's name: left@90.png. Raises UsageError for one that is out of range."""
    end = re.search(r"@(-?\d+(?:\.\d+)?)$", path.stem)
    return in_range(float(end[1]), path.name) if end else None


def _square(path: Path) -> Image.Image:
    image, _ = read_picture(path)
    if image.mode == "RGBA":
        ground = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(ground, image)
    image = image.convert("RGB")
    side = min(image.size)
    left, top = (image.size[0] - side) // 2, (image.size[1] - side) // 2
    return image.crop((left, top, left + side, top + side))

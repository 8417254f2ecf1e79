"""Pictures of one thing of a person's own: which files they are, and from where each was taken."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from magic3d_cli.errors import UsageError
from magic3d_cli.picture_file import read_picture
from magic3d_cli.picture_request import SUFFIXES, PictureRequest, pictures_in, read_pictures
from magic3d_cli.reference import read_cutout

MOST_PICTURES, LEAST_PHOTOS = 20, 3


def are_pictures(sources: Sequence[str]) -> bool:
    """Whether pictures are named, or a folder of them, and not a mesh."""
    first = sources[0]
    name = first.rpartition("@")[0] if "@" in first and not Path(first).exists() else first
    return len(sources) > 1 or Path(name).is_dir() or Path(name).suffix.lower() in SUFFIXES


def read_sources(sources: Sequence[str], elevation: float | None) -> PictureRequest:
    """Pictures one by one, or those of a folder, whose names may end in their azimuths: left@90.png.

    Those of a folder are in the order of their azimuths, and those without one last. Raises UsageError for none, for
    too many, and for what cannot be read.
    """
    folder = Path(sources[0]).expanduser()
    if not folder.is_dir():
        if len(sources) > MOST_PICTURES:
            raise _too_many(len(sources))
        return read_pictures(sources, elevation=elevation)
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
    places = [_named(text) for text in sources]
    if len(places) == 1 and places[0][0].is_dir():
        places = [(path, _azimuth(path)) for path in pictures_in(places[0][0])]
    if len(places) > MOST_PICTURES:
        raise _too_many(len(places))
    if len(places) < least:
        raise UsageError(
            f"There {'is 1 photo' if len(places) == 1 else f'are {len(places)} photos'}; {least} are the least "
            "that this prior learns from.",
            "Take some more, from other sides and before other backgrounds; one is enough for --method word.",
        )
    return [Photo(_square(path), path.name, azimuth) for path, azimuth in places]


def _named(text: str) -> tuple[Path, float | None]:
    """A file, and the azimuth after its @ or at the end of its name."""
    path = Path(text).expanduser()
    match = None if path.exists() else re.fullmatch(r"(.+)@(-?\d+(?:\.\d+)?)", text)
    return (Path(match[1]).expanduser(), float(match[2])) if match else (path, _azimuth(path))


def _azimuth(path: Path) -> float | None:
    end = re.search(r"@(-?\d+(?:\.\d+)?)$", path.stem)
    return float(end[1]) if end else None


def _square(path: Path) -> Image.Image:
    image, _ = read_picture(path)
    if image.mode == "RGBA":
        ground = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(ground, image)
    image = image.convert("RGB")
    side = min(image.size)
    left, top = (image.size[0] - side) // 2, (image.size[1] - side) // 2
    return image.crop((left, top, left + side, top + side))

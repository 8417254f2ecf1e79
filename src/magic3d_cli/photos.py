"""Pictures of one thing of a person's own: which files they are, and from where each was taken."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from magic3d_cli.errors import UsageError
from magic3d_cli.picture_request import SUFFIXES, PictureRequest, pictures_in, read_pictures
from magic3d_cli.reference import read_cutout

MOST_PICTURES = 20


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
    ends = [re.search(r"@(-?\d+(?:\.\d+)?)$", path.stem) for path in paths]
    azimuths = [float(end[1]) if end else None for end in ends]
    order = sorted(range(len(paths)), key=lambda n: (azimuths[n] is None, abs(azimuths[n] or 0.0)))
    cutouts = tuple(read_cutout(paths[n]) for n in order)
    return PictureRequest(cutouts, tuple(azimuths[n] for n in order), elevation)


def _too_many(count: int) -> UsageError:
    return UsageError(f"There are {count} pictures; {MOST_PICTURES} are the most.", "Leave out those that say least.")

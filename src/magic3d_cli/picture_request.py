"""What a person asks of pictures: which show one thing, from which sides, and what else is said of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from magic3d_cli.checks import expanded, place_of
from magic3d_cli.errors import UsageError
from magic3d_cli.reference import Cutout, read_cutout

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")
"""Of the pictures in a folder."""
AUTO_DEPTH, NO_DEPTH = "auto", "none"
"""What `--depth` may be instead of a file or a folder: estimated by a network that is downloaded, or not at all."""


@dataclass(frozen=True)
class PictureRequest:
    """Pictures of one thing, and what a person says of them; None is left to be found out."""

    cutouts: tuple[Cutout, ...]
    azimuths: tuple[float | None, ...]  # degrees, of each: 0 the front, 90 the side on the viewer's right
    elevation: float | None = None  # degrees, of all
    fov: float | None = None  # degrees, of all
    imagine: float | None = None  # 0..1
    drawn_for: str | None = None  # where the picture was drawn and not given: the digest of what it was drawn for
    depth_by: str | None = None  # what estimates the depth of pictures that have none: AUTO_DEPTH or a folder

    @property
    def digest(self) -> str:
        """The same for the same request."""
        if self.drawn_for is not None:
            return self.drawn_for
        said = [cutout.digest for cutout in self.cutouts], self.azimuths, self.elevation, self.fov, self.imagine
        beside = repr(self.depth_by) if self.depth_by else ""
        return hashlib.sha256((repr(said) + beside).encode()).hexdigest()[:16]


def read_pictures(
    images: Sequence[str],
    *,
    mask: Path | None = None,
    depth: str | Path | None = None,
    normals: Path | None = None,
    elevation: float | None = None,
    fov: float | None = None,
    imagine: float | None = None,
) -> PictureRequest:
    """Read pictures given as FILE or FILE@AZIMUTH; the files of mask, depth and normals are of the first.

    Args:
        depth: a file, or AUTO_DEPTH, NO_DEPTH, or the folder of a network that estimates it for every picture.

    Raises UsageError as `read_cutout` does, and for numbers out of range and several pictures without azimuths.
    """
    check_numbers(elevation, fov, imagine)
    places = [place_of(text) for text in images]
    azimuths = [azimuth for _, azimuth in places]
    if len(places) > 1:
        azimuths[0] = azimuths[0] or 0.0
        if None in azimuths:
            name = places[azimuths.index(None)][0].name
            raise UsageError(
                f"It is not said from where {name} shows the thing.",
                f"Say how far round from the first it is, in degrees: {name}@90 (what is on its right).",
            )
    file, depth_by = depth_source(depth)
    mask, normals = (None if path is None else expanded(path) for path in (mask, normals))
    beside = [(mask, file, normals)] + [(None, None, None)] * (len(places) - 1)
    cutouts = [read_cutout(path, *more) for (path, _), more in zip(places, beside, strict=True)]
    return PictureRequest(tuple(cutouts), tuple(azimuths), elevation, fov, imagine, depth_by=depth_by)


def check_numbers(elevation: float | None, fov: float | None = None, imagine: float | None = None) -> None:
    """Raises UsageError for what is said of pictures and is out of range."""
    bounds = {
        "--elevation": (elevation, -30.0, 89.0),
        "--fov": (fov, 5.0, 100.0),
        "--imagine": (imagine, 0.0, 1.0),
    }
    for option, (value, low, high) in bounds.items():
        if value is not None and not low <= value <= high:
            raise UsageError(f"{option} {value:g} is out of range.", f"Use a number from {low:g} to {high:g}.")


def depth_source(depth: str | Path | None) -> tuple[Path | None, str | None]:
    """The depth picture that `--depth` names, and what estimates depth where it names that.

    Raises UsageError for a folder that holds no network.
    """
    if depth is None or str(depth) == NO_DEPTH:
        return None, None
    if str(depth) == AUTO_DEPTH:
        return None, AUTO_DEPTH
    path = expanded(depth)
    if not path.is_dir():
        return path, None
    if not (path / "config.json").is_file():
        raise UsageError(
            f"{path} holds no network that estimates depth (no config.json).",
            "Use --depth auto, a depth picture, or the folder of a model for depth estimation.",
        )
    return None, str(path.resolve())


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder, by name. Raises UsageError where there is none."""
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}.", "Give a folder of pictures, one thing each.")
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    if not found:
        raise UsageError(f"{folder} holds no pictures.", f"It is searched for {', '.join(SUFFIXES)}.")
    return found

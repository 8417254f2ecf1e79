"""Picture files: read safely, turned upright, in eight bits. No tensors here: what cannot be used is refused before
PyTorch is imported."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from magic3d_cli.checks import check_picture
from magic3d_cli.errors import OutOfMemory, UsageError, first_line

MOST_PIXELS = 150_000_000
"""A picture with more is refused unread: it would take gigabytes."""
LEAST_SIDE = 16
"""Pixels of a picture, and of the thing's longer side in it."""
MOST_SIDE = 2048
"""Larger pictures are scaled down first: no texture holds more."""
ORIENTATION = ExifTags.Base.Orientation
_LYING = (5, 6, 7, 8)
"""Values of it for which width and height change places."""


def read_picture(path: Path, whole: bool = False) -> tuple[Image.Image, list[str]]:
    """An upright picture, RGB or RGBA of 8 bits, and what was done to it.

    A JPEG much larger than MOST_SIDE is decoded at a half, a quarter or an eighth of its size, unless `whole`: where
    other files have to be of the same size.

    Raises UsageError for a file that is no picture, cannot be decoded or is too large.
    """
    notes = []
    check_picture(path)
    try:
        with _opened(path) as image:
            if image.size[0] * image.size[1] > MOST_PIXELS:
                raise UsageError(
                    f"{path.name} has {image.size[0]} x {image.size[1]} pixels, more than can be read safely.",
                    f"Scale it down to {MOST_SIDE} pixels first: more does not show in a texture.",
                )
            if getattr(image, "n_frames", 1) > 1:
                notes.append(f"{path.name} is animated or has several pages: the first is used.")
            if not whole:
                image.draft("RGB", (MOST_SIDE, MOST_SIDE))
            image.load()
            return _eight_bits(ImageOps.exif_transpose(image)), notes
    except Image.DecompressionBombError as error:
        raise UsageError(
            f"{path.name} has more pixels than can be read safely.",
            f"Scale it down to {MOST_SIDE} pixels first: more does not show in a texture.",
        ) from error
    except UnidentifiedImageError as error:
        raise UsageError(f"{path.name} is {_kind(path)}.", "Save it as PNG or JPEG and use that.") from error
    except UsageError:
        raise
    except MemoryError as error:
        raise OutOfMemory(
            f"{path.name} does not fit in memory.", f"Scale it down to {MOST_SIDE} pixels, or close other programs."
        ) from error
    except Exception as error:  # in damaged files Pillow trips over anything
        raise UsageError(
            f"{path.name} cannot be decoded: {first_line(error)}.",
            "The file is damaged or incomplete: save or download it again.",
        ) from error


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """A picture file without Pillow's warnings: what is too large or damaged is refused, not warned of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path) as image:
            yield image


def _eight_bits(image: Image.Image) -> Image.Image:
    """RGB or RGBA of 8 bits; 16 bits and floating point are scaled, not cut off."""
    if image.mode.startswith(("I", "F")):
        values = np.nan_to_num(np.asarray(image, np.float64))
        top = next((top for top in (1.0, 255.0, 65535.0) if values.max() <= top), float(values.max()))
        top = 65535.0 if image.mode.startswith("I") and top > 1 and image.mode != "I" else top
        return Image.fromarray((values.clip(0) / max(top, 1e-9) * 255).round().astype(np.uint8)).convert("RGB")
    transparent = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
    return image.convert("RGBA" if transparent else "RGB")


def _kind(path: Path) -> str:
    """What a file that Pillow does not know seems to be."""
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        return f"unreadable ({error.strerror})"
    if not start:
        return "empty"
    if start[4:8] == b"ftyp":
        return "a HEIC, AVIF or video file, which is not read here"
    lower = start.lstrip().lower()
    if b"<svg" in lower:
        return "an SVG drawing, which is not read here"
    if lower.startswith((b"<!doctype", b"<html")):
        return "a web page, not a picture"
    if start.startswith(b"%PDF"):
        return "a PDF, not a picture"
    return "text, not a picture" if b"\0" not in start else "no picture that is known here"


def read_beside(file: Path, path: Path, size: tuple[int, int]) -> Float[np.ndarray, "H W"]:
    """A grey picture that belongs to another of this size, upright as that is, in [0, 1].

    Raises UsageError for one that cannot be read or is of another size.
    """
    try:
        with _opened(file) as image:
            width, height = image.size[::-1] if image.getexif().get(ORIENTATION) in _LYING else image.size
            if (width, height) != size:
                raise UsageError(
                    f"{file.name} has {width} x {height} pixels and {path.name} {size[0]} x {size[1]}.",
                    "They have to be of the same size, and show the same part of the scene.",
                )
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith(("I", "F")):
                values = np.nan_to_num(np.asarray(upright, np.float32))
                return values / max(float(values.max()), 1e-9)
            return np.asarray(upright.convert("L"), np.float32) / 255
    except FileNotFoundError as error:
        raise UsageError(f"There is no file {file}.", "Give the path of a picture.") from error
    except Image.DecompressionBombError as error:
        raise UsageError(
            f"{file.name} has more pixels than can be read safely, and {path.name} has {size[0]} x {size[1]}.",
            "They have to be of the same size, and show the same part of the scene.",
        ) from error
    except IsADirectoryError as error:
        raise UsageError(f"{file} is a folder.", "Give the path of a picture.") from error
    except (UsageError, MemoryError):
        raise
    except Exception as error:  # as in `read_picture`
        raise UsageError(f"{file.name} cannot be read as a picture: {first_line(error)}.", "Save it as PNG.") from error


def read_normals(file: Path, path: Path, size: tuple[int, int], scaled: tuple[int, int]) -> Float[np.ndarray, "h w 3"]:
    """Unit normals, right, up and towards the viewer, of a picture of this size, scaled as that was.

    Raises UsageError as `read_beside` does, and for a picture without colours.
    """
    grey = read_beside(file, path, size)  # with its refusals
    with _opened(file) as image:
        rgb = np.asarray(ImageOps.exif_transpose(image).convert("RGB"), np.float32)
    if np.ptp(rgb, axis=-1).max() < 8:
        raise UsageError(
            f"{file.name} is {'black' if grey.max() < 0.02 else 'grey'} everywhere: it is no picture of normals.",
            "Red is rightwards (0 to 255 for -1 to 1), green upwards, blue towards the viewer.",
        )
    vectors = np.stack([fitted(rgb[..., n] / 127.5 - 1, scaled) for n in range(3)], -1)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-3)


def shrunk(image: Image.Image) -> Image.Image:
    """At most MOST_SIDE pixels on a side; colours are averaged with their opacity."""
    scale = MOST_SIDE / max(image.size)
    size = (max(round(image.size[0] * scale), 1), max(round(image.size[1] * scale), 1))
    if image.mode == "RGBA":
        return image.convert("RGBa").resize(size, Image.Resampling.BOX).convert("RGBA")
    return image.resize(size, Image.Resampling.BOX)


def fitted(values: Float[np.ndarray, "H W"], size: tuple[int, int]) -> Float[np.ndarray, "h w"]:
    """Scaled to a width and a height, averaged."""
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BOX))

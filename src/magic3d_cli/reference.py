"""A picture of a thing, cut out: read safely, turned upright, masked, cropped. No tensors here, so that a picture that
cannot be used is refused before PyTorch is imported.

The mask comes from a mask file, the picture's transparency, a plain border, or rembg where it is installed, in this
order.
"""

from __future__ import annotations

import hashlib
import importlib.util
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from scipy import ndimage

from magic3d_cli import srgb
from magic3d_cli.errors import UsageError

MOST_PIXELS = 150_000_000
"""A picture with more is refused unread: it would take gigabytes."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif")
"""Of the pictures in a folder."""
LEAST_SIDE = 16
"""Pixels of a picture, and of the thing's longer side in it."""
MOST_SIDE = 2048
"""Larger pictures are scaled down first: no texture holds more."""
_SOLID = 128  # alpha from which a pixel belongs to the thing
_PLAIN = 12.0
"""Distance in Lab, whose L runs to 100, up to which a pixel has the border's colour."""
_PLAIN_SHARE = 0.94  # of the border's pixels, from which the border counts as plain
_CUT = 0.1  # of the thing's side along the picture's edge, from which it counts as cut off there
_SPECK, _SEVERAL = 0.02, 0.4
"""Parts smaller than this share of the largest are dirt; one larger than that is another thing."""
_ASK = "Use a PNG whose background is transparent, or a photo of one thing before a plain wall."


@dataclass(frozen=True)
class Cutout:
    """A thing cut out of its picture.

    Attributes:
        name: of the file.
        rgba: uint8, straight alpha, cropped to the thing; its edge's colours go on where it is transparent.
        depth: 0 (near) to 1 (far) for every pixel of `rgba`, or None; right up to scale and shift.
        mask_from: "mask", "transparency", "plain border", "rembg" or "drawn".
        notes: what a person may want to know.
        digest: of everything above but the name and the notes.
    """

    name: str
    rgba: UInt8[np.ndarray, "h w 4"]
    depth: Float[np.ndarray, "h w"] | None
    mask_from: str
    notes: tuple[str, ...] = ()
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        known = hashlib.sha256(repr(self.rgba.shape).encode() + self.rgba.tobytes())
        if self.depth is not None:
            known.update(self.depth.tobytes())
        object.__setattr__(self, "digest", known.hexdigest()[:16])

    @property
    def aspect(self) -> float:
        """Width by height."""
        return self.rgba.shape[1] / self.rgba.shape[0]

    def placed(
        self, size: int, height: float, centre: tuple[float, float] = (0.0, 0.0)
    ) -> tuple[UInt8[np.ndarray, "S S 4"], Float[np.ndarray, "S S"] | None]:
        """A square picture in which the thing is `height` of the square high, and its depth.

        Args:
            centre: where the middle of the thing's box is, right and up of the square's middle, in half-sides.

        Colours go on past the thing's edge, so that no background shows when the mask is moved by a pixel.
        """
        h, w = self.rgba.shape[:2]
        scale = h / (height * size)  # pixels of the cutout for one of the square
        x0 = (w / 2) - scale * size * (1 + centre[0]) / 2
        y0 = (h / 2) - scale * size * (1 - centre[1]) / 2
        alpha = self.rgba[..., 3:].astype(np.float32)
        layers = np.concatenate([self.rgba[..., :3].astype(np.float32) * alpha / 255, alpha], -1)
        if self.depth is not None:
            layers = np.concatenate([layers, self.depth[..., None] * alpha], -1)
        # Box and pixels outside the cutout are transparent: a border wide enough for both.
        pad = [max(int(np.ceil(v)), 0) + 2 for v in (-y0, y0 + scale * size - h, -x0, x0 + scale * size - w)]
        layers = np.pad(layers, ((pad[0], pad[1]), (pad[2], pad[3]), (0, 0)))
        box = (x0 + pad[2], y0 + pad[0], x0 + pad[2] + scale * size, y0 + pad[0] + scale * size)
        kind = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BOX
        small = np.stack([_resized(layer, size, box, kind) for layer in np.moveaxis(layers, -1, 0)], -1)
        found = small[..., 3].clip(0, 255)
        rgb = small[..., :3] / np.maximum(found[..., None] / 255, 1e-3)
        out = np.dstack([rgb.clip(0, 255), found]).round().astype(np.uint8)
        depth = None if self.depth is None else (small[..., 4] / np.maximum(found, 1e-3)).clip(0, 1)
        return bleed(out), depth


def read_cutout(path: Path, mask: Path | None = None, depth: Path | None = None) -> Cutout:
    """A picture's thing, cut out.

    Args:
        mask: a picture of the same size, white where the thing is.
        depth: a picture of the same size, bright where the thing is near, as MiDaS and Depth Anything write it.

    Raises UsageError for a file that is no picture or cannot be decoded, and for a picture in which the thing cannot be
    told from its surroundings, is missing, cut off, too small or not the only one.
    """
    image, notes = _read(path)
    size = image.size
    if min(size) < LEAST_SIDE:
        raise UsageError(f"{path.name} has {size[0]} x {size[1]} pixels.", "Use a picture of at least 256 pixels.")
    given = [None if file is None else _read_beside(file, path, size) for file in (mask, depth)]
    if max(size) > MOST_SIDE:
        image = _shrunk(image)
        given = [None if other is None else _fit(other, image.size) for other in given]
    alpha, how = _mask(image, path, given[0], mask)
    alpha = _one_thing(alpha, path, how)
    box = _box(alpha)
    _check_edges(alpha, box, path, how)
    if max(box[2] - box[0], box[3] - box[1]) < LEAST_SIDE:
        raise UsageError(
            f"The thing in {path.name} is only {max(box[2] - box[0], box[3] - box[1])} pixels large.",
            "Use a picture that shows it larger.",
        )
    rgba = np.dstack([np.asarray(image.convert("RGB")), alpha])[box[1] : box[3], box[0] : box[2]]
    far = None if given[1] is None else _far(given[1][box[1] : box[3], box[0] : box[2]], rgba[..., 3], depth)
    if min(rgba.shape[:2]) < 128:
        notes.append(f"{path.name} shows the thing only {rgba.shape[1]} x {rgba.shape[0]} pixels large.")
    return Cutout(path.name, bleed(rgba, margin=how != "transparency"), far, how, tuple(notes))


def bleed(rgba: UInt8[np.ndarray, "h w 4"], margin: bool = False) -> UInt8[np.ndarray, "h w 4"]:
    """Colours of solid pixels carried on to the nearest that are not solid.

    With `margin`, also over solid pixels at the edge, into which an opaque background is mixed.
    """
    solid = rgba[..., 3] >= 250
    if margin:
        inner = ndimage.binary_erosion(solid, iterations=2)
        solid = inner if inner.any() else solid
    if not solid.any():
        solid = rgba[..., 3] >= rgba[..., 3].max()
    nearest = ndimage.distance_transform_edt(~solid, return_distances=False, return_indices=True)
    return np.dstack([rgba[..., :3][tuple(nearest)], rgba[..., 3]])


def _read(path: Path) -> tuple[Image.Image, list[str]]:
    """An upright picture, RGB or RGBA of 8 bits, and what was done to it."""
    notes = []
    if path.is_dir():
        raise UsageError(f"{path} is a folder.", f"Give a picture, or all pictures in it: --images {path}")
    if not path.is_file():
        raise UsageError(f"There is no file {path}.", "Give the path of a picture: PNG, JPEG, WebP, TIFF, BMP, GIF.")
    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("ignore")  # a decompression bomb is refused below, before it is decoded
            if image.size[0] * image.size[1] > MOST_PIXELS:
                raise UsageError(
                    f"{path.name} has {image.size[0]} x {image.size[1]} pixels, more than can be read safely.",
                    f"Scale it down to {MOST_SIDE} pixels first: more does not show in a texture.",
                )
            if getattr(image, "n_frames", 1) > 1:
                notes.append(f"{path.name} is animated or has several pages: the first is used.")
            image.draft("RGB", (MOST_SIDE, MOST_SIDE))  # a large JPEG is decoded smaller
            image.load()
            return _eight_bits(ImageOps.exif_transpose(image)), notes
    except Image.DecompressionBombError as error:
        raise UsageError(
            f"{path.name} has more pixels than can be read safely.",
            f"Scale it down to {MOST_SIDE} pixels first: more does not show in a texture.",
        ) from error
    except UnidentifiedImageError as error:
        raise UsageError(f"{path.name} is {_kind(path)}.", "Save it as PNG or JPEG and use that.") from error
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError) as error:
        raise UsageError(
            f"{path.name} cannot be decoded: {str(error).splitlines()[0] if str(error) else type(error).__name__}.",
            "The file is damaged or incomplete: save or download it again.",
        ) from error


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


def _read_beside(file: Path, path: Path, size: tuple[int, int]) -> UInt8[np.ndarray, "H W"] | Float[np.ndarray, "H W"]:
    """A grey picture that belongs to another of this size, in [0, 1]."""
    try:
        with warnings.catch_warnings(), Image.open(file) as image:
            warnings.simplefilter("ignore")
            if image.size != size:
                raise UsageError(
                    f"{file.name} has {image.size[0]} x {image.size[1]} pixels and {path.name} {size[0]} x {size[1]}.",
                    "They have to be of the same size, and show the same part of the scene.",
                )
            if image.mode.startswith(("I", "F")):
                values = np.nan_to_num(np.asarray(image, np.float32))
                return values / max(float(values.max()), 1e-9)
            return np.asarray(image.convert("L"), np.float32) / 255
    except FileNotFoundError as error:
        raise UsageError(f"There is no file {file}.", "Give the path of a picture.") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UsageError(f"{file.name} cannot be read as a picture.", "Save it as PNG.") from error


def _shrunk(image: Image.Image) -> Image.Image:
    """At most MOST_SIDE pixels on a side; colours are averaged with their opacity."""
    scale = MOST_SIDE / max(image.size)
    size = (max(round(image.size[0] * scale), 1), max(round(image.size[1] * scale), 1))
    if image.mode == "RGBA":
        return image.convert("RGBa").resize(size, Image.Resampling.BOX).convert("RGBA")
    return image.resize(size, Image.Resampling.BOX)


def _fit(values: Float[np.ndarray, "H W"], size: tuple[int, int]) -> Float[np.ndarray, "h w"]:
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BOX))


def _resized(
    layer: Float[np.ndarray, "h w"], size: int, box: tuple[float, float, float, float], kind: Any
) -> Float[np.ndarray, "S S"]:
    whole = Image.fromarray(np.ascontiguousarray(layer, np.float32))
    return np.asarray(whole.resize((size, size), kind, box=box))


def _mask(
    image: Image.Image, path: Path, given: Float[np.ndarray, "H W"] | None, mask: Path | None
) -> tuple[UInt8[np.ndarray, "H W"], str]:
    """Opacity of the thing, and where it is known from."""
    if given is not None:
        if given.max() < 0.5:
            raise UsageError(f"{mask and mask.name} is black everywhere: it marks nothing.", "White is the thing.")
        return (given * 255).round().astype(np.uint8), "mask"
    if image.mode == "RGBA":
        alpha = np.asarray(image)[..., 3]
        if alpha.max() < _SOLID:
            raise UsageError(f"{path.name} is transparent everywhere.", _ASK)
        if alpha.min() < _SOLID:
            return alpha, "transparency"
    plain = plain_border(np.asarray(image.convert("RGB")))
    if plain is not None:
        return plain, "plain border"
    if importlib.util.find_spec("rembg") is not None:
        return _by_rembg(image.convert("RGB"), path), "rembg"
    raise UsageError(
        f"What in {path.name} is the thing cannot be told: nothing is transparent and the border is not of one colour.",
        f"{_ASK} Or install rembg, which finds it by itself: pip install 'rembg[cpu]'",
    )


def _by_rembg(image: Image.Image, path: Path) -> UInt8[np.ndarray, "H W"]:
    """Opacity as the network U2-Net sees it; rembg downloads it once (176 MB, Apache-2.0).

    Raises UsageError where rembg does not work, for instance without a network.
    """
    try:
        import rembg

        return np.asarray(rembg.remove(image, only_mask=True).convert("L"))
    except Exception as error:  # a runtime, a download and a network of others: each fails in its own way
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"rembg found nothing in {path.name}: {reason}.", _ASK) from error


def plain_border(rgb: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W"] | None:
    """Opacity of what stands before a plain background; None where the border is not of one colour.

    The background's colour may change evenly over the picture. Background is what has that colour and is connected to
    the border: a white plate on white paper keeps its middle.
    """
    lab = _lab(rgb)
    height, width = lab.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    basis = np.stack([np.ones_like(x), x / width - 0.5, y / height - 0.5], -1)
    edge = np.zeros((height, width), bool)
    wide = max(min(height, width) // 50, 1)
    edge[:wide] = edge[-wide:] = edge[:, :wide] = edge[:, -wide:] = True
    known, colours = basis[edge], lab[edge]
    near = np.linalg.norm(colours - np.median(colours, 0), axis=1) < 3 * _PLAIN
    for _ in range(4):
        if near.mean() < _PLAIN_SHARE / 2:
            return None
        plane = np.linalg.lstsq(known[near], colours[near], rcond=None)[0]
        near = np.linalg.norm(colours - known @ plane, axis=1) < _PLAIN
    if near.mean() < _PLAIN_SHARE:
        return None
    away = np.linalg.norm(lab - basis @ plane, axis=-1)
    parts, _ = ndimage.label(away < _PLAIN)
    outside = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
    background = np.isin(parts, outside[outside > 0])
    thing = ndimage.binary_opening(~background, iterations=1)
    return (thing * 255).astype(np.uint8)


def _lab(rgb: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, "H W 3"]:
    """CIE Lab (D65) of sRGB."""
    linear = srgb.linear(rgb.astype(np.float32) / 255)
    xyz = linear @ np.array([[0.4124, 0.2126, 0.0193], [0.3576, 0.7152, 0.1192], [0.1805, 0.0722, 0.9505]], np.float32)
    xyz = xyz / np.array([0.9505, 1.0, 1.089], np.float32)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


def _one_thing(alpha: UInt8[np.ndarray, "H W"], path: Path, how: str) -> UInt8[np.ndarray, "H W"]:
    """The mask without specks. Raises UsageError where there is nothing, everything, or more than one thing."""
    solid = alpha >= _SOLID
    parts, count = ndimage.label(solid, np.ones((3, 3)))
    areas = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    if count == 0 or areas.max() < LEAST_SIDE:
        raise UsageError(f"No thing was found in {path.name}: it is empty, or all of one colour.", _ASK)
    if solid.mean() > 0.98:
        raise UsageError(f"The thing fills all of {path.name}: its outline cannot be seen.", _ASK)
    order = np.sort(areas)[::-1]
    if how != "mask" and len(order) > 1 and order[1] > _SEVERAL * order[0]:
        number = int((areas > _SEVERAL * order[0]).sum())
        raise UsageError(
            f"{path.name} shows {number} separate things.",
            "Cut out one of them; or, where they belong together, mark them white in a black picture: --mask FILE",
        )
    dirt = np.isin(parts, 1 + np.flatnonzero(areas < _SPECK * order[0]))
    near = ndimage.binary_dilation(solid & ~dirt, iterations=3)
    return np.where(near, alpha, 0).astype(np.uint8)


def _box(alpha: UInt8[np.ndarray, "H W"]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what is solid, the last two past it."""
    solid = alpha >= _SOLID
    rows, columns = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _check_edges(alpha: UInt8[np.ndarray, "H W"], box: tuple[int, int, int, int], path: Path, how: str) -> None:
    """Raises UsageError where the picture's edge cuts the thing off.

    A picture that is cropped to its thing touches it on all four sides, and is fine.
    """
    solid: Bool[np.ndarray, "H W"] = alpha >= _SOLID
    wide, high = box[2] - box[0], box[3] - box[1]
    touched = {
        "left": solid[:, 0].sum() / high, "right": solid[:, -1].sum() / high,
        "top": solid[0].sum() / wide, "bottom": solid[-1].sum() / wide,
    }  # fmt: skip
    if how in ("transparency", "mask") and all(touched.values()):
        return
    cut = [side for side, share in touched.items() if share > _CUT]
    if cut:
        raise UsageError(
            f"The thing touches the {' and the '.join(cut)} edge of {path.name}: a part of it is missing.",
            "Leave a margin around it, or use another photo.",
        )


def _far(
    near: Float[np.ndarray, "h w"], alpha: UInt8[np.ndarray, "h w"], path: Path | None
) -> Float[np.ndarray, "h w"]:
    """Depth from nearness: 0 (near) to 1 within the thing."""
    inside = alpha >= 250
    inside = inside if inside.any() else alpha >= _SOLID
    low, high = float(near[inside].min()), float(near[inside].max())
    if high - low < 1e-3:
        raise UsageError(
            f"{path and path.name} is the same everywhere on the thing: it says nothing of depth.",
            "Use a depth picture that is bright where the thing is near, or leave out --depth.",
        )
    return (1 - (near - low) / (high - low)).clip(0, 1).astype(np.float32)


@dataclass(frozen=True)
class PictureRequest:
    """Pictures of one thing, and what a person says of them; None is left to be found out."""

    cutouts: tuple[Cutout, ...]
    azimuths: tuple[float | None, ...]  # degrees, of each: 0 the front, 90 the side on the viewer's right
    elevation: float | None = None  # degrees, of all
    fov: float | None = None  # degrees, of all
    imagine: float | None = None  # 0..1
    drawn_for: str | None = None  # where the picture was drawn and not given: the digest of what it was drawn for

    @property
    def digest(self) -> str:
        """The same for the same request."""
        if self.drawn_for is not None:
            return self.drawn_for
        said = [cutout.digest for cutout in self.cutouts], self.azimuths, self.elevation, self.fov, self.imagine
        return hashlib.sha256(repr(said).encode()).hexdigest()[:16]


def cut_out(rgba: UInt8[np.ndarray, "H W 4"], name: str) -> Cutout:
    """A thing that was drawn on a transparent ground. Raises UsageError where it is empty or cut off by an edge."""
    alpha = _one_thing(rgba[..., 3], Path(name), "mask")  # what belongs together need not touch
    box = _box(alpha)
    _check_edges(alpha, box, Path(name), "transparency")
    part = np.dstack([rgba[..., :3], alpha])[box[1] : box[3], box[0] : box[2]]
    return Cutout(name, bleed(part), None, "drawn")


def read_pictures(
    images: Sequence[str],
    *,
    mask: Path | None = None,
    depth: Path | None = None,
    elevation: float | None = None,
    fov: float | None = None,
    imagine: float | None = None,
) -> PictureRequest:
    """Read pictures given as FILE or FILE@AZIMUTH; mask and depth are of the first.

    Raises UsageError as `read_cutout` does, and for numbers out of range and several pictures without azimuths.
    """
    bounds = {
        "--elevation": (elevation, -30.0, 89.0),
        "--fov": (fov, 5.0, 100.0),
        "--imagine": (imagine, 0.0, 1.0),
    }
    for option, (value, low, high) in bounds.items():
        if value is not None and not low <= value <= high:
            raise UsageError(f"{option} {value:g} is out of range.", f"Use a number from {low:g} to {high:g}.")
    places = [_place(text) for text in images]
    azimuths = [azimuth for _, azimuth in places]
    if len(places) > 1:
        azimuths[0] = azimuths[0] or 0.0
        if None in azimuths:
            name = places[azimuths.index(None)][0].name
            raise UsageError(
                f"It is not said from where {name} shows the thing.",
                f"Say how far round from the first it is, in degrees: --image {name}@90 (what is on its right).",
            )
    beside = [(mask, depth)] + [(None, None)] * (len(places) - 1)
    cutouts = [read_cutout(path, *more) for (path, _), more in zip(places, beside, strict=True)]
    return PictureRequest(tuple(cutouts), tuple(azimuths), elevation, fov, imagine)


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder, by name. Raises UsageError where there is none."""
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}.", "Give a folder of pictures, one thing each.")
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    if not found:
        raise UsageError(f"{folder} holds no pictures.", f"It is searched for {', '.join(SUFFIXES)}.")
    return found


def _place(text: str) -> tuple[Path, float | None]:
    """A file, and the azimuth after its @."""
    name, at, number = text.rpartition("@")
    if at and name and not Path(text).exists():
        try:
            azimuth = float(number)
        except ValueError as error:
            raise UsageError(f"--image {text}: what follows @ is no number.", "Use degrees: left.png@90") from error
        if not -360 <= azimuth <= 360:
            raise UsageError(f"--image {text}: the azimuth is out of range.", "Use degrees from -360 to 360.")
        return Path(name).expanduser(), azimuth % 360.0
    return Path(text).expanduser(), None

"""A picture of a thing, cut out: read safely, turned upright, masked, cropped. No tensors here, so that a picture that
cannot be used is refused before PyTorch is imported.

The mask comes from a mask file, the picture's transparency, a plain border, or rembg where it is installed, in this
order.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from scipy import ndimage

from magic3d_cli import srgb
from magic3d_cli.errors import UsageError
from magic3d_cli.picture_file import LEAST_SIDE, MOST_SIDE, fitted, read_beside, read_normals, read_picture, shrunk

_SOLID = 128  # alpha from which a pixel belongs to the thing
_PLAIN = 12.0
"""Distance in Lab, whose L runs to 100, up to which a pixel has the border's colour."""
_SURE = 4.0  # standard deviations of the border's colour, up to which a pixel has it too
_DARKEST, _HUE, _SOFT = 45.0, 6.0, 2.5
"""Of a shadow in Lab: how much darker than the ground, how far from its hue, and its slope for a pixel of 512 [m]."""
_LEFT = 0.5  # of what is not ground, at least, is no shadow
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
        normals: unit vectors right, up and towards the viewer for every pixel of `rgba`, or None.
        digest: of the pixels, the depth and the normals.
    """

    name: str
    rgba: UInt8[np.ndarray, "h w 4"]
    depth: Float[np.ndarray, "h w"] | None
    mask_from: str
    notes: tuple[str, ...] = ()
    normals: Float[np.ndarray, "h w 3"] | None = None
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        known = hashlib.sha256(repr(self.rgba.shape).encode() + self.rgba.tobytes())
        for beside in (self.depth, self.normals):
            if beside is not None:
                known.update(beside.tobytes())
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
        alpha = self.rgba[..., 3:].astype(np.float32)
        layers = np.concatenate([self.rgba[..., :3].astype(np.float32) * alpha / 255, alpha], -1)
        if self.depth is not None:
            layers = np.concatenate([layers, self.depth[..., None] * alpha], -1)
        small = self._square(layers, size, height, centre)
        found = small[..., 3].clip(0, 255)
        rgb = small[..., :3] / np.maximum(found[..., None] / 255, 1e-3)
        out = np.dstack([rgb.clip(0, 255), found]).round().astype(np.uint8)
        depth = None if self.depth is None else (small[..., 4] / np.maximum(found, 1e-3)).clip(0, 1)
        return bleed(out), depth

    def placed_normals(
        self, size: int, height: float, centre: tuple[float, float] = (0.0, 0.0)
    ) -> Float[np.ndarray, "S S 3"] | None:
        """The normals of the picture that `placed` gives, zero where nothing is."""
        if self.normals is None:
            return None
        inside = (self.rgba[..., 3:] >= _SOLID).astype(np.float32)
        small = self._square(self.normals * inside, size, height, centre)
        return small / np.maximum(np.linalg.norm(small, axis=-1, keepdims=True), 1e-3)

    def _square(
        self, layers: Float[np.ndarray, "h w c"], size: int, height: float, centre: tuple[float, float]
    ) -> Float[np.ndarray, "S S c"]:
        """Layers of the cutout, zero where nothing is, as `placed` places them."""
        h, w = self.rgba.shape[:2]
        scale = h / (height * size)  # pixels of the cutout for one of the square
        x0 = (w / 2) - scale * size * (1 + centre[0]) / 2
        y0 = (h / 2) - scale * size * (1 - centre[1]) / 2
        # Box and pixels outside the cutout are transparent: a border wide enough for both.
        pad = [max(int(np.ceil(v)), 0) + 2 for v in (-y0, y0 + scale * size - h, -x0, x0 + scale * size - w)]
        layers = np.pad(layers, ((pad[0], pad[1]), (pad[2], pad[3]), (0, 0)))
        box = (x0 + pad[2], y0 + pad[0], x0 + pad[2] + scale * size, y0 + pad[0] + scale * size)
        kind = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BOX
        return np.stack([_resized(layer, size, box, kind) for layer in np.moveaxis(layers, -1, 0)], -1)


def read_cutout(path: Path, mask: Path | None = None, depth: Path | None = None, normals: Path | None = None) -> Cutout:
    """A picture's thing, cut out.

    Args:
        mask: a picture of the same size, white where the thing is.
        depth: a picture of the same size, bright where the thing is near, as MiDaS and Depth Anything write it.
        normals: a picture of the same size: red rightwards, green upwards (or downwards: that is seen from the
            outline), blue towards the viewer.

    Raises UsageError for a file that is no picture or cannot be decoded, and for a picture in which the thing cannot be
    told from its surroundings, is missing, cut off, too small or not the only one.
    """
    image, notes = read_picture(path, whole=any((mask, depth, normals)))
    size = image.size
    if min(size) < LEAST_SIDE:
        raise UsageError(f"{path.name} has {size[0]} x {size[1]} pixels.", "Use a picture of at least 256 pixels.")
    given = [None if file is None else read_beside(file, path, size) for file in (mask, depth)]
    if max(size) > MOST_SIDE:
        image = shrunk(image)
        given = [None if other is None else fitted(other, image.size) for other in given]
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
    far = None if given[1] is None else scaled_depth(-given[1][box[1] : box[3], box[0] : box[2]], rgba[..., 3], depth)
    facing = None
    if normals is not None:
        whole = read_normals(normals, path, size, image.size)
        facing, note = _upward(whole[box[1] : box[3], box[0] : box[2]], rgba[..., 3], normals)
        notes += [note] if note else []
    if min(rgba.shape[:2]) < 128:
        notes.append(f"{path.name} shows the thing only {rgba.shape[1]} x {rgba.shape[0]} pixels large.")
    return Cutout(path.name, bleed(rgba, margin=how != "transparency"), far, how, tuple(notes), facing)


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
    if touched := _touched(np.asarray(image.convert("RGB"))):
        raise _cut_off(path, touched)
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
    ground = basis @ plane
    spread = np.linalg.norm((colours - known @ plane)[near], axis=1)
    close = float(np.clip(_SURE * np.sqrt(np.mean(spread**2) / 2), _PLAIN / 4, _PLAIN))
    smooth = ndimage.gaussian_filter(lab, (1.0, 1.0, 0.0))
    background = _from_border(np.linalg.norm(smooth - ground, axis=-1) < close)
    shaded = _from_border(background | _shadow(smooth, ground))
    if (~shaded).sum() > _LEFT * (~background).sum():  # else the thing looks like a shadow itself
        background = shaded
    plain = np.linalg.norm(lab - ground, axis=-1) < _PLAIN  # up to the very edge, which is smoothed above
    background = ndimage.binary_dilation(background, iterations=2, mask=background | plain)
    thing = ndimage.binary_opening(~background, iterations=1)
    return (thing * 255).astype(np.uint8)


def _from_border(some: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """What of these pixels hangs together with the picture's border, by ways of more than two pixels."""
    core = ndimage.binary_erosion(some, iterations=1, border_value=1)
    parts, _ = ndimage.label(core)
    outside = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
    return ndimage.binary_dilation(np.isin(parts, outside[outside > 0]), iterations=2) & some


def _shadow(lab: Float[np.ndarray, "H W 3"], ground: Float[np.ndarray, "H W 3"]) -> Bool[np.ndarray, "H W"]:
    """Pixels that a soft shadow on the ground may have: its hue, darker, and changing slowly.

    A thing's own edge changes fast, so a shadow ends there.
    """
    darker = ground[..., 0] - lab[..., 0]
    hue = np.linalg.norm(lab[..., 1:] - ground[..., 1:], axis=-1)
    scale = min(512 / min(lab.shape[:2]), 1.0)  # of a small picture each edge is slow
    slope = np.hypot(*(ndimage.gaussian_filter1d(lab[..., 0], 1.5, axis, order=1) for axis in (0, 1))) / scale
    return (darker > 0) & (darker < _DARKEST) & (hue < _HUE) & (slope < _SOFT)


def _touched(rgb: UInt8[np.ndarray, "H W 3"]) -> list[str]:
    """The sides that a thing touches in front of a plain ground, which shows on at least two others; else none."""
    lab = _lab(rgb)
    sides = {"left": lab[:, 0], "right": lab[:, -1], "top": lab[0], "bottom": lab[-1]}
    ground = np.median(np.concatenate(list(sides.values())), 0)
    plain = {side: (np.linalg.norm(row - ground, axis=1) < _PLAIN).mean() for side, row in sides.items()}
    found = [side for side, share in plain.items() if share < _PLAIN_SHARE]
    return found if len(found) <= 2 else []


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
        raise _cut_off(path, cut)


def _cut_off(path: Path, sides: list[str]) -> UsageError:
    return UsageError(
        f"The thing touches the {' and the '.join(sides)} edge of {path.name}: a part of it is missing.",
        "Leave a margin around it, or use another photo.",
    )


def scaled_depth(
    far: Float[np.ndarray, "h w"], alpha: UInt8[np.ndarray, "h w"], path: Path | None
) -> Float[np.ndarray, "h w"]:
    """Depth, up to scale and shift, from 0 (near) to 1 within the thing. Raises UsageError where it is all the same."""
    inside = alpha >= 250
    inside = inside if inside.any() else alpha >= _SOLID
    low, high = float(far[inside].min()), float(far[inside].max())
    if not high - low >= 1e-3:  # nor where a number is none
        raise UsageError(
            f"{path and path.name} is the same everywhere on the thing: it says nothing of depth.",
            "Use a depth picture that is bright where the thing is near, or leave out --depth.",
        )
    return ((far - low) / (high - low)).clip(0, 1).astype(np.float32)


def _upward(
    normals: Float[np.ndarray, "h w 3"], alpha: UInt8[np.ndarray, "h w"], path: Path
) -> tuple[Float[np.ndarray, "h w 3"], str | None]:
    """Normals whose second number goes upward, and a note where it went downward in the file (DirectX's way).

    Near its outline a thing faces outward: that tells both. Raises UsageError where they do not face outward there.
    """
    solid = np.pad(alpha >= _SOLID, 1)
    down, right = np.gradient(ndimage.gaussian_filter(solid.astype(np.float32), 2.0))
    edge = (solid & ~ndimage.binary_erosion(solid, iterations=3))[1:-1, 1:-1]
    outward = np.stack([-right, down], -1)[1:-1, 1:-1][edge]  # rightwards, upwards
    across, upward = (normals[edge][:, :2] * outward).mean(0)
    if across <= 0:
        raise UsageError(
            f"{path.name} shows no normals, or another thing's: at its left and right edge they do not face outward.",
            "Red is rightwards (0 to 255 for -1 to 1), green upwards, blue towards the viewer.",
        )
    if upward >= 0:
        return normals, None
    return normals * np.array([1, -1, 1], np.float32), f"{path.name} has green downwards: it is turned round."


def cut_out(rgba: UInt8[np.ndarray, "H W 4"], name: str) -> Cutout:
    """A thing that was drawn on a transparent ground. Raises UsageError where it is empty or cut off by an edge."""
    alpha = _one_thing(rgba[..., 3], Path(name), "mask")  # what belongs together need not touch
    box = _box(alpha)
    _check_edges(alpha, box, Path(name), "transparency")
    part = np.dstack([rgba[..., :3], alpha])[box[1] : box[3], box[0] : box[2]]
    return Cutout(name, bleed(part), None, "drawn")

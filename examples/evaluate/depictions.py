"""Real models as people have them: a photo on a table, a drawing on paper. What they stand before has to be told apart.

    python examples/evaluate/depictions.py DATA OUT --count 20

draws twenty models of `held_out.tsv` both ways, cuts each out as `magic3d generate --image` does, compares the outline
with the true one, and writes `OUT/masks.md` and `OUT/masks.png`: each picture and, before blue, what was cut out.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from scipy import ndimage
from truth import buffers_of, held_out

from magic3d_cli.reference import plain_border
from magic3d_cli.scene.views import turntable

Depicted = tuple[UInt8[np.ndarray, "S S 3"], UInt8[np.ndarray, "S S"]]
"""A picture without transparency, and where the thing is in it."""


def photo(buffers: UInt8[np.ndarray, "S S 10"], seed: int) -> Depicted:
    """Lit by a lamp and the room, on a pale surface with a soft shadow; blurred, noisy, saved as JPEG."""
    random = np.random.default_rng(seed)
    size = len(buffers)
    colours, normals, alpha = _parts(buffers)
    lamp = _unit(np.array([random.uniform(-0.7, 0.7), 0.8, 0.6]))
    shade = 0.45 + 0.75 * (normals @ lamp).clip(0)
    gleam = 0.25 * (normals @ _unit(lamp + np.array([0.0, 0.3, 1.0]))).clip(0) ** 30
    grain = 1 + 0.05 * _clouds(size, 3, random) + 0.04 * _clouds(size, 12, random)
    thing = (colours * (shade * grain)[..., None] + gleam[..., None]).clip(0, 1)
    ground = np.linspace(random.uniform(0.72, 0.82), random.uniform(0.86, 0.94), size)[:, None, None]
    ground = ground * np.array([1.0, 0.985, 0.95]) * np.ones((1, size, 1)) + 0.004 * _clouds(size, 2, random)[..., None]
    rows = np.flatnonzero((alpha > 0.5).any(1))
    columns = np.flatnonzero(alpha[max(rows[-1] - size // 12, 0) : rows[-1] + 1].max(0) > 0.5)
    y, x = np.mgrid[0:size, 0:size]
    middle, half = columns.mean() - 0.06 * size * lamp[0], max(np.ptp(columns) / 2, size / 20)
    spot = ((x - middle) / (1.15 * half)) ** 2 + ((y - rows[-1] + size / 60) / (0.22 * half + size / 60)) ** 2
    shadow = ndimage.gaussian_filter((spot < 1).astype(float), size / 50)
    ground = ground * (1 - random.uniform(0.25, 0.45) * shadow)[..., None]
    seen = alpha[..., None] * thing + (1 - alpha[..., None]) * ground
    seen = ndimage.gaussian_filter(seen, (0.8, 0.8, 0)) + random.normal(0, 0.012, seen.shape)
    file = io.BytesIO()
    _bytes(seen * np.array([1.0, 0.98, 0.93])).save(file, "JPEG", quality=82)
    return np.asarray(Image.open(file).convert("RGB")), _mask(alpha)


def drawing(buffers: UInt8[np.ndarray, "S S 10"], seed: int) -> Depicted:
    """Ink along edges and flat, uneven colour, by a hand that shakes, on paper."""
    random = np.random.default_rng(seed)
    size = len(buffers)
    colours, normals, alpha = _parts(buffers)
    y, x = np.mgrid[0:size, 0:size].astype(float)
    shaken = [y + size / 180 * _clouds(size, size / 14, random), x + size / 180 * _clouds(size, size / 14, random)]
    colours, normals = (
        np.stack([ndimage.map_coordinates(part[..., k], shaken, order=1) for k in range(3)], -1)
        for part in (colours, normals)
    )
    alpha = ndimage.map_coordinates(alpha, shaken, order=1)
    bend = sum(np.hypot(*np.gradient(ndimage.gaussian_filter(normals[..., k], 1.2))) for k in range(3))
    change = sum(np.hypot(*np.gradient(ndimage.gaussian_filter(colours[..., k], 1.2))) for k in range(3))
    rim = np.hypot(*np.gradient(ndimage.gaussian_filter(alpha, 1.2)))
    inner = (bend > 0.22) | (change > 0.16)
    ink = ndimage.gaussian_filter(((rim > 0.12) | (inner & (alpha > 0.5))).astype(float), size / 900)
    washed = (np.round(4 * colours) / 4 * 0.85 + 0.15) * (1 + 0.08 * _clouds(size, size / 30, random))[..., None]
    light = _unit(np.array([-0.5, 0.8, 0.5]))
    washed = washed * np.where(normals @ light < 0.15, 0.78, 1.0)[..., None]
    paper = np.array([0.97, 0.96, 0.92]) * (1 + 0.012 * _clouds(size, 1.5, random))[..., None]
    seen = alpha[..., None] * washed + (1 - alpha[..., None]) * paper
    seen = seen * (1 - 0.9 * ink.clip(0, 1))[..., None]
    return np.asarray(_bytes(seen)), _mask(np.maximum(alpha, (ink > 0.5) * (rim > 0.12)))


DEPICTIONS = {"photo": photo, "drawing": drawing}


def _parts(buffers: UInt8[np.ndarray, "S S 10"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Straight colours, unit normals and coverage."""
    parts = buffers.astype(np.float64)
    alpha = parts[..., 9] / 255
    colours = (parts[..., :3] / 255 / np.maximum(alpha, 1e-3)[..., None]).clip(0, 1)
    return colours, _unit((parts[..., 3:6] - 128) / 127), alpha


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-6)


def _clouds(size: int, width: float, random: np.random.Generator) -> Float[np.ndarray, "S S"]:
    """Smooth noise of deviation 1, its features about this many pixels wide."""
    noise = ndimage.gaussian_filter(random.normal(size=(size, size)), width)
    return noise / noise.std()


def _bytes(image: np.ndarray) -> Image.Image:
    return Image.fromarray((image.clip(0, 1) * 255).round().astype(np.uint8))


def _mask(alpha: np.ndarray) -> UInt8[np.ndarray, "S S"]:
    return (alpha.clip(0, 1) * 255).round().astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=20)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    nouns = {row[0]: row for row in reversed(held_out())}
    lines = ["| thing | depiction | found | overlap of outlines |", "| --- | --- | --- | --- |"]
    rows = []
    for number, (noun, source, yaw) in enumerate(list(nouns.values())[: args.count]):
        buffers = buffers_of(args.data, source, yaw, turntable(1, 20.0, 30.0), 512)[0]
        row = []
        for name, depict in DEPICTIONS.items():
            rgb, true = depict(buffers, number)
            found = plain_border(rgb)
            solid = np.zeros(true.shape, bool) if found is None else found >= 128
            overlap = (solid & (true >= 128)).sum() / max((solid | (true >= 128)).sum(), 1)
            lines.append(f"| {noun} | {name} | {'no' if found is None else 'yes'} | {overlap:.3f} |")
            row += [rgb, np.where(solid[..., None], rgb, np.array([40, 70, 200], np.uint8))]
        rows.append(np.concatenate(row, 1)[::2, ::2])
        print("\n".join(lines[-2:]), flush=True)
    (args.out / "masks.md").write_text("\n".join(lines) + "\n")
    Image.fromarray(np.concatenate(rows)).save(args.out / "masks.png")


if __name__ == "__main__":
    main()

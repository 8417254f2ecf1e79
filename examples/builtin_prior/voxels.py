"""Solid voxels of the training models, seen from outside: `python voxels.py POOL`, after render.py.

Writes `<name>.voxels.npz` per model: `solid`, packed bits of bool [128, 128, 128] (y, x, z); `places` [n], which of
them hold surface (flat indices), and `surface`, uint8 [n, 6]: world normal (128 + 127 n) and own colour. A voxel is
solid where the views show surface, or where no view looks through (space carving, Kutulakos and Seitz 2000); so
hidden insides count as solid, whatever the model has there, and sheets without thickness as one voxel thick.
Beside them `<name>.tones.npy`: which of the model's colours are its body's (`Tones` of the prior's paint).
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numba
import numpy as np
import torch
from manifest import NOUNS, file_stem
from paint import tones_seen

from magic3d_cli.scene.views import turntable

SOLID = 128
"""Voxels along a side."""
EXTENT = 0.95
"""Half-side of the voxels' cube: the network's."""
FEW = 16
"""A voxel holds surface if there is a pixel of it in every FEW views: pixels on outlines mix near and far points."""


@numba.njit(cache=True, nogil=True)
def carve(buffers, clips, eyes, size):
    """Whether each voxel of the cube is solid or never seen through.

    Args:
        buffers: uint8 [V, S, S, 10], see `gbuffer.draw`. clips: [V, 4, 4]. eyes: [V, 3]. size: voxels along a side.
    Returns:
        bool [size, size, size], indexed y, x, z.
    """
    count, pixels = buffers.shape[0], buffers.shape[1]
    edge = 2 * EXTENT / size
    hits = np.zeros((size, size, size), np.int32)
    for v in range(count):
        for j in range(pixels):
            for i in range(pixels):
                if buffers[v, j, i, 9] > 64:
                    cell = np.empty(3, np.int64)
                    for c in range(3):
                        p = (np.float32(buffers[v, j, i, 6 + c]) - 128) / 127
                        cell[c] = min(max(int((p + EXTENT) / edge), 0), size - 1)
                    hits[cell[1], cell[0], cell[2]] += 1
    solid = np.zeros((size, size, size), np.bool_)
    for y in range(size):
        for x in range(size):
            for z in range(size):
                if hits[y, x, z] * FEW > count:
                    solid[y, x, z] = True
                    continue
                px, py, pz = (x + 0.5) * edge - EXTENT, (y + 0.5) * edge - EXTENT, (z + 0.5) * edge - EXTENT
                hidden = True
                for v in range(count):
                    m = clips[v]
                    w = m[3, 0] * px + m[3, 1] * py + m[3, 2] * pz + m[3, 3]
                    i = int(((m[0, 0] * px + m[0, 1] * py + m[0, 2] * pz + m[0, 3]) / w * 0.5 + 0.5) * pixels)
                    j = int((0.5 - (m[1, 0] * px + m[1, 1] * py + m[1, 2] * pz + m[1, 3]) / w * 0.5) * pixels)
                    if i < 0 or j < 0 or i >= pixels or j >= pixels:
                        continue
                    if buffers[v, j, i, 9] < 128:
                        hidden = False
                        break
                    here, there = 0.0, 0.0
                    for c in range(3):
                        q = (np.float32(buffers[v, j, i, 6 + c]) - 128) / 127
                        own = px if c == 0 else (py if c == 1 else pz)
                        here += (own - eyes[v, c]) ** 2
                        there += (q - eyes[v, c]) ** 2
                    if np.sqrt(here) < np.sqrt(there) - edge:
                        hidden = False
                        break
                solid[y, x, z] = hidden
    return solid


@numba.njit(cache=True, nogil=True)
def surface(buffers, size):
    """Mean normal and own colour of the surface in each voxel, uint8 [size, size, size, 7]; see the module."""
    edge = 2 * EXTENT / size
    total = np.zeros((size, size, size, 7), np.float32)
    for v in range(buffers.shape[0]):
        for j in range(buffers.shape[1]):
            for i in range(buffers.shape[2]):
                a = np.float32(buffers[v, j, i, 9])
                if a > 127:
                    cell = np.empty(3, np.int64)
                    for c in range(3):
                        p = (np.float32(buffers[v, j, i, 6 + c]) - 128) / 127
                        cell[c] = min(max(int((p + EXTENT) / edge), 0), size - 1)
                    here = total[cell[1], cell[0], cell[2]]
                    for c in range(3):
                        here[c] += np.float32(buffers[v, j, i, 3 + c]) - 128
                        here[3 + c] += buffers[v, j, i, c] / a * 255
                    here[6] += 1
    out = np.zeros((size, size, size, 7), np.uint8)
    for y in range(size):
        for x in range(size):
            for z in range(size):
                here = total[y, x, z]
                if here[6] * FEW > buffers.shape[0]:
                    length = np.sqrt(here[0] ** 2 + here[1] ** 2 + here[2] ** 2) + 1e-9
                    for c in range(3):
                        out[y, x, z, c] = int(128.5 + 127 * here[c] / length)
                        out[y, x, z, 3 + c] = min(int(here[3 + c] / here[6] + 0.5), 255)
                    out[y, x, z, 6] = 255
    return out


def convert(pool: Path, stem: str) -> None:
    """Write the voxels of one model, if it has been rendered."""
    target = pool / f"{stem}.voxels.npz"
    if target.exists() or not (pool / f"{stem}.npy").exists():
        return
    buffers = np.load(pool / f"{stem}.npy", mmap_mode="r")
    cameras = torch.from_numpy(np.load(pool / f"{stem}.cameras.npy"))
    views = turntable(len(cameras)).replace(
        azimuth=cameras[:, 0], elevation=cameras[:, 1], fov=cameras[:, 2], half_height=cameras[:, 3]
    )
    solid = carve(buffers, views.world_to_clip().numpy(), views.position.numpy(), SOLID)
    shown = surface(buffers, SOLID).reshape(-1, 7)
    places = np.flatnonzero(shown[:, 6])
    np.save(pool / f"{stem}.tones.npy", np.array(tones_seen(buffers[:32:2, ::2, ::2]), np.float32))
    np.savez(target, solid=np.packbits(solid), places=places.astype(np.int32), surface=shown[places, :6])
    print(f"{stem}: {solid.mean():.1%} solid", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pool", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    with ThreadPoolExecutor(args.workers) as pool:
        for done in [pool.submit(convert, args.pool, file_stem(*model)) for noun in NOUNS for model in noun.models]:
            done.result()


if __name__ == "__main__":
    main()

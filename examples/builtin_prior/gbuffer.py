"""Draw a model into a geometry buffer: albedo, world normal, world position, coverage. Numba, one thread a view.

The views are those of the program's own renderers, so the prior is trained on the cameras that will question it.
"""

from __future__ import annotations

import numba
import numpy as np
from sources import Model


def pack(model: Model) -> tuple[np.ndarray, ...]:
    """Arrays for `draw`: vertices, uvs, texture of each face, and all images in one flat buffer."""
    shapes = np.array([image.shape for image in model.images], np.int64)
    starts = np.concatenate([[0], np.cumsum([image.size for image in model.images])[:-1]]).astype(np.int64)
    pixels = np.concatenate([image.reshape(-1) for image in model.images]).astype(np.uint8)
    return model.positions, model.uvs, model.texture.astype(np.int64), pixels, starts, shapes


@numba.njit(inline="always")
def _texel(uv, b1, b2, start, shape):
    """Index of a pixel's first number, from a face's uvs [3, 2] and perspective-correct weights."""
    u = (1 - b1 - b2) * uv[0, 0] + b1 * uv[1, 0] + b2 * uv[2, 0]
    v = (1 - b1 - b2) * uv[0, 1] + b1 * uv[1, 1] + b2 * uv[2, 1]
    column = int((u - np.floor(u)) * shape[1]) % shape[1]
    row = int((1 - (v - np.floor(v))) * shape[0]) % shape[0]
    return start + (row * shape[1] + column) * shape[2]


@numba.njit(cache=True, nogil=True, fastmath=True)
def draw(positions, uvs, texture, pixels, starts, shapes, clip, size, factor):
    """Z-buffer at size*factor, box-filtered to `size`.

    Args:
        positions: [F, 3, 3]; uvs: [F, 3, 2]; texture: [F]; pixels, starts, shapes: see `pack`.
        clip: [4, 4] OpenGL clip matrix.
    Returns:
        uint8 [size, size, 10]: albedo * coverage, normal (128 + 127 n), position (128 + 127 p), coverage.
    """
    n = size * factor
    depth = np.full((n, n), 1e9, np.float32)
    face = np.full((n, n), -1, np.int32)
    bary = np.zeros((n, n, 2), np.float32)
    for f in range(positions.shape[0]):
        sx = np.empty(3, np.float32)
        sy = np.empty(3, np.float32)
        w = np.empty(3, np.float32)
        for k in range(3):
            x, y, z = positions[f, k, 0], positions[f, k, 1], positions[f, k, 2]
            w[k] = clip[3, 0] * x + clip[3, 1] * y + clip[3, 2] * z + clip[3, 3]
            sx[k] = ((clip[0, 0] * x + clip[0, 1] * y + clip[0, 2] * z + clip[0, 3]) / w[k] * 0.5 + 0.5) * n - 0.5
            sy[k] = (0.5 - (clip[1, 0] * x + clip[1, 1] * y + clip[1, 2] * z + clip[1, 3]) / w[k] * 0.5) * n - 0.5
        area = (sx[1] - sx[0]) * (sy[2] - sy[0]) - (sx[2] - sx[0]) * (sy[1] - sy[0])
        if abs(area) < 1e-9:
            continue
        x0, x1 = (
            max(0, int(np.ceil(min(sx[0], sx[1], sx[2])))),
            min(n - 1, int(np.floor(max(sx[0], sx[1], sx[2])))),
        )
        y0, y1 = (
            max(0, int(np.ceil(min(sy[0], sy[1], sy[2])))),
            min(n - 1, int(np.floor(max(sy[0], sy[1], sy[2])))),
        )
        for j in range(y0, y1 + 1):
            for i in range(x0, x1 + 1):
                b1 = ((i - sx[0]) * (sy[2] - sy[0]) - (sx[2] - sx[0]) * (j - sy[0])) / area
                b2 = ((sx[1] - sx[0]) * (j - sy[0]) - (i - sx[0]) * (sy[1] - sy[0])) / area
                b0 = 1 - b1 - b2
                if b0 < -1e-5 or b1 < -1e-5 or b2 < -1e-5:
                    continue
                inverse = b0 / w[0] + b1 / w[1] + b2 / w[2]
                d = 1 / inverse
                if d < depth[j, i]:
                    t = texture[f]
                    if shapes[t, 2] == 4:  # a texture with holes
                        c1, c2 = b1 / w[1] * d, b2 / w[2] * d
                        if pixels[_texel(uvs[f], c1, c2, starts[t], shapes[t]) + 3] < 128:
                            continue
                    depth[j, i] = d
                    face[j, i] = f
                    bary[j, i, 0] = b1 / w[1] * d
                    bary[j, i, 1] = b2 / w[2] * d
    out = np.zeros((size, size, 10), np.uint8)
    eye = np.linalg.inv(clip[:3, :3]) @ -clip[:3, 3]
    total = np.empty(10, np.float32)
    for j in range(size):
        for i in range(size):
            total[:] = 0
            for jj in range(j * factor, (j + 1) * factor):
                for ii in range(i * factor, (i + 1) * factor):
                    f = face[jj, ii]
                    if f < 0:
                        continue
                    b1, b2 = bary[jj, ii, 0], bary[jj, ii, 1]
                    b0 = 1 - b1 - b2
                    p = b0 * positions[f, 0] + b1 * positions[f, 1] + b2 * positions[f, 2]
                    normal = np.cross(positions[f, 1] - positions[f, 0], positions[f, 2] - positions[f, 0])
                    normal /= np.sqrt((normal**2).sum()) + 1e-20
                    if (normal * (eye - p)).sum() < 0:  # seen from behind: thin sheets have two sides
                        normal = -normal
                    t = texture[f]
                    at = _texel(uvs[f], b1, b2, starts[t], shapes[t])
                    for c in range(3):
                        total[c] += pixels[at + c]
                        total[3 + c] += normal[c]
                        total[6 + c] += p[c]
                    total[9] += 1
            covered = total[9]
            if covered == 0:
                continue
            length = np.sqrt(total[3] ** 2 + total[4] ** 2 + total[5] ** 2) + 1e-9
            samples = factor * factor
            for c in range(3):
                out[j, i, c] = int(total[c] / samples + 0.5)
                out[j, i, 3 + c] = int(128.5 + 127 * total[3 + c] / length)
                out[j, i, 6 + c] = int(128.5 + 127 * min(max(total[6 + c] / covered, -1.0), 1.0))
            out[j, i, 9] = int(covered / samples * 255 + 0.5)
    return out


@numba.njit(cache=True, nogil=True)
def halve(buffers):
    """Geometry buffers uint8 [V, S, S, 10] at half the size, every part weighted by coverage."""
    count, size = buffers.shape[0], buffers.shape[1] // 2
    out = np.zeros((count, size, size, 10), np.uint8)
    total = np.empty(10, np.float32)
    for v in range(count):
        for j in range(size):
            for i in range(size):
                total[:] = 0
                for jj in range(2 * j, 2 * j + 2):
                    for ii in range(2 * i, 2 * i + 2):
                        a = np.float32(buffers[v, jj, ii, 9])
                        if a > 0:
                            for c in range(3):
                                total[c] += buffers[v, jj, ii, c]
                                total[3 + c] += a * (np.float32(buffers[v, jj, ii, 3 + c]) - 128)
                                total[6 + c] += a * (np.float32(buffers[v, jj, ii, 6 + c]) - 128)
                            total[9] += a
                if total[9] > 0:
                    length = np.sqrt(total[3] ** 2 + total[4] ** 2 + total[5] ** 2) + 1e-9
                    for c in range(3):
                        out[v, j, i, c] = int(total[c] / 4 + 0.5)
                        out[v, j, i, 3 + c] = int(128.5 + 127 * total[3 + c] / length)
                        out[v, j, i, 6 + c] = int(128.5 + total[6 + c] / total[9])
                    out[v, j, i, 9] = int(total[9] / 4 + 0.5)
    return out


@numba.njit(cache=True, nogil=True)
def premultiplied(buffer, out):
    """What a renderer composites: coverage, world normal and own colour times coverage.

    Args:
        buffer: uint8 [S, S, 10], see `draw`. out: float32 [7, R, R], R a divisor of S; own colour in [0, 1].
    """
    k = buffer.shape[0] // out.shape[1]
    out[:] = 0
    for j in range(buffer.shape[0]):
        for i in range(buffer.shape[0]):
            a = np.float32(buffer[j, i, 9]) / 255
            if a > 0:
                out[0, j // k, i // k] += a / (k * k)
                for c in range(3):
                    out[1 + c, j // k, i // k] += a * (np.float32(buffer[j, i, 3 + c]) - 128) / (127 * k * k)
                    out[4 + c, j // k, i // k] += np.float32(buffer[j, i, c]) / (255 * k * k)

"""Dress geometry buffers for training: colours, materials, light and backdrop, composed anew for every image.

Paint is the prior's own (`magic3d_cli.guidance.builtin.paint`), point by point; shading is
`magic3d_cli.scene.views.shade`, the renderers' own.
"""

from __future__ import annotations

import numba
import numpy as np
from jaxtyping import UInt8

from magic3d_cli.guidance.builtin.paint import COLOURS as COLOURS
from magic3d_cli.guidance.builtin.paint import MATERIALS as MATERIALS
from magic3d_cli.guidance.builtin.paint import Tones
from magic3d_cli.guidance.builtin.tones import find_tones as find_tones


def tones_seen(buffers: UInt8[np.ndarray, "V S S 10"]) -> Tones:
    """The tones of a model from its geometry buffers; see gbuffer.draw."""
    pixels = buffers[buffers[..., 9] > 127].astype(np.float32)
    return find_tones(np.minimum(pixels[:, :3] / pixels[:, 9:], 1))


@numba.njit(inline="always")
def _hash(x, y, z):
    """Value noise in [0, 1) on an integer lattice."""
    n = (x * 73856093) ^ (y * 19349663) ^ (z * 83492791)
    n = (n ^ (n >> 13)) * 1274126177
    return ((n ^ (n >> 16)) & 0xFFFF) / 65536.0


@numba.njit(inline="always")
def _noise(p, scale):
    """Trilinear value noise of a point, about [0, 1]."""
    q = (p + 4.0) * scale
    i = np.floor(q)
    f = q - i
    x, y, z = int(i[0]), int(i[1]), int(i[2])
    total = 0.0
    for a in range(2):
        for b in range(2):
            for c in range(2):
                w = (f[0] if a else 1 - f[0]) * (f[1] if b else 1 - f[1]) * (f[2] if c else 1 - f[2])
                total += w * _hash(x + a, y + b, z + c)
    return total


@numba.njit(inline="always")
def _mix(a, b, t):
    return a + (b - a) * t


@numba.njit(cache=True, nogil=True)
def paint(albedo, n, p, tones, colour, material):
    """Albedo of a point after repainting.

    Args:
        albedo, n, p: [3] colour, unit normal and position of the point.
        tones: the model's, so that light and dark parts stay apart after tinting, and parts off the body unpainted.
        colour: [3], negative for none. material: index into MATERIALS, -1 for none.
    """
    luma = 0.299 * albedo[0] + 0.587 * albedo[1] + 0.114 * albedo[2]
    ratio = min(luma / tones.mean, 1.5)
    out = albedo.copy()
    if material == 0 or material == 1 or material == 6:  # polished: bright sky, dark ground, a sharp band between
        s = 0.5 + 0.5 * n[1]
        gleam = np.exp(-(((s - 0.8) / 0.08) ** 2)) * 0.45 + np.exp(-(((s - 0.45) / 0.05) ** 2)) * 0.25
        v = min(max((0.12 + 0.5 * s) * (0.6 + 0.4 * ratio) + gleam, 0.0), 1.0)
        if material == 0:
            out[0], out[1], out[2] = _mix(0.1, 0.93, v), _mix(0.11, 0.95, v), _mix(0.13, 0.98, v)
        elif material == 1:
            out[0], out[1], out[2] = _mix(0.3, 1.0, v), _mix(0.16, 0.85, v), _mix(0.02, 0.38, v)
        else:  # patina in patches
            green = min(max(2.5 * _noise(p, 5.0) - 1.4, 0.0), 0.6)
            out[0] = _mix(_mix(0.16, 0.85, v), 0.25, green)
            out[1] = _mix(_mix(0.07, 0.52, v), 0.5, green)
            out[2] = _mix(_mix(0.02, 0.28, v), 0.42, green)
    elif material == 2:
        bend = 0.35 * _noise(p, 2.5)
        grain = 0.5 + 0.5 * np.sin(26.0 * (p[0] + 0.6 * p[2] + bend))
        v = (0.25 + 0.75 * grain) * (0.55 + 0.45 * ratio)
        out[0], out[1], out[2] = _mix(0.25, 0.72, v), _mix(0.12, 0.48, v), _mix(0.04, 0.25, v)
    elif material == 3:
        v = (0.45 + 0.4 * _noise(p, 9.0) + 0.25 * (_noise(p, 23.0) - 0.5)) * (0.5 + 0.5 * ratio)
        out[0], out[1], out[2] = v, v * 0.97, v * 0.9
    elif material == 4:
        v = 0.65 + 0.35 * ratio
        out[0], out[1], out[2] = 0.74 * v, 0.4 * v, 0.26 * v
    elif material == 5:
        gloss = max(n[0] * 0.45 + n[1] * 0.8 + n[2] * 0.4, 0.0) ** 24 * 0.6
        for c in range(3):
            vivid = luma + 1.6 * (albedo[c] - luma)
            out[c] = min(max(0.1 + 0.9 * vivid, 0.0), 1.0) * (1 - gloss) + gloss
    elif material == 7:
        vein = abs(2 * _noise(p + 0.25 * _noise(p, 7.0), 3.0) - 1)
        v = (0.62 + 0.38 * min(vein * 4, 1.0)) * (0.7 + 0.3 * ratio)
        out[0], out[1], out[2] = v * 0.96, v * 0.95, v * 0.93
    elif material == 8:
        rim = 1 - abs(n[1])
        gleam = max(n[0] * 0.45 + n[1] * 0.8 + n[2] * 0.4, 0.0) ** 20 * 0.7
        v = (0.35 + 0.45 * rim) * (0.7 + 0.3 * ratio) + gleam
        out[0], out[1], out[2] = 0.1 + 0.75 * v, 0.28 + 0.72 * v, 0.36 + 0.68 * v
    elif material == 9:
        gleam = max(n[0] * 0.45 + n[1] * 0.8 + n[2] * 0.4, 0.0) ** 16 * 0.45
        v = (0.25 + 0.6 * _noise(p, 4.0)) * (0.6 + 0.4 * ratio) + gleam
        out[0], out[1], out[2] = 0.02 + 0.62 * v, 0.22 + 0.72 * v, 0.12 + 0.62 * v
    if colour[0] >= 0:
        share = 1.0
        if material >= 0:
            value = (0.299 * out[0] + 0.587 * out[1] + 0.114 * out[2]) / 0.5
        else:
            value = min((luma + 0.02) / (2 * tones.light + 0.02), 1.5)
            red, blue = albedo[0] - luma - tones.red, albedo[2] - luma - tones.blue
            apart = np.sqrt((luma / 2 - tones.light) ** 2 + red**2 + blue**2)
            share = min(max((tones.far - apart) / (tones.far - tones.near + 1e-6), 0.0), 1.0)
        for c in range(3):
            tinted = colour[c] * (0.08 + 0.92 * value)
            if value > 1.15:  # highlights run to white
                tinted += (value - 1.15) * 0.5
            out[c] = _mix(out[c], min(tinted, 1.0), share)
    for c in range(3):
        out[c] = min(max(out[c], 0.0), 1.0)
    return out


@numba.njit(cache=True, nogil=True)
def paint_points(albedo, n, p, tones, colour, material, out):
    """`paint` for points: albedo, n, p and out are float32 [N, 3]."""
    for i in range(len(albedo)):
        out[i] = paint(albedo[i], n[i], p[i], tones, colour, material)


@numba.njit(cache=True, nogil=True)
def dress(buffer, size, tones, colour, material, light, ambient, shading, backdrop, plain, out):
    """One training image from a geometry buffer.

    Args:
        buffer: uint8 [S, S, 10]; see gbuffer.draw. size: output size, a divisor of S.
        light [3], ambient, shading, plain: as in `magic3d_cli.scene.views.Views`.
        backdrop: [4, 3] corner colours, blended over the image (all equal for a plain backdrop).
        out: float32 [3, size, size], written in [-1, 1].
    """
    k = buffer.shape[0] // size
    total = np.empty(10, np.float32)
    albedo, n, p = np.empty(3, np.float32), np.empty(3, np.float32), np.empty(3, np.float32)
    for j in range(size):
        for i in range(size):
            total[:] = 0
            for jj in range(j * k, (j + 1) * k):
                for ii in range(i * k, (i + 1) * k):
                    a = np.float32(buffer[jj, ii, 9])
                    if a == 0:
                        continue
                    for c in range(3):
                        total[c] += buffer[jj, ii, c]
                        total[3 + c] += a * (np.float32(buffer[jj, ii, 3 + c]) - 128)
                        total[6 + c] += a * (np.float32(buffer[jj, ii, 6 + c]) - 128)
                    total[9] += a
            alpha = total[9] / (255 * k * k)
            lit = np.float32(1.0)
            if alpha > 0:
                length = np.sqrt(total[3] ** 2 + total[4] ** 2 + total[5] ** 2) + 1e-9
                for c in range(3):
                    albedo[c] = total[c] / total[9]
                    n[c] = total[3 + c] / length
                    p[c] = total[6 + c] / (total[9] * 127)
                albedo = paint(albedo, n, p, tones, colour, material)
                if shading > 0:
                    lambert = max(n[0] * light[0] + n[1] * light[1] + n[2] * light[2], 0.0)
                    lit = ambient + (1 - ambient) * lambert
                if shading == 2:
                    albedo[:] = 0.9
            x, y = (i + 0.5) / size, (j + 0.5) / size
            for c in range(3):
                above = _mix(backdrop[0, c], backdrop[1, c], x)
                below = _mix(backdrop[2, c], backdrop[3, c], x)
                value = _mix(above, below, y) * (1 - alpha)
                if alpha > 0:
                    value += alpha * albedo[c] * lit
                out[c, j, i] = 2 * value - 1

"""Readers of two game formats that need more than a few lines: SuperTuxKart's SPM and 0 A.D.'s PMD with its props.

Both give triangles in a right-handed world, Y up, as stored: no animation is played.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np


@dataclass
class Part:
    """Triangles under one texture: positions [F, 3, 3], uvs [F, 3, 2] with v upward, and the texture's name."""

    positions: np.ndarray
    uvs: np.ndarray
    texture: str


@dataclass
class Rig:
    """A PMD mesh in its bind pose, and where props are fastened to it: a 4x4 transform for every attach point."""

    positions: np.ndarray  # [V, 3]
    uvs: np.ndarray  # [V, 2]
    faces: np.ndarray  # [F, 3]
    points: dict[str, np.ndarray]


def read_spm(data: bytes) -> list[Part]:
    """The parts of an SPM version 1 file. Irrlicht is left-handed: z changes its sign."""
    magic, kind, has = struct.unpack_from("<2sBB", data)
    if magic != b"SP" or kind >> 3 != 1:
        raise ValueError("not an SPM version 1 file")
    skinned, (normal, colour, tangent) = kind & 7 == 1, (has & 1, has >> 1 & 1, has >> 2 & 1)
    at = 28  # past the bounding box
    (count,) = struct.unpack_from("<H", data, at)
    at += 2
    textures = []
    for _ in range(count):
        names = []
        for _ in range(2):
            size = data[at]
            names.append(data[at + 1 : at + 1 + size].decode("latin-1"))
            at += 1 + size
        textures.append(names)
    (sectors,) = struct.unpack_from("<H", data, at)
    at += 2
    parts = []
    for _ in range(sectors):
        (meshes,) = struct.unpack_from("<H", data, at)
        at += 2
        for _ in range(meshes):
            vertices, indices, material = struct.unpack_from("<IIH", data, at)
            at += 10
            first, second = textures[material]
            positions, uvs = np.empty((vertices, 3), np.float32), np.zeros((vertices, 2), np.float32)
            for v in range(vertices):  # not of one size: a white vertex stores no colour
                positions[v] = np.frombuffer(data, "<f4", 3, at)
                at += 12 + 4 * normal
                if colour:
                    at += 1 if data[at] == 128 else 4
                if first:
                    uvs[v] = np.frombuffer(data, "<f2", 2, at)
                    at += 4 + 4 * bool(second) + 4 * tangent
                at += 16 * skinned
            width = 2 if vertices > 255 else 1
            faces = np.frombuffer(data, f"<u{width}", indices, at).reshape(-1, 3).astype(np.int64)
            at += width * indices
            uvs[:, 1] = 1 - uvs[:, 1]
            parts.append(Part((positions * [1, 1, -1])[faces], uvs[faces], first))
    return parts


def read_pmd(data: bytes) -> Rig:
    """A PMD file: `PSMD`, vertices, faces, then bones (translation, rotation) and prop points fastened to them."""
    magic, version, _, count = struct.unpack_from("<4s3I", data)
    if magic != b"PSMD":
        raise ValueError("not a PMD file")
    at, sets = 16, 1
    if version >= 4:
        sets = struct.unpack_from("<I", data, at)[0]
        at += 4
    vertex = np.dtype([("p", "<f4", 3), ("n", "<f4", 3), ("uv", "<f4", (sets, 2)), ("b", "u1", 4), ("w", "<f4", 4)])
    vertices = np.frombuffer(data, vertex, count, at)
    at += vertex.itemsize * count
    (triangles,) = struct.unpack_from("<I", data, at)
    faces = np.frombuffer(data, "<u2", triangles * 3, at + 4).reshape(-1, 3)
    at += 4 + 6 * triangles
    (bones,) = struct.unpack_from("<I", data, at)
    states = [_placed(*np.frombuffer(data, "<f4", 7, at + 4 + 28 * b).reshape(-1).tolist()) for b in range(bones)]
    at += 4 + 28 * bones
    points = {"root": np.eye(4)}
    (fastened,) = struct.unpack_from("<I", data, at)
    at += 4
    for _ in range(fastened):
        (size,) = struct.unpack_from("<I", data, at)
        name = data[at + 4 : at + 4 + size].decode("latin-1")
        at += 4 + size
        place, bone = _placed(*np.frombuffer(data, "<f4", 7, at).tolist()), data[at + 28]
        at += 29
        points[name] = states[bone] @ place if bone < len(states) else place
    return Rig(vertices["p"], vertices["uv"][:, 0], faces.astype(np.int64), points)


def _placed(x: float, y: float, z: float, i: float, j: float, k: float, w: float) -> np.ndarray:
    """The 4x4 matrix of a translation and a quaternion (x, y, z, w)."""
    out = np.eye(4)
    out[:3, :3] = [
        [1 - 2 * (j * j + k * k), 2 * (i * j - k * w), 2 * (i * k + j * w)],
        [2 * (i * j + k * w), 1 - 2 * (i * i + k * k), 2 * (j * k - i * w)],
        [2 * (i * k - j * w), 2 * (j * k + i * w), 1 - 2 * (i * i + j * j)],
    ]
    out[:3, 3] = x, y, z
    return out

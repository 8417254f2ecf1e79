"""Read the free 3D models that the built-in prior learns from: Sweet Home 3D, MegaGlest and 0 A.D. files.

Every reader returns a `Model`: triangles with texture coordinates and the images they point into, as stored.
Formats: Wavefront OBJ through trimesh; MegaGlest's G3D version 4; 0 A.D.'s PMD version 4 with its actor XML.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import trimesh
from PIL import Image


@dataclass
class Model:
    """Triangles of one object. Images are uint8 [H, W, 3], row 0 at v = 1; a flat colour is a 1x1 image."""

    positions: np.ndarray  # [F, 3, 3] float32
    uvs: np.ndarray  # [F, 3, 2] float32
    texture: np.ndarray  # [F] index into images
    images: list[np.ndarray]


def merge(parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Model:
    """Join (positions [F,3,3], uvs [F,3,2], image) parts into one model."""
    if not parts:
        raise ValueError("no drawable triangles")
    return Model(
        np.concatenate([p for p, _, _ in parts]).astype(np.float32),
        np.concatenate([u for _, u, _ in parts]).astype(np.float32),
        np.repeat(np.arange(len(parts)), [len(p) for p, _, _ in parts]),
        [image for _, _, image in parts],
    )


def flat(colour: np.ndarray | list[float]) -> np.ndarray:
    """A 1x1 image of an RGB colour in [0, 1]."""
    return (np.clip(np.asarray(colour, float)[:3], 0, 1) * 255).round().astype(np.uint8).reshape(1, 1, 3)


def shrink(image: Image.Image, limit: int = 512) -> np.ndarray:
    """RGB pixels, at most `limit` wide: training views are small, larger textures only alias."""
    image = image.convert("RGB")
    image.thumbnail((limit, limit))
    return np.asarray(image)


# --- Sweet Home 3D -------------------------------------------------------------------------------------------


def catalogue(folder: Path) -> dict[int, dict[str, str]]:
    """Entries of an unpacked .sh3f furniture catalogue by number."""
    entries: dict[int, dict[str, str]] = {}
    text = (folder / "PluginFurnitureCatalog.properties").read_text("latin-1")
    for key, number, value in re.findall(r"^\s*(\w+)#(\d+)\s*=\s*(.*?)\s*$", text, re.M):
        entries.setdefault(int(number), {})[key] = value
    return entries


def read_sh3f(folder: Path, entry: dict[str, str]) -> Model:
    """The OBJ of one catalogue entry, turned by its modelRotation."""
    scene = trimesh.load(folder / entry["model"].lstrip("/"), force="scene", process=False, skip_materials=False)
    rotation = np.array(entry.get("modelRotation", "1 0 0 0 1 0 0 0 1").split(), float).reshape(3, 3)
    parts = []
    for name in scene.graph.nodes_geometry:
        transform, geometry = scene.graph[name]
        mesh = scene.geometry[geometry]
        if not hasattr(mesh, "faces") or len(mesh.faces) == 0:
            continue
        vertices = trimesh.transform_points(mesh.vertices, transform) @ rotation.T
        uv = getattr(mesh.visual, "uv", None)
        material = getattr(mesh.visual, "material", None)
        image = getattr(material, "image", None)
        if image is not None and uv is not None and len(uv) == len(vertices):
            pixels, uv = shrink(image), np.asarray(uv)[:, :2]
        else:
            colour = getattr(material, "diffuse", None)
            pixels = flat([0.7, 0.7, 0.7] if colour is None else np.asarray(colour)[:3] / 255)
            uv = np.zeros((len(vertices), 2))
        parts.append((vertices[mesh.faces], uv[mesh.faces], pixels))
    return merge(parts)


# --- MegaGlest -----------------------------------------------------------------------------------------------


def read_g3d(path: Path) -> Model:
    """Frame 0 of a G3D version 4 file."""
    data = path.read_bytes()
    magic, version, meshes, _ = struct.unpack_from("<3sBHB", data)
    if magic != b"G3D" or version != 4:
        raise ValueError(f"{path.name} is not a G3D version 4 file")
    at, parts = 7, []
    for _ in range(meshes):
        frames, vertices, indices = struct.unpack_from("<3I", data, at + 64)
        diffuse = struct.unpack_from("<3f", data, at + 76)
        _, textures = struct.unpack_from("<2I", data, at + 108)
        at += 116
        names = []
        for bit in range(32):
            if textures >> bit & 1:
                names.append((bit, data[at : at + 64].split(b"\0")[0].decode("latin-1")))
                at += 64
        position = np.frombuffer(data, "<f4", vertices * 3, at).reshape(-1, 3)
        at += 24 * frames * vertices
        uv = np.zeros((vertices, 2), np.float32)
        if textures:
            uv = np.frombuffer(data, "<f4", vertices * 2, at).reshape(-1, 2)
            at += 8 * vertices
        faces = np.frombuffer(data, "<u4", indices, at).reshape(-1, 3)
        at += 4 * indices
        image = flat(diffuse)
        if names and names[0][0] == 0 and (path.parent / names[0][1]).exists():
            image = shrink(Image.open(path.parent / names[0][1]))
        parts.append((position[faces], uv[faces], image))
    return merge(parts)


# --- 0 A.D. --------------------------------------------------------------------------------------------------


def read_actor(archive: zipfile.ZipFile, actor: str, choices: dict[str, int] | None = None) -> Model:
    """The main mesh and base texture of an actor such as "fauna/lion": the first variant of every group.

    Props (riders, saddles) are left out; positions are in the bind pose.
    """
    root = ElementTree.fromstring(archive.read(f"art/actors/{actor}.xml"))
    mesh, texture = None, None
    for group in root.iter("group"):
        variants = list(group.iter("variant"))
        if not variants:
            continue
        variant = variants[(choices or {}).get("variant", 0) % len(variants)]
        file = variant.get("file")
        nodes = [variant]
        if file:
            nodes.append(ElementTree.fromstring(archive.read(f"art/variants/{file}")))
        for node in nodes:
            found = node.find("mesh")
            mesh = found.text if found is not None and mesh is None else mesh
            for candidate in node.iter("texture"):
                if candidate.get("name") == "baseTex" and texture is None:
                    texture = candidate.get("file")
    if mesh is None:
        raise ValueError(f"{actor} names no mesh")
    stem = f"art/meshes/{mesh}"
    names = set(archive.namelist())
    pmd = next(n for n in (stem + ".cached.pmd", stem, stem.replace(".pmd", ".dae") + ".cached.pmd") if n in names)
    position, uv, faces = read_pmd(archive.read(pmd))
    image = flat([0.6, 0.6, 0.6])
    if texture:
        base = f"art/textures/skins/{texture}"
        found = next((n for n in (base, base + ".cached.dds", base.rsplit(".", 1)[0] + ".dds") if n in names), None)
        if found:
            image = shrink(Image.open(io.BytesIO(archive.read(found))))
    return merge([(position[faces], uv[faces], image)])


def read_pmd(data: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions [V, 3], texture coordinates [V, 2] and faces [F, 3] of a PMD file."""
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
    faces = np.frombuffer(data, "<u2", struct.unpack_from("<I", data, at)[0] * 3, at + 4).reshape(-1, 3)
    return vertices["p"], vertices["uv"][:, 0], faces.astype(np.int64)

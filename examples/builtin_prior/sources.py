"""Read the free 3D models that the built-in prior learns from: Sweet Home 3D, MegaGlest, 0 A.D., SuperTuxKart.

Every reader returns a `Model`: triangles with texture coordinates and the images they point into, as stored.
Formats: Wavefront OBJ through trimesh; MegaGlest's G3D version 4; 0 A.D.'s PMD version 4 with its actor XML;
SuperTuxKart's SPM.
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
from formats import read_pmd, read_spm
from PIL import Image


@dataclass
class Model:
    """Triangles of one object. Images are uint8 [H, W, 3] or, where they have holes, [H, W, 4], row 0 at v = 1; a flat

    colour is a 1x1 image.
    """

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


def shrink(image: Image.Image, limit: int = 512, holes: bool = False) -> np.ndarray:
    """RGB pixels, at most `limit` wide: training views are small, larger textures only alias.

    With `holes`, RGBA pixels of images whose alpha cuts something out, as leaves are cut out of their cards.
    """
    image = image.convert("RGBA" if holes and ("A" in image.mode or "transparency" in image.info) else "RGB")
    image.thumbnail((limit, limit))
    pixels = np.asarray(image)
    cut = pixels[..., 3] < 128 if pixels.shape[2] == 4 else np.zeros(1, bool)
    return pixels if holes and 0.02 < cut.mean() < 0.98 else pixels[..., :3]


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
            pixels, uv = shrink(image, holes=True), np.asarray(uv)[:, :2]
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
        properties, textures = struct.unpack_from("<2I", data, at + 108)
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
            image = shrink(Image.open(path.parent / names[0][1]), holes=not properties & 1)  # 1: alpha is team colour
        parts.append((position[faces], uv[faces], image))
    return merge(parts)


# --- 0 A.D. --------------------------------------------------------------------------------------------------


def read_actor(archive: zipfile.ZipFile, actor: str, choice: int = 0, props: bool = False) -> Model:
    """An actor such as "fauna/lion": the main mesh and base texture of one variant of every group.

    With `props`, also what is fastened to it (the crown of a tree, the helmet of a soldier). Positions are in the bind
    pose.
    """
    return merge(_actor_parts(archive, actor, choice, props, np.eye(4), 0))


def _actor_parts(
    archive: zipfile.ZipFile, actor: str, choice: int, props: bool, place: np.ndarray, depth: int
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    root = ElementTree.fromstring(archive.read(f"art/actors/{actor}.xml"))
    mesh, texture, fastened = None, None, {}
    for group in root.iter("group"):
        variants = list(group.iter("variant"))
        variants = [v for v in variants if props and v.get("frequency") != "0"] or variants
        if not variants:
            continue
        variant = variants[choice % len(variants)]
        nodes, file = [variant], variant.get("file")
        if file:
            nodes.append(ElementTree.fromstring(archive.read(f"art/variants/{file}")))
        for node in nodes:
            found = node.find("mesh")
            mesh = found.text if found is not None and mesh is None else mesh
            for candidate in node.iter("texture"):
                if candidate.get("name") == "baseTex" and texture is None:
                    texture = candidate.get("file")
            for prop in node.iter("prop"):
                fastened[prop.get("attachpoint")] = prop.get("actor")  # a later group's takes an earlier one's place
    if mesh is None:
        raise ValueError(f"{actor} names no mesh")
    names = archive.NameToInfo
    stem = f"art/meshes/{mesh}"
    pmd = next(n for n in (stem + ".cached.pmd", stem, stem.replace(".pmd", ".dae") + ".cached.pmd") if n in names)
    rig = read_pmd(archive.read(pmd))
    material = root.findtext("material", "")
    image = flat([0.6, 0.6, 0.6])
    if texture:
        base = f"art/textures/skins/{texture}"
        found = next((n for n in (base, base + ".cached.dds", base.rsplit(".", 1)[0] + ".dds") if n in names), None)
        if found:  # only some materials let light through; elsewhere alpha marks the player's colour
            image = shrink(Image.open(io.BytesIO(archive.read(found))), holes="basic_trans" in material)
    positions = (rig.positions @ place[:3, :3].T + place[:3, 3])[rig.faces]
    parts = [(positions, rig.uvs[rig.faces], image)]
    for point, name in fastened.items() if props and depth < 4 else ():
        if not name or "decal" in name or "particle" in name or point not in rig.points:
            continue
        try:
            fixed = name.removesuffix(".xml")
            parts += _actor_parts(archive, fixed, choice, props, place @ rig.points[point], depth + 1)
        except (KeyError, ValueError, StopIteration):
            continue  # smoke, arrows that are loaded later
    return parts


# --- SuperTuxKart --------------------------------------------------------------------------------------------


def read_stk(data: Path, name: str) -> Model:
    """An SPM file, or a library folder: the objects of its node.xml where they stand."""
    path = data / name
    if path.suffix == ".spm":
        return merge(_spm_parts(data, path))
    if (path / "kart.xml").exists():
        return _read_kart(data, path)
    parts = []
    for thing in ElementTree.parse(path / "node.xml").getroot().iter():
        model = thing.get("model")
        if thing.tag not in ("object", "static-object") or not model or thing.get("interaction") == "physicsonly":
            continue
        place = _stk_place(*(_numbers(thing.get(key, default)) for key, default in _PLACING))
        for positions, uvs, image in _spm_parts(data, path / model):
            parts.append((positions @ place[:3, :3].T + place[:3, 3], uvs, image))
    return merge(parts)


_PLACING = (("xyz", "0 0 0"), ("hpr", "0 0 0"), ("scale", "1 1 1"))


def _numbers(text: str) -> np.ndarray:
    return np.array(text.split(), float)


def _stk_place(xyz: np.ndarray, hpr: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Where an object stands, from Irrlicht's left-handed numbers: rotations about x, y, z in degrees."""
    flip = np.diag([1.0, 1.0, -1.0, 1.0])
    turn = trimesh.transformations.euler_matrix(*np.deg2rad(hpr), axes="sxyz")
    place = trimesh.transformations.translation_matrix(xyz) @ turn @ np.diag([*scale, 1.0])
    return flip @ place @ flip


def _read_kart(data: Path, path: Path) -> Model:
    """A kart with its wheels, in bind pose."""
    root = ElementTree.parse(path / "kart.xml").getroot()
    parts = _spm_parts(data, path / root.get("model-file", ""))
    for wheel in root.find("wheels") if root.find("wheels") is not None else ():
        if wheel.get("model"):
            at = _numbers(wheel.get("position", "0 0 0")) * [1, 1, -1]
            parts += [(p + at, u, image) for p, u, image in _spm_parts(data, path / wheel.get("model", ""))]
    return merge(parts)


def _spm_parts(data: Path, path: Path) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The parts of an SPM file, their textures beside it or in the common folder."""
    parts = []
    for part in read_spm(path.read_bytes()):
        image = flat([0.7, 0.7, 0.7])
        places = (path.parent, data / "textures", data / "models")
        found = next((f / part.texture for f in places if part.texture and (f / part.texture).exists()), None)
        if found:
            image = shrink(Image.open(found), holes=True)
        parts.append((part.positions, part.uvs, image))
    return parts

"""Write an asset as binary glTF 2.0 or as Wavefront OBJ.

Every file is written beside its target and renamed into place: a failed write leaves an older one whole.
"""

from __future__ import annotations

import errno
import io
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pygltflib as gltf
from jaxtyping import Float, Int, UInt8
from PIL import Image

from magic3d_cli import __version__
from magic3d_cli.asset.material import DEFAULT, Material
from magic3d_cli.errors import Magic3DError, UsageError
from magic3d_cli.run.atomic import write_atomically

SUFFIXES = (".glb", ".obj")


@dataclass(frozen=True)
class Asset:
    """A textured triangle mesh, ready to write.

    Attributes:
        positions: float32 [V, 3], +Y up, facing +Z, standing on y = 0.
        normals: float32 [V, 3], unit.
        uvs: float32 [V, 2] in [0, 1], origin at the texture's top left.
        faces: int [F, 3], counter-clockwise from outside.
        texture: uint8 [S, S, 3], display-referred base colour; row 0 is the top.
        report: what was done and measured.
        material: metallic and roughness of the whole surface.
    """

    positions: Float[np.ndarray, "V 3"]
    normals: Float[np.ndarray, "V 3"]
    uvs: Float[np.ndarray, "V 2"]
    faces: Int[np.ndarray, "F 3"]
    texture: UInt8[np.ndarray, "S S 3"]
    report: dict[str, Any] = field(default_factory=dict)
    material: Material = DEFAULT


def write(asset: Asset, path: Path | str, name: str) -> list[Path]:
    """Write by suffix and return the files written, the main one first.

    Args:
        asset: the mesh.
        path: ends in .glb, or in .obj, which brings a .mtl and a .png of the same stem.
        name: of the mesh, usually the prompt.

    Raises:
        UsageError: another suffix.
        Magic3DError: the file cannot be written (full disk, no permission); an older file is left as it was.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(
            f"Cannot write {path.name!r}: unknown format {suffix!r}.", "Use a name ending in .glb or .obj."
        )
    files = {path: glb_bytes(asset, name)} if suffix == ".glb" else obj_files(asset, path, name)
    # The main file goes last: when it is there, what it refers to is there.
    for target in reversed(files):
        _write(target, files[target])
    return list(files)


def _write(path: Path, data: bytes) -> None:
    try:
        write_atomically(path, data)
    except OSError as error:
        next_step = f"Choose another place with -o, for instance -o ~/{path.name}."
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            next_step = f"Free {len(data) / 1e6:.1f} MB there and run the same command again, or use -o elsewhere."
        raise Magic3DError(f"Could not write {path}: {error.strerror or error}.", next_step) from error


def png_bytes(texture: UInt8[np.ndarray, "S S 3"]) -> bytes:
    """The texture as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(texture).save(buffer, "PNG")
    return buffer.getvalue()


def glb_bytes(asset: Asset, name: str) -> bytes:
    """One mesh, one primitive, one opaque material with an embedded PNG base colour."""
    # The largest index of a component type is reserved for primitive restart.
    small = len(asset.positions) < 65_535
    indices = asset.faces.astype(np.uint16 if small else np.uint32).reshape(-1)
    positions, normals, uvs = (a.astype(np.float32) for a in (asset.positions, asset.normals, asset.uvs))
    blob = bytearray()
    views: list[gltf.BufferView] = []

    def append(data: bytes, target: int | None = None) -> int:
        views.append(gltf.BufferView(buffer=0, byteOffset=len(blob), byteLength=len(data), target=target))
        blob.extend(data + b"\0" * (-len(data) % 4))
        return len(views) - 1

    def accessor(array: np.ndarray, kind: str, component: int, target: int, bounds: bool) -> gltf.Accessor:
        flat = array.reshape(len(array), -1)
        return gltf.Accessor(
            bufferView=append(array.tobytes(), target),
            byteOffset=0,
            componentType=component,
            count=len(array),
            type=kind,
            min=[float(v) for v in flat.min(0)] if bounds else None,
            max=[float(v) for v in flat.max(0)] if bounds else None,
        )

    accessors = [
        accessor(positions, gltf.VEC3, gltf.FLOAT, gltf.ARRAY_BUFFER, True),
        accessor(normals, gltf.VEC3, gltf.FLOAT, gltf.ARRAY_BUFFER, False),
        accessor(uvs, gltf.VEC2, gltf.FLOAT, gltf.ARRAY_BUFFER, False),
        accessor(
            indices,
            gltf.SCALAR,
            gltf.UNSIGNED_SHORT if small else gltf.UNSIGNED_INT,
            gltf.ELEMENT_ARRAY_BUFFER,
            False,
        ),
    ]
    image = append(png_bytes(asset.texture))
    attributes = gltf.Attributes(POSITION=0, NORMAL=1, TEXCOORD_0=2)
    material = gltf.Material(
        name="baked colour",
        pbrMetallicRoughness=gltf.PbrMetallicRoughness(
            baseColorTexture=gltf.TextureInfo(index=0),
            baseColorFactor=[1.0, 1.0, 1.0, 1.0],
            metallicFactor=asset.material.metallic,  # said always: left out it means 1, a black object
            roughnessFactor=asset.material.roughness,
        ),
        alphaMode=gltf.OPAQUE,
        alphaCutoff=None,
        doubleSided=False,  # the surface is closed and wound outward
    )
    document = gltf.GLTF2(
        asset=gltf.Asset(version="2.0", generator=f"magic3d {__version__}"),
        scene=0,
        scenes=[gltf.Scene(nodes=[0])],
        nodes=[gltf.Node(mesh=0, name=name)],
        meshes=[
            gltf.Mesh(
                name=name,
                primitives=[gltf.Primitive(attributes=attributes, indices=3, material=0, mode=gltf.TRIANGLES)],
            )
        ],
        materials=[material],
        textures=[gltf.Texture(source=0, sampler=0)],
        images=[gltf.Image(bufferView=image, mimeType="image/png", name="base colour")],
        samplers=[
            gltf.Sampler(
                magFilter=gltf.LINEAR,
                minFilter=gltf.LINEAR_MIPMAP_LINEAR,
                wrapS=gltf.CLAMP_TO_EDGE,
                wrapT=gltf.CLAMP_TO_EDGE,
            )
        ],
        accessors=accessors,
        bufferViews=views,
        buffers=[gltf.Buffer(byteLength=len(blob))],
    )
    document.set_binary_blob(bytes(blob))
    return b"".join(document.save_to_bytes())


def obj_files(asset: Asset, path: Path, name: str) -> dict[Path, bytes]:
    """The OBJ, its material library and its texture, as bytes by path.

    OBJ's texture origin is the bottom left, so v is flipped, here and nowhere else. Companions have no blanks
    in their names, which many readers take for separators.
    """
    stem = re.sub(r"\s+", "_", path.stem)
    library, image = path.with_name(f"{stem}.mtl"), path.with_name(f"{stem}.png")
    title = " ".join(name.split()) or "object"
    lines = [f"# magic3d {__version__}", f"mtllib {library.name}", f"o {title}"]
    lines += ["v {:.7g} {:.7g} {:.7g}".format(*p) for p in asset.positions.tolist()]
    lines += [f"vt {u:.7g} {1 - v:.7g}" for u, v in asset.uvs.tolist()]
    lines += ["vn {:.6f} {:.6f} {:.6f}".format(*n) for n in asset.normals.tolist()]
    lines += ["usemtl baked", "s 1"]
    lines += ["f {0}/{0}/{0} {1}/{1}/{1} {2}/{2}/{2}".format(*f) for f in (asset.faces + 1).tolist()]
    material = ["newmtl baked", *_surface(asset), f"map_Kd {image.name}"]
    return {
        path: ("\n".join(lines) + "\n").encode(),
        library: ("\n".join(material) + "\n").encode(),
        image: png_bytes(asset.texture),
    }


def _surface(asset: Asset) -> list[str]:
    """MTL lines of the material: Pm and Pr for readers that know them, Phong's terms for older ones.

    Ns is what Blender's importer turns back into the roughness, 1 - sqrt(Ns / 1000). Ks makes a Phong highlight as high
    as that of the GGX distribution, F0 / (4 alpha^2), with 4 % reflectance; a metal's has the colour of the metal.
    Without Ka: Blender's older importer reads Ka 0 as "no metal".
    """
    metallic, roughness = asset.material.metallic, asset.material.roughness
    highlight = np.full(3, min(0.04 / (4 * max(roughness, 0.1) ** 4), 0.5))
    metal = asset.texture.reshape(-1, 3).mean(0) / 255
    specular = highlight * (1 - metallic) + metal * metallic
    return [
        "Kd 1 1 1",  # multiplies the texture; anything less would darken it
        "Ks {:.3f} {:.3f} {:.3f}".format(*specular),
        f"Ns {1000 * (1 - roughness) ** 2:.4g}",
        "d 1",
        f"illum {3 if metallic else 2}",
        f"Pm {metallic:g}",
        f"Pr {roughness:g}",
    ]

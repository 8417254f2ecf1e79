"""Binary glTF 2.0: everything in one file."""

from __future__ import annotations

import numpy as np
import pygltflib as gltf

from magic3d_cli import __version__
from magic3d_cli.asset.asset import Asset
from magic3d_cli.asset.formats.common import png_bytes


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
        name=name,
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
        asset=gltf.Asset(
            version="2.0",
            generator=f"magic3d {__version__}",
            copyright=_credit(asset),
            extras=asset.about,
        ),
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
        images=[gltf.Image(bufferView=image, mimeType="image/png", name=f"{name}, base colour")],
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


def _credit(asset: Asset) -> str | None:
    """What the asset was made with, and under which licence that is; no claim of ours on it."""
    prior, licence = (asset.about.get(key) for key in ("prior", "prior_licence"))
    if not prior:
        return None
    return f"Made with magic3d and the prior {prior}" + (f", whose licence is {licence}" if licence else "")

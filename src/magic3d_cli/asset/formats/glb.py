"""Binary glTF 2.0: everything in one file."""

from __future__ import annotations

import numpy as np
import pygltflib as gltf
from jaxtyping import UInt8

from magic3d_cli.asset.asset import Asset
from magic3d_cli.asset.formats.common import png_bytes
from magic3d_cli.version import __version__


def glb_bytes(asset: Asset, name: str) -> bytes:
    """One mesh, one primitive, one opaque material with an embedded PNG base colour, and further textures."""
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
    attributes = gltf.Attributes(POSITION=0, NORMAL=1, TEXCOORD_0=2)
    if asset.normal_map is not None and asset.tangents is not None:
        attributes.TANGENT = len(accessors)
        tangents = asset.tangents.astype(np.float32)
        accessors.append(accessor(tangents, gltf.VEC4, gltf.FLOAT, gltf.ARRAY_BUFFER, False))
    images = {"base colour": asset.texture}
    if asset.occlusion is not None or asset.surface is not None:
        images["occlusion, roughness, metallic"] = _packed(asset)
    if asset.normal_map is not None:
        images["normals"] = asset.normal_map
    place = {kind: number for number, kind in enumerate(images)}
    packed = place.get("occlusion, roughness, metallic")
    material = gltf.Material(
        name=name,
        pbrMetallicRoughness=gltf.PbrMetallicRoughness(
            baseColorTexture=gltf.TextureInfo(index=0),
            baseColorFactor=[1.0, 1.0, 1.0, 1.0],
            # Said always: left out it means 1, a black object. Where a texture has the values, factors multiply it.
            metallicFactor=asset.material.metallic if packed is None else 1.0,
            roughnessFactor=asset.material.roughness if packed is None else 1.0,
            metallicRoughnessTexture=None if packed is None else gltf.TextureInfo(index=packed),
        ),
        occlusionTexture=None if asset.occlusion is None else gltf.OcclusionTextureInfo(index=packed),
        normalTexture=gltf.NormalMaterialTexture(index=place["normals"]) if "normals" in place else None,
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
        textures=[gltf.Texture(source=number, sampler=0) for number in place.values()],
        images=[
            gltf.Image(bufferView=append(png_bytes(image)), mimeType="image/png", name=f"{name}, {kind}")
            for kind, image in images.items()
        ],
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


def _packed(asset: Asset) -> UInt8[np.ndarray, "S S 3"]:
    """Occlusion in red, roughness in green, metallic in blue, as glTF reads one texture for all three."""
    side = asset.texture.shape[:2]
    occlusion = np.full(side, 255, np.uint8) if asset.occlusion is None else asset.occlusion
    factors = np.rint([255 * asset.material.roughness, 255 * asset.material.metallic]).astype(np.uint8)
    surface = np.broadcast_to(factors, (*side, 2)) if asset.surface is None else asset.surface
    return np.concatenate([occlusion[..., None], surface], 2)


def _credit(asset: Asset) -> str | None:
    """What the asset was made with, and under which licence that is; no claim of ours on it."""
    prior, licence = (asset.about.get(key) for key in ("prior", "prior_licence"))
    if not prior:
        return None
    return f"Made with magic3d and the prior {prior}" + (f", whose licence is {licence}" if licence else "")

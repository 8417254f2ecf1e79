"""USDZ: a layer of USD in its text form and its texture, in an uncompressed archive that readers map into memory.

Written as text, without the USD library (29 MB): the layer holds one mesh and one material. Layout by the USDZ
specification 1.3: stored, not compressed, each file's data at a multiple of 64 bytes, the layer first.
"""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np

from magic3d_cli.asset.asset import Asset
from magic3d_cli.asset.formats.common import identifier, png_bytes
from magic3d_cli.version import __version__

_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest of the format: the same asset gives the same bytes
_TEXTURE, _OCCLUSION, _NORMALS, _ROUGHNESS, _METALLIC = (
    f"textures/{name}.png" for name in ("base_colour", "occlusion", "normals", "roughness", "metallic")
)
_ALIGNMENT, _ZIP_HEADER = 64, 30  # bytes; of a local file header before the name
_PADDING_ID = 0x1986  # of the extra field that holds the padding, as Pixar's own writer has it


def usdz_bytes(asset: Asset, name: str) -> bytes:
    """The file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path, data in (("model.usda", _layer(asset, name).encode()), *_images(asset).items()):
            entry = zipfile.ZipInfo(path, _DATE)
            begin = buffer.tell() + _ZIP_HEADER + len(path) + 4
            padding = -begin % _ALIGNMENT
            entry.extra = np.array([_PADDING_ID, padding], "<u2").tobytes() + bytes(padding)
            archive.writestr(entry, data)
    return buffer.getvalue()


def _images(asset: Asset) -> dict[str, bytes]:
    images = {_TEXTURE: asset.texture, _OCCLUSION: asset.occlusion, _NORMALS: asset.normal_map}
    if asset.surface is not None:
        images |= {_ROUGHNESS: asset.surface[..., 0], _METALLIC: asset.surface[..., 1]}
    return {path: png_bytes(image) for path, image in images.items() if image is not None}


def _maps(asset: Asset, root: str) -> tuple[str, str]:
    """Inputs of the surface that differ from asset to asset, and the shaders of all textures."""
    inputs, shaders = "", _map(root, "base_colour", _TEXTURE, "sRGB", "float3 outputs:rgb")
    for name, factor, path in (
        ("metallic", asset.material.metallic, _METALLIC),
        ("roughness", asset.material.roughness, _ROUGHNESS),
    ):
        if asset.surface is None:
            inputs += f"            float inputs:{name} = {factor:g}\n"
        else:
            inputs += f"            float inputs:{name}.connect = </{root}/material/{name}.outputs:r>\n"
            shaders += _map(root, name, path, "raw", "float outputs:r")
    if asset.occlusion is not None:
        inputs += f"            float inputs:occlusion.connect = </{root}/material/occlusion.outputs:r>\n"
        shaders += _map(root, "occlusion", _OCCLUSION, "raw", "float outputs:r")
    if asset.normal_map is not None:
        inputs += f"            normal3f inputs:normal.connect = </{root}/material/normals.outputs:rgb>\n"
        # From 0..1 to -1..1, as the specification of UsdPreviewSurface asks for.
        ranged = ("float4 inputs:scale = (2, 2, 2, 1)", "float4 inputs:bias = (-1, -1, -1, 0)")
        shaders += _map(root, "normals", _NORMALS, "raw", *ranged, "float3 outputs:rgb")
    return inputs, shaders


def _map(root: str, name: str, path: str, space: str, *lines: str) -> str:
    """The shader that reads a texture, of a colour space ("raw" or "sRGB"), with further lines."""
    more = "".join(f"            {line}\n" for line in lines)
    return f"""
        def Shader "{name}"
        {{
            uniform token info:id = "UsdUVTexture"
            asset inputs:file = @{path}@
            token inputs:sourceColorSpace = "{space}"
            float2 inputs:st.connect = </{root}/material/st.outputs:result>
            token inputs:wrapS = "clamp"
            token inputs:wrapT = "clamp"
{more}        }}
"""


def _layer(asset: Asset, name: str) -> str:
    first, point = asset.shared()
    root = identifier(name)
    low, high = asset.positions.min(0), asset.positions.max(0)
    texture_coordinates = np.stack([asset.uvs[:, 0], 1 - asset.uvs[:, 1]], 1)  # origin bottom left
    about = "".join(f"        string {key} = {_quoted(value)}\n" for key, value in asset.about.items())
    inputs, shaders = _maps(asset, root)
    return f"""#usda 1.0
(
    defaultPrim = "{root}"
    doc = "magic3d {__version__}"
    metersPerUnit = 1
    upAxis = "Y"
    customLayerData = {{
{about}    }}
)

def Xform "{root}" (
    kind = "component"
)
{{
    def Mesh "mesh" (
        prepend apiSchemas = ["MaterialBindingAPI"]
    )
    {{
        uniform token subdivisionScheme = "none"
        uniform token orientation = "rightHanded"
        float3[] extent = [{_tuple(low)}, {_tuple(high)}]
        int[] faceVertexCounts = [{", ".join(["3"] * len(asset.faces))}]
        int[] faceVertexIndices = [{_list(point[asset.faces])}]
        point3f[] points = [{_tuples(asset.positions[first])}]
        normal3f[] normals = [{_tuples(asset.normals[first])}] (
            interpolation = "vertex"
        )
        texCoord2f[] primvars:st = [{_tuples(texture_coordinates)}] (
            interpolation = "faceVarying"
        )
        int[] primvars:st:indices = [{_list(asset.faces)}]
        rel material:binding = </{root}/material>
    }}

    def Material "material"
    {{
        token outputs:surface.connect = </{root}/material/surface.outputs:surface>

        def Shader "surface"
        {{
            uniform token info:id = "UsdPreviewSurface"
            color3f inputs:diffuseColor.connect = </{root}/material/base_colour.outputs:rgb>
{inputs}            token outputs:surface
        }}
{shaders}
        def Shader "st"
        {{
            uniform token info:id = "UsdPrimvarReader_float2"
            string inputs:varname = "st"
            float2 outputs:result
        }}
    }}
}}
"""


def _tuple(numbers: np.ndarray) -> str:
    return "(" + ", ".join(f"{number:.7g}" for number in numbers.tolist()) + ")"


def _tuples(rows: np.ndarray) -> str:
    return ", ".join(_tuple(row) for row in rows)


def _list(numbers: np.ndarray) -> str:
    return ", ".join(map(str, numbers.reshape(-1).tolist()))


def _quoted(value: object) -> str:
    """A string of a layer: JSON's escapes are read alike."""
    return json.dumps(str(value), ensure_ascii=False)

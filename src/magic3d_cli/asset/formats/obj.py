"""Wavefront OBJ with its material library and texture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from magic3d_cli.asset.asset import Asset
from magic3d_cli.asset.formats.common import one_line, png_bytes
from magic3d_cli.asset.names import KINDS, obj_stem
from magic3d_cli.version import __version__


def obj_files(asset: Asset, path: Path, name: str) -> dict[Path, bytes]:
    """The OBJ, its material library and its texture, as bytes by path.

    OBJ's texture origin is the bottom left, so v is flipped, here and nowhere else. Positions and normals are shared by
    the two sides of a texture seam, so that the mesh is as closed as the surface.
    """
    stem = obj_stem(path)
    library, image = path.with_name(f"{stem}.mtl"), path.with_name(f"{stem}.png")
    first, point = asset.shared()
    lines = [f"# magic3d {__version__}", f"mtllib {library.name}", f"o {one_line(name)}"]
    lines += ["v {:.7g} {:.7g} {:.7g}".format(*p) for p in asset.positions[first].tolist()]
    lines += [f"vt {u:.7g} {1 - v:.7g}" for u, v in asset.uvs.tolist()]
    lines += ["vn {:.6f} {:.6f} {:.6f}".format(*n) for n in asset.normals[first].tolist()]
    lines += [f"usemtl {stem}", "s 1"]
    corners = np.stack([point[asset.faces], asset.faces, point[asset.faces]], 2).reshape(-1, 9) + 1
    lines += ["f {}/{}/{} {}/{}/{} {}/{}/{}".format(*corner) for corner in corners.tolist()]
    material = [f"newmtl {stem}", *_surface(asset), f"map_Kd {image.name}"]
    normals, roughness, metallic = (path.with_name(f"{stem}_{kind}.png") for kind in KINDS)
    more = {}
    if asset.normal_map is not None:
        material += [f"norm {normals.name}", f"map_Bump -bm 1 {normals.name}"]
        more[normals] = png_bytes(asset.normal_map)
    if asset.surface is not None:
        material += [f"map_Pr {roughness.name}", f"map_Pm {metallic.name}"]
        more |= {roughness: png_bytes(asset.surface[..., 0]), metallic: png_bytes(asset.surface[..., 1])}
    return {
        path: ("\n".join(lines) + "\n").encode(),
        library: ("\n".join(material) + "\n").encode(errors="replace"),
        image: png_bytes(asset.texture),
        **more,
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

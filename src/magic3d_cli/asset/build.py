"""From an extracted surface and its colour field to a finished asset."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8

from magic3d_cli.asset.asset import Asset
from magic3d_cli.asset.bake import Albedo, Texels, bake, evaluate, to_bytes
from magic3d_cli.asset.check import FileMesh, measure, sample
from magic3d_cli.asset.clean import clean
from magic3d_cli.asset.covers import Cover, Part, as_baked, parts_of, surface_bytes
from magic3d_cli.asset.flatten import flatten
from magic3d_cli.asset.material import DEFAULT, Material
from magic3d_cli.asset.mesh import Faces, Vertices, at_samples, surface_samples, unit, vertex_normals
from magic3d_cli.asset.normal_map import bake_normals, tangent_frames
from magic3d_cli.asset.occlusion import visibility
from magic3d_cli.asset.simplify import simplify
from magic3d_cli.asset.unwrap import unwrap
from magic3d_cli.asset.uv_raster import own_texels
from magic3d_cli.settings import AssetSettings

Stages = tuple[Callable[[str], None], Callable[[str], None]]
"""Told the name of a stage as it begins, and as it ends."""
FEWEST = 50
"""Triangles below which no simpler level is made."""
SMALLEST_TEXTURE = 256
"""Pixels along the side of a simpler level's texture, at least, unless the first level's is smaller."""


def build_asset(
    vertices: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    albedo: Albedo,
    settings: AssetSettings,
    on_stage: Callable[[str], None] | None = None,
    device: torch.device | str = "cpu",
    material: Material = DEFAULT,
    covers: Sequence[Cover] = (),
    about: dict[str, Any] | None = None,
    usual: tuple[str, float] | None = None,
    keep_shape: bool = False,
) -> Asset:
    """Clean, simplify, unwrap and bake.

    Args:
        vertices, faces: the surface in world space (+Y up, facing +Z, within [-1, 1]^3).
        albedo: colours in [0, 1] at world positions; called on `device`, without gradients.
        settings: face count, texture size, padding, time limit of the unwrap, levels and further textures.
        on_stage: told "clean", "simplify", "unwrap", "bake", "ambient occlusion" and "normal map" as each begins, and
            "LOD1" and so on, which are all that of a simpler level.
        device: where `albedo` wants its points.
        material: of the surface, for instance `material.of_prompt`'s.
        covers: further materials that lie over it in places; see `covers.parts_of`.
        about: where the asset comes from; see `Asset`.
        keep_shape: whether walls that wave are left as they are, as a mesh of a person's own is.
        usual: the thing and its usual longest side in metres (`size.usual_size`), for settings without a height.

    Returns:
        The asset, moved so that it stands on y = 0 above the origin and scaled to the height or the usual size; without
        either, the scale is kept. Its report holds counts, the measures of `check.measure`, `bake_psnr` (texture
        against field, in dB) and seconds. Simpler levels stand in the same place at the same scale.

    Raises:
        Collapsed: there is no surface.
    """
    seconds: dict[str, float] = {}
    clock = time.perf_counter()

    def begin(stage: str) -> None:
        nonlocal clock
        clock = time.perf_counter()
        if on_stage is not None:
            on_stage(stage)

    def end(stage: str) -> None:
        seconds[stage] = round(seconds.get(stage, 0.0) + time.perf_counter() - clock, 3)

    begin("clean")
    whole = clean(vertices, faces)
    end("clean")
    begin("simplify")
    points, triangles = simplify(*whole[:2], settings.faces)
    points = points if keep_shape else flatten(points, triangles)
    end("simplify")
    face, weights = surface_samples(points, triangles, 60_000)
    seen = at_samples(points, triangles, face, weights)
    facing = at_samples(vertex_normals(points, triangles), triangles, face, weights)
    parts = parts_of(material, covers, seen, device)
    albedo = as_baked(albedo, parts, seen, unit(facing), device)
    material = parts[0].material
    scale, size = _scale(points, settings.height, usual)
    origin = standing_point(points)
    size |= {"scale": scale, "origin": [round(float(x), 6) for x in origin]}
    given = {"input_faces": len(faces), "repairs": whole[2], "material": asdict(material), "size": size}
    if len(parts) > 1:
        given["materials"] = [asdict(part.material) | {"share": round(part.size, 3)} for part in parts]

    def finished(mesh: tuple[Vertices, Faces], side: int, stages: Stages) -> Asset:
        padding = max(min(2, settings.padding), settings.padding * side // settings.texture_size)
        sized = replace(settings, texture_size=side, padding=padding)
        return _dressed(mesh, whole[:2], sized, albedo, parts, device, stages, origin, scale)

    asset = finished((points, triangles), settings.texture_size, (begin, end))
    levels = []
    side = settings.texture_size
    for number in range(1, settings.lod + 1):
        target, side = len(triangles) // 2, max(side // 2, min(side, SMALLEST_TEXTURE))
        if target < FEWEST:
            break
        begin(f"LOD{number}")
        points, triangles = simplify(points, triangles, target)
        level = finished((points, triangles), side, (lambda stage: None, lambda stage: None))
        levels.append(replace(level, material=material, about=about or {}))
        end(f"LOD{number}")
    report = given | asset.report | {"seconds": seconds}
    if settings.lod:
        report["levels"] = [{key: level.report[key] for key in _OF_A_LEVEL} for level in levels]
    return replace(asset, report=report, material=material, about=about or {}, levels=tuple(levels))


_OF_A_LEVEL = ("faces", "texture_size", "atlas", "texture_used", "uv_overlap", "seam_error", "bake_psnr", "watertight")


def _dressed(
    mesh: tuple[Vertices, Faces],
    whole: tuple[Vertices, Faces],
    settings: AssetSettings,
    albedo: Albedo,
    parts: Sequence[Part],
    device: torch.device | str,
    stages: Stages,
    origin: Float[np.ndarray, "3"],
    scale: float,
) -> Asset:
    """A simplified mesh with its textures, moved and scaled; what is hidden or finer is seen on the `whole` mesh."""
    begin, end = stages
    points, triangles = mesh
    begin("unwrap")
    # Normals before the seams split the vertices, or every seam would show in the shading.
    normals = vertex_normals(points, triangles)
    layout = unwrap(points, triangles, normals, settings.texture_size, settings.padding, settings.unwrap_seconds)
    end("unwrap")
    begin("bake")
    positions, normals = points[layout.vertex], normals[layout.vertex]
    ownership = own_texels(layout.uvs, layout.faces, layout.size)
    texels = Texels(layout.faces, ownership, layout.uvs)
    texture = bake(positions, texels, albedo, device)
    occlusion = normal_map = tangents = surface = None
    if len({(part.material.roughness, part.material.metallic) for part in parts}) > 1:
        surface = texels.image(lambda places: surface_bytes(parts, places, device), positions)
    end("bake")
    if settings.occlusion:

        def sky(places: Float[np.ndarray, "N 3"], facing: Float[np.ndarray, "N 3"]) -> UInt8[np.ndarray, "N 1"]:
            return to_bytes(visibility(points, triangles, places, unit(facing)))[:, None]

        begin("ambient occlusion")
        occlusion = texels.image(sky, positions, normals)[..., 0]
        end("ambient occlusion")
    if settings.normal_map:
        begin("normal map")
        tangents = tangent_frames(positions, normals, layout.uvs, layout.faces)
        normal_map = bake_normals(positions, normals, tangents, texels, *whole)
        end("normal map")

    report: dict[str, Any] = {"atlas": layout.method} | ({"atlas_reason": layout.reason} if layout.reason else {})
    mesh_in_file = FileMesh(positions, layout.uvs, layout.faces, texture)
    report |= measure(mesh_in_file) | {"bake_psnr": bake_psnr(mesh_in_file, albedo, device)}
    return Asset(
        positions=((positions - origin) * scale).astype(np.float32),
        normals=normals.astype(np.float32),
        uvs=layout.uvs.astype(np.float32),
        faces=layout.faces,
        texture=texture,
        report=report,
        point=layout.vertex,
        surface=surface,
        occlusion=occlusion,
        normal_map=normal_map,
        tangents=None if tangents is None else tangents.astype(np.float32),
    )


def _scale(
    positions: Float[np.ndarray, "V 3"], height: float | None, usual: tuple[str, float] | None
) -> tuple[float, dict[str, Any]]:
    """The factor to metres, and the report of it."""
    extent = np.ptp(positions, axis=0)
    scale, source = 1.0, {"from": "kept"}
    if height is not None:
        scale, source = height / max(float(extent[1]), 1e-9), {"from": "height"}
    elif usual is not None:
        scale, source = usual[1] / float(extent.max()), {"from": "usual", "of": usual[0]}
    return scale, {"metres": [round(float(side), 4) for side in extent * scale], **source}


def standing_point(positions: Float[np.ndarray, "V 3"]) -> Float[np.ndarray, "3"]:
    """The point that becomes the origin: lowest in y, middle of the bounding box in x and z."""
    low, high = positions.min(0), positions.max(0)
    return np.array([(low[0] + high[0]) / 2, low[1], (low[2] + high[2]) / 2])


def bake_psnr(mesh: FileMesh, albedo: Albedo, device: torch.device | str, count: int = 20_000) -> float:
    """Peak signal-to-noise ratio, in dB, of the texture against the field at random points of the surface."""
    face, weights = surface_samples(mesh.positions, mesh.faces, count)
    points = at_samples(mesh.positions, mesh.faces, face, weights)
    seen = sample(mesh.texture, at_samples(mesh.uvs, mesh.faces, face, weights))
    error = float(((seen - evaluate(albedo, points, device).clip(0, 1)) ** 2).mean())
    return round(-10 * float(np.log10(max(error, 1e-10))), 2)

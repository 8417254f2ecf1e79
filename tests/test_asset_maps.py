"""Ambient occlusion, normal maps and simpler levels: right where the answer is known, valid in the files."""

from __future__ import annotations

import io
import itertools
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pygltflib
import pytest
import trimesh
from asset_shapes import colours
from PIL import Image

from magic3d_cli.asset.asset import Asset
from magic3d_cli.asset.build import build_asset
from magic3d_cli.asset.check import read_mesh, sample
from magic3d_cli.asset.material import of_prompt
from magic3d_cli.asset.mesh import surface_samples, unit
from magic3d_cli.asset.occlusion import visibility
from magic3d_cli.asset.write import write
from magic3d_cli.settings import AssetSettings

HERE = Path(__file__).parent


def rippled(points: np.ndarray) -> np.ndarray:
    """Points of the unit sphere moved along their radius, in waves that 500 triangles cannot follow."""
    return points * (0.8 + 0.015 * np.sin(18 * points).sum(1, keepdims=True))


@pytest.fixture(scope="module")
def asset() -> Asset:
    mesh = trimesh.creation.icosphere(5)
    settings = AssetSettings(faces=600, texture_size=512, lod=2, occlusion=True, normal_map=True)
    return build_asset(rippled(mesh.vertices), mesh.faces, colours, settings, material=of_prompt("a steel ball"))


@pytest.fixture(scope="module")
def glb(asset, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("maps") / "ball.glb"
    assert [file.name for file in write(asset, path, "ball")] == ["ball.glb", "ball_LOD1.glb", "ball_LOD2.glb"]
    return path


def image_of(document: pygltflib.GLTF2, texture: int) -> np.ndarray:
    view = document.bufferViews[document.images[document.textures[texture].source].bufferView]
    blob = document.binary_blob()
    return np.asarray(Image.open(io.BytesIO(blob[view.byteOffset : view.byteOffset + view.byteLength])))


def test_a_ball_sees_the_whole_sky_and_the_inside_of_a_bowl_does_not():
    ball = trimesh.creation.icosphere(3)
    seen = visibility(ball.vertices, ball.faces, ball.vertices, ball.vertices, 32)
    assert seen.min() > 0.97
    # The bottom of a cylinder's inside, of radius 1 and depth 1, sees sin^2(45 degrees): half of the sky.
    tube = trimesh.creation.annulus(r_min=1.0, r_max=1.01, height=2.0, sections=96)  # its hole is the bowl
    floor = trimesh.creation.cylinder(radius=1.0, height=0.02, sections=96)
    both: Any = trimesh.util.concatenate([tube, floor])
    middle = visibility(both.vertices, both.faces, np.array([[0, 0, 0.01]]), np.array([[0, 0, 1.0]]), 500, 128)
    assert middle[0] == pytest.approx(0.5, abs=0.03)


def test_the_normal_map_restores_what_simplifying_took_away(asset, glb):
    mesh, document = read_mesh(glb), pygltflib.GLTF2().load(str(glb))
    face, weights = surface_samples(mesh.positions, mesh.faces, 20_000)
    corners = mesh.faces[face]

    def between(values):
        return (values[corners] * weights).sum(1)

    texture = image_of(document, document.materials[0].normalTexture.index)
    local = sample(texture, between(mesh.uvs)) * 2 - 1
    normal, tangent = unit(between(asset.normals)), between(asset.tangents)
    side = np.sign(tangent[:, 3:])
    tangent = unit(tangent[:, :3])
    shown = unit(local[:, :1] * tangent + local[:, 1:2] * np.cross(normal, tangent) * side + local[:, 2:] * normal)

    fine = trimesh.creation.icosphere(6)
    true = trimesh.Trimesh(rippled(fine.vertices), fine.faces, process=False)
    points = between(mesh.positions) / asset.report["size"]["scale"] + asset.report["size"]["origin"]
    radial = unit(points)
    nearest = np.argmax(radial[:4000] @ fine.vertices.T, axis=1)
    wanted = true.vertex_normals[nearest]
    without, with_map = (
        np.degrees(np.arccos(np.clip((n[:4000] * wanted).sum(1), -1, 1))).mean() for n in (normal, shown)
    )
    assert with_map < 0.35 * without and with_map < 3.5


def test_a_file_has_occlusion_roughness_and_metal_in_one_texture_and_tangents_for_its_normals(asset, glb):
    document = pygltflib.GLTF2().load(str(glb))
    material = document.materials[0]
    assert material.occlusionTexture.index == material.pbrMetallicRoughness.metallicRoughnessTexture.index
    packed = image_of(document, material.occlusionTexture.index)
    np.testing.assert_array_equal(packed[..., 0], asset.occlusion)
    assert (packed[..., 1] == round(255 * asset.material.roughness)).all() and (packed[..., 2] == 255).all()
    assert material.pbrMetallicRoughness.metallicFactor == material.pbrMetallicRoughness.roughnessFactor == 1
    assert document.meshes[0].primitives[0].attributes.TANGENT is not None


def test_each_level_is_closed_has_half_the_triangles_and_stands_in_the_same_place(asset):
    counts = [len(asset.faces), *(len(level.faces) for level in asset.levels)]
    assert all(0.8 * one / 2 <= other <= one / 2 for one, other in itertools.pairwise(counts))
    assert [level["watertight"] for level in asset.report["levels"]] == [True, True]
    for level in asset.levels:
        assert level.report["bake_psnr"] > 35 and level.normal_map is not None and level.occlusion is not None
        np.testing.assert_allclose(np.ptp(level.positions, axis=0), np.ptp(asset.positions, axis=0), rtol=0.06)
        assert abs(level.positions[:, 1].min()) < 0.03 * np.ptp(asset.positions[:, 1])


def test_there_are_no_levels_below_a_handful_of_triangles():
    mesh = trimesh.creation.box((1, 1, 1)).subdivide()
    made = build_asset(mesh.vertices, mesh.faces, colours, AssetSettings(texture_size=128, lod=6))
    assert len(made.levels) == 0 and made.report["levels"] == []


def test_obj_and_usdz_have_the_maps_that_they_can_hold(asset, tmp_path):
    files = write(asset, tmp_path / "ball.obj", "ball")
    assert (tmp_path / "ball_normal.png") in files and (tmp_path / "ball_LOD2.obj") in files
    assert "norm ball_normal.png" in (tmp_path / "ball.mtl").read_text()
    pxr = pytest.importorskip("pxr.Usd")
    write(asset, tmp_path / "ball.usdz", "ball")
    stage = pxr.Stage.Open(str(tmp_path / "ball.usdz"))
    surface = stage.GetPrimAtPath("/ball/material/surface")
    assert surface.GetAttribute("inputs:normal").HasAuthoredConnections()
    assert surface.GetAttribute("inputs:occlusion").HasAuthoredConnections()


def test_the_validator_finds_nothing_in_files_with_all_maps(glb):
    node = shutil.which("node")
    assert node, "Node.js is needed to run the Khronos glTF validator"
    command = [node, str(HERE / "validate_gltf.mjs"), str(glb), str(glb.with_name("ball_LOD2.glb"))]
    reports = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    for report in reports:
        assert report["issues"]["numErrors"] == report["issues"]["numWarnings"] == 0, report["issues"]

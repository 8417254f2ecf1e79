"""What is written opens elsewhere, looks right there, and a failed write harms nothing."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pygltflib
import pytest
import torch
import trimesh
from asset_shapes import bumpy_torus, colours
from PIL import Image

from magic3d_cli.asset.build import build_asset
from magic3d_cli.asset.check import check
from magic3d_cli.asset.preview import render_glb
from magic3d_cli.asset.write import write
from magic3d_cli.errors import Magic3DError, UsageError
from magic3d_cli.scene.views import DIFFUSE, turntable
from magic3d_cli.settings import AssetSettings

SHIFT = (0.1, 0.2, 0.3)
TESTS = Path(__file__).parent
NAME = 'a "metal" dragon, größer \N{SNOWMAN}'


@pytest.fixture(scope="module")
def asset():
    vertices, faces = bumpy_torus(20)
    return build_asset(vertices + SHIFT, faces, colours, AssetSettings(faces=2000, texture_size=512, unwrap_seconds=60))


@pytest.fixture(scope="module")
def files(asset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("asset")
    return {suffix: write(asset, folder / f"thing.{suffix}", NAME) for suffix in ("glb", "obj")}


def khronos(*paths: Path) -> list[dict[str, Any]]:
    node = shutil.which("node")
    assert node, "Node.js is needed to run the Khronos glTF validator"
    assert (TESTS / "node_modules" / "gltf-validator").is_dir(), "run `npm ci` in tests/ first"
    result = subprocess.run([node, TESTS / "validate_gltf.mjs", *paths], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def first_hits(origins: np.ndarray, directions: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Distance [R] along each ray to the nearest triangle or infinity (Moeller and Trumbore 1997)."""
    a, ab, ac = triangles[:, 0], triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    nearest = np.full(len(origins), np.inf)
    for i, (origin, direction) in enumerate(zip(origins, directions, strict=True)):
        p = np.cross(direction, ac)
        scale = 1 / np.where((det := (ab * p).sum(1)) == 0, np.nan, det)
        u = ((origin - a) * p).sum(1) * scale
        q = np.cross(origin - a, ab)
        v = (direction * q).sum(1) * scale
        t = (ac * q).sum(1) * scale
        nearest[i] = t[(u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0)].min(initial=np.inf)
    return nearest


def test_the_khronos_validator_finds_nothing_to_say(asset, files, tmp_path):
    # More than 65,534 vertices need 32-bit indices.
    copies = 66_000 // len(asset.positions) + 1
    large = replace(
        asset,
        positions=np.tile(asset.positions, (copies, 1)),
        normals=np.tile(asset.normals, (copies, 1)),
        uvs=np.tile(asset.uvs, (copies, 1)),
        faces=np.concatenate([asset.faces + i * len(asset.positions) for i in range(copies)]),
    )
    (wide,) = write(large, tmp_path / "wide.glb", "")
    for report in khronos(files["glb"][0], wide):
        issues = report["issues"]
        assert (issues["numErrors"], issues["numWarnings"], issues["numInfos"]) == (0, 0, 0), issues["messages"]


def test_a_glb_is_one_matt_named_primitive_with_explicit_material(asset, files):
    document = pygltflib.GLTF2().load(str(files["glb"][0]))
    (mesh,) = document.meshes
    (primitive,) = mesh.primitives
    assert mesh.name == NAME
    assert document.asset.generator.startswith("magic3d")
    (material,) = document.materials
    surface = material.pbrMetallicRoughness
    assert surface.metallicFactor == 0 and surface.roughnessFactor == 0.8 and not material.doubleSided
    assert document.images[0].mimeType == "image/png"
    assert all(view.byteOffset % 4 == 0 for view in document.bufferViews)
    position = document.accessors[primitive.attributes.POSITION]
    assert position.min == asset.positions.min(0).tolist() and position.max == asset.positions.max(0).tolist()


def test_the_object_stands_on_its_feet_above_the_origin(files):
    low, high = trimesh.load(files["glb"][0], force="mesh").bounds
    assert low[1] == 0
    np.testing.assert_allclose((low + high)[[0, 2]], 0, atol=1e-6)
    assert 1.5 < (high - low).max() < 2  # scale is kept


@pytest.mark.parametrize("suffix", ["glb", "obj"])
def test_a_stranger_reads_back_the_measured_mesh(asset, files, suffix):
    found = check(files[suffix][0])
    assert found["faces"] == len(asset.faces) <= 2000
    assert found["watertight"] and found["manifold"]
    assert found["texel_coverage"] > 0.99 and found["uv_overlap"] < 1e-3
    assert found["seam_error"] < 0.01
    assert {k: found[k] for k in ("faces", "watertight", "texture_size")} == {
        k: asset.report[k] for k in ("faces", "watertight", "texture_size")
    }


@pytest.mark.parametrize("suffix", ["glb", "obj"])
def test_a_file_rendered_from_all_sides_shows_the_colour_function(asset, files, suffix, tmp_path):
    views, size = turntable(4), 48
    images = render_glb(files[suffix][0], views, size)
    assert images.shape == (4, size, size, 3)
    # The same geometry and camera by ray casting, coloured by the function itself.
    centre = (asset.positions.min(0) + asset.positions.max(0)) / 2
    radius = np.linalg.norm(asset.positions - centre, axis=1).max()
    origins, directions = (r[1].reshape(-1, 3).numpy() for r in views.rays(size))
    depth = first_hits(origins * radius + centre, directions, asset.positions[asset.faces])
    hit = np.isfinite(depth)
    original = bumpy_torus(20)[0] + SHIFT
    low, high = original.min(0), original.max(0)
    moved = np.array([(low[0] + high[0]) / 2, low[1], (low[2] + high[2]) / 2])
    points = (origins * radius + centre)[hit] + depth[hit, None] * directions[hit] + moved
    expected = np.ones((size * size, 3))
    expected[hit] = colours(torch.from_numpy(points).float()).numpy()
    inner = hit.reshape(size, size)
    inner[1:-1, 1:-1] &= inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
    error = np.abs(images[1].reshape(-1, 3) / 255 - expected)[inner.reshape(-1)].max(1)
    assert inner.sum() > 300 and np.median(error) < 0.01
    assert (error > 0.05).mean() < 0.1  # the function jumps where one part of the surface hides another
    assert (images[1][0, 0] == 255).all()  # backdrop


def test_shaded_views_are_darker_where_the_surface_turns_away(files):
    views = turntable(1)
    flat, lit = (render_glb(files["glb"][0], v, 64) for v in (views, views.replace(shading=torch.tensor([DIFFUSE]))))
    assert lit.mean() < flat.mean()


def test_an_obj_brings_a_relative_material_that_does_not_darken(files):
    obj, mtl, png = files["obj"]
    assert [p.suffix for p in (obj, mtl, png)] == [".obj", ".mtl", ".png"] and all(p.is_file() for p in files["obj"])
    material = mtl.read_text().splitlines()
    assert "Kd 1 1 1" in material and f"map_Kd {png.name}" in material
    assert not any(line.startswith("Tr") for line in material)
    text = obj.read_text()
    assert f"mtllib {mtl.name}" in text and all(f"\n{key} " in text for key in ("v", "vt", "vn", "f"))


def test_blanks_in_an_obj_name_stay_out_of_its_references(asset, tmp_path):
    obj, mtl, png = write(asset, tmp_path / "red old boat.obj", "x\ny")
    assert mtl.name == "red_old_boat.mtl" and png.name == "red_old_boat.png"
    assert check(obj)["faces"] == len(asset.faces)


def test_an_unknown_suffix_is_refused(asset, tmp_path):
    with pytest.raises(UsageError, match="fbx"):
        write(asset, tmp_path / "thing.fbx", "")


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_write_keeps_the_older_file_and_leaves_no_litter(asset, tmp_path, monkeypatch, step):
    path = tmp_path / "thing.glb"
    path.write_bytes(b"older")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(Magic3DError, match="No space left") as failure:
        write(asset, path, "")
    assert "Free" in failure.value.next_step
    assert path.read_bytes() == b"older" and list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_explained(asset, tmp_path):
    with pytest.raises(Magic3DError, match="Could not write") as failure:
        write(asset, tmp_path / "nowhere" / "thing.glb", "")
    assert "-o" in failure.value.next_step


def test_a_file_without_a_texture_is_not_an_asset(tmp_path):
    path = tmp_path / "plain.glb"
    trimesh.creation.box().export(path)
    with pytest.raises(UsageError):
        check(path)


def test_the_contact_sheet_shows_four_sides_of_each_file(files, tmp_path):
    sheet = tmp_path / "sheet.png"
    script = TESTS.parent / "examples" / "contact_sheet.py"
    paths = [files["glb"][0], files["obj"][0]]
    subprocess.run([sys.executable, script, *paths, "-o", sheet, "--size", "64"], check=True, capture_output=True)
    pixels = np.asarray(Image.open(sheet))
    assert pixels.shape == (2 * (64 + 18), 4 * 64, 3)
    first, second = pixels[18:82].astype(int), pixels[100:164].astype(int)
    assert np.abs(first - second).mean() < 0.5  # both formats look the same
    sides = np.split(first, 4, axis=1)
    assert all(np.abs(a - b).mean() > 3 for a, b in itertools.combinations(sides, 2))  # the sides do not

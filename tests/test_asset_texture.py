"""Unwrapping always succeeds without overlaps, and the baked texture shows the colour field."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from asset_shapes import bumpy_torus, colours, joined

from magic3d_cli.asset import unwrap as unwrap_module
from magic3d_cli.asset.atlas import box_atlas
from magic3d_cli.asset.bake import Texels, bake, to_bytes
from magic3d_cli.asset.build import build_asset
from magic3d_cli.asset.clean import clean
from magic3d_cli.asset.mesh import label_components, vertex_normals
from magic3d_cli.asset.packing import repack
from magic3d_cli.asset.simplify import simplify
from magic3d_cli.asset.unwrap import WORKER, Unwrapping, unwrap
from magic3d_cli.asset.uv_raster import own_texels
from magic3d_cli.settings import AssetSettings

SMALL = AssetSettings(faces=3000, texture_size=512, padding=4, unwrap_seconds=60)
SHAPES = {
    "sphere": lambda: trimesh.creation.icosphere(3),
    "torus": lambda: trimesh.creation.torus(0.6, 0.25),
    "cube": lambda: trimesh.creation.box((1.2, 1.2, 1.2)).subdivide().subdivide(),
}


@pytest.fixture(scope="module")
def noisy():
    vertices, faces, _ = clean(*bumpy_torus(24, noise=0.3))
    vertices, faces = simplify(vertices, faces, 3000)
    return vertices, faces, vertex_normals(vertices, faces)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_texture_of_a_shape_shows_its_colour_function(shape):
    mesh = SHAPES[shape]()
    report = build_asset(mesh.vertices, mesh.faces, colours, SMALL).report
    assert report["atlas"] == "xatlas"
    assert report["bake_psnr"] > 45
    assert report["uv_overlap"] == 0
    assert report["texel_coverage"] > 0.99
    assert report["seam_error"] < 0.006
    assert report["watertight"] and report["manifold"]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_fallback_atlas_shows_it_too(shape, monkeypatch):
    monkeypatch.setattr(unwrap_module.unwrap, "__defaults__", ((sys.executable, "-c", "raise SystemExit(3)"),))
    mesh = SHAPES[shape]()
    report = build_asset(mesh.vertices, mesh.faces, colours, SMALL).report
    assert report["atlas"] == "box" and "exit code 3" in report["atlas_reason"]
    assert report["bake_psnr"] > 45
    assert report["uv_overlap"] == 0
    assert report["texel_coverage"] > 0.99


def unwrapped(mesh: tuple[np.ndarray, np.ndarray, np.ndarray], seconds: float, script: str = "") -> Unwrapping:
    """By xatlas, or by a script that runs in its place."""
    worker = (sys.executable, "-c", script) if script else WORKER
    return unwrap(*mesh, 256, 4, seconds, worker)


def test_xatlas_that_hangs_is_killed_and_replaced(noisy):
    began = time.monotonic()
    layout = unwrapped(noisy, 0.5, "import time; time.sleep(60)")
    assert time.monotonic() - began < 10
    assert layout.method == "box" and "longer than 0.5 s" in layout.reason


def test_xatlas_that_crashes_is_replaced(noisy):
    crash = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    layout = unwrapped(noisy, 30, crash)
    assert layout.method == "box" and "failed" in layout.reason


def test_an_interrupt_of_the_parent_kills_the_child(noisy, tmp_path, request):
    pid_file = tmp_path / "pid"
    script = f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(60)"

    def interrupt() -> None:
        while not (pid_file.exists() and pid_file.read_text()):
            time.sleep(0.02)
        os.kill(os.getpid(), 2)

    # A job in the background of a shell starts with interrupts ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        unwrapped(noisy, 30, script)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)


def test_the_child_starts_without_torch():
    code = "import magic3d_cli.asset.unwrap_worker, sys; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


def test_unwrapping_the_same_mesh_twice_gives_the_same_coordinates(noisy):
    one, other = (unwrapped(noisy, 60) for _ in range(2))
    assert one.method == other.method == "xatlas"
    assert np.array_equal(one.uvs, other.uvs) and np.array_equal(one.faces, other.faces)


@pytest.mark.parametrize("method", ["xatlas", "box"])
def test_charts_keep_their_distance(noisy, method):
    vertices, faces, normals = noisy
    if method == "xatlas":
        layout = unwrap(vertices, faces, normals, 1024, 4, 60)
        vertex, split, uvs, size = layout.vertex, layout.faces, layout.uvs, layout.size
    else:
        vertex, split, uvs, size = box_atlas(vertices, faces, 1024, 4)
    assert np.array_equal(vertex[split], faces)
    assert uvs.min() >= 0 and uvs.max() <= 1
    chart = trimesh.graph.connected_component_labels(
        np.concatenate([split[:, :2], split[:, 1:]]), node_count=len(vertex)
    )[split[:, 0]]
    owned = own_texels(uvs, split, size, reach=0.0)
    label = np.where(owned.owner >= 0, chart[owned.owner], -1)
    for shift in (1, 2):  # texels this close belong to the same chart or to none
        for axis in (0, 1):
            here, there = label, np.roll(label, shift, axis)
            different = (here != there) & (here >= 0) & (there >= 0)
            border = np.zeros_like(different)
            border[(slice(None), slice(shift)) if axis else slice(shift)] = True
            assert (different & ~border).sum() <= (2e-4 * (label >= 0).sum() if method == "xatlas" else 0)


def test_a_tiny_texture_grows_until_every_chart_has_room():
    tetrahedra = [
        trimesh.creation.icosphere(0, radius=0.02).apply_translation(p)
        for p in np.mgrid[0:6, 0:6, 0:6].reshape(3, -1).T
    ]
    mesh = joined(tetrahedra)
    _, split, uvs, size = box_atlas(mesh.vertices, mesh.faces, 32, 4)
    assert size > 32 and uvs.min() >= 0 and uvs.max() <= 1
    assert own_texels(uvs, split, size).overlap == 0


def test_overlapping_faces_of_one_direction_get_separate_charts():
    # A helical ramp of two turns: seen from above, one turn lies over the other.
    angle = np.linspace(0, 4 * np.pi, 80)
    inner, outer = (np.stack([r * np.cos(angle), 0.05 * angle, -r * np.sin(angle)], 1) for r in (0.4, 0.9))
    i = np.arange(79)
    faces = np.concatenate([np.stack([i, i + 80, i + 1], 1), np.stack([i + 1, i + 80, i + 81], 1)])
    _, split, uvs, size = box_atlas(np.concatenate([inner, outer]), faces, 256, 4)
    assert own_texels(uvs, split, size).overlap == 0


def test_every_texel_is_filled_and_gutters_continue_their_chart():
    mesh = SHAPES["sphere"]()
    red = torch.tensor([0.9, 0.2, 0.1])
    texture = build_asset(mesh.vertices, mesh.faces, lambda p: red.expand(len(p), 3), SMALL).texture
    assert (texture == np.rint(red.numpy() * 255)).all()


def test_bytes_are_rounded_not_truncated():
    assert to_bytes(np.array([0.999, 0.4999, -0.1, 1.2, 127.6 / 255])).tolist() == [255, 127, 0, 255, 128]


def test_a_face_smaller_than_a_texel_still_gets_its_own_colour():
    # Two charts: a large white face at z = 0 and a tiny black one at z = 1, far apart in the texture.
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0.01, 0, 1], [0, 0.01, 1]])
    uvs = np.array([[0.05, 0.05], [0.5, 0.05], [0.05, 0.5], [0.801, 0.801], [0.8012, 0.801], [0.801, 0.8012]])
    faces = np.array([[0, 1, 2], [3, 4, 5]])
    owned = own_texels(uvs, faces, 64, reach=0.0)
    assert owned.texels[1] == 0
    texture = bake(vertices, Texels(faces, owned, uvs), lambda p: (p[:, 2:] < 0.5).float().expand(-1, 3))
    assert (texture[51, 51] == 0).all() and (texture[10, 10] == 255).all()


def test_large_textures_are_evaluated_in_chunks():
    sizes = []

    def albedo(points):
        sizes.append(len(points))
        return colours(points)

    mesh = SHAPES["cube"]()
    build_asset(mesh.vertices, mesh.faces, albedo, replace(SMALL, texture_size=512))
    assert len(sizes) > 1 and max(sizes) <= 1 << 16


@pytest.fixture(scope="module")
def rippled():
    """A torus of many charts, some of them long, and its atlas."""
    vertices, faces, _ = clean(*bumpy_torus(cells=32))
    return faces, unwrap(vertices, faces, vertex_normals(vertices, faces), 512, 2, 60.0)


def test_charts_use_sixty_per_cent_of_the_texture_without_overlap(rippled):
    faces, layout = rippled
    owned = own_texels(layout.uvs, layout.faces, 512)
    assert layout.method == "xatlas"
    assert (owned.distance == 0).mean() > 0.6 and owned.overlap < 1e-5
    assert np.array_equal(layout.vertex[layout.faces], faces)  # also where charts were cut


def test_packing_cuts_turns_and_moves_charts_and_nothing_else(rippled):
    _, layout = rippled
    packed = repack(layout.uvs * 0.5, layout.faces, 512, 2)
    assert packed is not None
    copied, faces, uvs = packed
    assert np.array_equal(copied[faces], layout.faces)

    def sides(corners):
        return np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2)

    def turning(corners):
        one, other = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
        return one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]

    before, after = layout.uvs[layout.faces], uvs[faces]
    large = sides(before) > 2e-3
    assert np.ptp((sides(after) / np.maximum(sides(before), 1e-12))[large]) < 1e-3  # one scale for all
    assert (turning(after)[np.abs(turning(before)) > 1e-6] < 0).all()  # no mirror images: v points down
    assert uvs.min() >= 0 and uvs.max() <= 1


def test_charts_keep_the_padding_from_each_other(rippled):
    _, layout = rippled
    packed = repack(layout.uvs, layout.faces, 512, 6)
    assert packed is not None
    _, faces, uvs = packed
    chart = label_components(len(uvs), np.concatenate([faces[:, :2], faces[:, 1:]]))[faces[:, 0]]
    owned = own_texels(uvs, faces, 512, reach=2.0)  # half of the padding, less half a texel's diagonal
    for number in np.unique(chart)[:20]:
        mine = faces[chart == number]
        near = own_texels(uvs, mine, 512, reach=2.0).distance < np.inf
        assert set(chart[owned.owner[near]]) == {number}

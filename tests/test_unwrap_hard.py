"""Meshes known to hang or crash xatlas are unwrapped too, in bounded time, and what was done instead is said."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
import pytest
import trimesh
from asset_shapes import colours

from magic3d_cli.asset.atlas import grid_atlas
from magic3d_cli.asset.build import build_asset
from magic3d_cli.asset.mesh import vertex_normals
from magic3d_cli.asset.unwrap import CRUMBS, OVERLAP_LIMIT, WORKER, unwrap
from magic3d_cli.asset.uv_raster import own_texels
from magic3d_cli.settings import AssetSettings

BROKEN = (sys.executable, "-c", "raise SystemExit(3)")


def noise():
    """72,000 faces of a sphere whose radius is random from vertex to vertex: thousands of charts of one face."""
    mesh = trimesh.creation.icosphere(6)
    radius = 0.8 + 0.1 * np.random.default_rng(0).standard_normal((len(mesh.vertices), 1))
    return mesh.vertices * radius, mesh.faces[:72_000]


def non_manifold():
    """Triangles between random points: edges of many faces, wound either way, through each other."""
    rng = np.random.default_rng(1)
    return rng.uniform(-1, 1, (60, 3)), np.stack([rng.permutation(60)[:3] for _ in range(400)])


def one_closed_chart():
    """A sphere pressed flat: all faces of each half lie in one plane, and there is no boundary to cut along."""
    mesh = trimesh.creation.icosphere(4)
    return mesh.vertices * np.array([1.0, 1.0, 0.0]), mesh.faces


def degenerate():
    """A sphere, a third of whose faces have no area: two corners alike, or in one place."""
    mesh = trimesh.creation.icosphere(3)
    vertices, faces = np.array(mesh.vertices), np.array(mesh.faces)
    chosen = np.random.default_rng(2).permutation(len(faces))[: len(faces) // 3]
    faces[chosen[:100], 1] = faces[chosen[:100], 0]
    vertices[faces[chosen[100:], 0]] = vertices[faces[chosen[100:], 1]]
    return vertices, faces


def on_a_line():
    """A sphere pressed to a needle: every face is a sliver, and every outline a line."""
    mesh = trimesh.creation.icosphere(4)
    return mesh.vertices * np.array([1.0, 1e-6, 1e-6]), mesh.faces


HARD: dict[str, Any] = {make.__name__: make for make in (non_manifold, one_closed_chart, degenerate, on_a_line)}


def laid_out(vertices, faces, seconds, worker):
    vertices, faces = np.asarray(vertices, np.float64), np.asarray(faces, np.int64)
    began = time.monotonic()
    layout = unwrap(vertices, faces, vertex_normals(vertices, faces), 512, 2, seconds, worker=worker)
    assert time.monotonic() - began < seconds + 30  # on a busy machine; alone it takes seconds
    assert np.array_equal(layout.vertex[layout.faces], faces)
    assert np.isfinite(layout.uvs).all() and layout.uvs.min() >= 0 and layout.uvs.max() <= 1
    owned = own_texels(layout.uvs, layout.faces, layout.size)
    assert owned.overlap <= OVERLAP_LIMIT
    assert (owned.distance == 0).mean() >= CRUMBS
    assert bool(layout.reason) == (layout.method != "xatlas")
    return layout


@pytest.mark.parametrize("shape", HARD)
@pytest.mark.parametrize("worker", [WORKER, BROKEN], ids=["xatlas", "without xatlas"])
def test_a_hard_mesh_is_unwrapped_without_overlap(shape, worker):
    vertices, faces = HARD[shape]()
    layout = laid_out(vertices, faces, 30.0, worker)
    if worker is BROKEN:
        assert "exit code 3" in layout.reason


@pytest.mark.slow
def test_noise_at_which_xatlas_works_for_minutes_is_laid_out_on_a_grid():
    vertices, faces = noise()
    layout = laid_out(vertices, faces, 1.0, WORKER)
    assert layout.method == "grid" and "longer than 1 s" in layout.reason


def test_noise_of_which_xatlas_makes_crumbs_is_laid_out_on_a_grid():
    vertices, faces = noise()
    layout = laid_out(vertices, faces[:6000], 60.0, WORKER)
    assert layout.method == "grid" and "of the texture" in layout.reason


@pytest.mark.parametrize("shape", ["non_manifold", "degenerate", "on_a_line"])  # what is flat has no surface: refused
def test_a_hard_mesh_becomes_an_asset_that_shows_its_colours(shape):
    vertices, faces = HARD[shape]()
    settings = AssetSettings(faces=2000, texture_size=512, padding=2)
    report = build_asset(vertices, faces, colours, settings).report
    assert report["uv_overlap"] <= OVERLAP_LIMIT and report["texel_coverage"] > 0.98 and report["bake_psnr"] > 30


def test_on_a_grid_two_neighbours_share_a_square_and_no_texel():
    mesh = trimesh.creation.icosphere(3)
    vertex, faces, uvs, size = grid_atlas(np.asarray(mesh.vertices), np.asarray(mesh.faces), 512, 4)
    assert size == 512 and np.array_equal(vertex[faces], mesh.faces)
    assert own_texels(uvs, faces, size).overlap == 0
    squares = len(np.unique(np.floor(uvs[faces].mean(1) * 512 / (512 // np.ceil(np.sqrt(len(faces) / 2)))), axis=0))
    assert squares < 0.6 * len(faces)  # nearly all faces find a partner

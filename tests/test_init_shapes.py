"""`--init FILE`: any mesh that can be read, or another run, is what the coarse stage begins with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from command import magic3d
from PIL import Image
from tiny_run import play_tiny

from magic3d_cli import initial_shapes
from magic3d_cli.asset.read import read_coloured
from magic3d_cli.coarse import initial
from magic3d_cli.coarse.stage import CoarseStage
from magic3d_cli.errors import UsageError
from magic3d_cli.scene import mesh_shape
from magic3d_cli.scene.mesh_shape import MeshShape
from magic3d_cli.scene.shape import EXTENT, RADIUS

RING, TUBE = 0.5, 0.2


def coloured(mesh: trimesh.Trimesh, rgb: tuple[int, int, int]) -> trimesh.Trimesh:
    mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=np.tile([*rgb, 255], (len(mesh.vertices), 1)))
    return mesh


@pytest.fixture(scope="module")
def meshes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("meshes")
    torus = trimesh.creation.torus(RING, TUBE, major_sections=96, minor_sections=48)  # its axis is z
    torus.apply_translation([4000, -3, 7])
    coloured(torus, (200, 30, 30)).export(folder / "torus.ply")
    box = trimesh.creation.box((1, 1, 1))
    box.update_faces(np.arange(len(box.faces)) >= 2)
    box.export(folder / "open.obj")
    return folder


def test_inside_is_where_the_surface_encloses_wherever_the_file_put_it(meshes: Path) -> None:
    mesh = read_coloured(meshes / "torus.ply", "z")
    half = (mesh.vertices.max(0) - mesh.vertices.min(0)) / 2
    assert np.linalg.norm(half) == pytest.approx(RADIUS, rel=1e-6) and half.max() < EXTENT
    assert half[1] == pytest.approx(half.min())  # its axis became y
    scale = half[0] / (RING + TUBE)
    shape = MeshShape(*mesh.samples(100_000))
    points = torch.rand(50_000, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    around = points[:, [0, 2]].norm(dim=1) - RING * scale
    distance = torch.stack([around, points[:, 1]], 1).norm(dim=1) - TUBE * scale
    clear = distance.abs() > 1 / 80  # a voxel
    assert torch.equal(shape.density(points)[clear] > 30, distance[clear] < 0)
    near = points[distance.abs() < 0.02]
    torch.testing.assert_close(shape.albedo(near), torch.tensor([[200, 30, 30]]).expand(len(near), 3) / 255)


def test_a_surface_that_encloses_nothing_is_a_sheet(meshes: Path) -> None:
    mesh = read_coloured(meshes / "open.obj")
    shape = MeshShape(*mesh.samples(100_000))
    wall = torch.from_numpy(mesh.samples(2000)[0]).float()
    assert (shape.density(wall) > 30).float().mean() > 0.98
    assert shape.density(torch.zeros(1, 3)) < 0.1  # the middle of the open box


@pytest.mark.parametrize(("up", "tip"), [("y", 1), ("z", 2), ("x", 0), ("-y", 1), ("-z", 2), ("-x", 0)])
def test_the_named_axis_becomes_up_and_nothing_is_mirrored(tmp_path: Path, up: str, tip: int) -> None:
    vertices = np.zeros((4, 3))
    vertices[1:] = np.eye(3)
    vertices[1 + tip] *= -3 if up.startswith("-") else 3  # the longest edge ends at the top
    mesh = trimesh.Trimesh(vertices, [[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], process=False)
    mesh.export(tmp_path / "tip.obj")
    read = read_coloured(tmp_path / "tip.obj", up)
    assert read.vertices[1 + tip, 1] == read.vertices[:, 1].max()
    assert np.sign(trimesh.Trimesh(read.vertices, read.faces, process=False).volume) == np.sign(mesh.volume)


def test_colours_of_a_texture_are_found_at_the_surface(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4], pixels[4:] = (255, 0, 0), (0, 0, 255)  # the upper half red
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.fromarray(pixels))
    quad = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], [[0, 1, 2], [0, 2, 3]], process=False)
    quad.visual = trimesh.visual.TextureVisuals([[0, 0], [1, 0], [1, 1], [0, 1]], material=material)
    quad.export(tmp_path / "quad.glb")
    points, colours = read_coloured(tmp_path / "quad.glb").samples(1000)
    above = points[:, 1] > 0.15
    assert (colours[above] == [1, 0, 0]).all() and (colours[points[:, 1] < -0.15] == [0, 0, 1]).all()


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("empty.obj", b"", "cannot be read|no surface"),
        ("words.glb", b"not a mesh", "cannot be read"),
        ("flat.obj", b"v 1 1 1\nv 1 1 1\nv 1 1 1\nf 1 2 3\n", "no surface"),
        ("nan.obj", b"v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "no surface"),
        ("mesh.xyz123", b"0 0 0", "cannot be read"),
    ],
)
def test_what_holds_no_surface_is_refused_with_the_next_step(
    tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=told) as refused:
        read_coloured(tmp_path / name)
    assert refused.value.next_step


@pytest.fixture
def begun(meshes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[MeshShape]:
    """The shapes that tiny runs, in the current folder, began with."""
    play_tiny(monkeypatch)
    monkeypatch.setattr(initial_shapes, "SAMPLES", 30_000)
    monkeypatch.setattr(mesh_shape, "_SIZE", 48)
    monkeypatch.chdir(tmp_path)
    shapes: list[MeshShape] = []

    def fit(stage: CoarseStage, shape: MeshShape) -> None:
        shapes.append(shape)
        initial.fit(stage, shape)

    monkeypatch.setattr("magic3d_cli.pipeline.fit", fit)
    return shapes


@pytest.mark.slow
def test_a_run_begins_with_the_file_goes_on_as_it_and_is_another_with_another_file(
    begun: list[MeshShape], meshes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["generate", "a ring", "-o", "ring.glb", "--init", str(meshes / "torus.ply"), "--init-up", "z"]
    assert magic3d(*command) == 0 and len(begun) == 1
    assert "+Z is up" in capsys.readouterr().err
    Path("ring.glb").unlink()
    assert magic3d(*command) == 0 and len(begun) == 1  # finished already
    assert magic3d(*command[:-1], "y") == 0 and len(begun) == 2  # the same file lying is another shape
    settings = json.loads(Path("ring.run/settings.json").read_text())
    assert settings["coarse"]["init"].startswith("mesh:")
    # A run is a shape to begin with, by its folder, before and after its fine stage.
    assert magic3d("generate", "a ring", "-o", "again.glb", "--init", "ring.run") == 0 and len(begun) == 3
    assert magic3d("generate", "a ring", "-o", "third.glb", "--init", "ring.run/coarse.ckpt") == 0 and len(begun) == 4


@pytest.mark.parametrize(
    ("init", "told"),
    [
        ("autp", "neither a word that is known nor a file"),
        ("builtin:", "The prompt is empty"),
        ("builtin:a xqzzy", "xqzzy"),
        ("words.ckpt", "words.ckpt"),
        ("folder", "holds no checkpoint"),
    ],
)
def test_a_shape_that_cannot_be_is_refused_before_any_work(
    begun: list[MeshShape], capsys: pytest.CaptureFixture[str], init: str, told: str
) -> None:
    Path("words.ckpt").write_text("no checkpoint")
    Path("folder").mkdir()
    assert magic3d("generate", "a car", "-o", "car.glb", "--init", init) == 2
    assert told in capsys.readouterr().err and not Path("car.run").exists() and not begun

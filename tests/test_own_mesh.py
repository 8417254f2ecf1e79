"""`magic3d refine my_mesh.glb --prompt ...`: a new texture on the very shape that was given, whatever shape that is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import trimesh
from asset_shapes import joined
from command import magic3d
from tiny_run import play_tiny

from magic3d_cli.asset import simplify
from magic3d_cli.coarse import initial


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    play_tiny(monkeypatch)
    monkeypatch.setattr(initial, "POOL", 1 << 15)
    monkeypatch.setattr(initial, "POINTS", 4096)


def _proportions(path: str) -> np.ndarray:
    extents = trimesh.load(path, force="mesh").extents
    return extents / extents.max()


def test_the_shape_is_kept_and_found_again_by_export(capsys: pytest.CaptureFixture[str]) -> None:
    trimesh.creation.box((2.0, 1.0, 0.5)).export("box.stl")
    assert magic3d("refine", "box.stl", "--prompt", "a red ball", "-o", "red.glb", "--json", "-q") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["asset"]["faces"] == 12 and report["prompt"] == "a red ball"
    np.testing.assert_allclose(_proportions("red.glb"), [1, 0.5, 0.25], atol=1e-5)
    assert magic3d("export", "red.run", "-o", "again.obj") == 0
    np.testing.assert_allclose(_proportions("again.obj"), [1, 0.5, 0.25], atol=1e-5)
    assert magic3d("refine", "box.stl", "--prompt", "a red ball", "-o", "red.glb") == 0
    assert "finished already" in capsys.readouterr().err


def test_on_request_the_shape_may_change(capsys: pytest.CaptureFixture[str]) -> None:
    trimesh.creation.icosphere(2).export("ball.ply")
    assert magic3d("refine", "ball.ply", "--prompt", "a red ball", "--reshape", "-o", "red.glb", "--json", "-q") == 0
    assert json.loads(capsys.readouterr().out)["asset"]["faces"] != 320


def _open() -> trimesh.Trimesh:
    mesh = trimesh.creation.icosphere(2)
    return trimesh.Trimesh(mesh.vertices, mesh.faces[mesh.triangles_center[:, 1] < 0.5], process=False)


def _knotted() -> trimesh.Trimesh:
    """An edge of four faces, a repeated face and a degenerate one."""
    boxes = joined([trimesh.creation.box(), trimesh.creation.box().apply_translation((1, 1, 0))])
    faces = np.concatenate([boxes.faces, boxes.faces[:1], [[0, 0, 1]]])
    return trimesh.Trimesh(boxes.vertices, faces, process=False)


def _torn() -> trimesh.Trimesh:
    mesh = trimesh.creation.icosphere(2)
    vertices = np.array(mesh.vertices)
    vertices[5] = np.nan
    return trimesh.Trimesh(vertices, mesh.faces, process=False)


@pytest.mark.parametrize("make", [_open, _knotted, _torn])
def test_open_knotted_and_torn_meshes_get_a_texture(make, capsys: pytest.CaptureFixture[str]) -> None:
    make().export("mesh.ply")
    assert magic3d("refine", "mesh.ply", "--prompt", "a red ball", "-o", "red.glb", "--json", "-q") == 0
    asset = json.loads(capsys.readouterr().out)["asset"]
    assert asset["faces"] > 10 and asset["uv_overlap"] == 0


def test_a_huge_mesh_is_simplified_with_a_notice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(simplify, "HUGE", 1000)
    trimesh.creation.icosphere(4).export("ball.glb")
    assert magic3d("refine", "ball.glb", "--prompt", "a red ball", "-o", "red.glb") == 0
    assert "5,120 faces; it is simplified to 1,000" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["box.stl"], '--prompt "a golden dragon"'),
        (["box.stl", "--prompt", " "], "prompt is empty"),
        (["box.stl", "--prompt", "a red car", "--up", "w"], "--up 'w'"),
        (["text.glb", "--prompt", "a red car"], "cannot be read as a mesh"),
        (["empty.stl", "--prompt", "a red car"], "empty.stl"),
        (["nan.ply", "--prompt", "a red car"], "holds no surface"),
        (["absent.glb", "--prompt", "a red car"], "absent.glb"),
        (["folder", "--prompt", "a red car"], "no coarse checkpoint"),
    ],
)
def test_what_is_no_mesh_is_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    trimesh.creation.box().export("box.stl")
    Path("text.glb").write_text("not a mesh")
    Path("empty.stl").touch()
    trimesh.Trimesh(np.full((3, 3), np.nan), [[0, 1, 2]], process=False).export("nan.ply")
    Path("folder").mkdir()
    assert magic3d("refine", *arguments) == 2
    err = capsys.readouterr().err
    assert message in err and "next: " in err and "Traceback" not in err

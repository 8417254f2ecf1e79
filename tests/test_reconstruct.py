"""The scene alone can carry an object: fitted to posed pictures, meshed, refined, exported and read back."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import trimesh

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "proofs"))

from model import Model, from_trimesh, load_model, psnr, robot
from reconstruct import reconstruct, settings_for, take_poses, where_it_was

from magic3d_cli.scene.render import Render
from magic3d_cli.scene.views import Views, turntable
from magic3d_cli.settings import AssetSettings
from magic3d_cli.training.distributed import Processes
from magic3d_cli.training.terms import Step


def shown(images: torch.Tensor, views: Views) -> tuple[Render, Step]:
    """Pictures as a loss is given them."""
    return Render(images, *[torch.zeros(0)] * 4), Step(views, 0.0, torch.Generator(), Processes())


@pytest.fixture(scope="module")
def toy() -> Model:
    return robot()


@pytest.mark.slow
def test_every_step_keeps_what_the_one_before_had(toy, tmp_path):
    settings = settings_for(coarse_steps=80, fine_steps=20, size=32)
    settings = replace(
        settings,
        fine=replace(settings.fine, grid_size=40),
        asset=AssetSettings(faces=3000, texture_size=512, unwrap_seconds=60),
    )
    report = reconstruct(toy, settings, tmp_path, poses=40, size=64)
    assert report["field_psnr_db"] > 23 and report["field_iou"] > 0.93, report
    assert report["refined_psnr_db"] > report["mesh_psnr_db"], report
    assert report["asset_psnr_db"] > max(22.5, report["refined_psnr_db"] - 2), report
    assert report["asset_iou"] > 0.93, report
    assert (tmp_path / "model.glb").is_file() and (tmp_path / "reconstruct.png").is_file()


def test_the_poses_see_the_object_from_all_round_and_from_above(toy):
    poses = take_poses(toy, 12, 16)
    assert len(torch.unique(poses.views.azimuth)) == 12
    assert poses.views.elevation.min() < 0 < 1 < poses.views.elevation.max()
    drawn = poses.draw(4, torch.Generator().manual_seed(0))
    truth = poses.masks[:, 0].mean()
    loss, metrics = poses.loss(*shown(torch.zeros(4, 16, 16, 3), drawn))
    assert 0 < truth < 0.5 and loss > 0 and metrics["psnr"] < 15


def test_the_right_picture_costs_nothing(toy):
    poses = take_poses(toy, 6, 16)
    drawn = poses.draw(3, torch.Generator().manual_seed(0))
    images = toy.render(drawn, 16)[0]
    assert poses.loss(*shown(images, drawn))[0] < 1e-3


def test_an_asset_is_found_where_its_surface_was():
    egg = trimesh.creation.icosphere(subdivisions=4)
    egg.apply_scale([0.5, 0.8, 0.6])
    model = from_trimesh([egg], fit=False)
    moved = replace(model, vertices=model.vertices + torch.tensor([0.1, 0.7, -0.05]))
    back = where_it_was(moved, egg.vertices, egg.faces)
    torch.testing.assert_close(back.vertices, model.vertices, atol=1e-3, rtol=0)


def test_a_model_read_from_a_file_looks_as_it_did(toy, tmp_path):
    ball = trimesh.creation.icosphere(subdivisions=2, radius=0.5)
    ball.visual = trimesh.visual.ColorVisuals(ball, face_colors=[200, 40, 30, 255])
    ball.export(tmp_path / "ball.glb")
    views = turntable(2)
    image, mask = load_model(tmp_path / "ball.glb").render(views, 32)
    assert psnr(image[:1], image[1:]) > 30  # the same from both sides
    assert mask.mean() > 0.3

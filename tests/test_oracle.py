"""Distilling a known object from its own ideal denoiser rebuilds it; a broken guidance does not.

The prior is the closed form of `guidance/oracle.py`, all else is the program's own. So this fails for a
wrong sign, noise schedule, colour range or camera convention, and never because a trained prior is weak.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "proofs"))

from distill_oracle import oracle_distillation, score, settings_for
from model import robot

from magic3d_cli.coarse.stage import CoarseStage
from magic3d_cli.guidance.diffusion import alpha_sigma
from magic3d_cli.guidance.oracle import OraclePrior
from magic3d_cli.scene.views import sample_views, turntable, views_from_embedding
from magic3d_cli.settings import ViewSampling
from magic3d_cli.training.terms import LossTerm


@pytest.fixture(scope="module")
def toy():
    return robot()


def oracle(toy, size=16, spread=4.0):
    return OraclePrior(lambda views, size: toy.render(views, size)[0], size, spread)


def test_the_view_features_say_everything_that_the_picture_depends_on(toy):
    views = sample_views(12, ViewSampling(), torch.Generator().manual_seed(0))
    again = views_from_embedding(views.camera_embedding())
    torch.testing.assert_close(toy.render(again, 16)[0], toy.render(views, 16)[0], atol=1e-4, rtol=0)


def test_the_oracle_knows_the_picture_at_low_noise_and_the_neighbours_mean_at_high_noise(toy):
    prior, views = oracle(toy), turntable(3)
    generator = torch.Generator().manual_seed(0)
    truth = prior.encode_image(toy.render(views, 16)[0].permute(0, 3, 1, 2))
    text = prior.encode_prompt(["the object"]).expand(3, -1, -1)
    for t, expected in ((20, truth), (999, prior._candidates(views)[:, :5].mean(1))):
        timestep = torch.full((3,), t)
        alpha, sigma = alpha_sigma(prior.alphas_cumprod, timestep)
        noisy = alpha * truth + sigma * torch.randn(truth.shape, generator=generator)
        clean, noise = prior.denoise(noisy, timestep, text, views.camera_embedding())
        torch.testing.assert_close(clean, expected, atol=0.01, rtol=0.01)
        torch.testing.assert_close(alpha * clean + sigma * noise, noisy, atol=1e-4, rtol=1e-4)


def test_the_prompt_decides_which_sides_the_oracle_considers(toy):
    prior, views = oracle(toy), turntable(1)
    noisy, timestep = torch.randn(1, 3, 16, 16), torch.tensor([999])
    told, untold = (
        prior.denoise(noisy, timestep, prior.encode_prompt([prompt]), views.camera_embedding())[0]
        for prompt in ("the object", "")
    )
    assert (told - untold).abs().mean() > 0.02


def test_left_and_right_front_and_back_are_where_the_conventions_say(toy):
    front, left, back, right = toy.render(turntable(4, elevation=0), 64)[0]
    colours = {"yellow": (0.95, 0.85, 0.15), "green": (0.1, 0.65, 0.2), "blue": (0.15, 0.25, 0.8)}

    def count(image, name):
        return int(((image - torch.tensor(colours[name])).abs().amax(-1) < 0.1).sum())

    assert count(left, "yellow") > 20 and count(right, "yellow") == 0  # the arm is on +X
    assert count(front, "green") > 10 and count(back, "green") == 0  # the nose is on +Z
    assert count(back, "blue") > 50 and count(front, "blue") == 0
    yellow = (front - torch.tensor(colours["yellow"])).abs().amax(-1) < 0.1
    assert yellow.nonzero()[:, 1].float().mean() > 40  # +X is on the right of a picture of the front


STEPS = 120


def rebuild(toy, steps, broken=lambda loss: loss):
    """A small coarse stage after so many of its steps."""
    settings = settings_for(STEPS, size=24)
    settings = replace(settings, coarse=replace(settings.coarse, samples_per_ray=64, occupancy_size=32))
    stage = CoarseStage(settings, 0)
    loss = broken(oracle_distillation(toy, settings))
    stage.run([stage.random_views(LossTerm("distillation", loss))], until=steps)
    return stage


def shortfalls(stage, toy):
    """In which ways the scene differs from the object."""
    found = score(stage, toy, 48)[0]
    with torch.no_grad():  # its right shoulder (-X) is body, the same place on its left is in front of the arm
        body, air = stage.field.density(torch.tensor([[-0.42, -0.2, 0.2], [0.42, -0.2, 0.2]]))
    checks = {"outline": found.iou > 0.82, "picture": found.psnr > 18.5, "sides": body > 4 * air}
    return [f"{name} ({found}, {body:.2f}, {air:.2f})" for name, fine in checks.items() if not fine]


def test_distilling_the_ideal_denoiser_rebuilds_the_object(toy):
    assert not shortfalls(rebuild(toy, STEPS), toy)


def test_a_flipped_sign_does_not(toy):
    def flipped(loss):
        return lambda render, step: -loss(render, step)[0]

    assert any("picture" in way for way in shortfalls(rebuild(toy, 40, flipped), toy))


def test_a_mirrored_camera_does_not(toy):
    def mirrored(loss):
        return lambda render, step: loss(render, replace(step, views=step.views.replace(azimuth=-step.views.azimuth)))

    assert any("sides" in way for way in shortfalls(rebuild(toy, STEPS // 2, mirrored), toy))

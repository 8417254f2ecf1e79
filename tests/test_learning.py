"""What networks are taught with by examples/learning: pictures, what is said of them, and the files they become."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from magic3d_cli.coarse.stage import CoarseStage
from magic3d_cli.guidance.diffusers.prior import load_prior
from magic3d_cli.guidance.guide import STAGES, PriorGuide, WeightedPrior, choose_priors
from magic3d_cli.scene.views import turntable

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "learning"


@pytest.fixture(scope="module")
def learning() -> Any:
    """The modules, and two chairs and a car from four sides each."""
    sys.path.insert(0, str(FOLDER))
    import encoder
    import from_ball
    import practice
    import practice_small
    import renders

    sys.path.remove(str(FOLDER))
    some = [model for model in renders.all_models() if model.caption.noun in ("chair", "car")]
    shown = [*[m for m in some if m.caption.noun == "chair"][:2], next(m for m in some if m.caption.noun == "car")]
    pictures = renders.draw(renders.load_volume("cpu"), shown, 1, 128)
    captioned = practice.Captioned(pictures, shown, torch.Generator().manual_seed(1), torch.device("cpu"))
    return argparse.Namespace(
        encoder=encoder, practice=practice, small=practice_small, ball=from_ball, pictures=pictures,
        captioned=captioned, dress=renders.dress,
    )  # fmt: skip


def test_pictures_come_with_what_they_show_said_as_a_web_page_would(learning: Any) -> None:
    images, said = learning.captioned.batch(64, 32)
    assert images.shape == (64, 3, 32, 32) and images.abs().max() <= 1
    told = [text for text in said if text]
    assert all("chair" in text or "car" in text for text in told) and 0 < len(said) - len(told) < 20
    words = [text.rpartition(", ")[2] for text in told if "view" in text]
    assert 0.3 < len(words) / len(told) < 0.85
    red = [image for image, text in zip(images, said, strict=True) if "red c" in text]
    for image in red:
        assert (image[0] - image[1:].amax(0)).max() > 0.3


def test_a_set_is_one_thing_from_four_sides_a_quarter_apart(learning: Any) -> None:
    images, said, cameras = learning.captioned.sets(3, 32)
    assert images.shape == (12, 3, 32, 32) and said[0] == said[3] and cameras.shape == (12, 16)
    forward = cameras.view(3, 4, 4, 4)[..., :3, 2]
    turn = torch.atan2(forward[..., 1], forward[..., 0]).diff(dim=1) % (2 * math.pi)
    torch.testing.assert_close(turn, torch.full((3, 3), math.pi / 2), atol=1e-4, rtol=0)


def test_cameras_are_told_as_mvdream_tells_them(learning: Any) -> None:
    """Its get_camera: a look-at matrix in a world with y up, turned to Blender's, at a distance of 1."""
    views = turntable(4, 25.0, 10.0)
    for row, azimuth in zip(learning.practice.cameras(views).view(4, 4, 4), views.azimuth, strict=True):
        elevation = math.radians(25)
        place = np.array([math.cos(elevation) * math.sin(azimuth), math.sin(elevation),
                          math.cos(elevation) * math.cos(azimuth)])  # fmt: skip
        right = np.cross(-place, [0, 1, 0])
        right /= np.linalg.norm(right)
        matrix = np.eye(4)
        matrix[:3] = np.stack([right, np.cross(right, -place), place, place], 1)
        blender = np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
        np.testing.assert_allclose(row.numpy(), blender @ matrix, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["latent", "pixel"])
def test_a_practice_prior_is_loaded_as_its_big_brothers_are(learning: Any, kind: str, tmp_path: Path) -> None:
    options = argparse.Namespace(kind=kind, folder=tmp_path, minutes=0.01, batch=4, rate=1e-3, start=None)
    learning.practice.train(options, learning.captioned, torch.device("cpu"))
    prior = load_prior(str(tmp_path), dtype=torch.float32)
    assert prior.kind == kind and prior.image_size == (64 if kind == "pixel" else 128) and not prior.camera_conditioned
    text = prior.encode_prompt(["a red car, front view", ""])
    assert not torch.equal(text[0], text[1])
    clean = prior.encode_image(torch.rand(2, 3, 64, 64))
    denoised, _ = prior.denoise(clean, torch.tensor([100, 500]), text)
    assert denoised.shape == clean.shape and denoised.isfinite().all()


def test_the_encoder_is_taught_what_it_is_shown(learning: Any) -> None:
    seen, model, colour, azimuth, elevation = learning.encoder.batch(
        learning.pictures, 32, torch.Generator().manual_seed(3)
    )
    assert seen.shape == (32, 4, 64, 64) and set(model.tolist()) == {0, 1, 2}
    assert colour.max() <= 16 and azimuth.min() >= 0 and azimuth.max() < learning.encoder.BINS
    assert elevation.abs().max() < math.pi / 2
    target = learning.encoder.neighbours(["chair", "chair", "car"], torch.device("cpu"))
    torch.testing.assert_close(target.sum(1), torch.ones(3))
    assert target[0, 1] > 0 and target[0, 2] == 0


def test_pictures_are_painted_once_and_shown_before_new_backdrops(learning: Any) -> None:
    pool = learning.small.Pool(learning.captioned, 24)
    images, said = pool.batch(200, told=False)
    assert images.shape == (200, 3, 32, 32) and images.abs().max() <= 1
    words = {word for text in said for word in text.replace(",", "").split()}
    assert words & set(learning.small.PAINTS) and not words & {"maroon", "navy", "cyan"}
    reds = [image for image, text in zip(images, said, strict=True) if "red c" in text]
    shown = [bool((image[0] - image[1:].amax(0)).max() > 0.3) for image in reds]
    assert sum(shown) > 0.75 * len(shown)  # a tenth is lit without colours
    corners = images[:, :, 0, 0]
    assert corners.std(0).min() > 0.3 and len(corners.unique(dim=0)) > 150
    assert not all("view" in text for text in said if text)
    assert all("view" in text for text in pool.batch(200, told=True)[1] if text)


def test_states_that_tell_the_words_up_to_them_are_not_asked_for_more(learning: Any) -> None:
    ids, states = torch.tensor([[1, 3, 2]]), torch.eye(3)[None]
    probe = torch.nn.Linear(3, 4)
    with torch.no_grad():  # words 1; 1 and 3; 1, 3 and 2
        probe.weight.copy_(torch.tensor([[-9.0, -9, -9], [9, 9, 9], [-9, -9, 9], [-9, 9, 9]]))
        probe.bias.zero_()
    assert learning.small.unsaid(probe, states, ids) < 0.01
    assert learning.small.unsaid(probe, states, torch.tensor([[1, 2, 3]])) > 1


def test_noise_levels_weigh_as_min_snr_says_and_high_noise_as_velocities_do(learning: Any) -> None:
    alphas = torch.tensor([0.999, 0.5, 0.01])
    clean = torch.zeros(300, 3, 4, 4)
    noisy, step, noise, weight = learning.small.noised(clean, alphas)
    torch.testing.assert_close(noisy, (1 - alphas[step])[:, None, None, None].sqrt() * noise)
    wanted = torch.tensor([5 / 999 / 0.999, 2.0, 1 / learning.small.LEAST_SIGNAL])
    torch.testing.assert_close(weight, wanted[step], rtol=1e-3, atol=1e-6)
    assert (step == 2).sum() > (step == 0).sum()


def test_an_untrained_small_prior_takes_what_it_sees_for_noise(learning: Any) -> None:
    unet = learning.small.make_unet()
    noise = torch.randn(4, unet.config.in_channels, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        guess = unet(noise, torch.tensor([950] * 4), torch.randn(4, 16, learning.small.WIDTH)).sample
    assert (guess - noise).square().mean() < 1e-3


@pytest.mark.slow
def test_a_small_practice_prior_is_loaded_as_a_prior_of_packed_pixels(learning: Any, tmp_path: Path) -> None:
    pool = learning.small.Pool(learning.captioned, 16)
    training = learning.small.Training(tmp_path, 1e-3, bfloat16=False)
    losses = list(learning.small.teach(training, pool, 0.01, 4, 1e-3, 60, told=0.5))
    assert len(losses) >= 2 and all(math.isfinite(loss) for loss in losses)
    again = learning.small.Training(tmp_path, 1e-3, bfloat16=False)
    again.read()
    assert again.average.step == len(losses) and again.spent == training.spent
    for kept, weight in zip(again.weights, training.weights, strict=True):
        assert torch.equal(kept, weight)
    prior = load_prior(str(tmp_path), dtype=torch.float32)
    assert prior.kind == "pixel" and prior.image_size == 32 and not prior.camera_conditioned
    text = prior.encode_prompt(["a red car, front view", ""])
    clean = prior.encode_image(torch.rand(2, 3, 64, 64))
    denoised, _ = prior.denoise(clean, torch.tensor([100, 500]), text)
    assert denoised.shape == clean.shape == (2, 3, 32, 32) and denoised.isfinite().all()


@pytest.mark.parametrize(("noun", "other"), [("car", "chair"), ("chair", "car")])
def test_the_practice_prior_that_is_here_knows_colours_and_things(learning: Any, noun: str, other: str) -> None:
    """Told the truth it finds the noise in a picture better than told another colour or thing."""
    prior = load_prior(str(FOLDER / "practice"), dtype=torch.float32)
    captioned, pictures = learning.captioned, learning.pictures
    model = next(number for number, shown in enumerate(captioned.shown) if shown.caption.noun == noun)
    own = torch.full((4,), model)
    buffers, views = pictures.pick(own, torch.arange(4))
    for colour, wrong in (("red", "blue"), ("blue", "red")):
        painted = torch.full((4,), captioned.colours.index(colour))
        rgb, opacity = learning.dress(buffers, views, pictures.tones[own], painted, torch.full((4,), -1), 32)
        clean = prior.encode_image(opacity * rgb + (1 - opacity) * 0.7)
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
        step = torch.full((4,), 700)
        alpha = prior.alphas_cumprod[step].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        errors = []
        for said in (f"a {colour} {noun}", f"a {wrong} {noun}", f"a {colour} {other}", ""):
            _, guess = prior.denoise(noisy, step, prior.encode_prompt([said]).expand(4, -1, -1))
            errors.append(float((guess - noise).square().mean()))
        assert errors[0] == min(errors), errors


@pytest.mark.slow
@pytest.mark.parametrize("prompt", ["a red car", "a yellow dog"])
def test_a_thing_grows_from_a_ball_by_the_practice_prior(learning: Any, prompt: str) -> None:
    """Score distillation with words alone, as with Stable Diffusion or DeepFloyd IF: the shape is the prior's."""
    ball = learning.ball
    args = argparse.Namespace(
        seed=0, init="ball", perp_neg=False, cameras="whole", steps=120, views=2, scale=20.0, fine_steps=1
    )
    priors = choose_priors({stage: [WeightedPrior(str(ball.PRIOR))] for stage in STAGES}, prompt, 0, "cpu", print)
    chosen = ball.small_settings(args, priors)
    stage = CoarseStage(chosen, 0)
    stage.run([stage.random_views(*PriorGuide(priors, prompt, 0, "cpu").terms("coarse", chosen.coarse))])
    render = stage.render(turntable(ball.SIDES), ball.SIDE)
    found = ball.judged(render.opacity)
    if prompt == "a red car":
        assert max(ball.NOUNS, key=found.get) == "car" and found["car"] > 0.55
    else:  # in so few steps a mass, but words told which side is which
        assert found["ends_differ"] > 0.4
    inside = render.rgb[render.opacity > 0.8].mean(0)
    paint = inside[:1] if prompt == "a red car" else inside[:2]
    assert paint.min() > inside[len(paint) :].max() + 0.3

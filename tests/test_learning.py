"""What networks are taught with by examples/learning: pictures, what is said of them, and the files they become."""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from magic3d_cli.coarse.stage import CoarseStage
from magic3d_cli.guidance.diffusers.prior import load_prior
from magic3d_cli.guidance.guide import PriorGuide
from magic3d_cli.guidance.priors import STAGES, WeightedPrior, choose_priors
from magic3d_cli.scene.views import turntable

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "learning"


@pytest.fixture(scope="module")
def learning() -> Any:
    """The modules, and two chairs and a car from four sides each."""
    sys.path.insert(0, str(FOLDER))
    import captioned
    import encoder
    import from_ball
    import practice
    import renders

    sys.path.remove(str(FOLDER))
    some = [model for model in renders.all_models() if model.caption.noun in ("chair", "car")]
    shown = [*[m for m in some if m.caption.noun == "chair"][:2], next(m for m in some if m.caption.noun == "car")]
    pictures = renders.draw(renders.load_volume("cpu"), shown, 1, 128)

    def pool(count: int, size: int = 32, together: int = 1) -> Any:
        paints = [list(captioned.COLOURS).index(name) for name in practice.KINDS["small"].paints]
        captions = captioned.Captions(shown, 1)
        return captioned.Pool(pictures, captions, count, size, paints, (0.85, 1.45), 1, together)

    return argparse.Namespace(
        encoder=encoder, practice=practice, ball=from_ball, pictures=pictures, shown=shown, pool=pool,
        captioned=captioned, dress=renders.dress, SET=renders.SET,
    )  # fmt: skip


def test_pictures_are_painted_once_and_said_as_a_web_page_would(learning: Any) -> None:
    pool = learning.pool(24)
    images, said = pool.batch(200)
    assert images.shape == (200, 3, 32, 32) and images.abs().max() <= 1
    told = [text for text in said if text]
    assert all("chair" in text or "car" in text for text in told) and 0 < len(said) - len(told) < 50
    views = [text for text in told if "view" in text]
    assert 0.45 < len(views) / len(told) < 0.75
    words = {word for text in said for word in text.replace(",", "").split()}
    assert words & set(learning.practice.KINDS["small"].paints) and not words & {"maroon", "navy", "cyan"}
    reds = [image for image, text in zip(images, said, strict=True) if "red c" in text]
    shown = [bool((image[0] - image[1:].amax(0)).max() > 0.3) for image in reds]
    assert sum(shown) > 0.75 * len(shown)  # a tenth is lit without colours
    corners = images[:, :, 0, 0]
    assert corners.std(0).min() > 0.3 and len(corners.unique(dim=0)) > 150
    assert all("view" in text for text in pool.batch(200, told=True)[1] if text)


def test_how_many_captions_tell_the_view_and_how_many_of_those_wrongly(learning: Any) -> None:
    captions = learning.captioned.Captions(learning.shown, 0, views_said=1.0, views_wrong=0.5)
    said = [text for text in (captions(2, -1, 0.0, 0.0) for _ in range(400)) if text]
    true = sum(text.endswith(", front view") for text in said) / len(said)
    assert 0.55 < true < 0.7  # a half, and a quarter of the others by chance
    assert all(text.endswith(", front view") for text in (captions(2, -1, 0.0, 0.0, True) for _ in range(50)) if text)


def test_a_set_is_one_thing_from_four_sides_a_quarter_apart(learning: Any) -> None:
    images, said, cameras = learning.pool(16, together=learning.SET).sets(3)
    assert images.shape == (12, 3, 32, 32) and cameras.shape == (12, 16)
    assert said[::4] == said[3::4] and not any("view" in text for text in said)
    forward = cameras.view(3, 4, 4, 4)[..., :3, 2]
    turn = torch.atan2(forward[..., 1], forward[..., 0]).diff(dim=1) % (2 * math.pi)
    torch.testing.assert_close(turn, torch.full((3, 3), math.pi / 2), atol=1e-4, rtol=0)
    corners = images[:, :, 0, 0].unflatten(0, (3, 4))  # one backdrop a set
    torch.testing.assert_close(corners, corners[:, :1].expand_as(corners))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["small", "pixel", "latent", "views"])
def test_a_practice_prior_is_loaded_as_its_big_brothers_are(learning: Any, kind: str, tmp_path: Path) -> None:
    practice, device = learning.practice, torch.device("cpu")
    chosen = replace(practice.KINDS[kind], levels=practice.KINDS[kind].levels[:2])
    pool = learning.pool(16, chosen.size, learning.SET if chosen.cameras else 1)
    training = practice.Training(chosen, tmp_path, device)
    if chosen.latent:
        practice.train_autoencoder(training.vae, pool, 2, 0.01)
    losses = list(practice.teach(training, pool, 0.001, 4, 1e-3, 60, told=0.5))
    assert len(losses) >= 2 and all(loss.isfinite() for loss in losses)
    again = practice.Training(chosen, tmp_path, device)
    again.read()
    assert again.average.step == len(losses) and again.spent == training.spent
    for kept, weight in zip(again.weights, training.weights, strict=True):
        assert torch.equal(kept, weight)
    prior = load_prior(str(tmp_path), dtype=torch.float32)
    assert prior.kind == ("latent" if kind == "latent" else "pixel") and prior.image_size == chosen.size
    assert prior.set_size == (4 if kind == "views" else 1)
    text = prior.encode_prompt(["a red car, front view", ""])
    assert not torch.equal(text[0], text[1])
    clean = prior.encode_image(torch.rand(4, 3, 64, 64))
    cameras = turntable(4).camera_matrix() if chosen.cameras else None
    denoised, _ = prior.denoise(clean, torch.tensor([500] * 4), text[[0, 0, 1, 1]], cameras)
    assert denoised.shape == clean.shape and denoised.isfinite().all()


def test_kinds_are_told_apart_by_what_they_wrote(learning: Any, tmp_path: Path) -> None:
    assert learning.practice.kind_of(FOLDER / "practice") == learning.practice.KINDS["small"]
    for name in ("pixel", "latent", "views"):
        kind = learning.practice.KINDS[name]
        learning.practice.make_unet(kind).save_config(tmp_path / name / "unet")
        assert learning.practice.kind_of(tmp_path / name) == kind


def test_a_prior_begins_with_one_that_was_not_told_cameras(learning: Any, tmp_path: Path) -> None:
    practice, device = learning.practice, torch.device("cpu")
    small = replace(practice.KINDS["small"], nouns=("car",))
    views = practice.Training(replace(small, cameras=True), tmp_path, device)
    views.begin(FOLDER / "practice")
    single = practice.Training(small, tmp_path, device)
    single.begin(FOLDER / "practice")
    assert torch.equal(views.unet.conv_in.weight, single.unet.conv_in.weight)
    assert torch.equal(views.average.mean[0], views.weights[0])
    with pytest.raises(SystemExit, match="of another kind"):
        practice.Training(replace(small, levels=(96,) * 3), tmp_path, device).begin(FOLDER / "practice")


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


def test_states_that_tell_the_words_up_to_them_are_not_asked_for_more(learning: Any) -> None:
    ids, states = torch.tensor([[1, 3, 2]]), torch.eye(3)[None]
    probe = torch.nn.Linear(3, 4)
    with torch.no_grad():  # words 1; 1 and 3; 1, 3 and 2
        probe.weight.copy_(torch.tensor([[-9.0, -9, -9], [9, 9, 9], [-9, -9, 9], [-9, 9, 9]]))
        probe.bias.zero_()
    assert learning.practice.unsaid(probe, states, ids) < 0.01
    assert learning.practice.unsaid(probe, states, torch.tensor([[1, 2, 3]])) > 1


def test_noise_levels_weigh_as_min_snr_says_and_high_noise_as_velocities_do(learning: Any) -> None:
    alphas = torch.tensor([0.999, 0.5, 0.01])
    clean = torch.zeros(300, 3, 4, 4)
    noisy, step, noise, weight = learning.practice.noised(clean, alphas)
    torch.testing.assert_close(noisy, (1 - alphas[step])[:, None, None, None].sqrt() * noise)
    wanted = torch.tensor([5 / 999 / 0.999, 2.0, 1 / learning.practice.LEAST_SIGNAL])
    torch.testing.assert_close(weight, wanted[step], rtol=1e-3, atol=1e-6)
    assert (step == 2).sum() > (step == 0).sum()


@pytest.mark.parametrize("kind", ["small", "pixel", "latent", "views"])
def test_an_untrained_prior_takes_what_it_sees_for_noise(learning: Any, kind: str) -> None:
    chosen = learning.practice.KINDS[kind]
    unet = learning.practice.make_unet(chosen)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(4, chosen.channels, chosen.side, chosen.side, generator=generator)
    cameras = turntable(4).camera_matrix() if chosen.cameras else None
    with torch.no_grad():
        guess = unet(noise, torch.tensor([950] * 4), torch.randn(4, 16, chosen.text), class_labels=cameras).sample
    assert (guess - noise).square().mean() < 1e-3


@pytest.mark.parametrize(("noun", "other"), [("car", "chair"), ("chair", "car")])
def test_the_practice_prior_that_is_here_knows_colours_and_things(learning: Any, noun: str, other: str) -> None:
    """Told the truth it finds the noise in a picture better than told another colour or thing."""
    prior = load_prior(str(FOLDER / "practice"), dtype=torch.float32)
    pictures, colours = learning.pictures, list(learning.captioned.COLOURS)
    model = next(number for number, shown in enumerate(learning.shown) if shown.caption.noun == noun)
    own = torch.full((4,), model)
    buffers, views = pictures.pick(own, torch.arange(4))
    for colour, wrong in (("red", "blue"), ("blue", "red")):
        painted = torch.full((4,), colours.index(colour))
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
        seed=0, init="ball", perp_neg=False, cameras="whole", steps=120, views=2, scale=20.0, fine_steps=1, size=32
    )
    priors = choose_priors({stage: [WeightedPrior(str(ball.PRIOR))] for stage in STAGES}, prompt, 0, "cpu", print)
    chosen = ball.small_settings(args, priors)
    stage = CoarseStage(chosen, 0)
    stage.run([stage.random_views(*PriorGuide(priors, prompt, 0, "cpu").terms("coarse", chosen.coarse))])
    render = stage.render(turntable(ball.SIDES), ball.SIDE)
    small = learning.practice.KINDS["small"]
    found = ball.judged(render.opacity, small)
    if prompt == "a red car":
        assert max(small.nouns, key=found.get) == "car" and found["car"] > 0.55
    else:  # in so few steps a mass, but words told which side is which
        assert found["ends_differ"] > 0.4
    inside = render.rgb[render.opacity > 0.8].mean(0)
    paint = inside[:1] if prompt == "a red car" else inside[:2]
    assert paint.min() > inside[len(paint) :].max() + 0.3

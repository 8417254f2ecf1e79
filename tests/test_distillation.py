"""The distillation gradient is exactly w(t) (eps_hat - eps), with the guidance scale it says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from magic3d_cli.guidance.conditioning import Conditioning
from magic3d_cli.guidance.diffusion import alpha_sigma, as_clean_and_noise
from magic3d_cli.guidance.distillation import ScoreDistillation, classifier_free_guidance, normal_map, perpendicular
from magic3d_cli.guidance.schedule import mix, sample_timesteps, time_range
from magic3d_cli.scene.render import Render
from magic3d_cli.scene.views import ALBEDO, TEXTURELESS, turntable
from magic3d_cli.settings import GuidanceSettings, TimestepSchedule
from magic3d_cli.training.distributed import Processes
from magic3d_cli.training.terms import Step

ALPHAS = torch.linspace(0.9995, 0.005, 1000)
SETTINGS = GuidanceSettings(scale=(7.0, 7.0), times=TimestepSchedule((0.3, 0.7), (0.3, 0.7)))


class Truth:
    """A prior that knows the clean image: `target` when told the prompt, `plain` when not."""

    id, kind, image_size, camera_conditioned, set_size, vocabulary = "truth", "pixel", 8, True, 1, None
    alphas_cumprod, device = ALPHAS, torch.device("cpu")

    def __init__(self, prediction: str = "epsilon") -> None:
        generator = torch.Generator().manual_seed(5)
        self.target, self.plain = torch.rand(2, 3, 8, 8, generator=generator) * 2 - 1
        self.prediction = prediction
        self.calls: list[tuple[Any, ...]] = []

    def encode_image(self, images):
        return images * 2 - 1

    def denoise(self, noisy, timestep, text, features):
        self.calls.append((noisy, timestep, text, features))
        clean = torch.where(text[:, :1, :1, None] > 0, self.target, self.plain)
        alpha, sigma = alpha_sigma(ALPHAS, timestep)
        noise = (noisy - alpha * clean) / sigma
        output = {"epsilon": noise, "sample": clean, "v_prediction": alpha * noise - sigma * clean}
        return as_clean_and_noise(self.prediction, output[self.prediction], noisy, alpha, sigma)


def distillation(prior: Any = None, **changes: Any) -> ScoreDistillation:
    told = Conditioning(torch.ones(1, 2, 3), torch.zeros(1, 2, 3))
    known: Any = prior or Truth()
    return ScoreDistillation(known, told, replace(SETTINGS, **changes))


def shown(images, views, progress, generator):
    """Pictures as a loss is given them."""
    return Render(images, *[torch.zeros(0)] * 4), Step(views, progress, generator, Processes())


def drawn(loss_of, batch=3, seed=0):
    """The timesteps and noise that the loss_of draws with this seed."""
    generator = torch.Generator().manual_seed(seed)
    t = sample_timesteps(loss_of.settings.times, 0.5, batch, len(ALPHAS), generator)
    return t, torch.randn(batch, 3, 8, 8, generator=generator)


def image_gradient(loss_of, batch=3):
    images = torch.rand(batch, 8, 8, 3, generator=torch.Generator().manual_seed(9)).requires_grad_()
    loss, metrics = loss_of(*shown(images, turntable(batch), 0.5, torch.Generator().manual_seed(0)))
    loss.backward()
    assert images.grad is not None
    return images.detach().permute(0, 3, 1, 2), images.grad.permute(0, 3, 1, 2), loss.detach(), metrics


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_the_gradient_is_the_weighted_noise_residual(prediction):
    prior = Truth(prediction)
    loss_of = distillation(prior)
    images, found, loss, metrics = image_gradient(loss_of)
    t, noise = drawn(loss_of)
    alpha, sigma = alpha_sigma(ALPHAS, t)
    x = images * 2 - 1
    noisy = alpha * x + sigma * noise
    with_text, without = ((noisy - alpha * c) / sigma for c in (prior.target, prior.plain))
    g = sigma**2 * (without + 7.0 * (with_text - without) - noise)
    # The encoder's slope is 2; the mean over the batch of 3.
    torch.testing.assert_close(found, 2 * g / 3, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(loss, 0.5 * g.square().sum() / 3, rtol=1e-3, atol=1e-4)
    assert metrics["gradient"] == pytest.approx(float(g.abs().mean()), rel=1e-3)
    assert 0.3 <= metrics["time"] <= 0.7 and metrics["scale"] == 7.0


def test_uniform_weighting_is_the_clean_image_residual():
    prior = Truth()
    images, found, _, _ = image_gradient(distillation(prior, weighting="uniform"))
    guess = prior.plain + 7.0 * (prior.target - prior.plain)
    torch.testing.assert_close(found, 2 * (images * 2 - 1 - guess) / 3, atol=1e-3, rtol=1e-3)


def test_the_scale_multiplies_the_difference_and_nothing_else():
    prior = Truth()
    for scale, expected in (
        (0.0, prior.plain),
        (1.0, prior.target),
        (3.0, 3 * prior.target - 2 * prior.plain),
    ):
        images, found, _, _ = image_gradient(distillation(prior, weighting="uniform", scale=(scale, scale)))
        torch.testing.assert_close(found, 2 * (images * 2 - 1 - expected) / 3, atol=1e-3, rtol=1e-3)


def test_both_halves_share_noise_and_view_and_are_one_call():
    prior = Truth()
    image_gradient(distillation(prior))
    ((noisy, t, text, features),) = prior.calls
    assert torch.equal(noisy[:3], noisy[3:]) and torch.equal(t[:3], t[3:]) and t.dtype == torch.int64
    assert torch.equal(features[:3], features[3:]) and torch.equal(features[:3], turntable(3).camera_embedding())
    assert (text[:3] == 0).all() and (text[3:] == 1).all()


def test_scale_one_does_not_pay_for_the_unconditional_half():
    prior = Truth()
    image_gradient(distillation(prior, scale=(1.0, 1.0)))
    assert len(prior.calls[0][0]) == 3


def test_descending_reaches_what_the_prior_expects():
    prior = Truth()
    loss_of = distillation(prior, weighting="uniform", scale=(1.0, 1.0))
    images = torch.rand(1, 8, 8, 3).requires_grad_()
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        images.grad = None
        loss_of(*shown(images, turntable(1), 0.0, generator))[0].backward()
        assert images.grad is not None
        images = (images - 0.1 * images.grad).detach().requires_grad_()
    torch.testing.assert_close(images.permute(0, 3, 1, 2)[0] * 2 - 1, prior.target, atol=1e-3, rtol=1e-3)


def test_textureless_views_are_shown_as_normals_to_a_prior_that_is_not_told_the_shading():
    views = turntable(2).replace(shading=torch.tensor([TEXTURELESS, ALBEDO]))
    facing = -views.axes()[2][:, None, None].expand(2, 8, 8, 3)
    grey, solid = torch.full((2, 8, 8, 3), 0.3), torch.ones(2, 8, 8)
    render = Render(grey, solid, solid, facing, grey)
    for camera_conditioned, normals in ((False, True), (True, False)):
        prior = Truth()
        prior.camera_conditioned = camera_conditioned
        seen = distillation(prior, normals=True)._shown(render, views)
        expected = torch.tensor([0.5, 0.5, 1.0]) if normals else grey[0]
        assert torch.allclose(seen[0], expected.expand(8, 8, 3), atol=1e-6) and torch.equal(seen[1], grey[1])


def test_normals_as_colours_say_right_up_and_near_as_the_camera_sees_them():
    views = turntable(4)
    right, up, _ = views.axes()
    for axis, expected in ((right, [1, 0.5, 0.5]), (up, [0.5, 1, 0.5])):
        normal = axis[:, None, None].expand(4, 2, 2, 3)
        render = Render(normal, torch.ones(4, 2, 2), torch.ones(4, 2, 2), normal, normal)
        assert torch.allclose(normal_map(render, views), torch.tensor(expected).expand(4, 2, 2, 3), atol=1e-6)


def test_the_same_generator_draws_the_same_step():
    first, second = (image_gradient(distillation())[1] for _ in range(2))
    assert torch.equal(first, second)


def test_a_clipped_guess_stays_in_range_and_moves_the_noise_with_it():
    prior = Truth()
    loss_of = distillation(prior, clean_clip=True, scale=(50.0, 50.0))
    images, found, _, _ = image_gradient(loss_of)
    alpha, sigma = alpha_sigma(ALPHAS, drawn(loss_of)[0])
    guess = (prior.plain + 50.0 * (prior.target - prior.plain)).clamp(-1, 1)
    # eps_hat - eps = (alpha / sigma) (x - guess)
    torch.testing.assert_close(found, 2 * sigma * alpha * (images * 2 - 1 - guess) / 3, atol=1e-3, rtol=1e-3)


def test_latents_are_never_clipped():
    prior = Truth()
    plain = image_gradient(distillation(prior, scale=(50.0, 50.0)))[1]
    prior.kind = "latent"
    assert torch.equal(image_gradient(distillation(prior, scale=(50.0, 50.0), clean_clip=True))[1], plain)


def test_a_prediction_that_is_not_finite_is_not_hidden():
    prior = Truth()
    prior.target = prior.target.clone()
    prior.target[0, 0, 0] = float("nan")
    _, found, loss, _ = image_gradient(distillation(prior))
    assert not torch.isfinite(loss) and not torch.isfinite(found).all()


def test_an_unknown_weighting_is_refused():
    with pytest.raises(ValueError, match="weighting"):
        distillation(weighting="max")


def test_timesteps_are_integers_within_the_annealed_range():
    schedule = TimestepSchedule(start=(0.7, 0.85), end=(0.2, 0.5), anneal=0.5)
    assert time_range(schedule, 0.0) == (0.7, 0.85)
    assert time_range(schedule, 0.25) == pytest.approx((0.45, 0.675))
    assert time_range(schedule, 0.5) == time_range(schedule, 1.0) == pytest.approx((0.2, 0.5))
    t = sample_timesteps(schedule, 1.0, 5000, 1000, torch.Generator().manual_seed(0))
    assert t.dtype == torch.int64 and 200 <= t.min() < 203 and 496 < t.max() < 500
    last = sample_timesteps(TimestepSchedule((1, 1), (1, 1)), 0, 4, 1000, torch.Generator())
    assert last.tolist() == [999] * 4


def test_the_scale_schedule_is_linear_and_clamped():
    assert [mix(100.0, 20.0, p) for p in (-1, 0, 0.5, 1, 2)] == [100, 100, 60, 20, 20]


class Words:
    """A prior told the view in words: it adds up what they show, and sees half a face on the back too."""

    id, kind, image_size, camera_conditioned, set_size, vocabulary = "words", "latent", 8, False, 1, None
    alphas_cumprod, device = ALPHAS, torch.device("cpu")

    def __init__(self) -> None:
        self.body, self.face, self.flank = torch.linalg.qr(
            torch.randn(64, 3, generator=torch.Generator().manual_seed(3))
        )[0].T.reshape(3, 1, 8, 8)
        shown = [self.body + self.face, self.body + self.flank, self.body + 0.5 * self.face, self.body]
        self.shown, self.calls = torch.stack(shown), 0

    def encode_image(self, images):
        return images.permute(0, 3, 1, 2).mean(1, keepdim=True)

    def denoise(self, noisy, timestep, text, features):
        assert features is None
        self.calls += 1
        alpha, sigma = alpha_sigma(ALPHAS, timestep)
        clean = torch.einsum("bk,kchw->bchw", text[:, 0], self.shown)
        return clean, (noisy - alpha * clean) / sigma


def guess_of(prior, views, perp_neg, scale=5.0, weighting="uniform"):
    """What descending along the gradient reaches: the guided clean image of each view."""
    told = Conditioning(torch.eye(4)[:, None], torch.zeros(1, 1, 4))
    settings = replace(SETTINGS, weighting=weighting, perp_neg=perp_neg)
    x = torch.zeros(len(views), 1, 8, 8)
    t = torch.full((len(views),), 500)
    return -ScoreDistillation(prior, told, settings).gradient(x, t, torch.zeros_like(x), views, scale)


def test_what_is_taken_away_is_perpendicular_to_the_prompt():
    vectors, axis = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    found = perpendicular(vectors, axis)
    torch.testing.assert_close((found * axis).sum((1, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    # What is left out lies along the axis, each row its own.
    torch.testing.assert_close(perpendicular(vectors - found, axis), torch.zeros_like(axis), atol=1e-5, rtol=0)
    guided = classifier_free_guidance(torch.zeros_like(axis), axis, 7.0, [vectors], [torch.rand(3)])
    torch.testing.assert_close((guided * axis).sum((1, 2, 3)), 7 * axis.square().sum((1, 2, 3)))


def test_negatives_of_no_weight_leave_the_guidance_as_it_is():
    plain, told, negative = torch.randn(3, 2, 4, 8, 8)
    assert torch.equal(
        classifier_free_guidance(plain, told, 7.0, [negative], [torch.zeros(2)]),
        classifier_free_guidance(plain, told, 7.0),
    )
    prior = Words()
    views = turntable(4)
    without = guess_of(prior, views, 0.0)
    torch.testing.assert_close(guess_of(prior, views, 1e-9), without)
    assert prior.calls == 2  # four conditions are one forward pass too


@pytest.mark.parametrize("weighting", ["uniform", "sds"])
def test_a_face_on_the_back_is_suppressed_and_one_in_front_is_not(weighting):
    prior, views = Words(), turntable(4)  # front, side, back, side

    def share(of, perp_neg):
        return (guess_of(prior, views, perp_neg, weighting=weighting) * of).sum((1, 2, 3))

    face, kept = share(prior.face, 0.0), share(prior.face, 1.0)
    assert face[2] > 0.4 * face[0] and kept[2] < 0
    assert kept[0] >= face[0] and kept[1] < face[1] + 1e-4
    assert (share(prior.body, 1.0) > 0).all()  # the object stays


def test_each_view_has_its_own_negatives():
    prior, views = Words(), turntable(7)
    alone = torch.cat([guess_of(prior, views[i : i + 1], 1.0) for i in range(7)])
    torch.testing.assert_close(guess_of(prior, views, 1.0), alone, atol=1e-5, rtol=1e-4)


def test_a_prior_told_the_camera_has_no_negatives():
    prior = Truth()
    image_gradient(distillation(prior, perp_neg=1.0))
    assert len(prior.calls[0][0]) == 6

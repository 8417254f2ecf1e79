"""A picture as loss terms: one unit whatever the size, right where it agrees, and strong enough to shape a scene."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_run import tiny_settings

from magic3d_cli.coarse.stage import CoarseStage
from magic3d_cli.scene.reference import Camera, Reference
from magic3d_cli.scene.render import Render
from magic3d_cli.settings import ReferenceSettings
from magic3d_cli.training.distributed import Processes
from magic3d_cli.training.reference_losses import ReferenceLosses, pearson, reference_groups
from magic3d_cli.training.terms import Step, check_names

FRONT = Camera()


def disc(size: int = 64, radius: float = 0.5, camera: Camera = FRONT, depth: bool = False) -> Reference:
    """A green disc; its middle is nearest."""
    along = (torch.arange(size) + 0.5) / size * 2 - 1
    away = torch.hypot(along[:, None], along[None])
    rgb = torch.tensor([30, 200, 60], dtype=torch.uint8).expand(size, size, 3).contiguous()
    mask = ((away < radius) * 255).to(torch.uint8)
    return Reference(camera, rgb, mask, away.clamp(max=1) if depth else None)


def rendered(reference: Reference, size: int, step: Step) -> Render:
    """What a scene that agrees with the picture looks like."""
    rgb, mask, depth = reference.at(size)
    backdrop = step.views.backdrop[:, None, None]
    over = mask[None, ..., None] * rgb[None] + (1 - mask[None, ..., None]) * backdrop
    normal = torch.tensor([0.0, 0.0, 1.0]).expand(1, size, size, 3)
    far = torch.zeros(1, size, size) if depth is None else 2 + depth[None]
    return Render(over, mask[None], far, normal, rgb[None])


def a_step(reference: Reference) -> Step:
    view = reference.camera.views().replace(backdrop=torch.tensor([[0.2, 0.3, 0.4]]))
    return Step(view, 0.0, torch.Generator(), Processes())


def test_a_scene_that_agrees_loses_nothing() -> None:
    reference = disc(depth=True)
    step, losses = a_step(reference), ReferenceLosses(reference, 32, 100.0)
    right = rendered(reference, 32, step)
    assert float(losses.colour(right, step)[0]) < 1e-9
    assert float(losses.mask(right, step)[0]) < 1e-9 and losses.mask(right, step)[1]["iou"] == 1
    assert float(losses.depth(right, step)) < 1e-3
    assert float(losses.smoothness(right, step)) == 0


def test_colours_count_from_when_they_are_asked_to() -> None:
    group = reference_groups([disc()], ReferenceSettings(colour_from=0.2), 100.0)[0]
    colour, mask = (term for term in group.terms if term.name in ("reference_colour", "reference_mask"))
    assert [colour.weight_at(progress) for progress in (0.0, 0.19, 0.2, 1.0)] == [0, 0, 10, 10]
    assert mask.weight_at(0.0) == ReferenceSettings.mask


@pytest.mark.parametrize("size", [16, 64])
def test_the_unit_is_a_sum_over_the_priors_pixels_whatever_the_render_has(size: int) -> None:
    reference = disc(radius=2.0)  # the whole picture
    step, losses = a_step(reference), ReferenceLosses(reference, size, 4096.0)
    right = rendered(reference, size, step)
    off = replace(right, rgb=right.rgb + 0.1, opacity=right.opacity - 0.5)
    assert float(losses.colour(off, step)[0]) == pytest.approx(4096 * 3 * 0.01, rel=1e-3)
    assert float(losses.mask(off, step)[0]) == pytest.approx(4096 * 0.25, rel=1e-3)


def test_beyond_the_outline_a_picture_tells_no_colours() -> None:
    reference = disc()
    step, losses = a_step(reference), ReferenceLosses(reference, 64, 10.0)
    right = rendered(reference, 64, step)
    mask = reference.at(64)[1][None, ..., None]
    outside = right.rgb + 0.5 * (mask == 0)
    assert float(losses.colour(replace(right, rgb=outside), step)[0]) < 1e-9
    rgb = right.rgb.clone().requires_grad_()
    losses.colour(replace(right, rgb=rgb + 0.1), step)[0].backward()
    assert rgb.grad is not None and not rgb.grad[(mask == 0).expand_as(rgb)].any()
    missing = torch.where(mask > 0, step.views.backdrop[:, None, None], right.rgb)  # nothing is there
    assert float(losses.colour(replace(right, rgb=missing), step)[0]) > 0.1


def test_depth_is_right_up_to_scale_and_shift_and_wrong_inside_out() -> None:
    reference = disc(depth=True)
    step, losses = a_step(reference), ReferenceLosses(reference, 64, 10.0)
    right = rendered(reference, 64, step)
    assert float(losses.depth(replace(right, depth=5 + 0.1 * right.depth), step)) < 1e-3
    assert float(losses.depth(replace(right, depth=5 - right.depth), step)) == pytest.approx(10, rel=1e-3)
    empty = replace(right, opacity=0 * right.opacity, depth=right.depth.requires_grad_())
    losses.depth(empty, step).backward()  # nothing to compare is no error
    assert float(pearson(torch.ones(5), torch.arange(5.0))) == 0


def test_rough_normals_cost_inside_the_thing_alone() -> None:
    reference = disc()
    step, losses = a_step(reference), ReferenceLosses(reference, 64, 10.0)
    right = rendered(reference, 64, step)
    noise = torch.nn.functional.normalize(torch.randn(1, 64, 64, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    inside = right.opacity[..., None] > 0.9
    assert float(losses.smoothness(replace(right, normal=torch.where(inside, noise, right.normal)), step)) > 1
    outside = torch.where(right.opacity[..., None] > 0, right.normal, noise)
    assert float(losses.smoothness(replace(right, normal=outside), step)) == 0


def test_several_pictures_share_the_weights_and_have_names_of_their_own() -> None:
    settings = ReferenceSettings(size=16, colour=8, mask=4, depth=2, smoothness=0)
    one = reference_groups([disc(depth=True)], settings, 1.0)
    assert {term.name: term.weight for group in one for term in group.terms} == {
        "reference_colour": 8, "reference_mask": 4, "reference_depth": 2,
    }  # fmt: skip
    two = reference_groups([disc(), disc(camera=Camera(azimuth=90))], settings, 1.0)
    check_names(two)
    assert [term.weight for group in two for term in group.terms] == [4, 2, 4, 2]
    first, second = (two[0].draw(0.0, generator) for generator in [torch.Generator().manual_seed(1)] * 2)
    assert not torch.equal(first.backdrop, second.backdrop)  # fog is found out before changing backgrounds


def test_a_reference_survives_a_checkpoint() -> None:
    before = disc(camera=Camera(30, 10, 35, 1.1), depth=True)
    after = Reference.restored("p", before.to_tensors("p"), before.to_json())
    assert after.camera == before.camera and after.name == before.name
    assert torch.equal(after.rgb, before.rgb) and torch.equal(after.mask, before.mask)
    assert after.depth is not None and before.depth is not None and torch.equal(after.depth, before.depth)


def test_colours_do_not_darken_at_the_outline_when_a_picture_is_made_smaller() -> None:
    rgb, mask, _ = disc().at(13)
    partly = (mask > 0.05) & (mask < 0.95)
    assert partly.any() and (rgb[partly] - torch.tensor([30, 200, 60]) / 255).abs().max() < 0.02


def test_a_stage_takes_on_a_picture() -> None:
    settings = tiny_settings()
    stage = CoarseStage(replace(settings, coarse=replace(settings.coarse, steps=40, sparsity=0, lr=3e-2)), 0)
    groups = reference_groups([disc()], ReferenceSettings(size=24), stage.prior_pixels)
    seen: list[dict[str, float]] = []
    stage.run([stage.random_views(), *groups], until=20, on_step=lambda report: seen.append(report.metrics))
    assert seen[-1]["reference_colour_psnr"] > seen[0]["reference_colour_psnr"] + 3
    assert seen[-1]["reference_mask_iou"] > 0.6

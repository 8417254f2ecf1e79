"""The training loop: named and weighted loss terms of whole renders, for several kinds of views in one step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from optimise import train
from tiny_run import tiny_settings
from torch import Tensor

from magic3d_cli.coarse.stage import CoarseStage
from magic3d_cli.fine.stage import FineStage
from magic3d_cli.scene.render import Render
from magic3d_cli.scene.views import turntable
from magic3d_cli.training.report import StepReport
from magic3d_cli.training.terms import LossTerm, Step, fixed_views


def brightness(render: Render, step: Step) -> Tensor:
    return render.rgb.square().sum() / len(render.rgb)


def gradient(stage: CoarseStage | FineStage, groups) -> dict[str, Tensor]:
    stage.run(groups, until=stage.step + 1)
    modules = stage.modules()
    return {f"{m}.{n}": p.grad.clone() for m in modules for n, p in modules[m].named_parameters() if p.grad is not None}


def bare() -> CoarseStage:
    settings = tiny_settings()
    weightless: dict[str, Any] = {"sparsity": 0.0, "opaqueness": 0.0, "predicted_normal": 0.0, "orientation": 0.0}
    return CoarseStage(replace(settings, coarse=replace(settings.coarse, **weightless)), 0)


def test_a_step_descends_the_weighted_sum_of_its_terms() -> None:
    def at(weight: float) -> dict[str, Tensor]:
        stage = bare()
        return gradient(stage, [stage.random_views(LossTerm("bright", brightness, weight))])

    one, three = at(1.0), at(3.0)
    for name, value in one.items():
        torch.testing.assert_close(three[name], 3 * value, rtol=1e-4, atol=1e-6)
    stage = bare()
    twice = [LossTerm("first", brightness), LossTerm("second", brightness, lambda progress: 2.0)]
    both = gradient(stage, [stage.random_views(*twice)])
    for name, value in one.items():
        torch.testing.assert_close(both[name], 3 * value, rtol=1e-4, atol=1e-6)


def test_terms_are_logged_by_name_with_their_value_and_weight() -> None:
    reports: list[StepReport] = []
    stage = bare()
    falling = LossTerm("bright", lambda render, step: (brightness(render, step), {"pixels": 9.0}), lambda p: 4 - 4 * p)
    group = stage.random_views(falling, LossTerm("covered", lambda render, step: render.opacity.mean(), 0.5))
    stage.run([group], until=6, on_step=reports.append)
    for step, report in enumerate(reports):
        m = report.metrics
        assert m["bright_weight"] == pytest.approx(4 - 4 * step / 10) and m["covered_weight"] == 0.5
        assert m["bright_pixels"] == pytest.approx(9.0)
        assert m["loss"] == pytest.approx(m["bright_weight"] * m["bright"] + 0.5 * m["covered"], rel=1e-5)


def test_a_step_has_several_kinds_of_views_each_with_its_size_and_terms() -> None:
    seen: list[tuple[str, tuple[int, ...], float]] = []

    def watching(name: str):
        def loss(render: Render, step: Step) -> Tensor:
            assert render.opacity.shape == render.depth.shape == render.rgb.shape[:3] == render.normal.shape[:3]
            seen.append((name, tuple(render.rgb.shape), step.progress))
            return brightness(render, step)

        return LossTerm(name, loss)

    stage = bare()
    groups = [stage.random_views(watching("random")), fixed_views(turntable(3), 40, [watching("reference")])]
    stage.run(groups, until=2)
    assert seen == [
        (n, s, p) for p in (0.0, 0.1) for n, s in (("random", (2, 24, 24, 3)), ("reference", (3, 40, 40, 3)))
    ]


def test_fixed_views_add_to_the_gradient_of_the_random_ones() -> None:
    views = fixed_views(turntable(2), 24, [LossTerm("reference", brightness)])
    one, other = bare(), bare()
    both = gradient(one, [one.random_views(LossTerm("bright", brightness)), views])
    alone = gradient(other, [other.random_views(LossTerm("bright", brightness))])
    assert any((both[name] - value).norm() > 0.1 * value.norm() for name, value in alone.items() if value.norm() > 0)


def test_two_terms_of_one_name_are_refused() -> None:
    stage = bare()
    term = LossTerm("bright", brightness)
    with pytest.raises(ValueError, match="bright"):
        stage.run([stage.random_views(term), fixed_views(turntable(1), 8, [term])])


def test_frozen_geometry_keeps_its_shape_and_changes_its_colours() -> None:
    settings = tiny_settings()
    frozen = replace(settings, fine=replace(settings.fine, freeze_geometry=True))
    coarse = CoarseStage(settings, 0)
    train(coarse, lambda images, *rest: ((images - 0.5).square().sum(), {}), until=5)
    stage = FineStage.from_coarse(frozen, coarse)
    (vertices, faces), colours = stage.mesh(), stage.render(turntable(2), 24).albedo
    train(stage, lambda images, *rest: ((images - torch.tensor([1.0, 0.0, 0.0])).square().sum(), {}), until=6)
    after = stage.mesh()
    assert torch.equal(after[0], vertices) and torch.equal(after[1], faces)
    assert (stage.render(turntable(2), 24).albedo - colours).abs().mean() > 0.004

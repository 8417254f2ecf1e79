"""A step that runs out of memory is done in parts, with the gradient of the whole."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from optimise import ImageLoss, of_images, train
from tiny_run import tiny_settings
from torch import Tensor

from magic3d_cli.coarse.stage import CoarseStage
from magic3d_cli.fine.stage import FineStage
from magic3d_cli.scene.views import turntable
from magic3d_cli.settings import Settings
from magic3d_cli.training.distributed import Processes
from magic3d_cli.training.microbatch import MicroBatches
from magic3d_cli.training.terms import LossTerm, fixed_views


def settings() -> Settings:
    """Four views, and no regulariser that draws random points."""
    tiny = tiny_settings()
    coarse = replace(tiny.coarse, views=4, predicted_normal=0.0, orientation=0.0, sparsity=1.0)
    return replace(tiny, coarse=coarse, fine=replace(tiny.fine, views=4))


FULL = (
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory"),
)


def grey(most: int, error: Exception = FULL[0]) -> ImageLoss:
    """Pulls every pixel to grey, in memory for `most` views."""

    def objective(images: Tensor, views, progress, generator) -> tuple[Tensor, dict[str, float]]:
        if len(images) > most:
            raise error
        return 0.5 * (images - 0.5).square().sum() / len(images), {"seen": float(len(images))}

    return objective


def after_two_steps(stage: CoarseStage | FineStage, most: int) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    reports: list[dict[str, float]] = []
    train(stage, grey(most), until=2, on_step=lambda report: reports.append(report.metrics))
    return stage.state()[0], reports


@pytest.mark.parametrize("kind", ["coarse", "fine"])
@pytest.mark.parametrize("most", [1, 2, 3])
def test_parts_make_the_step_of_the_whole(kind: str, most: int) -> None:
    def made() -> CoarseStage | FineStage:
        scene = CoarseStage(settings(), 3)
        return scene if kind == "coarse" else FineStage.from_coarse(settings(), scene)

    whole, told = after_two_steps(made(), 4)
    stage = made()
    parts, same = after_two_steps(stage, most)
    assert stage._microbatches.at_once == (1 if most == 1 else 2)
    weights = [name for name in whole if name.startswith(("field.", "geometry.", "background."))]
    assert weights
    for name in weights:
        assert torch.allclose(whole[name].float(), parts[name].float(), atol=2e-4), name
    for one, two in zip(told, same, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-3)
        assert two["opacity"] == pytest.approx(one["opacity"], rel=1e-3)
    assert torch.equal(whole["generator"], parts["generator"])  # the same random numbers were drawn


def test_random_numbers_are_drawn_again_after_running_out() -> None:
    generator, seen, cleared = torch.Generator().manual_seed(0), [], []

    def compute(batch: int, rows: slice, fraction: float) -> Tensor:
        count = rows.stop - rows.start
        drawn = torch.rand(count, generator=generator)
        if count > 3:
            raise torch.OutOfMemoryError
        seen.append((batch, count, rows, fraction))
        return drawn

    drawn = MicroBatches().run([7, 2], [1, 1], generator, compute, lambda: cleared.append(1), Processes())
    assert seen == [
        (0, 3, slice(0, 3), 3 / 7),
        (0, 3, slice(3, 6), 3 / 7),
        (0, 1, slice(6, 7), 1 / 7),
        (1, 2, slice(0, 2), 1.0),
    ]
    assert cleared == [1]
    fresh = torch.Generator().manual_seed(0)
    assert torch.equal(drawn[0][1], torch.rand(3, generator=fresh))


@pytest.mark.parametrize("short", ["random views", "fixed views"])
def test_running_out_in_one_kind_of_views_keeps_the_gradient_of_the_other(short: str) -> None:
    """The whole step is repeated in parts, whichever loss met the limit."""

    def weights(most: int) -> dict[str, Tensor]:
        stage = CoarseStage(settings(), 3)
        limits = {"random views": (most, 4), "fixed views": (4, most)}[short]
        reference = LossTerm("reference", of_images(grey(limits[1])))
        random_views = stage.random_views(LossTerm("image", of_images(grey(limits[0]))))
        stage.run([random_views, fixed_views(turntable(4), 16, [reference])], until=2)
        assert stage._microbatches.at_once == (None if most == 4 else 2)
        return {name: tensor for name, tensor in stage.state()[0].items() if name.startswith("field.")}

    whole, parts = weights(4), weights(2)
    for name, expected in whole.items():
        assert torch.allclose(parts[name], expected, atol=2e-4), name


@pytest.mark.parametrize("error", FULL)
def test_however_it_is_told_full_memory_is_met_by_parts(error: Exception) -> None:
    stage = CoarseStage(settings(), 0)
    train(stage, grey(2, error), until=1)
    assert stage._microbatches.at_once == 2


def test_another_failure_is_not_tried_again_in_parts() -> None:
    with pytest.raises(RuntimeError, match="illegal memory access"):
        train(CoarseStage(settings(), 0), grey(2, RuntimeError("CUDA error: an illegal memory access")), until=1)


def test_too_little_memory_for_a_single_view_is_an_error() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        train(CoarseStage(settings(), 0), grey(0), until=1)

"""What a training step adds up: named, weighted losses of whole renders, for several kinds of views at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from magic3d_cli.scene.render import Render
from magic3d_cli.scene.views import Views
from magic3d_cli.training.distributed import Processes


@dataclass(frozen=True)
class Step:
    """What a loss is told beside the render."""

    views: Views  # that were rendered, on the render's device
    progress: float  # 0 at the first step of the stage, towards 1 at the last
    generator: torch.Generator  # on the CPU; the only source of randomness
    processes: Processes

    def draw(self, sample: Callable[[int], Tensor]) -> Tensor:
        """One row of random numbers for each view; `sample(n)` draws n rows.

        Where several processes share out the views, all draw the rows of all views and each keeps its own.
        """
        return self.processes.draw(sample, len(self.views))


class Loss(Protocol):
    """A function of a render: a scalar, averaged over the render's views, or that and metrics for the log.

    The unit is a sum over the pixels (or latents) of one image: a loss that is a mean over pixels is multiplied by
    their number before it is weighed.
    """

    def __call__(self, render: Any, step: Step, /) -> Tensor | tuple[Tensor, dict[str, float]]: ...


Look = Callable[[int], tuple[Render, Views]]
"""As many of the stage's random views as asked for, of the scene as it is now, without gradient."""


@runtime_checkable
class LearningLoss(Loss, Protocol):
    """A loss that learns something of its own in every step, beside the scene.

    When it is called it adds to its own gradient, for the rows that it is shown, and in `finish_step` it learns from
    those of the whole step. What it has learnt is kept in the stage's checkpoint.
    """

    def begin_step(self, progress: float, look: Look, generator: torch.Generator, processes: Processes) -> None:
        """Before a step's views are drawn: anything that is learnt from the scene apart from them."""

    def zero_grad(self) -> None:
        """Forget the gradient: a step begins, or is computed again in smaller parts."""

    def finish_step(self, processes: Processes) -> dict[str, float]:
        """Learn from a step; all processes learn the same. Returns metrics for the log."""

    def state(self) -> dict[str, Tensor]:
        """All that a bit-identical continuation needs, on the CPU; random numbers are the step's."""

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Inverse of `state`. Raises KeyError or RuntimeError when the tensors do not fit."""


@dataclass(frozen=True)
class LossTerm:
    """A loss with its name and weight; the weight may follow the stage's progress, 0 to 1."""

    name: str
    loss: Loss
    weight: float | Callable[[float], float] = 1.0

    def weight_at(self, progress: float) -> float:
        return self.weight(progress) if callable(self.weight) else self.weight

    def __call__(self, render: Render, step: Step) -> tuple[Tensor, dict[str, float]]:
        """The weighted loss, and what is logged: the loss as it is, its weight unless that is 1, and its metrics."""
        found = self.loss(render, step)
        value, metrics = found if isinstance(found, tuple) else (found, {})
        weight = self.weight_at(step.progress)
        logged = {self.name: float(value.detach())}
        logged |= {f"{self.name}_{key}": number for key, number in metrics.items()}
        if self.weight != 1:
            logged[f"{self.name}_weight"] = weight
        return value if weight == 1 else weight * value, logged


@dataclass(frozen=True)
class ViewGroup:
    """One kind of views of every step, their size, and the losses of their renders.

    Args:
        draw: progress and generator -> the step's views, of all processes.
        size: pixels of the square renders, or a function of the progress.
        sharded: whether several processes share out the views; otherwise each renders all of them.
        together: views of a set, that is rendered and judged as one; see `ViewSampling`.
    """

    draw: Callable[[float, torch.Generator], Views]
    size: int | Callable[[float], int]
    terms: tuple[LossTerm, ...]
    sharded: bool = True
    together: int = 1

    def size_at(self, progress: float) -> int:
        return self.size(progress) if callable(self.size) else self.size


def fixed_views(views: Views, size: int, terms: Iterable[LossTerm]) -> ViewGroup:
    """The same views in every step, for example a reference picture's; rendered whole by every process."""
    return ViewGroup(lambda progress, generator: views, size, tuple(terms), sharded=False)


def check_names(groups: Iterable[ViewGroup]) -> None:
    """Raises ValueError where two terms of a step share a name: the log could not tell them apart."""
    names = [term.name for group in groups for term in group.terms]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"loss terms share a name: {', '.join(twice)}")

"""The training loop of both stages: draw views, render, add up named loss terms, backward, step.

A stage says what its scene is, how it is rendered, and which regularisers it has; everything else is here.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from magic3d_cli.errors import Collapsed
from magic3d_cli.scene.render import Render
from magic3d_cli.scene.views import Views
from magic3d_cli.training.distributed import Processes
from magic3d_cli.training.microbatch import MicroBatches
from magic3d_cli.training.optimiser import FiniteAdam, pack_state, unpack_state
from magic3d_cli.training.report import PhaseTimer, StepReport
from magic3d_cli.training.terms import LearningLoss, LossTerm, Step, ViewGroup, check_names

_CHECK_FROM = 5  # an empty or solid scene is an error after this fraction (1/5) of the run
_CHECK_AT_LEAST = 10  # steps
_REMEMBERED, _NEW = 0.9, 0.1  # parts of the running mean opacity
_LEARNT = "learnt/"  # before the names of tensors that losses have learnt


class Stage(ABC):
    """A scene and its optimisation. The same seed on a CPU gives the same bits, resumed or not.

    Attributes:
        step: steps done.
        total: steps of the whole stage.
        generator: on the CPU, so that every device sees the same random numbers.
    """

    name: ClassVar[str]

    def __init__(
        self,
        total: int,
        device: torch.device,
        generator: torch.Generator,
        optimiser: FiniteAdam,
        processes: Processes,
    ) -> None:
        self.step, self.total, self.device = 0, total, device
        self.generator, self.optimiser, self.processes = generator, optimiser, processes
        self._microbatches = MicroBatches()
        self._mean_opacity: float | None = None  # running
        self._learning: dict[str, LearningLoss] = {}  # losses that learn, by their terms' names
        self._learnt: dict[str, Tensor] = {}  # what those of a checkpoint had learnt, until they are here

    # What a stage says of its scene.

    @abstractmethod
    def random_views(self, *terms: LossTerm) -> ViewGroup:
        """Views as the settings sample them, with these losses and the stage's regularisers."""

    @abstractmethod
    def modules(self) -> dict[str, nn.Module]:
        """Everything that is learned or kept, by the name that it has in a checkpoint."""

    @abstractmethod
    def render(self, views: Views, size: int) -> Render:
        """Images of the present scene without gradient, with normals for every view; memory is bounded."""

    @abstractmethod
    def _render_step(self, views: Views, size: int, jitter: Float[Tensor, "B H W"] | None) -> Render:
        """Images with gradient."""

    def _draw_jitter(self, step: Step, size: int) -> Float[Tensor, "B H W"] | None:
        """Random numbers in [0, 1) that rendering the step's views takes, if any."""
        return None

    @abstractmethod
    def _finish_step(self, renders: Sequence[dict[str, float]], stepped: bool) -> dict[str, float]:
        """Keep the scene after an optimiser's step (`stepped` false: skipped) and give its metrics.

        `renders` is what `_describe` said of each render of the step.
        """

    def _describe(self, render: Any) -> dict[str, float]:
        """Numbers of a render that `_finish_step` needs."""
        return {}

    @abstractmethod
    def _collapse(self, opacity: float) -> Collapsed | None:
        """The error for a mean opacity that means an empty or solid scene."""

    # The loop.

    def run(
        self,
        groups: Sequence[ViewGroup],
        *,
        until: int | None = None,
        on_step: Callable[[StepReport], None] | None = None,
    ) -> None:
        """Train to step `until` (default: all). `on_step` may raise to stop: its step is complete.

        Raises Collapsed when the scene has become empty or solid, when no gradient is finite any more, or when what was
        learned is not; ValueError for loss terms that share a name.
        """
        check_names(groups)
        self._take_up(groups)
        while self.step < min(until if until is not None else self.total, self.total):
            report = self._step(groups)
            if on_step is not None:
                on_step(report)
            self._check()
        self.check_numbers()

    def _step(self, groups: Sequence[ViewGroup]) -> StepReport:
        timer = PhaseTimer(self.device)
        progress = self.step / self.total
        for group in groups:
            for term in group.terms:
                if isinstance(term.loss, LearningLoss):
                    look = partial(self._look, group, progress)
                    term.loss.begin_step(progress, look, self.generator, self.processes)
        timer.lap("losses")
        batches = [self._draw(group, progress) for group in groups]
        self._zero_grad()

        def compute(index: int, rows: slice, fraction: float) -> tuple[dict[str, float], Tensor, dict[str, float]]:
            """Adds the gradient of some rows of a group's views, which are this fraction of them."""
            group, (step, size, jitter) = groups[index], batches[index]
            step = replace(step, views=step.views[rows])
            image = self._render_step(step.views, size, None if jitter is None else jitter[rows])
            timer.lap("render")
            total: Tensor | float = 0.0
            logged: dict[str, float] = {}
            for term in group.terms:
                value, metrics = term(image, step)
                total = total + value
                logged |= metrics
            timer.lap("losses")
            if isinstance(total, Tensor):
                (fraction * total).backward()
                logged["loss"] = total.item()
            timer.lap("backward")
            weighed = {name: fraction * value for name, value in logged.items()}
            opacity = fraction * image.opacity.detach().mean()
            return weighed, opacity, self._describe(image)

        sizes = [len(step.views) for step, _, _ in batches]
        together = [group.together for group in groups]
        parts = self._microbatches.run(sizes, together, self.generator, compute, self._zero_grad, self.processes)
        covered = torch.stack([opacity for index, (_, opacity, _) in parts if index == 0]).sum()
        self.processes.average([covered])
        self.processes.average_gradients(self.optimiser.parameters())
        stepped = self.optimiser.step()
        learnt = {
            f"{name}_{key}": value
            for name, loss in self._learning.items()
            for key, value in loss.finish_step(self.processes).items()
        }
        self.step += 1
        scene = self._finish_step([described for _, (_, _, described) in parts], stepped)
        opacity = float(covered)
        if math.isfinite(opacity):  # one bad image must not stay in the mean for ever
            previous = opacity if self._mean_opacity is None else self._mean_opacity
            self._mean_opacity = _REMEMBERED * previous + _NEW * opacity
        timer.lap("optimizer")
        metrics = _summed([weighed for _, (weighed, _, _) in parts])
        metrics |= {"opacity": opacity, **learnt, **scene, "skipped": float(self.optimiser.skipped)}
        return StepReport(self.name, self.step, self.total, metrics, timer.seconds)

    def _draw(self, group: ViewGroup, progress: float) -> tuple[Step, int, Float[Tensor, "B H W"] | None]:
        """A group's views of this process for one step, their size and what rendering them takes at random."""
        processes = self.processes if group.sharded else Processes()
        views = processes.shard(group.draw(progress, self.generator)).to(self.device)
        step, size = Step(views, progress, self.generator, processes), group.size_at(progress)
        return step, size, self._draw_jitter(step, size)

    def _look(self, group: ViewGroup, progress: float, count: int) -> tuple[Render, Views]:
        """So many of a group's views as the scene is now, the same in every process."""
        drawn = group.draw(progress, self.generator)
        while len(drawn) < count:
            drawn = Views.concatenate([drawn, group.draw(progress, self.generator)])
        views = drawn[:count].to(self.device)
        return self.render(views, group.size_at(progress)), views

    def _zero_grad(self) -> None:
        self.optimiser.zero_grad()
        for loss in self._learning.values():
            loss.zero_grad()

    def _take_up(self, groups: Sequence[ViewGroup]) -> None:
        """Find the losses that learn; those of a checkpoint go on from what they had learnt."""
        terms = [term for group in groups for term in group.terms]
        self._learning = {term.name: term.loss for term in terms if isinstance(term.loss, LearningLoss)}
        for name, loss in self._learning.items() if self._learnt else ():
            loss.restore(_within(self._learnt, f"{name}/"))
        if self._learning:
            self._learnt = {}

    def _check(self) -> None:
        opacity = self._mean_opacity
        if opacity is None or self.step * _CHECK_FROM < self.total or self.step < _CHECK_AT_LEAST:
            return
        if (collapsed := self._collapse(opacity)) is not None:
            raise collapsed

    def check_numbers(self) -> None:
        """A scene that is spoilt must neither be handed on nor saved over what was saved before.

        Raises Collapsed where a parameter, a buffer or Adam's memory of one is not finite. Steps alone do not tell: an
        infinite bias may have a finite gradient, and a parameter with an infinite second moment stands still.
        """
        kept = [tensor for module in self.modules().values() for tensor in module.state_dict().values()]
        kept += [t for moments in self.optimiser.adam.state.values() for t in moments.values() if isinstance(t, Tensor)]
        if not all(bool(torch.isfinite(tensor).all()) for tensor in kept):
            raise Collapsed(
                f"The {self.name} scene holds numbers that are not finite, by step {self.step}.",
                "The same command goes on from what was saved before; if it happens again, try --fresh with another "
                "--seed or --prior.",
            )

    # What a checkpoint keeps.

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything that a bit-identical continuation needs: CPU tensors by name, and JSON-able values."""
        learnt = self._learnt | {
            f"{name}/{key}": tensor for name, loss in self._learning.items() for key, tensor in loss.state().items()
        }
        tensors = pack_state(self.modules(), self.optimiser) | {"generator": self.generator.get_state()}
        return tensors | {f"{_LEARNT}{name}": tensor for name, tensor in learnt.items()}, {
            "stage": self.name,
            "step": self.step,
            "skipped": self.optimiser.skipped,
            "mean_opacity": self._mean_opacity,
        }

    def _restore(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Inverse of `state`, on any device. Raises KeyError, TypeError, ValueError or RuntimeError for what does not
        fit."""
        unpack_state(self.modules(), self.optimiser, tensors)
        self.generator.set_state(tensors["generator"])
        self._learnt = _within(tensors, _LEARNT)
        self.step, self.optimiser.skipped = int(meta["step"]), int(meta["skipped"])
        self._mean_opacity = None if meta["mean_opacity"] is None else float(meta["mean_opacity"])


def _within(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those whose names begin so, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _summed(parts: Sequence[dict[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for part in parts:
        for name, value in part.items():
            total[name] = total.get(name, 0.0) + value
    return {"loss": total.pop("loss", 0.0), **total}

"""Regularisers of the coarse stage: empty space is empty, surfaces are opaque, normals agree and face the camera."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from magic3d_cli.coarse.volume_render import VolumeRender
from magic3d_cli.scene.field import HashField
from magic3d_cli.settings import CoarseSettings
from magic3d_cli.training.terms import LossTerm, Step

PIXELS = 64.0
"""A regulariser of weight 1 pulls on a whole image as hard as this many pixels of the distillation loss, which is a sum
over pixels: threestudio's weights stand beside a sum over its own latents too, but fit other image sizes [m]."""

SHAPING = 0.3
"""Share of the normal agreement by which predicted normals, hence shading, shape the density; for the rest, they follow
it. Shading alone shows a dent in a wall of one colour: at 0.05 an armchair came out with deep pits in its back, at 0.6
(with falling rates) or with a stronger agreement a castle's gate filled up [m]."""


def regularisers(settings: CoarseSettings, field: HashField) -> list[LossTerm]:
    """The weighted regularisers of the settings; those of weight zero are left out.

    All but the predicted normals' grow with the progress, so that they do not freeze a shape before there is one. The
    latter has to hold against the gradient of the shading, or the predicted normals drift away from the shape: its
    loss is a sum over pixels like that of the distillation.
    """
    normals = NormalLosses(field, settings.normal_samples)
    start = settings.orientation_first, settings.orientation_until
    candidates = [
        (settings.sparsity, LossTerm("sparsity", _sparsity_loss, _growing(settings.sparsity))),
        (settings.opaqueness, LossTerm("opaqueness", _opaqueness_loss, _growing(settings.opaqueness))),
        (settings.predicted_normal, LossTerm("predicted_normal", normals.predicted_normal, settings.predicted_normal)),
        (settings.orientation, LossTerm("orientation", normals.orientation, _growing(settings.orientation, *start))),
    ]
    return [term for weight, term in candidates if weight]


def _growing(weight: float, first: float = 0.0, until: float = 1.0) -> Callable[[float], float]:
    """A weight that grows from `first` on, linearly, and stays as it is after `until` of the stage."""
    return lambda progress: first + min(progress / until, 1.0) * (weight - first)


def _sparsity_loss(render: VolumeRender, step: Step) -> Float[Tensor, ""]:
    return PIXELS * sparsity(render.opacity)


def _opaqueness_loss(render: VolumeRender, step: Step) -> Float[Tensor, ""]:
    return PIXELS * opaqueness(render.opacity)


class NormalLosses:
    """The two losses of normals at sampled points of a render; the points are drawn once for both."""

    def __init__(self, field: HashField, count: int) -> None:
        self.field, self.count = field, count
        self._render: weakref.ref[VolumeRender] | None = None  # or one step's images would stay during the next
        self._losses: tuple[Tensor, Tensor] | None = None

    def predicted_normal(self, render: VolumeRender, step: Step) -> Float[Tensor, ""]:
        return render.opacity[0].numel() * self._evaluate(render, step)[0]

    def orientation(self, render: VolumeRender, step: Step) -> Float[Tensor, ""]:
        return PIXELS * self._evaluate(render, step)[1]

    def _evaluate(self, render: VolumeRender, step: Step) -> tuple[Tensor, Tensor]:
        if self._losses is None or self._render is None or self._render() is not render:
            self._losses = normal_losses(self.field, render, self.count, step.generator)
            self._render = weakref.ref(render)
        return self._losses


def sparsity(opacity: Float[Tensor, "*n"]) -> Float[Tensor, ""]:
    """Pulls empty space to zero: sqrt(opacity^2 + 0.01), as threestudio's."""
    return torch.sqrt(opacity**2 + 0.01).mean()


def opaqueness(opacity: Float[Tensor, "*n"]) -> Float[Tensor, ""]:
    """Pulls each pixel to 0 or 1: the binary entropy of the opacity, nats."""
    p = opacity.clamp(1e-3, 1 - 1e-3)
    return -(p * torch.log(p) + (1 - p) * torch.log(1 - p)).mean()


def surface_samples(weights: Float[Tensor, "N"], count: int, generator: torch.Generator) -> Int[Tensor, "M"]:
    """Indices of `count` samples drawn by their weights, stratified; none if nothing is visible."""
    total = weights.detach().double().cumsum(0)
    draws = (torch.arange(count) + torch.rand(count, generator=generator)) / count  # always, so that processes agree
    if len(total) == 0 or total[-1] <= 0:
        return torch.zeros(0, dtype=torch.int64, device=weights.device)
    index = torch.searchsorted(total, draws.to(total) * total[-1])
    return index.clamp(max=len(total) - 1)


def normal_losses(
    field: HashField, render: VolumeRender, count: int, generator: torch.Generator
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Predicted normal loss |predicted - density's normal|^2, and orientation loss max(0, n . ray)^2 of the density's
    normals (Ref-NeRF, arXiv 2112.03907, section 4; DreamFusion supplement).

    Both are weighted by each sample's share of its pixel (held constant: a surface must not fade in order to
    lower them), here by drawing `count` samples in proportion to it.
    """
    index = surface_samples(render.weights, count, generator)
    if len(index) == 0:
        return render.opacity.new_zeros(()), render.opacity.new_zeros(())
    points = render.samples.points[index]
    actual = field.density_normal(points)
    # The head follows, the grid does not: under Adam this term's noise in the table would drown the
    # objective's gradient and keep surfaces soft (a ball fitted to 18.4 dB instead of 21.7) [m].
    predicted = field.normals(field.features(points).detach())
    along = (actual * render.directions[render.samples.ray[index]]).sum(-1)
    visible = render.opacity.detach().mean()
    # The value is the squared difference; the density feels only a share of its gradient.
    led = ((predicted - actual.detach()) ** 2).sum(-1).mean()
    leading = ((predicted.detach() - actual) ** 2).sum(-1).mean()
    return (
        visible * ((1 - SHAPING) * led + SHAPING * leading),
        visible * (along.clamp(min=0) ** 2).mean(),
    )

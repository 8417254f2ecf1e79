"""A reference picture as loss terms: colour, mask, depth, and smooth normals where it was taken from.

Every loss is a sum over the pixels of one image of the size that the prior sees, however large the render is: the unit
of the distillation loss of one view. Weights say how hard the picture pulls beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from magic3d_cli.scene.reference import Reference
from magic3d_cli.scene.render import Render
from magic3d_cli.scene.views import Views
from magic3d_cli.settings import ReferenceSettings
from magic3d_cli.training.terms import Loss, LossTerm, Step, ViewGroup


class ReferenceLosses:
    """The losses of one picture at one size."""

    def __init__(self, reference: Reference, size: int, pixels: float) -> None:
        """
        Args:
            reference: the picture; it is scaled to the render's size once.
            pixels: of the image that the prior sees.
        """
        self.size, self.pixels = size, pixels
        self._rgb, self._mask, self._depth = reference.at(size)
        self._normals = reference.normals_at(size)

    def colour(self, render: Render, step: Step) -> tuple[Float[Tensor, ""], dict[str, float]]:
        """Squared error against the picture before the render's own background, where the thing is in the picture.

        Beyond its outline a picture says nothing of colours: what still stands out there is the mask's business, and
        took on the mean of all backgrounds, seen from the side as a grey edge.
        """
        rgb, mask = self._rgb.to(render.rgb), self._mask.to(render.rgb)
        backdrop = step.views.backdrop[:, None, None].to(rgb)
        target = mask[..., None] * rgb + (1 - mask[..., None]) * backdrop
        inside = (mask > 0).to(rgb)
        error = (render.rgb - target).square().sum(-1) * inside
        mean = error.detach().sum() / (3 * inside.sum() * len(error)).clamp(min=1)
        return self.pixels * error.mean(), {"psnr": float(-10 * torch.log10(mean.clamp(min=1e-10)))}

    def mask(self, render: Render, step: Step) -> tuple[Float[Tensor, ""], dict[str, float]]:
        """Squared error of the opacity."""
        mask = self._mask.to(render.opacity)
        seen, there = render.opacity.detach() > 0.5, mask > 0.5
        overlap = (seen & there).sum() / (seen | there).sum().clamp(min=1)
        return self.pixels * (render.opacity - mask).square().mean(), {"iou": float(overlap)}

    def depth(self, render: Render, step: Step) -> Float[Tensor, ""]:
        """(1 - Pearson's correlation) / 2 of the depths inside the mask: scale and shift are free."""
        assert self._depth is not None  # no such term otherwise
        found = self._depth.to(render.depth).expand_as(render.depth)
        inside = (self._mask.to(render.opacity) > 0.9) & (render.opacity.detach() > 0.5)
        return self.pixels * (1 - pearson(render.depth[inside], found[inside])) / 2

    def normals(self, render: Render, step: Step) -> Float[Tensor, ""]:
        """1 - cosine of the angle between the normals, over two, inside the thing; Magic123's and DreamCraft3D's normal
        loss, which both leave off by default."""
        assert self._normals is not None  # no such term otherwise
        found = self._normals.to(render.normal).expand_as(render.normal)
        inside = (render.opacity.detach() > 0.5) & (found.square().sum(-1) > 0.5)
        apart = (1 - (render.normal * found).sum(-1)) / 2
        return self.pixels * (apart * inside).sum() / inside.numel()

    def smoothness(self, render: Render, step: Step) -> Float[Tensor, ""]:
        """Squared differences of neighbouring pixels' normals, inside the thing."""
        inside = render.opacity.detach() > 0.9
        total = render.normal.new_zeros(())
        for axis in (1, 2):
            both = inside.narrow(axis, 1, self.size - 1) & inside.narrow(axis, 0, self.size - 1)
            difference = render.normal.diff(dim=axis).square().sum(-1)
            total = total + (difference * both).sum() / inside.numel()
        return self.pixels * total


def pearson(a: Float[Tensor, "N"], b: Float[Tensor, "N"]) -> Float[Tensor, ""]:
    """Correlation; 0 where there is nothing to correlate."""
    if len(a) < 2:
        return a.sum() * 0
    a, b = a - a.mean(), b - b.mean()
    return (a * b).sum() / (a.square().sum() * b.square().sum()).clamp(min=1e-12).sqrt()


def reference_groups(references: Sequence[Reference], settings: ReferenceSettings, pixels: float) -> list[ViewGroup]:
    """One group of views for each picture; with several pictures each pulls with its part of the weights.

    `pixels` are those of the image that the stage's prior sees.
    """
    return [
        _group(reference, settings, pixels, 1 / len(references), "" if number == 0 else f"_{number + 1}")
        for number, reference in enumerate(references)
    ]


def _group(reference: Reference, settings: ReferenceSettings, pixels: float, share: float, suffix: str) -> ViewGroup:
    losses = ReferenceLosses(reference, settings.size, pixels)
    candidates: list[tuple[float, str, Loss]] = [
        (settings.colour, "reference_colour", losses.colour),
        (settings.mask, "reference_mask", losses.mask),
        (settings.depth if reference.depth is not None else 0.0, "reference_depth", losses.depth),
        (settings.normals if reference.normals is not None else 0.0, "reference_normals", losses.normals),
        (settings.smoothness, "reference_smoothness", losses.smoothness),
    ]
    view = reference.camera.views()

    def draw(progress: float, generator: torch.Generator) -> Views:
        # Before another plain background each time: what is see-through takes its colour, and is found out.
        return view.replace(backdrop=torch.rand(1, 3, generator=generator))

    def weighted(name: str, weight: float) -> float | Callable[[float], float]:
        if name != "reference_colour" or not settings.colour_from:
            return share * weight
        return lambda progress: share * weight * (progress >= settings.colour_from)

    terms = [LossTerm(f"{name}{suffix}", loss, weighted(name, weight)) for weight, name, loss in candidates if weight]
    return ViewGroup(draw, settings.size, tuple(terms), sharded=False)

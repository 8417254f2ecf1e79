"""Where two prompts disagree on a thing: the region that an edit from one to the other may change.

A prior with a volume of its own is asked what stands where (`of_shapes`). Of any other, its predictions for the same
noised pictures are compared, as DiffEdit does for one picture (Couairon et al., arXiv 2210.11427, section 3.2), and
brought from many views onto the surface (`of_predictions`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

from magic3d_cli.guidance.diffusion import alpha_sigma
from magic3d_cli.guidance.distillation import ScoreDistillation
from magic3d_cli.scene.region import SIZE, Region, centres, grown
from magic3d_cli.scene.render import Render
from magic3d_cli.scene.shape import InitialShape
from magic3d_cli.scene.views import Views, turntable

_WAY = 1 / 32  # world units through which a density's opacity is told
_OPACITY, _COLOUR = 0.5, 0.1
"""Differences of a voxel's opacity and of its colour (the largest channel) from which two shapes disagree there."""
_CRUMBS = 30  # voxels: fewer in one piece are noise
_POINTS = 1 << 18

VIEWS, NOISES, TIME = 12, 8, 0.5
"""Pictures whose predictions are compared, noises for each, and their diffusion time [DiffEdit: 10 noises, 0.5]."""
_EXTREME, _CUT = 0.99, 0.5
"""Quantile that counts as the largest difference, and the share of it from which prompts disagree [DiffEdit]."""
_BEHIND = 0.05  # world units that a voxel may lie behind what a view sees, and still be what is seen


@torch.no_grad()
def of_shapes(old: InitialShape, new: InitialShape, device: torch.device | str = "cpu") -> Region:
    """Where two shapes differ: in whether there is something, and in the colour of what both have."""
    points = centres().reshape(-1, 3).to(device)
    solid = [torch.cat([_opacity(shape, part) for part in points.split(_POINTS)]) for shape in (old, new)]
    shape = _without_crumbs(((solid[0] - solid[1]).abs() > _OPACITY).view(SIZE, SIZE, SIZE).cpu())
    filled = [_outer((one > 0.5).view(SIZE, SIZE, SIZE).cpu()) for one in solid]
    seen = grown(filled[0] & filled[1], 1)
    where = seen.view(-1).nonzero()[:, 0]
    apart = torch.zeros(SIZE**3, dtype=torch.bool)
    near = points[where.to(device)]
    apart[where] = ((old.albedo(near) - new.albedo(near)).abs().amax(1) > _COLOUR).cpu()
    colour = _without_crumbs(apart.view(SIZE, SIZE, SIZE))
    return Region.of(grown(shape, 2), grown(colour, 2))


def _opacity(shape: InitialShape, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
    return -torch.expm1(-_WAY * shape.density(points))


def _outer(solid: Bool[Tensor, "Z Y X"]) -> Bool[Tensor, "Z Y X"]:
    """The voxels of a solid from which its outside is at most two voxels away: only there is a colour anything."""
    return solid & grown(~solid, 2)


def _without_crumbs(mask: Bool[Tensor, "Z Y X"]) -> Bool[Tensor, "Z Y X"]:
    labels, count = ndimage.label(mask.numpy(), structure=torch.ones(3, 3, 3).numpy())
    sizes = torch.bincount(torch.from_numpy(labels).view(-1).long(), minlength=count + 1)
    large = sizes >= _CRUMBS
    large[0] = False
    return large[torch.from_numpy(labels).long()]


@torch.no_grad()
def of_predictions(
    old: ScoreDistillation,
    new: ScoreDistillation,
    render: Render,
    views: Views,
    generator: torch.Generator,
) -> Region:
    """Where the predictions of a prior differ for two prompts, on the surface that was rendered from all sides.

    Args:
        old, new: the same prior, told the one prompt and the other.
        render, views: of the scene as it is, see `views_to_compare`.
    """
    scores = _scores(old, new, render, views, generator)
    return _on_surface(scores, render, views)


def views_to_compare() -> Views:
    """Rings of views around a thing, looking from slightly below to far above."""
    rings = [(-10.0, 0.0), (20.0, 30.0), (55.0, 60.0)]
    return Views.concatenate([turntable(VIEWS // len(rings), *ring) for ring in rings])


def _scores(
    old: ScoreDistillation, new: ScoreDistillation, render: Render, views: Views, generator: torch.Generator
) -> Float[Tensor, "B H W"]:
    """Mean absolute difference of the two predictions, at the size of the render."""
    prior = new.prior
    clean = prior.encode_image(render.rgb.permute(0, 3, 1, 2))
    timestep = torch.full((len(views),), round(TIME * (len(prior.alphas_cumprod) - 1)), device=clean.device)
    alpha, sigma = alpha_sigma(prior.alphas_cumprod, timestep)
    total = torch.zeros(len(views), *clean.shape[2:], device=clean.device)
    for _ in range(NOISES):
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        noisy = alpha * clean + sigma * noise
        for rows in _rows(len(views)):
            guessed = [one.predict(noisy[rows], timestep[rows], views[rows], 1.0, [])[0][0] for one in (old, new)]
            total[rows] += (guessed[0] - guessed[1]).abs().mean(1).float() / NOISES
    return F.interpolate(total[:, None], render.rgb.shape[1:3], mode="bilinear", align_corners=False)[:, 0]


def _rows(count: int, at_once: int = 4) -> Sequence[slice]:
    """A ring of `views_to_compare` at once: that is a set, for a prior that is shown sets."""
    return [slice(start, start + at_once) for start in range(0, count, at_once)]


def _on_surface(scores: Float[Tensor, "B H W"], render: Render, views: Views) -> Region:
    """Voxels at the surface whose mean score over the views that see them is above the cut, and their neighbours."""
    scores, opacity, depth = scores.cpu(), render.opacity.cpu(), render.depth.cpu()
    thing = scores[opacity > 0.5]
    most = torch.quantile(thing[:: max(len(thing) // 100_000, 1)], _EXTREME) if len(thing) else torch.tensor(1.0)
    scores = (scores / most.clamp(min=1e-12)).clamp(max=1)
    points = centres().reshape(-1, 3)
    total, seen = torch.zeros(len(points)), torch.zeros(len(points))
    views = views.to("cpu")
    for index in range(len(views)):
        view = views[index : index + 1]
        clip = (view.world_to_clip()[0] @ torch.cat([points, torch.ones(len(points), 1)], 1).T).T
        at = (clip[:, :2] / clip[:, 3:]) * torch.tensor([1.0, -1.0])
        layers = torch.stack([scores[index], opacity[index], depth[index]])[None]
        score, solid, far = F.grid_sample(layers, at[None, None], align_corners=False)[0, :, 0]
        off = (points - view.position).norm(dim=1) - far
        visible = (solid > 0.5) & (off.abs() < _BEHIND)
        total += torch.where(visible, score, 0)
        seen += visible
    mean = (total / seen.clamp(min=1)).view(SIZE, SIZE, SIZE)
    inside = grown(_without_crumbs(mean > _CUT), 2)  # what no view sees has a mean of 0
    return Region.of(inside, inside)

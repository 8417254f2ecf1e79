"""A picture's palette on a thing of the built-in prior: which of its colours goes where.

The thing's own colours, painted as the caption asks, are told apart into a few; dark ones take the palette's dark
colours, light ones its light ones, in the palette's shares (optimal transport along lightness, which keeps its order).
What has one colour and takes several is divided by height where the picture's colours lie in layers, else by patches
about as large as the picture's.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from magic3d_cli.guidance.builtin.paint import LUMA, noise
from magic3d_cli.scene.shape import InitialShape
from magic3d_cli.style import Style

Dress = Callable[[Float[Tensor, "P 3"], Float[Tensor, "P 3"]], Float[Tensor, "P 3"]]
"""Painted colours in [0, 1] and positions of points to other colours."""
SAMPLES = 20_000
"""Points on the surface whose colours are looked at."""
_PARTS, _ROUNDS = 4, 12  # colours that are told apart in a thing, and steps in which they are found
_SAME, _RARE = 0.1, 0.03  # distance that is one colour still; share of the surface below which one is left out
_SLIVER = 0.1  # a part's share below which it does not take a colour
_BORDER = 0.03  # distance through which one part's colours turn into another's
_DETAIL = 0.7  # how much of the thing's own light and dark within a part stays
_EDGE = 0.04  # share of a part through which one patch turns into another
_STEPS = 64  # of the tables that make shares of a part from heights or noise


@torch.no_grad()
def dress(shape: InitialShape, style: Style, device: torch.device) -> Dress | None:
    """What paints a thing in a palette; None for an empty shape. `device` is where the shape wants its points."""
    generator = torch.Generator().manual_seed(0)
    points = shape.surface(SAMPLES, generator)
    colours = shape.albedo(points.to(device)).cpu()
    seen = colours.sum(1) > 0
    if not seen.any():
        return None
    points, space = points[seen], _space(colours[seen])
    label, centres = _parts(space)
    shares = torch.bincount(label, minlength=len(centres)) / len(label)
    palette, amounts = torch.tensor(style.colours), torch.tensor(style.shares)
    order = _levels(points, style)
    blends, tables = [], []
    for taken, part in zip(_transport(shares, amounts), range(len(centres)), strict=True):
        chosen = taken.nonzero()[:, 0].tolist()
        if style.patches == 0:
            chosen.sort(key=lambda k: style.heights[k])
        blends.append((palette[chosen], (taken[chosen] / taken.sum()).cumsum(0)))
        tables.append(torch.quantile(order[label == part], torch.linspace(0, 1, _STEPS)))
    lights = torch.stack([space[label == part, 0].median() for part in range(len(centres))])

    def dressed(painted: Float[Tensor, "P 3"], place: Float[Tensor, "P 3"]) -> Float[Tensor, "P 3"]:
        at = _space(painted)
        likely = F.softmax(-(torch.cdist(at, centres.to(at)) / _BORDER).square(), 1)
        level = _levels(place, style)
        out = torch.zeros_like(painted)
        for part, ((few, ends), table) in enumerate(zip(blends, tables, strict=True)):
            share = _rank(level, table.to(at))
            colour = _layers(share, few.to(at), ends.to(at)) if style.patches == 0 else _patched(share, few, ends)
            detail = 2 * _DETAIL * (at[:, :1] - lights[part].to(at))
            out += likely[:, part : part + 1] * (colour + detail)
        return out.clamp(0, 1)

    return dressed


def _space(colour: Float[Tensor, "P 3"]) -> Float[Tensor, "P 3"]:
    """Half the luminance, red and blue above it: as in `paint.Tones`."""
    light = colour @ colour.new_tensor(LUMA)
    return torch.stack([light / 2, colour[:, 0] - light, colour[:, 2] - light], 1)


def _parts(space: Float[Tensor, "N 3"]) -> tuple[Int[Tensor, "N"], Float[Tensor, "K 3"]]:
    """The colours of a thing (k-means), the darkest first; none of them is rare, and no two are alike."""
    centres = space.median(0, keepdim=True).values
    while len(centres) < _PARTS:
        apart = torch.cdist(space, centres).amin(1)
        far = apart.topk(max(round(_RARE * len(space) / 2), 1)).indices[-1]  # not the one strangest point
        if apart[far] < _SAME:
            break
        centres = torch.cat([centres, space[far : far + 1]])
    for _ in range(_ROUNDS):
        label = torch.cdist(space, centres).argmin(1)
        kept = torch.bincount(label, minlength=len(centres)) >= max(_RARE * len(space), 1)
        centres = torch.stack([space[label == k].mean(0) for k in kept.nonzero()[:, 0].tolist()])
    centres = centres[centres[:, 0].argsort()]
    return torch.cdist(space, centres).argmin(1), centres


def _transport(shares: Float[Tensor, "K"], amounts: Float[Tensor, "C"]) -> Float[Tensor, "K C"]:
    """How much of each colour goes to each part, both in order of lightness; slivers are left out."""
    ends, stops = shares.cumsum(0), (amounts / amounts.sum()).cumsum(0)
    high = torch.minimum(ends[:, None], stops)
    low = torch.maximum((ends - shares)[:, None], stops - amounts / amounts.sum())
    flow = (high - low).clamp(min=0)
    flow = torch.where(flow >= _SLIVER * flow.sum(1, keepdim=True), flow, 0)
    return flow


def _levels(place: Float[Tensor, "P 3"], style: Style) -> Float[Tensor, "P"]:
    """What divides a part of one colour: the height, or noise in patches."""
    return place[:, 1] if style.patches == 0 else noise(place, style.patches)[:, 0]


def _rank(level: Float[Tensor, "P"], table: Float[Tensor, "S"]) -> Float[Tensor, "P"]:
    """The share of a part that lies below a level."""
    upper = torch.searchsorted(table, level.contiguous()).clamp(1, len(table) - 1)
    low, high = table[upper - 1], table[upper]
    return ((upper - 1) + ((level - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)) / (len(table) - 1)


def _layers(share: Float[Tensor, "P"], colours: Float[Tensor, "C 3"], ends: Float[Tensor, "C"]) -> Float[Tensor, "P 3"]:
    """A gradient through the colours, each at the middle of its share."""
    middles = (ends + F.pad(ends[:-1], (1, 0))) / 2
    upper = torch.searchsorted(middles, share.contiguous()).clamp(max=len(middles) - 1)
    lower = (upper - 1).clamp(min=0)
    between = ((share - middles[lower]) / (middles[upper] - middles[lower]).clamp(min=1e-6)).clamp(0, 1)
    return torch.lerp(colours[lower], colours[upper], between[:, None])


def _patched(
    share: Float[Tensor, "P"], colours: Float[Tensor, "C 3"], ends: Float[Tensor, "C"]
) -> Float[Tensor, "P 3"]:
    """One colour or the next, with an edge that a voxel can show."""
    colours, ends = colours.to(share), ends.to(share)
    out = colours[:1].expand(len(share), 3)
    for colour, end in zip(colours[1:], ends[:-1], strict=True):
        out = torch.lerp(out, colour, ((share - end) / _EDGE + 0.5).clamp(0, 1)[:, None])
    return out

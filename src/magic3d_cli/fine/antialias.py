"""Antialiasing of silhouettes: what makes a rasterised image differentiable in the shape's outline.

After Laine et al., "Modular Primitives for High-Performance Differentiable Rendering", arXiv 2011.03277,
with one change. There, a pixel looks for a silhouette edge only in the triangle it sees; here silhouette
edges are walked along the lines of pixel centres, so that triangles smaller than a pixel count too.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from magic3d_cli.fine.topology import Edges


@dataclass(frozen=True)
class Crossings:
    """K places where the outline passes between two neighbouring pixel centres."""

    inner: Int[Tensor, "K"]  # flat index of the pixel on the near surface's side
    outer: Int[Tensor, "K"]
    distance: Float[Tensor, "K"]  # from the inner centre to the outline, 0..1 pixel; carries the gradient


def antialias(
    image: Float[Tensor, "B H W C"],
    clip: Float[Tensor, "B V 4"],
    faces: Int[Tensor, "F 3"],
    edges: Edges,
    ids: Int[Tensor, "B H W"],
    depth: Float[Tensor, "B H W"],
) -> Float[Tensor, "B H W C"]:
    """Blend pixels across the outline in proportion to the area that lies on either side of it.

    Args:
        ids: the triangle each pixel sees, -1 for none (`rasterize`).
        depth: z / w of what each pixel sees, larger than 1 for none.

    Gradients reach `image`, and `clip` through the position of the outline.
    """
    crossings = find_crossings(clip, faces, edges, ids, depth)
    flat = image.reshape(-1, image.shape[-1])
    # An outline less than half a pixel away from the inner centre uncovers a part of the inner pixel; one
    # further away covers a part of the outer pixel.
    near = crossings.distance < 0.5
    target = torch.where(near, crossings.inner, crossings.outer)
    source = torch.where(near, crossings.outer, crossings.inner)
    share = (crossings.distance - 0.5).abs()
    # A pixel with outlines on several sides must not lose more than all of itself.
    taken = torch.zeros_like(flat[:, 0]).index_add(0, target, share.detach())
    share = share / taken.clamp(min=1)[target]
    change = share[:, None] * (flat.index_select(0, source) - flat.index_select(0, target))
    return flat.index_add(0, target, change).view(image.shape)


def find_crossings(
    clip: Float[Tensor, "B V 4"],
    faces: Int[Tensor, "F 3"],
    edges: Edges,
    ids: Int[Tensor, "B H W"],
    depth: Float[Tensor, "B H W"],
) -> Crossings:
    """Walk every silhouette edge: steep ones row by row, flat ones column by column.

    An edge taken in one direction only moves exactly its own area: the area under a line is its height summed
    over the columns (or its offset over the rows), not both.
    """
    size, count = ids.shape[1], clip.shape[1]
    w = clip[..., 3:].clamp(min=1e-6)
    screen = (clip[..., :2] / w * clip.new_tensor([0.5, -0.5]) + 0.5) * size  # pixels, y down
    image, edge = silhouettes(screen.detach(), faces, edges)
    ends = edges.ends[edge]
    third = faces[edges.faces[edge, 0]].sum(1) - ends.sum(1)  # the corner opposite the edge
    flat_screen, flat_depth = screen.reshape(-1, 2), (clip[..., 2:3] / w).detach().reshape(-1)
    row = image * count

    a, b = flat_screen.index_select(0, row + ends[:, 0]), flat_screen.index_select(0, row + ends[:, 1])
    c = flat_screen.detach()[row + third]
    steep = (b - a).detach().abs()
    steep = steep[:, 1] >= steep[:, 0]
    # Coordinates along the walk (rows or columns crossed) and across it, in pixels.
    along_a, across_a = torch.where(steep[:, None], a.flip(1), a).unbind(1)
    along_b, across_b = torch.where(steep[:, None], b.flip(1), b).unbind(1)
    along_c, across_c = torch.where(steep[:, None], c.flip(1), c).unbind(1)
    span = along_b - along_a
    slope = (across_b - across_a) / torch.where(span == 0, 1, span)
    beyond = across_c > (across_a + (along_c - along_a) * slope).detach()  # surface on the higher side

    low, high = torch.minimum(along_a, along_b).detach(), torch.maximum(along_a, along_b).detach()
    first = torch.ceil(low - 0.5).clamp(0, size).long()
    steps = (torch.ceil(high - 0.5).clamp(0, size).long() - first).clamp(min=0)
    walk = torch.repeat_interleave(torch.arange(len(steps), device=clip.device), steps)
    line = torch.arange(len(walk), device=clip.device) - (steps.cumsum(0) - steps)[walk] + first[walk]

    reach = line + 0.5 - along_a.index_select(0, walk)
    across = across_a.index_select(0, walk) + reach * slope.index_select(0, walk)
    start = torch.floor(across.detach() - 0.5)
    beyond, steep = beyond[walk], steep[walk]
    offset = across - 0.5 - start
    distance = torch.where(beyond, 1 - offset, offset)
    z_a, z_b = flat_depth[row + ends[:, 0]], flat_depth[row + ends[:, 1]]
    z = z_a[walk] + (reach / span.index_select(0, walk)).detach() * (z_b - z_a)[walk]

    inside = (start >= 0) & (start < size - 1)
    start = start.clamp(0, size - 2).long()

    def pixel(across: Tensor) -> Tensor:
        return image[walk] * size**2 + torch.where(steep, line * size + across, across * size + line)

    inner, outer = pixel(start + beyond.long()), pixel(start + 1 - beyond.long())
    flat_ids, seen = ids.reshape(-1), depth.detach().reshape(-1)
    visible = inside & (flat_ids[inner] >= 0) & (flat_ids[inner] != flat_ids[outer])
    visible &= (seen[inner] < seen[outer]) & (z < seen[outer])
    kept = visible.nonzero()[:, 0]
    # Where several edges pass between the same two pixels, the outline is the outermost.
    key = (inner * 4 + (outer - inner).sign() + 1 + steep.long())[kept]
    order = torch.argsort(distance.detach()[kept], stable=True)
    order = order[torch.argsort(key[order], stable=True)]
    ranked = key[order]
    last = torch.ones_like(ranked, dtype=torch.bool)
    last[:-1] = ranked[1:] != ranked[:-1]
    kept = kept[order[last]]
    return Crossings(inner[kept], outer[kept], distance.index_select(0, kept))


def silhouettes(
    screen: Float[Tensor, "B V 2"], faces: Int[Tensor, "F 3"], edges: Edges
) -> tuple[Int[Tensor, "S"], Int[Tensor, "S"]]:
    """(image, edge) of each edge between a face seen from the front and one from the back, or of one face."""
    a, b, c = (screen[:, faces[:, i]] for i in range(3))
    front = (b - a)[..., 0] * (c - a)[..., 1] - (b - a)[..., 1] * (c - a)[..., 0] < 0  # (B, F)
    turned = front[:, edges.faces[:, 0]] != front[:, edges.faces[:, 1]]
    image, edge = (turned | (edges.faces[:, 1] < 0)).nonzero(as_tuple=True)
    return image, edge

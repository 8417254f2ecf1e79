"""The mesh renderer: triangle ids from the kernel, all else differentiable tensor code on top of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from magic3d_cli.fine.antialias import antialias
from magic3d_cli.fine.topology import Edges, mesh_edges, vertex_normals
from magic3d_cli.kernels.dispatch import rasterize
from magic3d_cli.scene.render import Render
from magic3d_cli.scene.shading import backdrop, shade
from magic3d_cli.scene.views import Views

_BEHIND_ALL = 2.0
"""z / w of a pixel that sees nothing; what is visible lies within [-1, 1]."""


@dataclass(frozen=True)
class MeshRender(Render):
    """Antialiased at outlines in rgb and opacity; with the mesh itself, which the regularisers look at."""

    vertices: Float[Tensor, "V 3"]
    faces: Int[Tensor, "F 3"]
    edges: Edges


def render_mesh(
    vertices: Float[Tensor, "V 3"],
    faces: Int[Tensor, "F 3"],
    colour: Callable[[Tensor], Tensor],
    background: Callable[[Tensor], Tensor],
    views: Views,
    size: int,
    edges: Edges | None = None,
) -> MeshRender:
    """Render square images of `size` pixels, all on the vertices' device.

    Args:
        colour: world points [N, 3] -> albedo [N, 3]; it receives no gradient for the points.
        background: unit world directions [..., 3] -> colour, for the views without a plain backdrop.
        edges: `mesh_edges` of these faces, if already known.

    Gradients reach `colour` and `background` everywhere, and `vertices` through normals and outlines.
    """
    views = views.to(vertices.device)
    shape = (len(views), size, size)
    edges = edges if edges is not None else mesh_edges(faces, len(vertices))
    clip = F.pad(vertices, (0, 1), value=1.0) @ views.world_to_clip().transpose(1, 2)  # (B, V, 4)
    ids = rasterize(clip, faces, size)
    hit = (ids.reshape(-1) >= 0).nonzero()[:, 0]  # pixels that see the mesh: all that follows is about these
    image = hit.div(size**2, rounding_mode="floor")
    corner = faces.index_select(0, ids.reshape(-1)[hit].long())  # (P, 3)
    share, z = _barycentrics(clip, corner, image, hit % size**2, size)

    def interpolate(values: Float[Tensor, "V 3"]) -> Float[Tensor, "P 3"]:
        return (share[..., None] * values.index_select(0, corner.reshape(-1)).view(-1, 3, 3)).sum(1)

    point = interpolate(vertices)
    normal = F.normalize(interpolate(vertex_normals(vertices, faces)), dim=-1, eps=1e-6)
    distance = (point - views.position[image]).norm(dim=-1)
    albedo = colour(point.detach())

    def image_of(values: Float[Tensor, "P C"], empty: float = 0.0) -> Float[Tensor, "B H W C"]:
        blank = values.new_full((ids.numel(), values.shape[1]), empty)
        return blank.index_copy(0, hit, values).view(*shape, -1)

    albedo, normal = image_of(albedo), image_of(normal)
    opacity = image_of(torch.ones_like(distance)[:, None])
    # The sky's colour follows from the pixel's own ray: positions are meaningless where nothing was hit.
    far = backdrop(background, views.rays(size)[1], views)
    rgb = opacity * shade(albedo, normal, views) + (1 - opacity) * far
    depth = image_of(z[:, None], _BEHIND_ALL)[..., 0]
    blended = antialias(torch.cat([rgb, opacity], -1), clip, faces, edges, ids, depth)
    return MeshRender(
        rgb=blended[..., :3],
        opacity=blended[..., 3],
        depth=image_of(distance[:, None])[..., 0],
        normal=normal,
        albedo=albedo,
        vertices=vertices,
        faces=faces,
        edges=edges,
    )


def _barycentrics(
    clip: Float[Tensor, "B V 4"],
    corner: Int[Tensor, "P 3"],
    image: Int[Tensor, "P"],
    pixel: Int[Tensor, "P"],
    size: int,
) -> tuple[Float[Tensor, "P 3"], Float[Tensor, "P"]]:
    """Perspective-correct barycentric coordinates at pixel centres, and z / w there (without gradient).

    With q_i = (x_i - X w_i, y_i - Y w_i) for a pixel at (X, Y), the edge functions q_j x q_k are the
    coordinates up to scale (Olano and Greer, "Triangle scan conversion using 2D homogeneous coordinates").
    """
    at = clip.reshape(-1, 4).index_select(0, (image[:, None] * clip.shape[1] + corner).reshape(-1)).view(-1, 3, 4)
    row, column = pixel.div(size, rounding_mode="floor"), pixel % size
    centre = torch.stack([column + 0.5, size - row - 0.5], 1) / size * 2 - 1
    q = at[..., :2] - centre[:, None] * at[..., 3:]
    following, last = q.roll(-1, 1), q.roll(-2, 1)
    share = following[..., 0] * last[..., 1] - following[..., 1] * last[..., 0]
    total = share.sum(1, keepdim=True)
    share = share / torch.where(total.abs() < 1e-20, 1, total)
    # The kernel snaps vertices to a grid, so a centre can lie a hair outside its triangle; far outside one
    # that is seen edge on.
    share = share.clamp(0, 1)
    share = share / share.sum(1, keepdim=True).clamp(min=1e-6)
    depth = (share * at[..., 2]).sum(1) / (share * at[..., 3]).sum(1).clamp(min=1e-6)
    return share, depth.detach()

"""A known, textured object and its posed renders: what the proofs are judged against.

Deliberately no part of the program's own asset code: files are read by trimesh and drawn here with only the
triangle ids of the rasteriser, so that a mistake in writing an asset cannot cancel out in reading it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import trimesh
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from magic3d_cli.kernels.dispatch import rasterize
from magic3d_cli.scene.shading import shade
from magic3d_cli.scene.views import Views

GREY = 0.5
"""Backdrop of views that leave the background to the scene."""


@dataclass(frozen=True)
class Model:
    """Triangles with a texture each; sits in [-1, 1]^3, +Y up, facing +Z."""

    vertices: Float[Tensor, "V 3"]
    normals: Float[Tensor, "V 3"]
    uv: Float[Tensor, "V 2"]  # origin at the bottom left, as trimesh gives it
    faces: Int[Tensor, "F 3"]
    material: Int[Tensor, "F"]  # index into `textures`
    textures: tuple[Float[Tensor, "3 h w"], ...]

    def render(
        self, views: Views, size: int, samples: int = 2
    ) -> tuple[Float[Tensor, "B H W 3"], Float[Tensor, "B H W"]]:
        """Shaded images and coverage in [0, 1], with samples x samples points a pixel."""
        fine = size * samples
        homogeneous = F.pad(self.vertices, (0, 1), value=1.0)
        clip = torch.einsum("bij,vj->bvi", views.world_to_clip(), homogeneous)
        ids = rasterize(clip, self.faces, fine).long()
        seen = ids >= 0
        backdrop = torch.where(
            views.solid_background[:, None] > 0, views.backdrop, torch.full_like(views.backdrop, GREY)
        )
        image = backdrop[:, None, None, :].expand(-1, fine, fine, -1).clone()
        batch, row, column = seen.nonzero(as_tuple=True)
        face = ids[seen]
        pixel = torch.stack([(column + 0.5) / fine * 2 - 1, 1 - (row + 0.5) / fine * 2], -1)
        weights = barycentrics(clip[batch[:, None], self.faces[face]], pixel)[..., None]
        corners = self.faces[face]
        normal = F.normalize((weights * self.normals[corners]).sum(1), dim=-1)
        albedo = self._texels((weights * self.uv[corners]).sum(1), self.material[face])
        image[seen] = shade(albedo[:, None], normal[:, None], views[batch])[:, 0]
        image, mask = image.permute(0, 3, 1, 2), seen.float()[:, None]
        if samples > 1:
            image, mask = F.avg_pool2d(image, samples), F.avg_pool2d(mask, samples)
        return image.permute(0, 2, 3, 1).contiguous(), mask[:, 0]

    def _texels(self, uv: Float[Tensor, "N 2"], material: Int[Tensor, "N"]) -> Float[Tensor, "N 3"]:
        colour = torch.empty(len(uv), 3)
        for index, texture in enumerate(self.textures):
            mine = material == index
            place = uv[mine] - uv[mine].floor()  # textures repeat
            grid = torch.stack([place[:, 0], 1 - place[:, 1]], -1) * 2 - 1
            found = F.grid_sample(
                texture[None], grid[None, None], mode="bilinear", padding_mode="border", align_corners=False
            )
            colour[mine] = found[0, :, 0].T
        return colour


def barycentrics(corners: Float[Tensor, "N 3 4"], pixel: Float[Tensor, "N 2"]) -> Float[Tensor, "N 3"]:
    """Perspective-correct weights of a triangle's corners, given in clip space, at a point in [-1, 1]^2.

    In (x, y, w) the pixel's ray is the line through (px, py, 1), so the weights are ratios of determinants.
    """
    a, b, c = (corners[:, i][:, [0, 1, 3]].double() for i in range(3))
    ray = F.pad(pixel.double(), (0, 1), value=1.0)
    cross = torch.linalg.cross
    weights = torch.stack([(ray * cross(p, q)).sum(-1) for p, q in ((b, c), (c, a), (a, b))], -1)
    return (weights / weights.sum(-1, keepdim=True)).float()


def load_model(path: Path, *, fit: bool = True) -> Model:
    """Any textured mesh that trimesh reads; `fit` centres it and scales it into the unit sphere's inside."""
    scene = trimesh.load(path, force="scene")
    parts = [part for part in scene.dump() if isinstance(part, trimesh.Trimesh) and len(part.faces)]
    return from_trimesh(parts, fit=fit)


def from_trimesh(parts: list[trimesh.Trimesh], *, fit: bool = True) -> Model:
    """One model of several meshes, each with its own texture, material colour or face colour."""
    vertices, normals, uvs, faces, material, textures = [], [], [], [], [], []
    offset = 0
    for index, part in enumerate(parts):
        uv = getattr(part.visual, "uv", None)
        textures.append(_texture(part))
        vertices.append(part.vertices)
        normals.append(part.vertex_normals)
        uvs.append(np.zeros((len(part.vertices), 2)) if uv is None else uv)
        faces.append(part.faces + offset)
        material.append(np.full(len(part.faces), index))
        offset += len(part.vertices)
    points = np.concatenate(vertices)
    if fit:
        centre = (points.min(0) + points.max(0)) / 2
        points = (points - centre) * (0.9 / np.linalg.norm(points - centre, axis=1).max())
    return Model(
        torch.tensor(points, dtype=torch.float32),
        torch.tensor(np.concatenate(normals), dtype=torch.float32),
        torch.tensor(np.concatenate(uvs), dtype=torch.float32),
        torch.tensor(np.concatenate(faces)),
        torch.tensor(np.concatenate(material)),
        tuple(textures),
    )


def _texture(part: trimesh.Trimesh) -> Float[Tensor, "3 h w"]:
    """The base colour as an image; a plain colour becomes a single texel."""
    material = getattr(part.visual, "material", None)
    image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    if image is not None:
        pixels = np.asarray(image.convert("RGB"))
    else:
        pixels = np.asarray(part.visual.to_color().main_color if material else part.visual.main_color)[None, None, :3]
    return torch.tensor(pixels.astype(np.float32) / 255).permute(2, 0, 1).contiguous()


def robot() -> Model:
    """A small textured toy with no symmetry: what is left, right, front, back, above and below shows.

    Checked body, red head, a green nose on +Z, a yellow arm on its left (+X), a blue pack on its back.
    """
    boxes = [
        ((0.9, 0.8, 0.6), (0.0, -0.15, 0.0), _checks((0.85, 0.55, 0.2), (0.95, 0.9, 0.8))),
        ((0.3, 0.25, 0.3), (0.6, -0.05, 0.0), _checks((0.95, 0.85, 0.15), (0.8, 0.6, 0.1))),
        ((0.6, 0.5, 0.2), (0.0, -0.1, -0.4), _checks((0.15, 0.25, 0.8), (0.4, 0.6, 0.9))),
        ((0.25, 0.35, 0.35), (-0.25, -0.7, 0.0), _checks((0.3, 0.3, 0.35), (0.5, 0.5, 0.55))),
        ((0.25, 0.35, 0.35), (0.25, -0.7, 0.0), _checks((0.3, 0.3, 0.35), (0.5, 0.5, 0.55))),
    ]
    balls = [(0.32, (0.0, 0.5, 0.05), (0.85, 0.12, 0.1)), (0.12, (0.0, 0.48, 0.38), (0.1, 0.65, 0.2))]
    parts = []
    for extents, place, image in boxes:
        box = trimesh.creation.box(extents=extents)
        box.unmerge_vertices()
        # Each face is painted by its own plane's two coordinates.
        across = np.array([[1, 2], [0, 2], [0, 1]])[np.abs(box.vertex_normals).argmax(1)]
        corner = np.take_along_axis(box.vertices / extents + 0.5, across, 1)
        box.apply_translation(place)
        box.visual = trimesh.visual.TextureVisuals(uv=corner, image=image)
        parts.append(box)
    for radius, place, colour in balls:
        ball = trimesh.creation.icosphere(subdivisions=2, radius=radius)
        ball.apply_translation(place)
        ball.visual = trimesh.visual.ColorVisuals(ball, face_colors=np.array([*colour, 1.0]))
        parts.append(ball)
    return from_trimesh(parts)


def _checks(first: tuple[float, ...], second: tuple[float, ...], cells: int = 3, size: int = 48) -> Image.Image:
    """A checkerboard texture."""
    rows, columns = np.indices((size, size)) // (size // cells)
    board = (rows + columns) % 2
    pixels = np.where(board[..., None] > 0, np.array(first), np.array(second))
    return Image.fromarray((pixels * 255).round().astype(np.uint8))


def psnr(images: Float[Tensor, "B H W 3"], truth: Float[Tensor, "B H W 3"]) -> float:
    """Peak signal to noise ratio over all the images, in decibels."""
    return float(-10 * torch.log10((images.clamp(0, 1) - truth).square().mean()))


def silhouette_iou(opacity: Float[Tensor, "B H W"], mask: Float[Tensor, "B H W"]) -> float:
    """Intersection over union of the two outlines, cut at one half."""
    a, b = opacity > 0.5, mask > 0.5
    return float((a & b).sum() / (a | b).sum().clamp(min=1))

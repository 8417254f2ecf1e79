"""Claims about the triangle-id kernel."""

from __future__ import annotations

import pytest
import torch
from kernel_backends import Backend

from magic3d_cli.kernels.dispatch import rasterize
from magic3d_cli.kernels.rasterize import rasterize_reference
from magic3d_cli.scene.views import turntable


def soup(count: int, spread: float, seed: int = 0, device: str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    """Random small triangles in front of a perspective camera, some of them partly off screen."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, 1, 3, generator=generator) * 2.4 - 1.2
    corner = centre + spread * torch.randn(count, 3, 3, generator=generator)
    world = torch.nn.functional.pad(corner.reshape(-1, 3), (0, 1), value=1.0)
    clip = torch.einsum("bij,vj->bvi", turntable(3).world_to_clip(), world)
    return clip.to(device), torch.arange(count * 3, device=device).view(-1, 3)


@pytest.mark.parametrize("size", [64, 97])
@pytest.mark.parametrize("spread", [0.01, 0.02, 0.3])
def test_the_fast_kernel_equals_the_reference(backend: Backend, spread: float, size: int) -> None:
    clip, faces = soup(400, spread, device=backend.device)
    ids = backend.rasterize(clip, faces, size)
    assert ids.dtype == torch.int32 and ids.shape == (3, size, size)
    assert 0.001 < (ids >= 0).float().mean() <= 1
    assert torch.equal(ids, rasterize_reference(clip, faces, size))


def test_shared_edges_are_covered_exactly_once(backend: Backend) -> None:
    """A jittered grid that fills the screen leaves no hole, and its triangles' own pixels add up exactly."""
    n, size = 12, 96
    generator = torch.Generator().manual_seed(1)
    axis = torch.linspace(-1.2, 1.2, n + 1)
    xy = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1)
    xy[1:-1, 1:-1] += 0.1 * (torch.rand(n - 1, n - 1, 2, generator=generator) - 0.5)
    xy[3] = torch.round(xy[3] * size) / size  # some vertices exactly on pixel centres
    clip = torch.cat([xy.reshape(-1, 2), torch.zeros((n + 1) ** 2, 1), torch.ones((n + 1) ** 2, 1)], 1)[None]
    corner = torch.arange((n + 1) ** 2).view(n + 1, n + 1)
    a, b, c, d = corner[:-1, :-1], corner[1:, :-1], corner[:-1, 1:], corner[1:, 1:]
    faces = torch.cat([torch.stack([a, b, c], -1).view(-1, 3), torch.stack([b, c, d], -1).view(-1, 3)])
    clip, faces = clip.to(backend.device), faces.to(backend.device)
    assert (backend.rasterize(clip, faces, size) >= 0).all()
    alone = sum((backend.rasterize(clip, face[None], size) >= 0).int() for face in faces)
    assert (alone == 1).all()


def test_the_nearer_triangle_wins_whatever_the_order(backend: Backend) -> None:
    near = torch.tensor([[-1.0, -1, -0.5, 1], [1, -1, -0.5, 1], [0, 1, -0.5, 1]])
    clip = torch.cat([near + torch.tensor([0, 0, 0.8, 0]), near])[None]
    for order, front in (([[0, 1, 2], [3, 4, 5]], 1), ([[3, 4, 5], [0, 1, 2]], 0)):
        ids = backend.rasterize(clip.to(backend.device), torch.tensor(order, device=backend.device), 32)
        assert set(ids.unique().tolist()) == {-1, front}


def test_row_zero_is_the_top_and_both_windings_are_drawn(backend: Backend) -> None:
    clip = torch.tensor([[[-1.0, 0.2, 0, 1], [1, 0.2, 0, 1], [0, 1, 0, 1]]], device=backend.device)
    for faces in ([[0, 1, 2]], [[0, 2, 1]]):
        ids = backend.rasterize(clip, torch.tensor(faces, device=backend.device), 32)[0]
        assert (ids[:16] == 0).any() and (ids[16:] == -1).all()


def test_triangles_at_or_behind_the_camera_are_skipped(backend: Backend) -> None:
    front = torch.tensor([[-1.0, -1, 0, 1], [1, -1, 0, 1], [0, 1, 0, 1]])
    for w in (0.0, -1.0, float("nan"), 1e-30):
        clip = front.clone()
        clip[2, 3] = w
        triangle = clip[None].to(backend.device), torch.tensor([[0, 1, 2]], device=backend.device), 16
        for kernel in (backend.rasterize, rasterize_reference):
            assert (kernel(*triangle) == -1).all()


def test_no_triangles_give_background() -> None:
    empty = torch.zeros(0, 3, dtype=torch.long)
    assert (rasterize(torch.zeros(2, 4, 4), empty, 8) == -1).all()

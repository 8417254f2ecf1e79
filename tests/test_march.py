"""Marching and compositing: each fast path equals plain PyTorch, and both the integral they stand for."""

from __future__ import annotations

import math

import pytest
import torch
from kernel_backends import Backend

from magic3d_cli.kernels.dispatch import march
from magic3d_cli.kernels.march import Samples, composite_reference, march_reference, transmittance
from magic3d_cli.scene.views import turntable

STEP = 0.05


def _rays(device: str = "cpu", count: int = 400) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    origins = torch.randn(count, 3, generator=generator) * 1.5  # some start inside, some miss the box
    directions = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)
    directions[:3] = torch.eye(3)  # parallel to the box's sides
    return origins.to(device), directions.to(device), torch.rand(count, generator=generator).to(device)


def _blocks(device: str = "cpu", size: int = 16) -> torch.Tensor:
    return (torch.rand(size, size, size, generator=torch.Generator().manual_seed(1)) < 0.2).to(device)


@pytest.mark.parametrize("filled", ["blocks", "none", "all"])
def test_kernel_takes_the_reference_samples(backend: Backend, filled: str) -> None:
    blocks = _blocks(backend.device)
    occupancy = {"blocks": blocks, "none": blocks & False, "all": blocks | True}[filled]
    origins, directions, jitter = _rays(backend.device)
    fast = backend.march(origins, directions, occupancy, STEP, jitter)
    slow = march_reference(origins, directions, occupancy, STEP, jitter)
    assert torch.equal(fast.offsets, slow.offsets)
    assert torch.equal(fast.ray, slow.ray)
    torch.testing.assert_close(fast.points, slow.points, rtol=0, atol=1e-6)
    torch.testing.assert_close(fast.t, slow.t, rtol=0, atol=1e-6)
    assert (len(fast) == 0) == (filled == "none")


def test_no_rays_have_no_samples(backend: Backend) -> None:
    origins, directions, jitter = (x[:0] for x in _rays(backend.device))
    samples = backend.march(origins, directions, _blocks(backend.device), STEP, jitter)
    assert samples.points.shape == (0, 3) and samples.offsets.tolist() == [0]


def test_a_ray_without_direction_ends(backend: Backend) -> None:
    origins, directions, jitter = (x[:2] for x in _rays(backend.device))
    filled = _blocks(backend.device) | True
    samples = backend.march(origins * 0, directions * 0, filled, STEP, jitter)
    assert len(samples) <= 2 * (2 * 3**0.5 / STEP + 2)


def test_samples_lie_in_occupied_cells_front_to_back(backend: Backend) -> None:
    occupancy, (origins, directions, jitter) = _blocks(backend.device), _rays(backend.device)
    samples = backend.march(origins, directions, occupancy, STEP, jitter)
    cell = ((samples.points + 1) * 8).long().clamp(0, 15)
    assert occupancy[cell.unbind(-1)].all()
    same_ray = samples.ray[1:] == samples.ray[:-1]
    assert (samples.t[1:] > samples.t[:-1])[same_ray].all()
    expected = origins[samples.ray] + samples.t[:, None] * directions[samples.ray]
    torch.testing.assert_close(samples.points, expected)


def test_step_lengths_add_up_to_the_path_through_the_box(backend: Backend) -> None:
    origins, directions = (x.reshape(-1, 3).to(backend.device) for x in turntable(1, elevation=0).rays(9))
    full = torch.ones(4, 4, 4, dtype=torch.bool, device=backend.device)
    samples = backend.march(origins, directions, full, 0.01, torch.full((81,), 0.5, device=backend.device))
    middle = slice(samples.offsets[40], samples.offsets[41])  # straight through, 2 world units
    assert samples.delta[middle].sum().item() == pytest.approx(2.0, abs=0.011)


def test_selected_samples_stay_packed() -> None:
    origins, directions, jitter = _rays()
    samples = march(origins, directions, _blocks(), STEP, jitter)
    keep = torch.rand(len(samples), generator=torch.Generator().manual_seed(2)) < 0.5
    kept = samples.select(keep)
    assert torch.equal(kept.offsets.diff(), torch.bincount(kept.ray, minlength=400))


def _packed(device: str) -> tuple[Samples, torch.Tensor, torch.Tensor]:
    origins, directions, jitter = _rays(device)
    samples = march_reference(origins, directions, _blocks(device), STEP, jitter)
    generator = torch.Generator().manual_seed(3)
    density = (torch.rand(len(samples), generator=generator) * 20).to(device)
    values = torch.rand(len(samples), 5, generator=generator).to(device)
    return samples, density.requires_grad_(), values.requires_grad_()


def test_composite_kernel_equals_reference_in_values_and_gradients(backend: Backend) -> None:
    samples, density, values = _packed(backend.device)
    fast = backend.composite(density, values, samples.delta, samples.offsets)
    slow = composite_reference(density, values, samples.delta, samples.offsets)
    generator = torch.Generator().manual_seed(4)
    cotangents = [torch.randn(out.shape, generator=generator).to(backend.device) for out in fast]
    for a, b in zip(fast, slow, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    fast_grads = torch.autograd.grad(fast, (density, values), cotangents)
    slow_grads = torch.autograd.grad(slow, (density, values), cotangents)
    for a, b in zip(fast_grads, slow_grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


def test_composite_reference_gradient_equals_finite_differences() -> None:
    offsets = torch.tensor([0, 4, 4, 7])
    generator = torch.Generator().manual_seed(5)
    density, values, delta = (torch.rand(7, *s, generator=generator).double() for s in ((), (2,), ()))
    density.requires_grad_()
    values.requires_grad_()
    assert torch.autograd.gradcheck(lambda d, v: composite_reference(d, v, delta, offsets), (density, values))


def test_composite_kernel_gradient_equals_finite_differences(backend: Backend) -> None:
    samples, density, values = _packed(backend.device)
    cotangent = torch.randn(400, 5, generator=torch.Generator().manual_seed(6)).to(backend.device)

    def loss(d: torch.Tensor) -> float:
        out, _, _ = backend.composite(d, values.detach(), samples.delta, samples.offsets)
        return (out.double() * cotangent).sum().item()

    out, _, _ = backend.composite(density, values, samples.delta, samples.offsets)
    (grad,) = torch.autograd.grad(out, density, cotangent)
    along = torch.randn(density.shape, generator=torch.Generator().manual_seed(7)).to(backend.device)
    base = density.detach()
    slope = (loss(base + 1e-2 * along) - loss(base - 1e-2 * along)) / 2e-2
    assert (grad * along).sum().item() == pytest.approx(slope, rel=1e-2)


def test_a_homogeneous_medium_absorbs_exponentially(backend: Backend) -> None:
    samples, density, values = _packed(backend.device)
    even = torch.full_like(density, 1.7)
    _, opacity, weights = backend.composite(even, values, samples.delta, samples.offsets)
    lengths = samples.offsets.diff() * STEP
    torch.testing.assert_close(opacity, 1 - torch.exp(-1.7 * lengths), rtol=1e-4, atol=1e-6)
    left = transmittance(even, samples.delta, samples.offsets)
    torch.testing.assert_close(weights, left * (1 - math.exp(-1.7 * STEP)), rtol=1e-4, atol=1e-6)


def test_rays_without_samples_are_empty(backend: Backend) -> None:
    density, values, offsets = torch.zeros(0), torch.zeros(0, 3), torch.zeros(6, dtype=torch.int64)
    nothing = backend.composite(*(x.to(backend.device) for x in (density, values, density, offsets)))
    assert [tuple(x.shape) for x in nothing] == [(5, 3), (5,), (0,)]
    assert not nothing[0].any() and not nothing[1].any()

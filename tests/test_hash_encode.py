"""Each fast hash encoder is the plain PyTorch encoder: the same values, the same gradients, always."""

from __future__ import annotations

import numba
import pytest
import torch
from kernel_backends import Backend

from magic3d_cli.kernels.dispatch import hash_encode
from magic3d_cli.kernels.hash_encode import hash_encode_reference, level_resolutions

RESOLUTIONS = level_resolutions(5, 4, 64)  # with 2^12 entries: the first two are dense, the others hashed


def _table(device: str = "cpu", width: int = 2) -> torch.Tensor:
    return _random(len(RESOLUTIONS), 2**12, width, seed=0).to(device).requires_grad_()


def _points(count: int, device: str = "cpu") -> torch.Tensor:
    points = torch.rand(count, 3, generator=torch.Generator().manual_seed(1)) * 1.2 - 0.1  # some are outside
    points[:8] = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)  # the box's corners
    return points.to(device)


def _random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_resolutions_grow_geometrically_from_base_to_finest() -> None:
    assert level_resolutions(16, 16, 2048)[0] == 16
    assert level_resolutions(16, 16, 2048)[-1] == 2048
    assert level_resolutions(8, 8, 128)[-1] == 128
    assert level_resolutions(1, 8, 128) == (8,)


@pytest.mark.parametrize(("count", "width"), [(0, 2), (1, 2), (5000, 2), (500, 1), (500, 4)])
def test_kernel_equals_reference(backend: Backend, count: int, width: int) -> None:
    table, points = _table(backend.device, width), _points(max(count, 8), backend.device)[:count]
    fast, slow = backend.hash_encode(points, table, RESOLUTIONS), hash_encode_reference(points, table, RESOLUTIONS)
    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-5)
    cotangent = _random(*fast.shape, seed=2).to(backend.device)
    (fast_grad,) = torch.autograd.grad(fast, table, cotangent)
    (slow_grad,) = torch.autograd.grad(slow, table, cotangent)
    torch.testing.assert_close(fast_grad, slow_grad, rtol=1e-4, atol=1e-5)


def test_kernel_equals_reference_at_the_largest_resolutions(backend: Backend) -> None:
    """The paper's finest levels: indices beyond 32 bits, if they did not wrap as the reference's are masked."""
    table, points = _table(backend.device)[:2].detach(), _points(2000, backend.device)
    fast, slow = (f(points, table, (2048, 4096)) for f in (backend.hash_encode, hash_encode_reference))
    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-5)


def test_gradient_equals_finite_differences(backend: Backend) -> None:
    table, points = _table(backend.device), _points(50, backend.device)
    direction = _random(*table.shape, seed=3).to(backend.device)
    cotangent = _random(50, 10, seed=4).to(backend.device)
    encoded = backend.hash_encode(points, table, RESOLUTIONS)
    (grad,) = torch.autograd.grad(encoded, table, cotangent)
    # The encoding is linear in the table, so a step of any size gives the derivative.
    change = backend.hash_encode(points, table + direction, RESOLUTIONS) - encoded
    assert (grad * direction).sum().item() == pytest.approx((change * cotangent).sum().item(), rel=1e-4)


def test_a_linear_function_on_a_dense_level_is_reproduced(backend: Backend) -> None:
    side = RESOLUTIONS[0] + 1
    z, y, x = torch.meshgrid(*[torch.linspace(0, 1, side)] * 3, indexing="ij")
    table = torch.zeros(1, 2**12, 2)
    table[0, : side**3, 0] = (x + 2 * y - 3 * z).flatten()
    points = torch.rand(200, 3, generator=torch.Generator().manual_seed(5))
    encoded = backend.hash_encode(points.to(backend.device), table.to(backend.device), RESOLUTIONS[:1])
    torch.testing.assert_close(encoded[:, 0].cpu(), points @ torch.tensor([1.0, 2.0, -3.0]), rtol=0, atol=1e-5)


def test_known_features_are_returned_and_get_the_same_gradient(backend: Backend) -> None:
    table, points = _table(backend.device), _points(300, backend.device)
    plain = backend.hash_encode(points, table, RESOLUTIONS)
    again = backend.hash_encode(points, table, RESOLUTIONS, plain.detach())
    assert torch.equal(plain, again)
    cotangent = _random(*plain.shape, seed=6).to(backend.device)
    grads = [torch.autograd.grad(out, table, cotangent)[0] for out in (plain, again)]
    # A GPU's threads add up a gradient in any order; where terms cancel, what is left is rounding.
    torch.testing.assert_close(*grads, rtol=0, atol=1e-6 if backend.device == "cuda" else 0)


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    points, threads = _points(20_000), numba.get_num_threads()
    results = []
    for count in {1, threads}:
        numba.set_num_threads(count)
        table = _table()
        out = hash_encode(points, table, RESOLUTIONS)
        results.append((out.detach(), torch.autograd.grad(out.sin().sum(), table)[0]))
    numba.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(results[0], results[-1], strict=True))


def test_a_table_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="levels"):
        hash_encode(_points(10), torch.zeros(2, 100, 2), (4, 8))

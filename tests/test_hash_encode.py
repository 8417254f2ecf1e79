"""The hash encoder's CPU kernel is the plain PyTorch encoder: the same values, the same gradients, always."""

from __future__ import annotations

import numba
import pytest
import torch

from magic3d_cli.kernels.hash_encode import hash_encode, hash_encode_reference, level_resolutions

RESOLUTIONS = level_resolutions(5, 4, 64)  # with 2^12 entries: the first two are dense, the others hashed


def _table(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(RESOLUTIONS), 2**12, 2, generator=generator).requires_grad_()


def _points(count: int, seed: int = 1) -> torch.Tensor:
    points = torch.rand(count, 3, generator=torch.Generator().manual_seed(seed)) * 1.2 - 0.1  # some are outside
    points[:8] = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)  # the box's corners
    return points


def test_resolutions_grow_geometrically_from_base_to_finest() -> None:
    assert level_resolutions(16, 16, 2048)[0] == 16
    assert level_resolutions(16, 16, 2048)[-1] == 2048
    assert level_resolutions(8, 8, 128)[-1] == 128
    assert level_resolutions(1, 8, 128) == (8,)


@pytest.mark.parametrize("count", [0, 1, 5000])
def test_kernel_equals_reference(count: int) -> None:
    table, points = _table(), _points(max(count, 8))[:count]
    fast, slow = hash_encode(points, table, RESOLUTIONS), hash_encode_reference(points, table, RESOLUTIONS)
    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-5)
    cotangent = torch.randn(fast.shape, generator=torch.Generator().manual_seed(2))
    (fast_grad,) = torch.autograd.grad(fast, table, cotangent)
    (slow_grad,) = torch.autograd.grad(slow, table, cotangent)
    torch.testing.assert_close(fast_grad, slow_grad, rtol=1e-4, atol=1e-5)


def test_gradient_equals_finite_differences() -> None:
    table, points = _table().detach(), _points(50)
    direction = torch.randn(table.shape, generator=torch.Generator().manual_seed(3))
    table.requires_grad_()
    cotangent = torch.randn(50, 10, generator=torch.Generator().manual_seed(4))
    (grad,) = torch.autograd.grad(hash_encode(points, table, RESOLUTIONS), table, cotangent)
    # The encoding is linear in the table, so a step of any size gives the derivative.
    change = hash_encode(points, table + direction, RESOLUTIONS) - hash_encode(points, table, RESOLUTIONS)
    assert (grad * direction).sum().item() == pytest.approx((change * cotangent).sum().item(), rel=1e-4)


def test_a_linear_function_on_a_dense_level_is_reproduced() -> None:
    side = RESOLUTIONS[0] + 1
    z, y, x = torch.meshgrid(*[torch.linspace(0, 1, side)] * 3, indexing="ij")
    table = torch.zeros(1, 2**12, 2)
    table[0, : side**3, 0] = (x + 2 * y - 3 * z).flatten()
    points = torch.rand(200, 3, generator=torch.Generator().manual_seed(5))
    expected = points @ torch.tensor([1.0, 2.0, -3.0])
    torch.testing.assert_close(hash_encode(points, table, RESOLUTIONS[:1])[:, 0], expected, rtol=0, atol=1e-5)


def test_known_features_are_returned_and_get_the_same_gradient() -> None:
    table, points = _table(), _points(300)
    plain = hash_encode(points, table, RESOLUTIONS)
    again = hash_encode(points, table, RESOLUTIONS, plain.detach())
    assert torch.equal(plain, again)
    cotangent = torch.randn(plain.shape, generator=torch.Generator().manual_seed(6))
    grads = [torch.autograd.grad(out, table, cotangent)[0] for out in (plain, again)]
    assert torch.equal(*grads)


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

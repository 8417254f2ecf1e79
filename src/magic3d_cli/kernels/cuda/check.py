"""Whether compiled kernels do what plain PyTorch does: values and gradients on small random input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from magic3d_cli.kernels.cuda import operations
from magic3d_cli.kernels.cuda.nvrtc import Kernels
from magic3d_cli.kernels.hash_encode import hash_encode_reference, level_resolutions
from magic3d_cli.kernels.march import composite_reference, march_reference
from magic3d_cli.kernels.rasterize import rasterize_compiled, rasterize_reference


def verify(kernels: Kernels) -> None:
    """Raises RuntimeError that names the operation which differs from its reference on the kernels' device."""
    generator = torch.Generator().manual_seed(0)  # its own: a run's random numbers do not depend on this

    def random(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator).to(kernels.device)

    resolutions = level_resolutions(4, 4, 2048)  # one dense level, three hashed
    points, table = random(999, 3) * 1.2 - 0.1, random(4, 2**10, 2)
    _compare(
        "hash_encode",
        lambda table: (operations.hash_encode(kernels, points, table, resolutions),),
        lambda table: (hash_encode_reference(points, table, resolutions),),
        (table,),
        random,
    )
    directions = torch.nn.functional.normalize(random(999, 3) - 0.5, dim=-1)
    rays = (3 * random(999, 3) - 1.5, directions, random(12, 12, 12) < 0.3, 0.05, random(999))
    points, ray, t, offsets = operations.march(kernels, *rays)
    expected = march_reference(*rays)
    same = torch.equal(offsets, expected.offsets) and torch.equal(ray, expected.ray)
    if not (same and _close(points, expected.points) and _close(t, expected.t)):
        raise RuntimeError("the compiled march takes other samples than PyTorch")
    _compare(
        "composite",
        lambda density, values: operations.composite(kernels, density, values, expected.delta, offsets),
        lambda density, values: composite_reference(density, values, expected.delta, offsets),
        (20 * random(len(t)), random(len(t), 5)),
        random,
    )
    centre = 2.4 * random(2, 200, 1, 3) - 1.2  # some triangles reach beyond the image, some vertices behind the camera
    corner = centre + 0.4 * (random(2, 200, 3, 3) - 0.5)
    clip = torch.cat([corner.reshape(2, 600, 3), random(2, 600, 1) + 0.5], -1)
    clip[:, ::50, 3] = -1
    faces = torch.arange(600, device=kernels.device).view(200, 3)
    if not torch.equal(rasterize_compiled(kernels, clip, faces, 64), rasterize_reference(clip, faces, 64)):
        raise RuntimeError("the compiled rasterize draws other triangles than PyTorch")


def _compare(
    name: str,
    fast: Callable[..., tuple[Tensor, ...]],
    slow: Callable[..., tuple[Tensor, ...]],
    inputs: tuple[Tensor, ...],
    random: Callable[..., Tensor],
) -> None:
    """Outputs, and the gradient of their inner product with random cotangents."""
    results: list[Any] = []
    cotangents: list[Tensor] = []
    with torch.enable_grad():  # whatever is asked for first may be asked for without
        for operation in (fast, slow):
            leaves = [x.detach().requires_grad_() for x in inputs]
            outputs = operation(*leaves)
            cotangents = cotangents or [random(*x.shape) for x in outputs]
            results.append((*outputs, *torch.autograd.grad(outputs, leaves, cotangents)))
    if not all(_close(a, b) for a, b in zip(*results, strict=True)):
        raise RuntimeError(f"the compiled {name} differs from PyTorch's")


def _close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-3, atol=1e-5)

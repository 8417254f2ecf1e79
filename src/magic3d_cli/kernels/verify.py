"""Comparison of the backends of a GPU with the references: values and gradients on small random input."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from magic3d_cli.kernels import compiled, nvdiffrast, tinycudann
from magic3d_cli.kernels.cuda.nvrtc import Kernels
from magic3d_cli.kernels.hash_encode import hash_encode_reference, level_resolutions
from magic3d_cli.kernels.march import composite_reference, march_reference
from magic3d_cli.kernels.rasterize import rasterize_reference

SAME_PIXELS = 0.95
"""Least fraction of pixels in which nvdiffrast has to find the reference's triangle."""
Random = Callable[..., Tensor]
"""Shape -> uniform in [0, 1)."""


def verify_kernels(kernels: Kernels) -> None:
    """Raises RuntimeError that names the operation which differs from its reference on the kernels' device."""
    random = _random(kernels.device)
    _compare_encoding("the compiled hash_encode", partial(compiled.hash_encode, kernels), random)
    directions = torch.nn.functional.normalize(random(999, 3) - 0.5, dim=-1)
    rays = (3 * random(999, 3) - 1.5, directions, random(12, 12, 12) < 0.3, 0.05, random(999))
    samples, expected = compiled.march(kernels, *rays), march_reference(*rays)
    same = torch.equal(samples.offsets, expected.offsets) and torch.equal(samples.ray, expected.ray)
    if not (same and _close(samples.points, expected.points) and _close(samples.t, expected.t)):
        raise RuntimeError("the compiled march takes other samples than PyTorch")
    _compare(
        "the compiled composite",
        lambda density, values: compiled.composite(kernels, density, values, expected.delta, expected.offsets),
        lambda density, values: composite_reference(density, values, expected.delta, expected.offsets),
        (20 * random(len(expected)), random(len(expected), 5)),
        random,
    )
    clip, faces = _triangles(random)
    clip[:, ::50, 3] = -1  # some vertices behind the camera
    if not torch.equal(compiled.rasterize(kernels, clip, faces, 64), rasterize_reference(clip, faces, 64)):
        raise RuntimeError("the compiled rasterize draws other triangles than PyTorch")


def verify_tinycudann(device: torch.device) -> None:
    """Raises RuntimeError where tinycudann does not encode as PyTorch does; whatever it raises where it cannot work."""
    _compare_encoding("tinycudann's hash_encode", tinycudann.hash_encode, _random(device), tinycudann.TOLERANCE)


def verify_nvdiffrast(device: torch.device) -> None:
    """Raises RuntimeError where nvdiffrast draws other triangles than PyTorch; whatever it raises where it cannot work.

    Pixels on edges may differ: it snaps vertices to a coarser grid.
    """
    clip, faces = _triangles(_random(device))
    if (nvdiffrast.rasterize(clip, faces, 64) == rasterize_reference(clip, faces, 64)).float().mean() < SAME_PIXELS:
        raise RuntimeError("nvdiffrast draws other triangles than PyTorch")


def _triangles(random: Random) -> tuple[Tensor, Tensor]:
    """Two images' vertices in clip space, some beyond the image, and faces."""
    corner = 2.4 * random(2, 200, 1, 3) - 1.2 + 0.4 * (random(2, 200, 3, 3) - 0.5)
    clip = torch.cat([corner.view(2, 600, 3), random(2, 600, 1) + 0.5], -1)
    clip[..., 2] *= 0.3  # within the visible depth
    return clip, torch.arange(600, device=clip.device).view(200, 3)


def _random(device: torch.device) -> Random:
    generator = torch.Generator().manual_seed(0)  # its own: a run's random numbers do not depend on this
    return lambda *shape: torch.rand(shape, generator=generator).to(device)


def _compare_encoding(name: str, encode: Callable[..., Tensor], random: Random, atol: float = 1e-5) -> None:
    resolutions = level_resolutions(4, 4, 2048)  # one dense level, three hashed
    points, table = random(999, 3) * 1.2 - 0.1, random(4, 2**10, 2)
    _compare(
        name,
        lambda table: (encode(points, table, resolutions),),
        lambda table: (hash_encode_reference(points, table, resolutions),),
        (table,),
        random,
        atol,
    )


def _compare(
    name: str,
    fast: Callable[..., tuple[Tensor, ...]],
    slow: Callable[..., tuple[Tensor, ...]],
    inputs: tuple[Tensor, ...],
    random: Random,
    atol: float = 1e-5,
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
    if not all(_close(a, b, atol) for a, b in zip(*results, strict=True)):
        raise RuntimeError(f"{name} differs from PyTorch's")


def _close(a: Tensor, b: Tensor, atol: float = 1e-5) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-3, atol=atol)

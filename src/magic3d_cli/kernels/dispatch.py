"""The hot operations, each by the fastest backend that a device has: the one place of choice.

On a CPU numba does them. On an NVIDIA GPU tinycudann encodes and nvdiffrast finds the visible triangles, where they are
installed; kernels compiled by NVRTC do the rest, and these two without the libraries. Before its first use each of them
is compared with the PyTorch references on that GPU. What does not load or differs is refused, with a warning and a
reason, and the next backend takes its place: plain PyTorch in the end. `backends` lists the choice.

Nothing is loaded or compiled before the first tensor on a GPU.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import takewhile

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from magic3d_cli.errors import UsageError
from magic3d_cli.kernels import compiled, nvdiffrast, tinycudann, verify
from magic3d_cli.kernels.cuda import nvrtc
from magic3d_cli.kernels.hash_encode import check_table, hash_encode_numba, hash_encode_reference
from magic3d_cli.kernels.march import (
    Samples,
    composite_numba,
    composite_reference,
    march_numba,
    march_reference,
)
from magic3d_cli.kernels.rasterize import rasterize_numba, rasterize_reference
from magic3d_cli.kernels.volume import composite_volume_numba, composite_volume_reference

SWITCH = "MAGIC3D_KERNELS"
"""Environment variable: "torch" keeps plain PyTorch on a GPU, "nvrtc" allows the kernels compiled by NVRTC; unset,
tinycudann and nvdiffrast are allowed too."""
NUMBA, PYTORCH, NVRTC, TINYCUDANN, NVDIFFRAST = "numba", "PyTorch", "NVRTC", "tinycudann", "nvdiffrast"
ENCODING, MARCHING, VOLUMES, TRIANGLES = (
    "hash encoding",
    "ray marching and compositing",
    "feature volumes",
    "visible triangles",
)
PREFERENCES = {ENCODING: (TINYCUDANN, NVRTC), MARCHING: (NVRTC,), VOLUMES: (), TRIANGLES: (NVDIFFRAST, NVRTC)}
"""For each operation, what is tried on a GPU, in this order, before plain PyTorch: as the functions below do."""


@dataclass(frozen=True)
class Choice:
    """The backend of an operation, and why each one preferred to it is refused."""

    backend: str
    refused: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.backend + "".join(f", not {name} ({reason})" for name, reason in self.refused.items())


def backends(device: torch.device) -> dict[str, Choice]:
    """What does each operation on a device. Raises UsageError for an unknown value of SWITCH."""
    if device.type == "cpu":
        return dict.fromkeys(PREFERENCES, Choice(NUMBA))
    gpu = usable(device)
    working = gpu.libraries | ({NVRTC} if gpu.kernels is not None else set())
    choices = {}
    for operation, preferred in PREFERENCES.items():
        before = [name for name in takewhile(lambda name: name not in working, preferred) if name in gpu.refused]
        backend = next((name for name in preferred if name in working), PYTORCH)
        choices[operation] = Choice(backend, {name: gpu.refused[name] for name in before})
    return choices


def hash_encode(
    points: Float[Tensor, "N 3"],
    table: Float[Tensor, "L T F"],
    resolutions: tuple[int, ...],
    known: Float[Tensor, "N L*F"] | None = None,
) -> Float[Tensor, "N L*F"]:
    """Features of a multi-resolution hash grid at points in [0, 1]^3; see `hash_encode_reference`.

    `known`: the result, where it has been computed before without gradient: only the gradient is added.
    Differentiable in `table` only. Bit-deterministic on the CPU, for any number of threads.
    """
    check_table(table, resolutions)
    if table.dtype == torch.float32:
        if table.device.type == "cpu":
            return hash_encode_numba(points, table, resolutions, known)
        gpu = usable(table.device)
        if TINYCUDANN in gpu.libraries and table.shape[2] in tinycudann.WIDTHS:
            return tinycudann.hash_encode(points, table, resolutions, known)
        if gpu.kernels is not None and len(resolutions) <= nvrtc.MOST_LEVELS:
            return compiled.hash_encode(gpu.kernels, points, table, resolutions, known)
    return hash_encode_reference(points, table, resolutions)


def march(
    origins: Float[Tensor, "R 3"],
    directions: Float[Tensor, "R 3"],
    occupancy: Bool[Tensor, "G G G"],
    step: float,
    jitter: Float[Tensor, "R"],
) -> Samples:
    """Packed samples of rays in the occupied cells of [-1, 1]^3, in world units; see `march_reference`."""
    if origins.device.type == "cpu":
        return march_numba(origins, directions, occupancy, step, jitter)
    kernels = usable(origins.device).kernels
    if kernels is not None:
        return compiled.march(kernels, origins, directions, occupancy, step, jitter)
    return march_reference(origins, directions, occupancy, step, jitter)


def composite(
    density: Float[Tensor, "N"],
    values: Float[Tensor, "N C"],
    delta: Float[Tensor, "N"],
    offsets: Int[Tensor, "R+1"],
) -> tuple[Float[Tensor, "R C"], Float[Tensor, "R"], Float[Tensor, "N"]]:
    """Values composited along each ray, opacity, and each sample's weight; see `composite_reference`.

    Differentiable in `density` and `values`.
    """
    if density.dtype == values.dtype == torch.float32:
        if density.device.type == "cpu":
            return composite_numba(density, values, delta, offsets)
        kernels = usable(density.device).kernels
        if kernels is not None:
            return compiled.composite(kernels, density, values, delta, offsets)
    return composite_reference(density, values, delta, offsets)


def composite_volume(
    volume: Float[Tensor, "C J I K F+1"],
    origins: Float[Tensor, "B 3"],
    directions: Float[Tensor, "B R 3"],
    start: Float[Tensor, "B"],
    jitter: Float[Tensor, "B R"],
    samples: int,
    extent: float,
    blocks: Bool[Tensor, "C j i k"] | None = None,
) -> Float[Tensor, "B F+4 R"]:
    """Opacity, features and position of a feature volume along rays; see `composite_volume_reference`.

    `blocks`: `occupied_blocks(volume)`, for a volume that is rendered again and again; only the CPU uses it.
    Differentiable in `volume`.
    """
    if volume.device.type == "cpu":
        return composite_volume_numba(volume.float(), origins, directions, start, jitter, samples, extent, blocks)
    return composite_volume_reference(volume.float(), origins, directions, start, jitter, samples, extent)


def rasterize(clip: Float[Tensor, "B V 4"], faces: Int[Tensor, "F 3"], size: int) -> Int[Tensor, "B H W"]:
    """int32 index of the nearest triangle at every pixel centre, -1 where there is none; see `rasterize_reference`.

    No gradient flows through here.
    """
    clip = clip.detach()
    if faces.shape[0] == 0:
        return torch.full((clip.shape[0], size, size), -1, dtype=torch.int32, device=clip.device)
    if clip.device.type == "cpu":
        return rasterize_numba(clip, faces, size)
    gpu = usable(clip.device)
    if NVDIFFRAST in gpu.libraries and nvdiffrast.can_draw(size):
        return nvdiffrast.rasterize(clip, faces, size)
    if gpu.kernels is not None:
        return compiled.rasterize(gpu.kernels, clip, faces, size)
    return rasterize_reference(clip, faces, size)


@dataclass(frozen=True)
class Usable:
    """The backends that load on a device and do there what plain PyTorch does, and why others are refused.

    A library that is not installed, or that SWITCH rules out, is neither.
    """

    kernels: nvrtc.Kernels | None = None
    libraries: frozenset[str] = frozenset()  # of TINYCUDANN, NVDIFFRAST
    refused: Mapping[str, str] = field(default_factory=dict)  # backend -> reason


def usable(device: torch.device) -> Usable:
    """Loaded and compared at the first call for each GPU, with a warning for each refusal; nothing on other devices.

    Raises UsageError for an unknown value of SWITCH.
    """
    if device.type != "cuda":
        return Usable()
    return _usable(torch.cuda.current_device() if device.index is None else device.index)


@lru_cache
def _usable(index: int) -> Usable:
    device, allowed = torch.device("cuda", index), _allowed()
    refused: dict[str, str] = {}
    kernels, libraries = None, set()
    if NVRTC in allowed:
        with _refusal(NVRTC, refused):
            loaded = nvrtc.load_kernels(device)
            verify.verify_kernels(loaded)
            kernels = loaded
    else:
        refused[NVRTC] = f"{SWITCH}=torch"
    for library, check in ((TINYCUDANN, verify.verify_tinycudann), (NVDIFFRAST, verify.verify_nvdiffrast)):
        if library in allowed and importlib.util.find_spec(library) is not None:
            with _refusal(library, refused):
                check(device)
                libraries.add(library)
    return Usable(kernels, frozenset(libraries), refused)


def _allowed() -> tuple[str, ...]:
    """The backends that SWITCH allows besides PyTorch."""
    values = {"": (NVRTC, TINYCUDANN, NVDIFFRAST), "nvrtc": (NVRTC,), "torch": ()}
    value = os.environ.get(SWITCH, "")
    if value not in values:
        raise UsageError(f'{SWITCH}="{value}" is unknown.', f"Set it to nvrtc or torch, or unset {SWITCH}.")
    return values[value]


@contextmanager
def _refusal(backend: str, refused: dict[str, str]) -> Iterator[None]:
    """A failure inside becomes a warning, and its first line, without a compiler's log, the reason in `refused`."""
    try:
        yield
    # OSError: built for another GPU, or no library; AttributeError: a library without a function.
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        warnings.warn(f"{backend} is not used: {error}", RuntimeWarning, stacklevel=2)
        refused[backend] = str(error).partition("\n")[0]

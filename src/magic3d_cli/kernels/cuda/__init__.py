"""Kernels in CUDA C++ for NVIDIA GPUs, compiled on the user's machine without a compiler, and what is used on a GPU.

tinycudann encodes where it is installed and does on this GPU what plain PyTorch does. These kernels do the rest, and
the encoding without tinycudann, where they compile and do what plain PyTorch does; otherwise plain PyTorch is used. The
reasons are told. Nothing happens before the first CUDA tensor.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

import torch

from magic3d_cli.errors import UsageError
from magic3d_cli.kernels.cuda import nvrtc
from magic3d_cli.kernels.cuda.nvrtc import Kernels

T = TypeVar("T")
SWITCH = "MAGIC3D_KERNELS"
"""Environment variable: "torch" keeps plain PyTorch, "nvrtc" allows these kernels; unset, tinycudann and nvdiffrast are
allowed too."""


def kernels_on(device: torch.device) -> Kernels | None:
    """The kernels for a device, or None where PyTorch (or, on a CPU, numba) does the work."""
    found = _choice(device)
    return found if isinstance(found, Kernels) else None


def refusal(device: torch.device) -> str | None:
    """Why a CUDA device does without these kernels; None where they are used."""
    found = _choice(device)
    return found if isinstance(found, str) else None


def tinycudann_on(device: torch.device) -> bool:
    """Whether tinycudann does the hash encoding on a device."""
    return device.type == "cuda" and _tinycudann(_index(device)) is True


def tinycudann_refusal(device: torch.device) -> str | None:
    """What is wrong with tinycudann on a device; None where it is used, not installed, or not asked for."""
    found = _tinycudann(_index(device)) if device.type == "cuda" else None
    return found if isinstance(found, str) else None


def _choice(device: torch.device) -> Kernels | str | None:
    return _found(_index(device)) if device.type == "cuda" else None


def _index(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index


def asked() -> str:
    """What SWITCH says, "" where nothing. Raises UsageError for what it cannot say."""
    value = os.environ.get(SWITCH, "")
    if value not in ("", "nvrtc", "torch"):
        raise UsageError(f'{SWITCH}="{value}" is unknown.', f"Set it to nvrtc or torch, or unset {SWITCH}.")
    return value


@lru_cache
def _tinycudann(index: int) -> bool | str:
    """Whether it is there and allowed and, compared once for each device, does what PyTorch does; or what is wrong."""
    from magic3d_cli.kernels.cuda import check

    def compare() -> bool:
        check.verify_tinycudann(torch.device("cuda", index))
        return True

    if asked() or importlib.util.find_spec("tinycudann") is None:
        return False
    return attempt("tinycudann is not used", compare)


@lru_cache
def _found(index: int) -> Kernels | str:
    """Compiled, loaded and compared with PyTorch, once for each device; or the reason why not."""
    from magic3d_cli.kernels.cuda import check  # compares with the references, whose files import this one

    def build() -> Kernels:
        device = torch.device("cuda", index)
        major, minor = torch.cuda.get_device_capability(device)
        kernels = Kernels(device, nvrtc.load_driver(), nvrtc.compile_source(f"sm_{major}{minor}"))
        check.verify(kernels)
        return kernels

    if asked() == "torch":
        return f"{SWITCH}=torch"
    return attempt("plain PyTorch does the work of the CUDA kernels", build)


def attempt(otherwise: str, make: Callable[[], T]) -> T | str:
    """What `make` makes; or why it cannot, without a compiler's log, after a warning of what is done `otherwise`."""
    try:
        return make()
    # OSError: built for another GPU, or no library; AttributeError: a library without a function.
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        warnings.warn(f"{otherwise}: {error}", RuntimeWarning, stacklevel=3)
        return str(error).partition("\n")[0]

"""Kernels in CUDA C++ for NVIDIA GPUs, compiled on the user's machine without a compiler, and whether to use them.

They are used where they compile and do on this GPU what plain PyTorch does; otherwise plain PyTorch is, and the
reason is told. Nothing happens before the first CUDA tensor.
"""

from __future__ import annotations

import os
import warnings
from functools import lru_cache

import torch

from magic3d_cli.errors import UsageError
from magic3d_cli.kernels.cuda import nvrtc
from magic3d_cli.kernels.cuda.nvrtc import Kernels

SWITCH = "MAGIC3D_KERNELS"
"""Environment variable: "torch" keeps plain PyTorch, "nvrtc" (the default) allows these kernels."""


def kernels_on(device: torch.device) -> Kernels | None:
    """The kernels for a device, or None where PyTorch (or, on a CPU, numba) does the work."""
    found = _choice(device)
    return found if isinstance(found, Kernels) else None


def refusal(device: torch.device) -> str | None:
    """Why a CUDA device does without these kernels; None where they are used."""
    found = _choice(device)
    return found if isinstance(found, str) else None


def _choice(device: torch.device) -> Kernels | str | None:
    if device.type != "cuda":
        return None
    return _found(torch.cuda.current_device() if device.index is None else device.index)


@lru_cache
def _found(index: int) -> Kernels | str:
    """Compiled, loaded and compared with PyTorch, once for each device; or the reason why not."""
    from magic3d_cli.kernels.cuda import check  # compares with the references, whose files import this one

    asked = os.environ.get(SWITCH) or "nvrtc"
    if asked == "torch":
        return f"{SWITCH}=torch"
    if asked != "nvrtc":
        raise UsageError(f'{SWITCH}="{asked}" is unknown.', f"Set it to nvrtc or torch, or unset {SWITCH}.")
    device = torch.device("cuda", index)
    try:
        major, minor = torch.cuda.get_device_capability(device)
        kernels = Kernels(device, nvrtc.load_driver(), nvrtc.compile_source(f"sm_{major}{minor}"))
        check.verify(kernels)
    except (OSError, RuntimeError, AttributeError) as error:  # AttributeError: a library without a function
        warnings.warn(f"plain PyTorch does the work of the CUDA kernels: {error}", RuntimeWarning, stacklevel=2)
        return str(error).partition("\n")[0]  # without the compiler's log
    return kernels

"""What does the hot operations: numba, the CUDA source on the CPU, a GPU. A test claims the same of each."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from magic3d_cli.kernels import compiled, dispatch
from magic3d_cli.kernels.cuda.nvrtc import SOURCE, Kernels

NAMES = ("numba", "CUDA source on the CPU", "GPU")


@dataclass(frozen=True)
class Backend:
    """The operations, with the arguments and results of their references, and where their tensors are."""

    device: str
    hash_encode: Callable[..., Any]
    march: Callable[..., Any]
    composite: Callable[..., Any]
    rasterize: Callable[..., Any]


def backend(name: str, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """A backend by name; skips, with the reason, where it cannot be had."""
    if name == "CUDA source on the CPU":
        return _compiled("cpu", kernels_on_the_cpu(monkeypatch))
    if name == "GPU":
        if not torch.cuda.is_available():
            pytest.skip("there is no GPU")
        gpu = dispatch.usable(torch.device("cuda"))
        assert gpu.kernels is not None, gpu.refused
        # Neither tinycudann nor nvdiffrast, which may be there: they have tests and tolerances of their own.
        return _compiled("cuda", gpu.kernels)
    return Backend("cpu", dispatch.hash_encode, dispatch.march, dispatch.composite, dispatch.rasterize)


def _compiled(device: str, kernels: Kernels) -> Backend:
    operations = (compiled.hash_encode, compiled.march, compiled.composite, compiled.rasterize)
    return Backend(device, *(partial(operation, kernels) for operation in operations))


def kernels_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> Kernels:
    """`Kernels` whose driver is cuda_on_cpu.cpp, and a PyTorch that has a stream to launch them on."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=0))
    return Kernels(torch.device("cpu"), _driver(compiler), b"")


@lru_cache
def _driver(compiler: str) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "cuda_on_cpu.so"
        source = Path(__file__).with_name("cuda_on_cpu.cpp")
        # As for the GPU (nvrtc.OPTIONS): no products and sums rounded together.
        options = ("-std=c++17", "-O2", "-ffp-contract=off", "-shared", "-fPIC", "-Wall", "-Werror")
        subprocess.run([compiler, *options, f"-I{SOURCE.parent}", str(source), "-o", str(library)], check=True)
        return ctypes.CDLL(str(library))

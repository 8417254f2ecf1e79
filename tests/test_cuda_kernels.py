"""The CUDA kernels compile for the GPUs in use, are used only if they do what PyTorch does, and say why if not."""

from __future__ import annotations

import ctypes
import sys
import warnings
from typing import Any

import pytest
import torch
from kernel_backends import kernels_on_the_cpu
from tiny_run import Noting

from magic3d_cli import assembly
from magic3d_cli.cli import doctor
from magic3d_cli.errors import UsageError
from magic3d_cli.kernels import dispatch, verify
from magic3d_cli.kernels.cuda import nvrtc
from magic3d_cli.kernels.cuda.nvrtc import Kernels
from magic3d_cli.kernels.dispatch import NVRTC, PYTORCH, VOLUMES, Choice, backends, usable

KERNELS = (
    "hash_encode",
    "hash_encode_backward",
    "march_count",
    "march_fill",
    "composite",
    "composite_backward",
    "rasterize",
)


def fails(monkeypatch: pytest.MonkeyPatch, module: object, name: str, error: Exception) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(module, name, fail)


needs_nvrtc = pytest.mark.skipif(sys.platform == "darwin", reason="NVIDIA makes no NVRTC for macOS")


@needs_nvrtc
@pytest.mark.parametrize("architecture", ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"])
def test_the_source_compiles(architecture: str) -> None:
    cubin = nvrtc.compile_source(architecture)
    assert cubin.startswith(b"\x7fELF")
    assert all(kernel.encode() + b"\0" in cubin for kernel in KERNELS)


@needs_nvrtc
def test_what_nvrtc_refuses_is_told() -> None:
    with pytest.raises(RuntimeError, match=r"NVRTC: NVRTC_ERROR_INVALID_OPTION \(sm_1\)"):
        nvrtc.compile_source("sm_1")


def test_without_nvrtc_the_package_to_install_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    fails(monkeypatch, ctypes, "CDLL", OSError("no such library"))
    with pytest.raises(OSError, match=r"NVRTC \(.*\) was not found; next: pip install nvidia-cuda-nvrtc"):
        nvrtc.compile_source("sm_90")


def test_what_the_driver_refuses_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = kernels_on_the_cpu(monkeypatch)
    with pytest.raises(RuntimeError, match=r"named symbol not found \(500\)"):
        kernels.launch("no_such_kernel", (1, 1))
    with pytest.raises(ValueError, match="gaps"):
        kernels.launch("march_count", (1, 1), torch.zeros(4, 4).T)


def test_kernels_that_do_what_pytorch_does_pass_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    state = torch.get_rng_state()
    with torch.no_grad():
        verify.verify_kernels(kernels_on_the_cpu(monkeypatch))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("wrong", KERNELS)
def test_one_wrong_kernel_fails_the_check(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = kernels_on_the_cpu(monkeypatch)
    launch = kernels.launch

    def launch_wrongly(kernel: str, threads: tuple[int, int], *arguments: Any) -> None:
        launch(kernel, threads, *arguments)
        if kernel == wrong:
            arguments[-1].view(-1)[:1].add_(1)

    monkeypatch.setattr(kernels, "launch", launch_wrongly)
    with pytest.raises(RuntimeError, match="compiled " + wrong.split("_")[0]):
        verify.verify_kernels(kernels)


def choices(device: torch.device) -> list[Choice]:
    """Of the operations for which there are CUDA kernels."""
    return [choice for operation, choice in backends(device).items() if operation != VOLUMES]


def test_kernels_are_compiled_once_and_used(gpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    found = usable(gpu)
    assert isinstance(found.kernels, Kernels) and not found.refused
    fails(monkeypatch, nvrtc, "compile_source", RuntimeError("compiled again"))
    assert usable(torch.device("cuda")) is found
    assert choices(gpu) == [Choice(NVRTC)] * 3


@pytest.mark.parametrize(
    ("module", "name", "error"),
    [
        (nvrtc, "load_driver", OSError("libcuda.so.1: cannot open shared object file")),
        (nvrtc, "compile_source", OSError("NVRTC (libnvrtc.so.13) was not found")),
        (Kernels, "__init__", RuntimeError("CUDA driver: no kernel image is available (209)")),
        (verify, "verify_kernels", RuntimeError("the compiled march takes other samples than PyTorch")),
    ],
)
def test_kernels_that_fail_are_not_used_and_the_reason_is_told(
    module: object, name: str, error: Exception, gpu: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails(monkeypatch, module, name, error)
    with pytest.warns(RuntimeWarning, match="NVRTC is not used"):
        assert usable(gpu).kernels is None
    assert choices(gpu) == [Choice(PYTORCH, {NVRTC: str(error)})] * 3
    assert f"PyTorch, not NVRTC ({error})" in doctor.examine()["kernels"].values()
    notes: list[str] = []
    assert assembly.choose_device("auto", Noting(notes)) == "cuda"
    assert len(notes) == 1 and str(error) in notes[0]


def test_of_a_compilers_log_the_reason_is_the_first_line(gpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    fails(monkeypatch, nvrtc, "compile_source", RuntimeError("NVRTC: NVRTC_ERROR_COMPILATION (sm_90)\nkernels.cu(7)"))
    with pytest.warns(RuntimeWarning, match=r"kernels.cu\(7\)"):
        assert usable(gpu).refused == {NVRTC: "NVRTC: NVRTC_ERROR_COMPILATION (sm_90)"}


def test_an_environment_variable_keeps_plain_pytorch(gpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(dispatch.SWITCH, "torch")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing went wrong
        assert usable(gpu).kernels is None
    assert choices(gpu) == [Choice(PYTORCH, {NVRTC: "MAGIC3D_KERNELS=torch"})] * 3
    dispatch._usable.cache_clear()
    monkeypatch.setenv(dispatch.SWITCH, "fast")
    with pytest.raises(UsageError, match='MAGIC3D_KERNELS="fast" is unknown'):
        usable(gpu)


def test_nothing_is_compiled_for_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    fails(monkeypatch, dispatch, "_usable", AssertionError("asked"))
    cpu = torch.device("cpu")
    assert usable(cpu) == dispatch.Usable() and set(map(str, backends(cpu).values())) == {"numba"}

"""CUDA C++ compiled at run time by NVRTC, and launched on PyTorch's current stream.

Through ctypes: NVRTC and the driver's library are wherever a CUDA build of PyTorch works, while cuda-bindings comes
only with its Linux builds for CUDA 13, and PyTorch's own way (torch.cuda._compile_kernel) is private.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("kernels.cu")
OPTIONS = ("--std=c++17", "--fmad=false")
"""No fast math, and products and sums rounded one by one as PyTorch does: a ray then has the same samples
everywhere. It costs nothing, because these kernels wait for memory."""
MOST_LEVELS = 32
_BLOCK = 256  # threads; a multiple of the 32 that run in step


def compile_source(architecture: str) -> bytes:
    """The kernels as a CUBIN for an architecture, for example "sm_90".

    Raises OSError where there is no NVRTC, RuntimeError with its log where it refuses.
    """
    nvrtc = _nvrtc()

    def check(status: int, log: str = "") -> None:
        if status:
            raise RuntimeError(f"NVRTC: {nvrtc.nvrtcGetErrorString(status).decode()} ({architecture})\n{log}".rstrip())

    def read(size_of: Any, get: Any) -> bytes:
        size = ctypes.c_size_t()
        check(size_of(program, ctypes.byref(size)))
        text = ctypes.create_string_buffer(size.value)
        check(get(program, text))
        return text.raw

    program = ctypes.c_void_p()
    check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), SOURCE.read_bytes(), b"kernels.cu", 0, None, None))
    try:
        options = [option.encode() for option in (*OPTIONS, f"--gpu-architecture={architecture}")]
        status = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
        check(status, read(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog).rstrip(b"\0").decode())
        return read(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _nvrtc() -> ctypes.CDLL:
    """NVRTC of PyTorch's CUDA version (of any, for a PyTorch without CUDA). Raises OSError where there is none."""
    major = (torch.version.cuda or "*").split(".")[0]
    name = f"nvrtc64_{major}0_0.dll" if sys.platform == "win32" else f"libnvrtc.so.{major}"
    # First as the system's loader finds it, or PyTorch has loaded it; then in NVIDIA's Python packages.
    nvidia = importlib.util.find_spec("nvidia")
    folders = nvidia.submodule_search_locations if nvidia is not None else None
    packaged = [str(path) for folder in folders or () for path in Path(folder).rglob(name)]
    for path in (name, *packaged):
        try:
            library = ctypes.CDLL(path)
        except OSError:
            continue
        library.nvrtcGetErrorString.restype = ctypes.c_char_p
        return library
    package = "nvidia-cuda-nvrtc" + ("-cu12" if major == "12" else "")
    raise OSError(f"NVRTC ({name}) was not found; next: pip install {package}")


def load_driver() -> ctypes.CDLL:
    """The NVIDIA driver's library. Raises OSError where there is none."""
    return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")


def load_kernels(device: torch.device) -> Kernels:
    """The kernels, compiled for a GPU and loaded. Raises OSError where a library is missing, RuntimeError elsewhere."""
    major, minor = torch.cuda.get_device_capability(device)
    return Kernels(device, load_driver(), compile_source(f"sm_{major}{minor}"))


class Kernels:
    """The compiled kernels on one device, kept for the life of the process."""

    def __init__(self, device: torch.device, driver: ctypes.CDLL, cubin: bytes) -> None:
        """Raises RuntimeError when the driver refuses."""
        self.device, self._driver = device, driver
        handle = ctypes.c_int()
        self._context, self._module = ctypes.c_void_p(), ctypes.c_void_p()
        self._functions: dict[str, ctypes.c_void_p] = {}
        with torch.cuda.device(device):
            self._check(driver.cuInit(0))
            self._check(driver.cuDeviceGet(ctypes.byref(handle), device.index or 0))
            # PyTorch's context too. It has to be made current: in a thread of its own, autograd need not have.
            self._check(driver.cuDevicePrimaryCtxRetain(ctypes.byref(self._context), handle))
            self._check(driver.cuCtxSetCurrent(self._context))
            self._check(driver.cuModuleLoadData(ctypes.byref(self._module), cubin))

    def launch(self, kernel: str, threads: tuple[int, int], *arguments: Tensor | tuple[int, ...] | int | float) -> None:
        """Start `kernel` on the current stream, with at least `threads` (along x, exactly along y).

        Tensors are passed as pointers, tuples as `Levels`, int as long long, float as float.
        """
        if 0 in threads:
            return
        packed = [self._packed(argument) for argument in arguments]
        pointers = (ctypes.c_void_p * len(packed))(*(ctypes.addressof(value) for value in packed))
        grid = ((threads[0] + _BLOCK - 1) // _BLOCK, threads[1], 1)
        with torch.cuda.device(self.device):
            stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
            self._check(self._driver.cuCtxSetCurrent(self._context))
            function = self._function(kernel)
            self._check(self._driver.cuLaunchKernel(function, *grid, _BLOCK, 1, 1, 0, stream, pointers, None))

    def _packed(self, argument: Tensor | tuple[int, ...] | int | float) -> Any:
        if isinstance(argument, Tensor):
            if argument.device != self.device or not argument.is_contiguous():
                raise ValueError(f"a kernel on {self.device} was given a tensor on {argument.device}, or one with gaps")
            return ctypes.c_void_p(argument.data_ptr())
        if isinstance(argument, tuple):
            return (ctypes.c_int * MOST_LEVELS)(*argument)
        return ctypes.c_float(argument) if isinstance(argument, float) else ctypes.c_longlong(argument)

    def _function(self, kernel: str) -> ctypes.c_void_p:
        if kernel not in self._functions:
            function = ctypes.c_void_p()
            self._check(self._driver.cuModuleGetFunction(ctypes.byref(function), self._module, kernel.encode()))
            self._functions[kernel] = function
        return self._functions[kernel]

    def _check(self, status: int) -> None:
        if status:
            text = ctypes.c_char_p()
            self._driver.cuGetErrorString(status, ctypes.byref(text))
            raise RuntimeError(f"CUDA driver: {(text.value or b'unknown error').decode()} ({status})")

"""Fixtures of several test files."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # side by side, each on a core of its own; before PyTorch reads it
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from kernel_backends import NAMES, Backend, backend

from magic3d_cli.kernels import dispatch, nvdiffrast, tinycudann, verify
from magic3d_cli.kernels.cuda import nvrtc
from magic3d_cli.run import estimate


@pytest.fixture(name="backend", params=NAMES)
def _backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Backend:
    return backend(request.param, monkeypatch)


@pytest.fixture(autouse=True)
def _a_machine_at_leisure(monkeypatch: pytest.MonkeyPatch) -> None:
    """How busy the machine is must not decide whether a command asks before it begins."""
    monkeypatch.setattr(estimate, "matrix_speed", lambda device: estimate.REFERENCE)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """A GPU whose compiled kernels pass, with neither tinycudann nor nvdiffrast; it can only be asked what it is."""

    def clear() -> None:
        for cached in (dispatch._usable, tinycudann._encoding, nvdiffrast._context):
            cached.cache_clear()

    properties = SimpleNamespace(name="GPU", total_memory=8e9)
    answers: dict[str, Any] = {"is_available": True, "is_bf16_supported": True, "device_count": 1, "current_device": 0}
    answers |= {"get_device_capability": (9, 0), "get_device_properties": properties}
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, answer=answer: answer)
    monkeypatch.setattr(nvrtc, "load_driver", lambda: None)
    monkeypatch.setattr(nvrtc, "compile_source", lambda _: b"")
    monkeypatch.setattr(nvrtc.Kernels, "__init__", lambda *_: None)
    monkeypatch.setattr(verify, "verify_kernels", lambda _: None)
    for library in ("tinycudann", "nvdiffrast"):
        monkeypatch.setitem(sys.modules, library, None)  # not installed
    monkeypatch.delenv(dispatch.SWITCH, raising=False)
    clear()
    yield torch.device("cuda", 0)
    clear()

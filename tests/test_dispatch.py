"""Every operation is done by the backend that `backends` names."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest
import torch

from magic3d_cli.kernels import compiled, dispatch, nvdiffrast, tinycudann
from magic3d_cli.kernels.dispatch import (
    ENCODING,
    MARCHING,
    NUMBA,
    NVDIFFRAST,
    NVRTC,
    PREFERENCES,
    PYTORCH,
    TINYCUDANN,
    TRIANGLES,
    VOLUMES,
    Usable,
    backends,
)

OPERATIONS = {
    "hash_encode": ENCODING,
    "march": MARCHING,
    "composite": MARCHING,
    "composite_volume": VOLUMES,
    "rasterize": TRIANGLES,
}
GPU_BACKENDS = (NVRTC, TINYCUDANN, NVDIFFRAST)
SUBSETS = [chosen for count in range(4) for chosen in combinations(GPU_BACKENDS, count)]


def _arguments(operation: str, device: str, dtype: torch.dtype = torch.float32) -> tuple[Any, ...]:
    """Small ones that every backend can take."""

    def zeros(*shape: int, of: torch.dtype = dtype) -> torch.Tensor:
        return torch.zeros(shape, dtype=of, device=device)

    rays = zeros(1, 3), zeros(1, 3)
    return {
        "hash_encode": (zeros(5, 3), zeros(2, 16, 2), (2, 3)),
        "march": (*rays, zeros(4, 4, 4, of=torch.bool), 0.1, zeros(1)),
        "composite": (zeros(3), zeros(3, 2), zeros(3), zeros(2, of=torch.int64)),
        "composite_volume": (zeros(1, 4, 4, 4, 7), zeros(1, 3), zeros(1, 1, 3), zeros(1), zeros(1, 1), 4, 0.9),
        "rasterize": (zeros(1, 3, 4), zeros(1, 3, of=torch.int64), 64),
    }[operation]


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every backend's function answers with the backend's name."""

    def answer(name: str) -> Callable[..., str]:
        return lambda *_: name

    for operation in OPERATIONS:
        monkeypatch.setattr(dispatch, f"{operation}_numba", answer(NUMBA))
        monkeypatch.setattr(dispatch, f"{operation}_reference", answer(PYTORCH))
        if hasattr(compiled, operation):
            monkeypatch.setattr(compiled, operation, answer(NVRTC))
    monkeypatch.setattr(tinycudann, "hash_encode", answer(TINYCUDANN))
    monkeypatch.setattr(nvdiffrast, "rasterize", answer(NVDIFFRAST))


@pytest.mark.usefixtures("named")
@pytest.mark.parametrize("working", SUBSETS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_on_a_gpu(operation: str, working: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    refused = {name: f"{name} is too old" for name in GPU_BACKENDS if name not in working}
    kernels: Any = object() if NVRTC in working else None
    found = Usable(kernels, frozenset(working) - {NVRTC}, refused)
    monkeypatch.setattr(dispatch, "usable", lambda _: found)
    choice = backends(torch.device("meta"))[OPERATIONS[operation]]  # stands for a GPU
    assert getattr(dispatch, operation)(*_arguments(operation, "meta")) == choice.backend
    # What is preferred to the chosen one has a reason, and nothing else.
    preferred = PREFERENCES[OPERATIONS[operation]]
    better = preferred[: preferred.index(choice.backend)] if choice.backend in preferred else preferred
    assert choice.refused == {name: refused[name] for name in better}


@pytest.mark.usefixtures("named")
@pytest.mark.parametrize("operation", OPERATIONS)
def test_on_a_cpu(operation: str) -> None:
    assert backends(torch.device("cpu"))[OPERATIONS[operation]].backend == NUMBA
    assert getattr(dispatch, operation)(*_arguments(operation, "cpu")) == NUMBA


@pytest.mark.usefixtures("named")
@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("operation", ["hash_encode", "composite"])
def test_double_precision_is_left_to_pytorch(operation: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    everything: Any = Usable(object(), frozenset({TINYCUDANN}))  # type: ignore[arg-type]
    monkeypatch.setattr(dispatch, "usable", lambda _: everything)
    assert getattr(dispatch, operation)(*_arguments(operation, device, torch.float64)) == PYTORCH

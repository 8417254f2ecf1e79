"""nvdiffrast draws the triangles that plain PyTorch draws; or it is not used, and the reason is told.

Where there is no GPU a stand-in that draws with the reference takes its place.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest
import torch
from test_rasterize import soup
from tiny_run import Noting

from magic3d_cli import assembly
from magic3d_cli.cli import doctor
from magic3d_cli.kernels import compiled, dispatch, nvdiffrast, verify
from magic3d_cli.kernels.dispatch import NVDIFFRAST, NVRTC, SWITCH, TRIANGLES, Choice, Usable, backends, usable
from magic3d_cli.kernels.rasterize import rasterize_reference


class StandIn:
    """nvdiffrast's torch module, as far as it is used: its row 0 is the bottom, and background is id 0."""

    @staticmethod
    def RasterizeCudaContext(device: torch.device) -> torch.device:
        return device

    @staticmethod
    def rasterize(
        context: torch.device, clip: torch.Tensor, faces: torch.Tensor, resolution: tuple[int, int], grad_db: bool
    ) -> tuple[torch.Tensor, None]:
        assert (clip.dtype, faces.dtype, clip.device, grad_db) == (torch.float32, torch.int32, context, False)
        ids = rasterize_reference(clip, faces, resolution[0])
        return torch.stack([torch.zeros_like(ids)] * 3 + [ids.flip(1) + 1], -1).float(), None


@pytest.fixture
def stand_in(gpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    """nvdiffrast's, on the GPU that `gpu` is: compared with PyTorch on the CPU."""

    class Its(StandIn):
        pass

    package = ModuleType("nvdiffrast")
    package.torch = Its  # type: ignore[attr-defined]
    package.__spec__ = ModuleSpec("nvdiffrast", None)
    monkeypatch.setitem(sys.modules, "nvdiffrast", package)
    monkeypatch.setitem(sys.modules, "nvdiffrast.torch", Its)
    compare = verify.verify_nvdiffrast
    monkeypatch.setattr(verify, "verify_nvdiffrast", lambda _: compare(torch.device("cpu")))
    return Its


@pytest.mark.usefixtures("stand_in")
def test_it_is_used_where_it_draws_the_same(gpu: torch.device) -> None:
    assert usable(gpu).libraries == {NVDIFFRAST} and not usable(gpu).refused
    assert backends(gpu)[TRIANGLES] == Choice(NVDIFFRAST)
    clip, faces = soup(400, 0.1)
    assert torch.equal(nvdiffrast.rasterize(clip, faces, 64), rasterize_reference(clip, faces, 64))


@pytest.mark.parametrize(
    ("used", "size", "backend"),
    [(True, 64, NVDIFFRAST), (True, 60, NVRTC), (True, 2048, NVDIFFRAST), (True, 2056, NVRTC), (False, 64, NVRTC)],
)
def test_it_is_asked_first_for_sizes_it_draws(
    used: bool, size: int, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Usable(object(), frozenset([NVDIFFRAST] if used else []))  # type: ignore[arg-type]
    monkeypatch.setattr(dispatch, "usable", lambda _: found)
    monkeypatch.setattr(nvdiffrast, "rasterize", lambda *_: NVDIFFRAST)
    monkeypatch.setattr(compiled, "rasterize", lambda *_: NVRTC)
    clip, faces = torch.zeros(1, 3, 4, device="meta"), torch.zeros(1, 3, device="meta")  # stands for a GPU
    assert dispatch.rasterize(clip, faces, size) == backend


def test_a_disagreement_is_the_reason_why_it_is_not_used(
    gpu: torch.device, stand_in: type[StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    def upside_down(*arguments: Any, **options: Any) -> tuple[torch.Tensor, None]:
        return StandIn.rasterize(*arguments, **options)[0].flip(1), None

    monkeypatch.setattr(stand_in, "rasterize", staticmethod(upside_down))
    with pytest.warns(RuntimeWarning, match="nvdiffrast is not used"):
        assert not usable(gpu).libraries
    reason = "nvdiffrast draws other triangles than PyTorch"
    assert backends(gpu)[TRIANGLES] == Choice(NVRTC, {NVDIFFRAST: reason})
    assert doctor.examine()["kernels"][TRIANGLES] == f"NVRTC, not nvdiffrast ({reason})"
    notes: list[str] = []
    assembly.choose_device("auto", Noting(notes))
    assert notes == [f"nvdiffrast is not used: {reason}"]


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("used", [True, False])
def test_doctor_tells_the_licence_of_what_is_used(used: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not used:
        monkeypatch.setitem(sys.modules, "nvdiffrast", None)
    assert ("research and evaluation only" in doctor.examine().get("nvdiffrast_licence", "")) == used


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("value", ["torch", "nvrtc"])
def test_the_switch_does_without_it(value: str, gpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, value)
    assert not usable(gpu).libraries and NVDIFFRAST not in usable(gpu).refused


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.skipif(importlib.util.find_spec("nvdiffrast") is None, reason="nvdiffrast is not installed")
def test_nvdiffrast_sees_the_same_triangles() -> None:
    """But for pixels on edges, where it has other rules."""
    found = usable(torch.device("cuda"))
    assert NVDIFFRAST in found.libraries, found.refused
    for spread in (0.02, 0.3):
        clip, faces = soup(400, spread, device="cuda")
        same = dispatch.rasterize(clip, faces, 64) == rasterize_reference(clip, faces, 64)
        assert same.float().mean() > verify.SAME_PIXELS

"""Claims about the triangle-id kernel."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest
import torch
from kernel_backends import Backend
from tiny_run import Noting

from magic3d_cli import job
from magic3d_cli.bench import measure as bench
from magic3d_cli.cli import doctor
from magic3d_cli.kernels import cuda
from magic3d_cli.kernels import rasterize as rasterize_module
from magic3d_cli.kernels.cuda import SWITCH, check
from magic3d_cli.kernels.rasterize import nvdiffrast_on, nvdiffrast_refusal, rasterize, rasterize_reference
from magic3d_cli.scene.views import turntable

GPU = torch.device("cuda", 0)


def soup(count: int, spread: float, seed: int = 0, device: str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    """Random small triangles in front of a perspective camera, some of them partly off screen."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, 1, 3, generator=generator) * 2.4 - 1.2
    corner = centre + spread * torch.randn(count, 3, 3, generator=generator)
    world = torch.nn.functional.pad(corner.reshape(-1, 3), (0, 1), value=1.0)
    clip = torch.einsum("bij,vj->bvi", turntable(3).world_to_clip(), world)
    return clip.to(device), torch.arange(count * 3, device=device).view(-1, 3)


@pytest.mark.parametrize("size", [64, 97])
@pytest.mark.parametrize("spread", [0.01, 0.02, 0.3])
def test_the_fast_kernel_equals_the_reference(backend: Backend, spread: float, size: int) -> None:
    clip, faces = soup(400, spread, device=backend.device)
    ids = backend.rasterize(clip, faces, size)
    assert ids.dtype == torch.int32 and ids.shape == (3, size, size)
    assert 0.001 < (ids >= 0).float().mean() <= 1
    assert torch.equal(ids, rasterize_reference(clip, faces, size))


class StandIn:
    """nvdiffrast's torch module, as far as it is used: its row 0 is the bottom, and background is id 0."""

    RasterizeCudaContext = object

    @staticmethod
    def rasterize(
        _: object, clip: torch.Tensor, faces: torch.Tensor, resolution: tuple[int, int], grad_db: bool
    ) -> tuple[torch.Tensor, None]:
        assert (clip.dtype, faces.dtype, grad_db) == (torch.float32, torch.int32, False)
        ids = rasterize_reference(clip, faces, resolution[0])
        return torch.stack([torch.zeros_like(ids)] * 3 + [ids.flip(1) + 1], -1).float(), None


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[StandIn]]:
    class Its(StandIn):
        pass

    package = ModuleType("nvdiffrast")
    package.torch = Its
    package.__spec__ = ModuleSpec("nvdiffrast", None)
    monkeypatch.setitem(sys.modules, "nvdiffrast", package)
    monkeypatch.setitem(sys.modules, "nvdiffrast.torch", Its)
    verify = check.verify_nvdiffrast
    monkeypatch.setattr(check, "verify_nvdiffrast", lambda draw, _: verify(draw, torch.device("cpu")))
    monkeypatch.delenv(SWITCH, raising=False)
    rasterize_module._nvdiffrast.cache_clear()
    yield Its
    rasterize_module._nvdiffrast.cache_clear()


def test_nvdiffrast_is_used_where_it_draws_the_same(stand_in: type[StandIn], monkeypatch: pytest.MonkeyPatch) -> None:
    assert nvdiffrast_on(GPU) and nvdiffrast_refusal(GPU) is None
    clip, faces = soup(400, 0.1)
    monkeypatch.setattr(rasterize_module, "nvdiffrast_on", lambda _: True)
    drawn: list[tuple[int, int]] = []
    draw = stand_in.rasterize
    monkeypatch.setattr(stand_in, "rasterize", staticmethod(lambda *a, **k: drawn.append(a[3]) or draw(*a, **k)))
    for size in (64, 60):  # it wants multiples of eight
        assert torch.equal(rasterize(clip, faces, size), rasterize_reference(clip, faces, size))
    assert drawn == [(64, 64)]


def test_what_is_wrong_with_nvdiffrast_is_told(stand_in: type[StandIn], monkeypatch: pytest.MonkeyPatch) -> None:
    def upside_down(*arguments: object, grad_db: bool) -> tuple[torch.Tensor, None]:
        return StandIn.rasterize(*arguments, grad_db=grad_db)[0].flip(1), None

    monkeypatch.setattr(stand_in, "rasterize", staticmethod(upside_down))
    with pytest.warns(RuntimeWarning, match="nvdiffrast is not used"):
        assert not nvdiffrast_on(GPU)
    assert nvdiffrast_refusal(GPU) == "nvdiffrast draws other triangles than PyTorch"
    monkeypatch.setattr(bench, "refusal", lambda _: None)
    for name in ("tinycudann_on", "tinycudann_refusal"):
        for module in (bench, cuda):
            monkeypatch.setattr(module, name, lambda _: None)
    told = bench.kernels("cuda")[bench.TRIANGLES]
    assert told == "NVRTC, not nvdiffrast (nvdiffrast draws other triangles than PyTorch)"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda, "refusal", lambda _: None)
    notes: list[str] = []
    job.choose_device("auto", Noting(notes))
    assert notes == ["nvdiffrast is not used: nvdiffrast draws other triangles than PyTorch"]


@pytest.mark.parametrize("used", [True, False])
def test_doctor_tells_the_licence_of_what_is_used(used: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = SimpleNamespace(name="GPU", total_memory=8e9)
    for name, value in (("is_available", True), ("device_count", 1), ("get_device_properties", gpu)):
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    monkeypatch.setattr(bench, "kernels", lambda _: {bench.TRIANGLES: "nvdiffrast" if used else "NVRTC"})
    assert ("research and evaluation only" in doctor.examine().get("nvdiffrast_licence", "")) == used


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("value", ["torch", "nvrtc"])
def test_the_switch_does_without_nvdiffrast(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, value)
    assert not nvdiffrast_on(GPU) and nvdiffrast_refusal(GPU) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.skipif(importlib.util.find_spec("nvdiffrast") is None, reason="nvdiffrast is not installed")
def test_nvdiffrast_sees_the_same_triangles() -> None:
    """But for pixels on edges, where it has other rules."""
    assert nvdiffrast_on(GPU), nvdiffrast_refusal(GPU)
    for spread in (0.02, 0.3):
        clip, faces = soup(400, spread, device="cuda")
        same = rasterize(clip, faces, 64) == rasterize_reference(clip, faces, 64)
        assert same.float().mean() > check.SAME_PIXELS


def test_shared_edges_are_covered_exactly_once(backend: Backend) -> None:
    """A jittered grid that fills the screen leaves no hole, and its triangles' own pixels add up exactly."""
    n, size = 12, 96
    generator = torch.Generator().manual_seed(1)
    axis = torch.linspace(-1.2, 1.2, n + 1)
    xy = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1)
    xy[1:-1, 1:-1] += 0.1 * (torch.rand(n - 1, n - 1, 2, generator=generator) - 0.5)
    xy[3] = torch.round(xy[3] * size) / size  # some vertices exactly on pixel centres
    clip = torch.cat([xy.reshape(-1, 2), torch.zeros((n + 1) ** 2, 1), torch.ones((n + 1) ** 2, 1)], 1)[None]
    corner = torch.arange((n + 1) ** 2).view(n + 1, n + 1)
    a, b, c, d = corner[:-1, :-1], corner[1:, :-1], corner[:-1, 1:], corner[1:, 1:]
    faces = torch.cat([torch.stack([a, b, c], -1).view(-1, 3), torch.stack([b, c, d], -1).view(-1, 3)])
    clip, faces = clip.to(backend.device), faces.to(backend.device)
    assert (backend.rasterize(clip, faces, size) >= 0).all()
    alone = sum((backend.rasterize(clip, face[None], size) >= 0).int() for face in faces)
    assert (alone == 1).all()


def test_the_nearer_triangle_wins_whatever_the_order(backend: Backend) -> None:
    near = torch.tensor([[-1.0, -1, -0.5, 1], [1, -1, -0.5, 1], [0, 1, -0.5, 1]])
    clip = torch.cat([near + torch.tensor([0, 0, 0.8, 0]), near])[None]
    for order, front in (([[0, 1, 2], [3, 4, 5]], 1), ([[3, 4, 5], [0, 1, 2]], 0)):
        ids = backend.rasterize(clip.to(backend.device), torch.tensor(order, device=backend.device), 32)
        assert set(ids.unique().tolist()) == {-1, front}


def test_row_zero_is_the_top_and_both_windings_are_drawn(backend: Backend) -> None:
    clip = torch.tensor([[[-1.0, 0.2, 0, 1], [1, 0.2, 0, 1], [0, 1, 0, 1]]], device=backend.device)
    for faces in ([[0, 1, 2]], [[0, 2, 1]]):
        ids = backend.rasterize(clip, torch.tensor(faces, device=backend.device), 32)[0]
        assert (ids[:16] == 0).any() and (ids[16:] == -1).all()


def test_triangles_at_or_behind_the_camera_are_skipped(backend: Backend) -> None:
    front = torch.tensor([[-1.0, -1, 0, 1], [1, -1, 0, 1], [0, 1, 0, 1]])
    for w in (0.0, -1.0, float("nan"), 1e-30):
        clip = front.clone()
        clip[2, 3] = w
        triangle = clip[None].to(backend.device), torch.tensor([[0, 1, 2]], device=backend.device), 16
        for kernel in (backend.rasterize, rasterize_reference):
            assert (kernel(*triangle) == -1).all()


def test_no_triangles_give_background() -> None:
    empty = torch.zeros(0, 3, dtype=torch.long)
    assert (rasterize(torch.zeros(2, 4, 4), empty, 8) == -1).all()

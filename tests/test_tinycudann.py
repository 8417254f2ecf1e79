"""tinycudann encodes as plain PyTorch does, from the same table; or it is not used, and the reason is told.

Where there is no GPU a stand-in with its arithmetic takes its place.
"""

from __future__ import annotations

import importlib.util
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import fake_tinycudann
import pytest
import torch
from tiny_run import Noting
from torch import Tensor

from magic3d_cli import assembly
from magic3d_cli.cli import doctor
from magic3d_cli.errors import UsageError
from magic3d_cli.kernels import compiled, dispatch, tinycudann, verify
from magic3d_cli.kernels.dispatch import ENCODING, MARCHING, NVRTC, TINYCUDANN, Choice, Usable, backends, usable
from magic3d_cli.kernels.hash_encode import hash_encode_reference

SIZE = 2**12
DENSE, HASHED = (4, 7, 15), (16, 31, 64, 500)  # 16^3 vertices just fit
FINEST = (2047, 2048, 4096)


@pytest.fixture(params=["stand-in", "GPU"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "GPU":
        if not torch.cuda.is_available():
            pytest.skip("there is no GPU")
        if importlib.util.find_spec("tinycudann") is None:
            pytest.skip("tinycudann is not installed")
    else:
        _stand_in(monkeypatch, fake_tinycudann.Encoding)
    tinycudann._encoding.cache_clear()
    yield "cpu" if request.param == "stand-in" else "cuda:0"
    tinycudann._encoding.cache_clear()


def _stand_in(monkeypatch: pytest.MonkeyPatch, encoding: type[torch.nn.Module]) -> None:
    monkeypatch.setitem(sys.modules, "tinycudann", fake_tinycudann.module(encoding))
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())


def _random(*shape: int, seed: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def _points(count: int) -> Tensor:
    """Random ones in the box, on its faces, edges and corners, and outside."""
    points = _random(count, 3, seed=1) * 1.2 - 0.1
    points[::3] = points[::3].clamp(0, 1)
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 0.5, 1.0])] * 3)
    points[: len(corners)] = corners[:count]
    return points


def _table(levels: int, width: int, device: str) -> Tensor:
    return _random(levels, SIZE, width, seed=0).to(device).requires_grad_()


def _both(
    points: Tensor, table: Tensor, resolutions: tuple[int, ...], cotangent: Tensor
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Value and gradient: tinycudann's, the reference's."""
    results = []
    for encode in (tinycudann.hash_encode, hash_encode_reference):
        value = encode(points, table, resolutions)
        results.append((value.detach(), *torch.autograd.grad(value, table, cotangent)))
    return results[0], results[1]


@pytest.mark.parametrize(("count", "width"), [(0, 2), (1, 2), (600, 1), (600, 2), (600, 4), (600, 8)])
@pytest.mark.parametrize("resolutions", [DENSE, HASHED, (*DENSE, *HASHED)])
def test_values_and_gradients_equal_the_reference(
    device: str, resolutions: tuple[int, ...], count: int, width: int
) -> None:
    points, table = _points(count).to(device), _table(len(resolutions), width, device)
    cotangent = _random(count, len(resolutions) * width, seed=2).to(device)
    (value, grad), (value_expected, grad_expected) = _both(points, table, resolutions, cotangent)
    # The tolerance is for 2048 cells a side, here are 500 at most.
    close = partial(torch.testing.assert_close, rtol=0, atol=tinycudann.TOLERANCE / 2)
    close(value, value_expected)
    close(grad, grad_expected)


@pytest.mark.parametrize("levels", [(4,), (4, 16, 31)])
@pytest.mark.parametrize("width", [1, 2])
def test_a_gradient_may_come_in_any_layout(device: str, levels: tuple[int, ...], width: int) -> None:
    """Also for a whole number of blocks of 256 points, which tinycudann does not pad."""
    points, table = _points(512).to(device), _table(len(levels), width, device)
    value = tinycudann.hash_encode(points, table, levels)
    rows = _random(*value.shape, seed=2).to(device)
    columns = rows.T.contiguous().T
    (expected,) = torch.autograd.grad(value, table, rows, retain_graph=True)
    (grad,) = torch.autograd.grad(value, table, columns)
    torch.testing.assert_close(grad, expected)


def test_the_finest_levels_agree_within_the_tolerance(device: str) -> None:
    points, table = _points(500).to(device), _table(len(FINEST), 2, device)
    ones = torch.ones(500, len(FINEST) * 2, device=device)
    (value, grad), (value_expected, grad_expected) = _both(points, table, FINEST, ones)
    close = partial(torch.testing.assert_close, rtol=0, atol=2 * tinycudann.TOLERANCE)  # 4096 is twice the 2048
    close(value, value_expected)
    close(grad, grad_expected)


def test_a_cell_is_where_it_was(device: str) -> None:
    """A linear function on a dense level is reproduced to rounding: a shift by a part of a cell would be seen."""
    side = 16
    z, y, x = torch.meshgrid(*[torch.linspace(0, 1, side)] * 3, indexing="ij")
    table = torch.zeros(1, SIZE, 1)
    table[0, : side**3, 0] = (x + 2 * y - 3 * z).flatten()
    points = _points(300)
    encoded = tinycudann.hash_encode(points.to(device), table.to(device), (side - 1,))
    expected = points.clamp(0, 1) @ torch.tensor([1.0, 2.0, -3.0])
    torch.testing.assert_close(encoded[:, 0].cpu(), expected, rtol=0, atol=5e-6)


@pytest.mark.parametrize("resolution", [3, 5, 7, 15, 33, 2047])
def test_on_a_face_only_the_vertices_of_the_cell_inside_are_touched(device: str, resolution: int) -> None:
    """An optimiser such as Adam takes a full step for the least gradient, so none may stray to another place."""
    table = torch.zeros(1, SIZE, 1, device=device, requires_grad=True)
    for axis in range(3):
        for side in (0.0, 1.0):
            point = torch.full((1, 3), 0.5, device=device)  # the middle of a cell: the resolutions are odd
            point[0, axis] = side
            inside = point + (0.5 - point) / (2 * resolution)
            grads = [
                torch.autograd.grad(encode(at, table, (resolution,)).sum(), table)[0]
                for encode, at in ((tinycudann.hash_encode, point), (hash_encode_reference, inside))
            ]
            assert grads[0][grads[1] == 0].count_nonzero() == 0
            assert grads[0].sum().item() == pytest.approx(1, abs=1e-5)


def test_known_features_and_evaluation_without_gradient(device: str) -> None:
    points, table = _points(300).to(device), _table(4, 2, device)
    with torch.no_grad():
        known = tinycudann.hash_encode(points, table, HASHED)
    assert not known.requires_grad
    plain = tinycudann.hash_encode(points, table, HASHED)
    again = tinycudann.hash_encode(points, table, HASHED, known)
    assert torch.equal(plain, known) and torch.equal(again, known)
    (grad,) = torch.autograd.grad(again.square().sum(), table)
    (expected,) = torch.autograd.grad(plain.square().sum(), table)
    torch.testing.assert_close(grad, expected)


def test_only_the_table_gets_a_gradient(device: str) -> None:
    points, table = _points(10).to(device).requires_grad_(), _table(1, 2, device)
    tinycudann.hash_encode(points, table, (4,)).sum().backward()
    assert points.grad is None and table.grad is not None


def test_a_level_is_made_once_and_holds_no_parameters_of_its_own(device: str) -> None:
    table = _table(2, 2, device)
    tinycudann.hash_encode(_points(10).to(device), table, (4, 16))
    tinycudann.hash_encode(_points(20).to(device), table, (4, 16))
    assert tinycudann._encoding.cache_info().misses == 2
    encoding, entries = tinycudann._encoding(table.device, 4, SIZE, 2)
    assert list(encoding.parameters()) == [] and entries == 128  # 5^3 vertices, in eights


def test_on_a_face_vertices_outside_have_no_weight_at_any_resolution() -> None:
    """The arithmetic of the original: a fraction within 2^-25 of 1 is rounded to 1."""
    cells = torch.arange(1, 8193, dtype=torch.float64)
    for face in (0.0, 1.0):
        shifted = torch.tensor(face) - (0.5 / cells).float()
        position = (cells * shifted.double() + 0.5).float()
        lower = position.floor()
        weight = position - lower  # of the upper vertex
        assert ((lower >= 0) | (weight == 1)).all() and ((lower < cells) | (weight == 0)).all()


def test_tinycudann_passes_the_check(device: str) -> None:
    state = torch.get_rng_state()
    with torch.no_grad():
        verify.verify_tinycudann(torch.device(device))
    assert torch.equal(state, torch.get_rng_state())


class _OffByHalfACell(fake_tinycudann.Encoding):
    def level(self, x: Tensor, scale: float, parameters: Tensor) -> Tensor:
        return super().level(x + 0.5 / scale, scale, parameters)


class _AnotherHash(fake_tinycudann.Encoding):
    def index(self, vertex: Tensor, scale: float, size: int) -> Tensor:
        return super().index(vertex if self.side(scale) ** 3 <= size else vertex.flip(-1), scale, size)


class _HalfTheGradient(fake_tinycudann.Encoding):
    def forward(self, x: Tensor) -> Tensor:
        value = super().forward(x)
        return (value + value.detach()) / 2


class _OtherParameters(fake_tinycudann.Encoding):
    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.sizes = [size + 8 for size in self.sizes]


WRONG = [_OffByHalfACell, _AnotherHash, _HalfTheGradient, _OtherParameters]


@pytest.mark.parametrize("wrong", WRONG)
def test_one_that_computes_something_else_fails_the_check(wrong: type, monkeypatch: pytest.MonkeyPatch) -> None:
    _stand_in(monkeypatch, wrong)
    tinycudann._encoding.cache_clear()
    with pytest.raises(RuntimeError, match=r"tinycudann's hash_encode differs|check failed"):
        verify.verify_tinycudann(torch.device("cpu"))
    tinycudann._encoding.cache_clear()


@pytest.fixture
def installed(gpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """The GPU that `gpu` is, with tinycudann: the stand-in, compared with PyTorch on the CPU."""
    compare = verify.verify_tinycudann
    _stand_in(monkeypatch, fake_tinycudann.Encoding)
    monkeypatch.setattr(verify, "verify_tinycudann", lambda _: compare(torch.device("cpu")))
    return gpu


def _advised() -> bool:
    return any("tiny-cuda-nn#subdirectory=bindings/torch" in line for line in doctor.examine()["advice"])


def test_where_it_agrees_it_encodes_and_nothing_else(installed: torch.device) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert usable(installed).libraries == {TINYCUDANN} and usable(torch.device("cuda")) is usable(installed)
    assert not usable(installed).refused
    chosen = backends(installed)
    assert chosen[ENCODING] == Choice(TINYCUDANN) and chosen[MARCHING] == Choice(NVRTC)
    assert doctor.examine()["kernels"] == {name: str(choice) for name, choice in chosen.items()} and not _advised()


def test_it_is_compared_once(installed: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    assert TINYCUDANN in usable(installed).libraries
    monkeypatch.delattr(verify, "verify_tinycudann")
    assert TINYCUDANN in usable(installed).libraries


@pytest.mark.parametrize("wrong", WRONG)
def test_where_it_disagrees_it_is_not_used_and_the_reason_is_told(
    wrong: type, installed: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    _stand_in(monkeypatch, wrong)
    with pytest.warns(RuntimeWarning, match="tinycudann is not used: ") as warned:
        assert not usable(installed).libraries
    assert len(warned) == 1
    _assert_told("check failed" if wrong is _OtherParameters else "tinycudann's hash_encode differs from PyTorch's")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise OSError('Could not find compatible tinycudann extension')", "Could not find compatible"),
        ("raise ImportError('undefined symbol')", "undefined symbol"),
        ("import no_such_module", "No module named 'no_such_module'"),
        ("", "has no attribute 'Encoding'"),
    ],
)
def test_where_it_cannot_be_imported_the_reason_is_told(
    source: str, reason: str, installed: torch.device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tinycudann").mkdir()
    (tmp_path / "tinycudann/__init__.py").write_text(source)
    monkeypatch.delitem(sys.modules, "tinycudann")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.warns(RuntimeWarning, match="tinycudann is not used: "):
        assert not usable(installed).libraries
    _assert_told(reason)


def _assert_told(reason: str) -> None:
    chosen = backends(torch.device("cuda"))
    assert chosen[ENCODING].backend == NVRTC and reason in chosen[ENCODING].refused[TINYCUDANN]
    assert chosen[MARCHING] == Choice(NVRTC)
    told = doctor.examine()["kernels"][ENCODING]
    assert told.startswith("NVRTC, not tinycudann (") and reason in told and not _advised()
    notes: list[str] = []
    assert assembly.choose_device("auto", Noting(notes)) == "cuda"
    assert len(notes) == 1 and "tinycudann is not used" in notes[0] and reason in notes[0]


def test_what_is_told_of_a_gpu_that_refuses_everything() -> None:
    refused = {TINYCUDANN: "too old", NVRTC: "no driver"}
    assert str(Choice("PyTorch", refused)) == "PyTorch, not tinycudann (too old), not NVRTC (no driver)"


def test_where_it_is_missing_doctor_says_how_to_get_it(gpu: torch.device) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing went wrong
        assert usable(gpu).libraries == set() and not usable(gpu).refused
    assert backends(gpu)[ENCODING] == Choice(NVRTC)
    assert _advised()


def test_an_environment_variable_does_without_it(installed: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    fails = "an environment variable allows it"
    monkeypatch.setattr(verify, "verify_tinycudann", lambda _: pytest.fail(fails))
    for value in ("nvrtc", "torch"):
        monkeypatch.setenv(dispatch.SWITCH, value)
        dispatch._usable.cache_clear()
        assert not usable(installed).libraries and TINYCUDANN not in usable(installed).refused
    monkeypatch.setenv(dispatch.SWITCH, "tinycudann")
    dispatch._usable.cache_clear()
    with pytest.raises(UsageError, match='MAGIC3D_KERNELS="tinycudann" is unknown'):
        usable(installed)


@pytest.mark.parametrize(("used", "width"), [(True, 2), (True, 8), (True, 3), (False, 2)])
def test_the_encoder_asks_it_first_for_widths_it_has(used: bool, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    table = torch.zeros(2, 16, width, device="meta")  # stands for a GPU

    def answer(name: str) -> Callable[..., str]:
        return lambda *_: name

    found = Usable(object(), frozenset([TINYCUDANN] if used else []))  # type: ignore[arg-type]
    monkeypatch.setattr(dispatch, "usable", lambda _: found)
    monkeypatch.setattr(tinycudann, "hash_encode", answer(TINYCUDANN))
    monkeypatch.setattr(compiled, "hash_encode", answer(NVRTC))
    expected = TINYCUDANN if used and width != 3 else NVRTC
    assert dispatch.hash_encode(torch.zeros(5, 3, device="meta"), table, (2, 3)) == expected


def test_nothing_is_imported_for_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_usable", None)
    assert usable(torch.device("cpu")) == Usable()


def test_doctor_tells_the_versions_of_what_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "2.0" if name == "tinycudann" else version(name))
    assert doctor.examine()["versions"]["tinycudann"] == "2.0"

"""A checkpoint is whole or refused, and an old one survives a failed save."""

from __future__ import annotations

import errno
import json
import os
import pickle
import struct
import tracemalloc
from pathlib import Path

import pytest
import safetensors.torch
import torch

from magic3d_cli.errors import UsageError
from magic3d_cli.guidance.adapters import read_adapters
from magic3d_cli.run import checkpoint

HEADER = {
    **{"stage": "coarse", "step": 3, "total": 9, "prompt": "a réd ball", "seed": 0, "prior": {"id": "ball"}},
    **{"settings": {}, "origin": {}, "state": {}, "ledger": {}, "nested": {"numbers": [1, 2.5, None]}},
}


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    buffer = torch.arange(12.0)
    return {
        "weights": torch.randn(5, 3, generator=generator),
        "half": torch.randn(4, generator=generator).to(torch.bfloat16),
        "mask": torch.tensor([True, False]),
        "scalar": torch.tensor(7.0),
        "empty": torch.zeros(0, 3),
        "generator": generator.get_state(),
        "transposed": torch.arange(6).view(2, 3).T,
        "first half": buffer[:6],
        "second half": buffer[6:],
    }


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "coarse.ckpt"
    checkpoint.save(path, tensors(), HEADER)
    return path


def test_tensors_and_header_come_back_exactly(saved: Path) -> None:
    loaded, header = checkpoint.load(saved)
    for name, value in tensors().items():
        assert loaded[name].dtype == value.dtype
        assert torch.equal(loaded[name], value), name
    assert {key: header[key] for key in HEADER} == HEADER
    assert checkpoint.read_header(saved) == header


def test_the_same_state_makes_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "again.ckpt", tensors(), HEADER)
    assert (tmp_path / "again.ckpt").read_bytes() == saved.read_bytes()


def test_a_header_whose_length_begins_like_a_pickle_is_no_pickle(tmp_path: Path) -> None:
    path = tmp_path / "coarse.ckpt"
    for pad in range(0, 256, 8):  # safetensors rounds the header's length up to a multiple of 8
        checkpoint.save(path, tensors(), {**HEADER, "pad": "x" * pad})
        if path.read_bytes()[:1] == b"\x80":
            break
    assert path.read_bytes()[:1] == b"\x80"
    checkpoint.load(path)


def test_it_is_one_plain_safetensors_file(saved: Path) -> None:
    assert [p.name for p in saved.parent.iterdir()] == ["coarse.ckpt"]
    assert torch.equal(safetensors.torch.load_file(saved)["weights"], tensors()["weights"])


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.7, 0.999])
def test_a_truncated_file_is_refused(saved: Path, share: float) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data[: int(len(data) * share)])
    for read in (checkpoint.load, checkpoint.read_header):
        with pytest.raises(UsageError) as failure:
            read(saved)
        assert failure.value.next_step


@pytest.mark.parametrize("offset", [-1, -300])
def test_a_flipped_bit_in_the_tensors_is_noticed(saved: Path, offset: int) -> None:
    data = bytearray(saved.read_bytes())
    data[offset] ^= 1
    saved.write_bytes(data)
    with pytest.raises(UsageError, match="damaged"):
        checkpoint.load(saved)


def test_an_edited_header_is_noticed(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes().replace(b"ball", b"bill"))
    with pytest.raises(UsageError, match="damaged"):
        checkpoint.load(saved)


def test_appended_bytes_are_noticed(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes() + b"x")
    for read in (checkpoint.load, checkpoint.read_header):
        with pytest.raises(UsageError, match="damaged"):
            read(saved)


def test_foreign_files_are_named_as_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    torch.save({"a": torch.zeros(2)}, path)
    with pytest.raises(UsageError, match="pickle"):
        checkpoint.load(path)
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(UsageError, match="pickle"):
        checkpoint.load(path)
    safetensors.torch.save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(UsageError, match="not a magic3d checkpoint"):
        checkpoint.load(path)
    for data in (b"", b"hello", b"a longer text file, not a checkpoint", bytes(100), os.urandom(1000)):
        path.write_bytes(data)
        with pytest.raises(UsageError):
            checkpoint.load(path)
    with pytest.raises(UsageError, match="no checkpoint"):
        checkpoint.load(tmp_path / "absent.ckpt")
    with pytest.raises(UsageError, match="cannot be read"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize(
    "shell",
    [
        b"{}", b"[1]", b'{"a": 3}', b'{"a": {"data_offsets": []}}', b"{broken",
        *(b'{"a": {"shape": [1], "data_offsets": [0, ' + end + b'], "dtype": "F32"}, "__metadata__": {"magic3d": "{}"}}'
          for end in (b'"x"', b'"5"', b"1e999", b"null")),
    ],
)  # fmt: skip
def test_a_malformed_shell_is_refused_without_a_crash(tmp_path: Path, shell: bytes) -> None:
    path = tmp_path / "x.ckpt"
    path.write_bytes(struct.pack("<Q", len(shell)) + shell)
    for read in (checkpoint.load, checkpoint.read_header, lambda path: read_adapters([str(path)])):
        with pytest.raises(UsageError):
            read(path)


def test_the_header_is_read_without_the_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`magic3d runs` reads the header of every run of a folder."""
    path = tmp_path / "x.ckpt"
    checkpoint.save(path, {"large": torch.zeros(1_000_000)}, HEADER)
    tracemalloc.start()
    assert checkpoint.read_header(path)["step"] == 3
    assert tracemalloc.get_traced_memory()[1] < 100_000 < path.stat().st_size
    tracemalloc.stop()


def test_a_newer_schema_asks_for_an_update(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.ckpt"
    monkeypatch.setattr(checkpoint, "SCHEMA", checkpoint.SCHEMA + 1)
    checkpoint.save(path, tensors(), HEADER)
    monkeypatch.undo()
    with pytest.raises(UsageError, match="newer") as failure:
        checkpoint.load(path)
    assert "upgrade" in failure.value.next_step


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_checkpoint(saved: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    before = saved.read_bytes()

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(saved, {"a": torch.zeros(3)}, {})
    monkeypatch.undo()
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == ["coarse.ckpt"]


def test_a_process_that_dies_while_writing_leaves_the_old_checkpoint(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    before = saved.read_bytes()
    child = os.fork()
    if child == 0:  # the child dies with the temporary file written and not yet renamed
        monkeypatch.setattr(os, "replace", lambda *args: os._exit(9))
        checkpoint.save(saved, {"a": torch.zeros(1000)}, {})
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert saved.read_bytes() == before
    assert (saved.parent / "coarse.ckpt.tmp").exists()  # what opening the run folder removes


def test_the_header_is_readable_json_at_the_start(saved: Path) -> None:
    data = saved.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    outer = json.loads(data[8 : 8 + length])
    assert json.loads(outer["__metadata__"]["magic3d"])["prompt"] == HEADER["prompt"]

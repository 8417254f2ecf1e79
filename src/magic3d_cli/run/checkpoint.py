"""Checkpoints: one safetensors file with a JSON header. Never pickle, so opening one cannot run code.

The header travels in safetensors' `__metadata__` under the key "magic3d" and carries a SHA-256 over itself
and every tensor's name, type, shape and bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magic3d_cli.atomic import write_atomically
from magic3d_cli.checks import parse_json
from magic3d_cli.errors import UsageError, out_of_memory

if TYPE_CHECKING:  # torch is imported where there are tensors: a header is read before
    from torch import Tensor

SCHEMA = 1
"""Raised when an older program could misread the file."""

_KEY = "magic3d"
_SAID: dict[str, type] = {
    **{"stage": str, "step": int, "total": int, "prompt": str, "seed": int, "settings": dict, "prior": dict},
    **{"origin": dict, "state": dict, "ledger": dict},
}
"""What every version's header says of a run."""
_MAY_SAY: dict[str, type] = {"fine_prior": str, "pictures": dict, "adapters": list, "earlier": list, "style": dict}


def save(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically. `header` must be JSON; "schema" and "sha256" are added.

    Raises OSError (disk full, not writable); an older checkpoint at `path` is then untouched.
    """
    import safetensors.torch

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # safetensors refuses tensors that share memory, which views of one buffer do.
    plain = {name: t.clone() if t.untyped_storage().nbytes() > t.nbytes else t for name, t in plain.items()}
    full = {**header, "schema": SCHEMA}
    full["sha256"] = _digest(plain, full)
    write_atomically(path, safetensors.torch.save(plain, {_KEY: json.dumps(full)}))


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of a checkpoint.

    Raises UsageError when the file is missing, foreign, truncated, changed since it was written, or from a
    newer program.
    """
    import safetensors.torch

    data, size = _read(path)
    header = _header(path, data, size)
    try:
        tensors = safetensors.torch.load(data)
    except Exception as error:  # safetensors' own error class, or ValueError for an unknown type
        if out_of_memory(error):
            raise
        raise _changed(path) from error
    if _digest(tensors, header) != header.get("sha256"):
        raise _changed(path)
    return tensors, header


def read_header(path: Path) -> dict[str, Any]:
    """The header of a run's checkpoint alone; the tensors are not verified. Raises UsageError as `load` does, and as
    `check_header`."""
    header = _header(path, *_read(path, header_alone=True))
    check_header(path, header)
    return header


def check_header(path: Path, header: Mapping[str, Any]) -> None:
    """Raises UsageError where a header does not say of a run what every version said."""
    said = all(type(header.get(key)) is kind for key, kind in _SAID.items())
    more = all(isinstance(header.get(key) or kind(), kind) for key, kind in _MAY_SAY.items())
    nested = (
        said and more and all(isinstance(one, dict) for key in ("adapters", "earlier") for one in header.get(key, ()))
    )
    if not (nested and header["stage"] in ("coarse", "fine") and isinstance(header["prior"].get("id"), str)):
        raise _changed(path)


def _read(path: Path, header_alone: bool = False) -> tuple[bytes, int]:
    """A checkpoint's bytes, or those up to the end of its header; and how many the file has."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size  # of this file, also where another is renamed over it meanwhile
            if not header_alone:
                return file.read(), size
            start = file.read(9)  # the header's length, and its first letter
            length = struct.unpack("<Q", start[:8])[0] if start[8:] == b"{" else 0
            return start + file.read(min(length, size)), size
    except FileNotFoundError as error:
        raise UsageError(
            f"There is no checkpoint {path}.",
            "Checkpoints are in the .run folder beside the output, for example dragon.run/coarse.ckpt.",
        ) from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.", "Give a file that you may read.") from error


def _header(path: Path, data: bytes, size: int) -> dict[str, Any]:
    """Parse and check the outer shell by hand, so that each kind of damage gets its own message.

    Args:
        data: the file up to the end of its header at least.
        size: of the whole file, in bytes.
    """
    if len(data) < 8:
        raise _truncated(path) if data else _foreign(path, "it is empty")
    (length,) = struct.unpack("<Q", data[:8])
    if data[8:9] != b"{":  # only then: a header's length may begin with a pickle's first bytes too
        if data[:2] == b"PK" or data[:1] == b"\x80":
            raise _foreign(path, "it is a PyTorch (pickle) file, which is never loaded because it can run code")
        raise _foreign(path, "it is not in safetensors format")
    if 8 + length > size:
        raise _truncated(path)
    try:
        shell = parse_json(data[8 : 8 + length])
        ends = (int(entry["data_offsets"][1]) for key, entry in shell.items() if key != "__metadata__")
        end = max(ends, default=0)
        text = shell.get("__metadata__", {}).get(_KEY)
        header = None if text is None else parse_json(text)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise _changed(path) from error
    if header is None:
        raise _foreign(path, "its header lacks the magic3d entry")
    if not isinstance(header, dict) or not isinstance(header.get("schema"), int):
        raise _changed(path)
    if header["schema"] > SCHEMA:
        raise UsageError(
            f"{path} was written by a newer magic3d ({header.get('version', 'unknown version')}).",
            "Update this one: pip install --upgrade magic3d",
        )
    if 8 + length + end > size:
        raise _truncated(path)
    if 8 + length + end < size:
        raise _changed(path)
    return header


def _digest(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> str:
    import torch

    total = hashlib.sha256()
    total.update(json.dumps({k: v for k, v in header.items() if k != "sha256"}, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        total.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        total.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def _foreign(path: Path, why: str) -> UsageError:
    return UsageError(
        f"{path} is not a magic3d checkpoint: {why}.",
        "Give a coarse.ckpt or fine.ckpt from a .run folder, or make one: magic3d generate PROMPT",
    )


def _truncated(path: Path) -> UsageError:
    return UsageError(
        f"{path} is cut short: part of it is missing, as after an unfinished copy or download.",
        "Copy it again, or repeat the generate command with --fresh to make a new one.",
    )


def _changed(path: Path) -> UsageError:
    return UsageError(
        f"{path} is damaged: its contents do not match the checksum in its header.",
        "Copy it again, or repeat the generate command with --fresh to make a new one.",
    )

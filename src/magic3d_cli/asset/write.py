"""Write an asset in the format of the file's suffix.

Every file is written beside its target and renamed into place: a failed write leaves an older one whole.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from magic3d_cli.asset.asset import Asset
from magic3d_cli.asset.formats.glb import glb_bytes
from magic3d_cli.asset.formats.obj import obj_files
from magic3d_cli.asset.formats.ply import ply_bytes
from magic3d_cli.asset.formats.stl import stl_bytes
from magic3d_cli.asset.formats.threemf import threemf_bytes
from magic3d_cli.asset.formats.usdz import usdz_bytes
from magic3d_cli.asset.names import level_path
from magic3d_cli.atomic import write_atomically
from magic3d_cli.checks import FORMATS
from magic3d_cli.errors import Magic3DError, UsageError, out_of_memory

__all__ = ["WRITERS", "Asset", "write"]

WRITERS: dict[str, Callable[[Asset, Path, str], dict[Path, bytes]]] = {
    "glb": lambda asset, path, name: {path: glb_bytes(asset, name)},
    "obj": obj_files,
    "usdz": lambda asset, path, name: {path: usdz_bytes(asset, name)},
    "ply": lambda asset, path, name: {path: ply_bytes(asset, name)},
    "stl": lambda asset, path, name: {path: stl_bytes(asset)},
    "3mf": lambda asset, path, name: {path: threemf_bytes(asset, name)},
}
"""The files of an asset by path, the main one first."""


def write(asset: Asset, path: Path | str, name: str) -> list[Path]:
    """Write by suffix and return the files written, the main one first.

    Args:
        asset: the mesh.
        path: ends in one of `checks.FORMATS`; .obj brings a .mtl and a .png of the same stem. Simpler levels are files
            of their own, see `level_path`.
        name: of the mesh, usually the prompt.

    Raises:
        UsageError: another suffix.
        Magic3DError: the file cannot be written (full disk, no permission); an older file is left as it was.
    """
    path = Path(path)
    writer = WRITERS.get(path.suffix.lower().lstrip("."))
    if writer is None:
        raise UsageError(
            f"Cannot write {path.name!r}: unknown format {path.suffix!r}.",
            f"Use a name that ends in {', '.join('.' + format for format in FORMATS)}.",
        )
    about = {key: _unicode(value) if isinstance(value, str) else value for key, value in asset.about.items()}
    files = writer(replace(asset, about=about), path, _unicode(name))
    for number, level in enumerate(asset.levels, 1):
        files |= writer(replace(level, about=about), level_path(path, number), _unicode(name))
    # The main file goes last: when it is there, what it refers to is there.
    for target in reversed(files):
        _write(target, files[target])
    return list(files)


def _unicode(text: str) -> str:
    """Without what a command line's undecodable bytes become, which no file can hold."""
    return text.encode("utf-8", "replace").decode()


def _write(path: Path, data: bytes) -> None:
    try:
        write_atomically(path, data)
    except OSError as error:
        if out_of_memory(error):
            raise
        next_step = f"Choose another place with -o, for instance -o ~/{path.name}."
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            next_step = f"Free {len(data) / 1e6:.1f} MB there and run the same command again, or use -o elsewhere."
        raise Magic3DError(f"Could not write {path}: {error.strerror or error}.", next_step) from error

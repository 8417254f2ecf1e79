"""Kernels work where nothing can be written: a package of root's, no home folder, even no temporary folder."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import magic3d_cli
from magic3d_cli.kernels import numba_cache

PACKAGE = Path(magic3d_cli.__file__).parent
RASTERIZE = """
import json, torch
from magic3d_cli.kernels import numba_cache
from magic3d_cli.kernels.dispatch import rasterize
clip = torch.tensor([[[-1.0, -1, 0, 1], [1, -1, 0, 1], [0, 1, 0, 1]]])
ids = rasterize(clip, torch.tensor([[0, 1, 2]]), 8)
print(json.dumps([int((ids == 0).sum()), numba_cache.CACHE, numba_cache.TEMPORARY and str(numba_cache.TEMPORARY)]))
"""


@pytest.fixture(scope="module")
def read_only_package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The package as root would have installed it: no file or folder of it can be written."""
    folder = tmp_path_factory.mktemp("installed")
    shutil.copytree(PACKAGE, folder / "magic3d_cli", ignore=shutil.ignore_patterns("__pycache__", "prior"))
    (folder / "magic3d_cli" / "prior").symlink_to(PACKAGE / "prior")
    folders = [folder, *(p for p in folder.rglob("*") if p.is_dir() and not p.is_symlink())]
    for path in folders:
        path.chmod(0o555)
    yield folder
    for path in folders:
        path.chmod(0o755)


def run(package: Path, *command: str, temporary: Path | None) -> subprocess.CompletedProcess[str]:
    """A process that may write in `temporary` alone. Root may write anywhere, so it gives that right up first."""
    keep = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
    nowhere = "/proc/nowhere"  # cannot even be made
    environment = keep | {"PYTHONPATH": str(package), "HOME": nowhere, "TMPDIR": str(temporary or nowhere)}
    first: tuple[str, ...] = ()
    if os.getuid() == 0:
        assert shutil.which("setpriv"), "root needs setpriv (util-linux) to give up writing everywhere"
        first = ("setpriv", "--bounding-set=-dac_override,-fowner", "--inh-caps=-dac_override,-fowner")
    return subprocess.run(
        [*first, sys.executable, "-B", *command], env=environment, capture_output=True, text=True, cwd="/"
    )


def test_root_has_really_given_up_writing(read_only_package):
    touch = "import pathlib, sys\ntry: pathlib.Path(sys.argv[1], 'x').touch()\nexcept PermissionError: print('refused')"
    assert run(read_only_package, "-c", touch, str(read_only_package), temporary=None).stdout.strip() == "refused"


@pytest.mark.slow
def test_compiled_kernels_go_to_a_temporary_folder_and_are_found_there_again(read_only_package, tmp_path):
    found = []
    for _ in range(2):
        result = run(read_only_package, "-c", RASTERIZE, temporary=tmp_path)
        assert result.returncode == 0, result.stderr
        pixels, cached, folder = json.loads(result.stdout)
        assert pixels > 0 and cached and Path(folder).parent == tmp_path
        assert stat.S_IMODE(Path(folder).stat().st_mode) == 0o700  # what lies in it is executed
        found.append({path: path.stat().st_mtime_ns for path in Path(folder).rglob("*.nbc")})
    assert found[0] and found[0] == found[1]  # compiled once


def test_a_folder_that_somebody_else_could_write_is_not_used(tmp_path, monkeypatch):
    theirs = tmp_path / f"magic3d-kernels-{os.getuid()}"
    theirs.mkdir()
    theirs.chmod(0o777)
    monkeypatch.setattr(numba_cache, "_places", lambda: [str(tmp_path)])
    assert numba_cache._private_folder() is None
    theirs.rmdir()
    theirs.symlink_to(tmp_path)
    assert numba_cache._private_folder() is None
    theirs.unlink()
    assert numba_cache._private_folder() == theirs


def test_without_any_folder_kernels_are_compiled_and_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(numba_cache, "_places", lambda: ["/proc/nowhere"])
    monkeypatch.setattr(numba_cache, "_numba_finds_a_folder", lambda: False)
    assert numba_cache._choose() == (False, None)


def test_doctor_works_there_and_says_where_kernels_are_kept(read_only_package, tmp_path):
    result = run(read_only_package, "-m", "magic3d_cli", "doctor", "--json", temporary=tmp_path)
    assert result.returncode == 0, result.stderr + result.stdout
    found = json.loads(result.stdout)
    assert found["kernel_cache"].startswith(str(tmp_path))
    assert any("NUMBA_CACHE_DIR" in line for line in found["advice"])

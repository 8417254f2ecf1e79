"""Typing mistakes are answered before PyTorch is imported: in a fraction of a second, not after many."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from magic3d_cli.run.directory import RunDirectory

ASK = """
import sys
from magic3d_cli.cli import main
try:
    main(sys.argv[1:])
except SystemExit as ended:
    heavy = sorted({"torch", "diffusers", "transformers", "numba", "numpy"} & set(sys.modules))
    print(ended.code, *heavy)
"""


def answer(folder: Path, *arguments: str) -> tuple[str, str]:
    """Exit code and heavy libraries imported; and what was said on stderr."""
    command = [sys.executable, "-c", ASK, *arguments]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    return done.stdout.strip(), done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("generate", "a qwzx", "--device", "cpu"), "2", "qwzx"),
        (("generate", "a car", "--prior", "nosuch"), "3", "no prior 'nosuch'"),
        (("generate", "a car", "--prior", "builtin", "--also-prior", "nosuch=2"), "3", "no prior 'nosuch'"),
        (("generate", "a car", "--also-prior", "builtin=much"), "2", "no number"),
        (("generate", " "), "2", "empty"),
        (("generate", "a car", "-o", "car.step"), "2", "suffix"),
        (("refine", "missing.ckpt"), "2", "no checkpoint missing.ckpt"),
        (("export", "missing.ckpt"), "2", "no checkpoint missing.ckpt"),
        (("export",), "2", "no run with a checkpoint"),
    ],
)
def test_a_mistake_is_refused_before_pytorch(tmp_path: Path, arguments: tuple[str, ...], code: str, said: str) -> None:
    out, err = answer(tmp_path, *arguments)
    assert out == code and said in err and "next:" in err


def test_a_run_in_use_is_refused_before_pytorch(tmp_path: Path) -> None:
    with RunDirectory.for_output(tmp_path / "car.glb"):
        out, err = answer(tmp_path, "generate", "a car", "-o", "car.glb", "--device", "cpu")
    assert out == "2" and f"in use by another magic3d (process {os.getpid()})" in err
    RunDirectory.for_output(tmp_path / "car.glb").check_free()

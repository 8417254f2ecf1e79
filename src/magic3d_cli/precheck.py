"""What can be refused in a fraction of a second: words, names and paths, before PyTorch is imported.

The job checks the same again where it matters; here a typing mistake is answered before a person looks away.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from magic3d_cli.guidance.builtin.understanding import understand
from magic3d_cli.guidance.builtin.vocabulary import Vocabulary
from magic3d_cli.guidance.diffusers.catalogue import check_name, local, of_stage
from magic3d_cli.guidance.diffusers.files import vocabulary_of
from magic3d_cli.run import checkpoint
from magic3d_cli.run.directory import RunDirectory


def check_generate(
    prompt: str, seed: int, priors: Iterable[str], device: str, output: Path, *, strict: bool = False
) -> None:
    """Raises UsageError for a prompt in which a prior on this machine can draw nothing and for a run in use,
    EnvironmentFault for a prior that does not exist.

    Where a GPU may change which prior "auto" is, the words are left for later.
    """
    RunDirectory.for_output(output).check_free()
    for name in dict.fromkeys(priors):
        check_name(name)
        folder = None if name == "auto" and _may_have_gpu(device) else local(name)
        words = vocabulary_of(of_stage(folder, "coarse")) if folder is not None else None
        if words is not None:
            understand(Vocabulary.load(words), prompt, seed, strict=strict)


def check_checkpoint(path: Path) -> dict[str, Any]:
    """The header of a checkpoint. Raises UsageError where there is none that can be read."""
    return checkpoint.read_header(path)


def _may_have_gpu(device: str) -> bool:
    """Whether PyTorch might find a CUDA GPU; only PyTorch knows for certain."""
    if device == "cpu" or sys.platform == "darwin":
        return False
    return sys.platform == "win32" or Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists()

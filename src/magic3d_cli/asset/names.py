"""The files that belong to an output, by their names. No tensors here."""

from __future__ import annotations

import re
from pathlib import Path

KINDS = ("normal", "roughness", "metallic")
"""Of OBJ's further textures."""


def level_path(path: Path, number: int) -> Path:
    """dragon.glb -> dragon_LOD1.glb: the names by which game engines know levels of detail."""
    return path.with_name(f"{path.stem}_LOD{number}{path.suffix}")


def obj_stem(path: Path) -> str:
    """Of an OBJ's companions: without blanks, which many readers take for separators."""
    return re.sub(r"\s+", "_", path.stem)


def belonging(output: Path, lod: int) -> list[Path]:
    """All files that may be written with an output, itself first: its simpler levels, and what OBJ refers to."""
    files = []
    for path in (output, *(level_path(output, number) for number in range(1, lod + 1))):
        files.append(path)
        if path.suffix.lower() == ".obj":
            ends = (".mtl", ".png", *(f"_{kind}.png" for kind in KINDS))
            files += [path.with_name(obj_stem(path) + end) for end in ends]
    return files

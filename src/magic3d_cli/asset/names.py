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


def belonging(output: Path, lod: int = 0) -> dict[Path, str]:
    """All files that may be written with an output, itself first, and what each is of it: its simpler levels, and the
    material library and textures of an OBJ."""
    files = {}
    for number in range(lod + 1):
        path = level_path(output, number) if number else output
        files[path] = f"level {number}" if number else "asset"
        if path.suffix.lower() == ".obj":
            ends = {".mtl": "material library", ".png": "colour texture"}
            ends |= {f"_{kind}.png": f"{kind} texture" for kind in KINDS}
            files |= {path.with_name(obj_stem(path) + end): what for end, what in ends.items()}
    return files

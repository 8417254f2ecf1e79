"""What the built-in prior learns: nouns, the models that show them, and which way each has to be turned.

`manifest.tsv` has a line a model: noun, synonyms (on the noun's first line), source, yaw, author, licence. Every
model was looked at on a contact sheet (`survey.py`); `yaw` turns it, in degrees about +Y, until it faces +Z. Sources
are Sweet Home 3D catalogue entries ("Scopia:148"), 0 A.D. actors ("0ad:fauna/lion") and MegaGlest files.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Noun:
    """A noun people type, its synonyms, and its models as (source, yaw); each model becomes one style."""

    name: str
    words: tuple[str, ...]
    models: tuple[tuple[str, float], ...]

    @property
    def token(self) -> str:
        return self.name.replace(" ", "_")

    @property
    def styles(self) -> list[str]:
        return [f"<{self.token}-{i}>" for i in range(len(self.models))]


def file_stem(source: str, yaw: float) -> str:
    """Name of a model's files in the pool."""
    return re.sub(r"\W+", "_", source) + f"@{yaw:g}"


def read_manifest(path: Path) -> list[Noun]:
    """The nouns of a manifest, in its order."""
    words: dict[str, tuple[str, ...]] = {}
    models: dict[str, list[tuple[str, float]]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            words.setdefault(row["noun"], tuple(w for w in row["synonyms"].split(", ") if w))
            models.setdefault(row["noun"], []).append((row["source"], float(row["yaw"])))
    return [Noun(name, words[name], tuple(models[name])) for name in words]


NOUNS: list[Noun] = read_manifest(Path(__file__).with_name("manifest.tsv"))

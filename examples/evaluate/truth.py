"""Real models as pictures from any camera, for what is made from a picture of them."""

from __future__ import annotations

import csv
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "builtin_prior"))

from forms import make_form
from gbuffer import draw, pack
from manifest import read_manifest
from render import brighten, dimness, load, normalise

from magic3d_cli.scene.views import Views, turntable

HELD_OUT = Path(__file__).with_name("held_out.tsv")
UNKNOWN = Path(__file__).with_name("unknown.tsv")


def held_out(path: Path = HELD_OUT) -> list[tuple[str, str, float]]:
    """Noun, source and yaw of every model that the prior never saw."""
    seen = {source for noun in read_manifest(HELD_OUT.parents[1] / "builtin_prior" / "manifest.tsv")
            for source, _ in noun.models}  # fmt: skip
    return [row for row in listed(path) if row[1] not in seen]


def listed(path: Path) -> list[tuple[str, str, float]]:
    """Noun, source and yaw of every model of a list."""
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [(row["noun"], row["source"], float(row["yaw"] or 0)) for row in rows]


@lru_cache(4)
def arrays_of(data: Path, source: str, yaw: float) -> tuple[tuple[np.ndarray, ...], np.float32]:
    """A model's arrays, as `gbuffer.draw` takes them, and how much its colours are brightened."""
    kind, _, name = source.partition(":")
    arrays = pack(normalise(make_form(name) if kind == "form" else load(data, source), yaw))
    around = np.stack([draw(*arrays, matrix, 64, 2) for matrix in turntable(8).world_to_clip().numpy()])
    return arrays, dimness(around)


def buffers_of(data: Path, source: str, yaw: float, views: Views, size: int) -> np.ndarray:
    """A model's geometry buffers from each camera, see `gbuffer.draw`: uint8 [B, size, size, 10]."""
    arrays, factor = arrays_of(data, source, yaw)
    buffers = np.stack([draw(*arrays, matrix, size, 2) for matrix in views.world_to_clip().numpy()])
    brighten(buffers, factor)
    return buffers


def pictures(data: Path, source: str, yaw: float, views: Views, size: int) -> np.ndarray:
    """A model's own colours from each camera: uint8 [B, size, size, 4], straight alpha."""
    buffers = buffers_of(data, source, yaw, views, size)
    alpha = buffers[..., 9:].astype(np.float32)
    rgb = buffers[..., :3] / np.maximum(alpha / 255, 1e-3)
    return np.concatenate([rgb.clip(0, 255), alpha], -1).round().astype(np.uint8)

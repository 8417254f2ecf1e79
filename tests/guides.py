"""Guides and settings as a run would put them together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from magic3d_cli.guidance.guide import PriorGuide
from magic3d_cli.guidance.priors import WeightedPrior, choose_priors
from magic3d_cli.presets import PRESETS, resolve
from magic3d_cli.settings import Settings


def guided(
    coarse: str | Path,
    fine: str | Path | None = None,
    prompt: str = "a red car",
    base: Settings = PRESETS["draft"],
    tell: Callable[[str], None] = lambda text: None,
) -> tuple[PriorGuide, Settings]:
    """A guide by one prior for each stage, on the CPU, and the settings that suit it."""
    names = {"coarse": [WeightedPrior(str(coarse))], "fine": [WeightedPrior(str(fine or coarse))]}
    priors = choose_priors(names, prompt, base.seed, "cpu", tell)
    return PriorGuide(priors, prompt, base.seed, "cpu", None, tell), resolve(base, priors)

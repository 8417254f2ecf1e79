"""What a run is guided by: which prior, what the prompt means to it, and each stage's objective."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Protocol

from magic3d_cli.guidance.conditioning import condition, read_prompt
from magic3d_cli.guidance.distillation import ScoreDistillation
from magic3d_cli.guidance.prior import DiffusersPrior, load_prior
from magic3d_cli.guidance.prompts import Vocabulary
from magic3d_cli.guidance.sources import NAMES, locate, weights_sha256
from magic3d_cli.settings import GuidanceSettings
from magic3d_cli.stage_report import Objective

STAGES = ("coarse", "fine")


class Guide(Protocol):
    """What the pipeline needs to know of a prior; tests put a known image in its place."""

    prior: str  # its name, for people

    def sha256(self, stage: str) -> str:
        """Identifies the weights that guide a stage."""

    def objective(self, stage: str, settings: GuidanceSettings) -> Objective:
        """Load what is needed to guide a stage."""


class PriorGuide:
    """Score distillation from one prior, or from a pair that keeps one model per stage."""

    def __init__(self, name: str, prompt: str, seed: int, device: str) -> None:
        """Find the weights of both stages and check the prompt, before any work starts.

        Raises EnvironmentFault when there is no such prior, UsageError for words that it does not know.
        """
        self.prior = _full_name(name)
        self.prompt, self.seed, self.device = prompt, seed, device
        self._folders = {stage: locate(name, stage) for stage in STAGES}
        self._loaded: DiffusersPrior | None = None
        for folder in self._folders.values():
            words = next((p for p in (folder, folder.parent) if (p / "vocabulary.json").is_file()), None)
            if words is not None:
                Vocabulary.load(words / "vocabulary.json").parse(prompt, seed)

    def sha256(self, stage: str) -> str:
        """Hash of the stage's weights."""
        return _hash(self._folders[stage])

    def objective(self, stage: str, settings: GuidanceSettings) -> ScoreDistillation:
        """Load the stage's prior, unless the stage before used the same one, and encode the prompt."""
        if self._loaded is None or self._loaded.folder != self._folders[stage]:
            self._loaded = None  # freed before the next one is loaded
            self._loaded = load_prior(self.prior, self.device, stage=stage)
        words = read_prompt(self._loaded, self.prompt, self.seed)
        return ScoreDistillation(self._loaded, condition(self._loaded, words), settings)


_hash = cache(weights_sha256)


def _full_name(name: str) -> str:
    """A name that a checkpoint can keep: what "auto" chose, and directories in full."""
    if name in NAMES:
        return "builtin" if name == "auto" else name
    folder = Path(name).expanduser()
    return str(folder.resolve()) if folder.is_dir() else name

"""The priors that `magic3d bench` measures: a big one that is not downloaded has random weights of its exact shape."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from magic3d_cli.bench.random_weights import SHAPES, RandomPrior, set_size
from magic3d_cli.guidance.conditioning import condition
from magic3d_cli.guidance.diffusers import compile as compiling
from magic3d_cli.guidance.diffusers.catalogue import HUB
from magic3d_cli.guidance.diffusers.hub import INSTALLED, state_of
from magic3d_cli.guidance.distillation import ScoreDistillation
from magic3d_cli.guidance.guide import PriorGuide
from magic3d_cli.guidance.methods import check_method, distillation_of
from magic3d_cli.guidance.priors import WeightedPrior, choose_priors, fetch_small_encoder
from magic3d_cli.presets import resolve
from magic3d_cli.settings import SDS, GuidanceSettings, Settings, StagePrior


class SpeedGuide:
    """Guides as `PriorGuide` does, without a download; what random weights guide to is noise."""

    def __init__(
        self, names: Mapping[str, str], prompt: str, small: bool, device: str, folder: Path, tell: Callable[[str], None]
    ) -> None:
        """`folder` takes the shapes' configurations; `small` asks for the small encoder. Errors as `choose_priors`."""
        self.prompt, self.device, self.folder, self._tell = prompt, device, folder, tell
        here = {stage: [WeightedPrior(name)] for stage, name in names.items() if not _is_imagined(name)}
        chosen = choose_priors(here, prompt, 0, device, tell)
        encoder = fetch_small_encoder(chosen, tell) if small and chosen else None
        self._known = PriorGuide(chosen, prompt, 0, device, encoder, tell)
        self._priors: dict[str, Sequence[StagePrior]] = {
            stage: chosen.get(stage, [StagePrior(name, set_size=set_size(name))]) for stage, name in names.items()
        }
        self._random: tuple[str, RandomPrior] | None = None

    def name(self, stage: str) -> str:
        """The stage's prior, for people."""
        name = self._priors[stage][0].name
        if stage in self._known.priors:
            return name
        return f"random weights in the shape of {name}, which is not downloaded: speed only"

    def resolve(
        self, base: Settings, perp_neg: bool | None, small_encoder: bool | None, distillation: str | None = None
    ) -> Settings:
        """The settings with each stage guided as its prior needs. Raises UsageError as `check_method`."""
        check_method(distillation or SDS, self._priors, self._tell)
        return resolve(base, self._priors, perp_neg=perp_neg, small_encoder=small_encoder, distillation=distillation)

    def distillation(self, stage: str, settings: GuidanceSettings) -> ScoreDistillation:
        """Load the stage's prior, unless the stage before used the same one."""
        if stage in self._known.priors:
            if self._random is not None:
                self.release()
            return self._known.distillation(stage, settings)
        name = self._priors[stage][0].name
        if self._random is None or self._random[0] != name:
            self.release()
            folder = Path(tempfile.mkdtemp(dir=self.folder))
            self._random = name, RandomPrior(name, folder, self.device, settings.small_encoder)
        prior = self._random[1]
        if compiling.pays(settings, prior.device):
            prior.compile(self._tell)
        return distillation_of(prior, condition(prior, self.prompt, settings.method != SDS), settings, 0)

    def release(self) -> None:
        """Free the prior that is loaded: another takes its place, or it was compiled and is to be measured as it is."""
        self._random = None
        self._known.release()


def _is_imagined(name: str) -> bool:
    return name in SHAPES and state_of(HUB[name]) != INSTALLED

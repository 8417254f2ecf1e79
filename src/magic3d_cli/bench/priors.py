"""The priors that `magic3d bench` measures: a big one that is not downloaded has random weights of its exact shape."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from magic3d_cli.bench.random_weights import SHAPES, RandomPrior
from magic3d_cli.guidance.conditioning import condition
from magic3d_cli.guidance.diffusers import compile as compiled
from magic3d_cli.guidance.diffusers.catalogue import HUB
from magic3d_cli.guidance.diffusers.hub import INSTALLED, state_of
from magic3d_cli.guidance.distillation import ScoreDistillation
from magic3d_cli.guidance.guide import PriorGuide
from magic3d_cli.settings import GuidanceSettings, Settings, guided_by


class SpeedGuide:
    """Guides as `PriorGuide` does, without a download; what random weights guide to is noise."""

    def __init__(
        self, coarse: str, fine: str, prompt: str, device: str, folder: Path, tell: Callable[[str], None]
    ) -> None:
        """`folder` takes the shapes' configurations; the rest as in `PriorGuide`, and so are the errors."""
        self._names = {"coarse": coarse, "fine": fine}
        self.prompt, self.device, self.folder, self._tell = prompt, device, folder, tell
        self._here = [stage for stage, name in self._names.items() if not _imagined(name)]
        self._known: PriorGuide | None = None
        if self._here:
            stands_in = self._names[self._here[0]]  # for a stage that this guide is not asked for
            coarse, fine = (name if stage in self._here else stands_in for stage, name in self._names.items())
            self._known = PriorGuide(coarse, fine, prompt, 0, device, tell)
        self._random: tuple[str, RandomPrior] | None = None

    def name(self, stage: str) -> str:
        """The stage's prior, for people."""
        if self._known is not None and stage in self._here:
            return self._known.name(stage)
        return f"random weights in the shape of {self._names[stage]}, which is not downloaded: speed only"

    def suited(self, settings: Settings) -> Settings:
        """The settings with each stage guided as its prior needs."""
        suited = guided_by(settings, open_coarse=True, open_fine=True)
        own = suited if self._known is None else self._known.suited(settings)
        return replace(suited, **{stage: getattr(own, stage) for stage in self._here})

    def objective(self, stage: str, settings: GuidanceSettings) -> ScoreDistillation:
        """Load the stage's prior, unless the stage before used the same one."""
        if self._known is not None and stage in self._here:
            if self._random is not None:
                self.release()
            return self._known.objective(stage, settings)
        name = self._names[stage]
        if self._random is None or self._random[0] != name:
            self.release()
            folder = Path(tempfile.mkdtemp(dir=self.folder))
            self._random = name, RandomPrior(name, folder, self.device, settings.small_encoder)
        prior = self._random[1]
        if compiled.pays(settings, prior.device):
            prior.compile(self._tell)
        return ScoreDistillation(prior, condition(prior, self.prompt), settings)

    def release(self) -> None:
        """Free the prior that is loaded: another takes its place, or it was compiled and is to be measured as it is."""
        self._random = None
        if self._known is not None:
            self._known.release()
        else:
            gc.collect()  # as there


def _imagined(name: str) -> bool:
    return name in SHAPES and state_of(HUB[name]) != INSTALLED

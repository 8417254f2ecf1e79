"""How much of a whole job is done and how long the rest takes: a rolling pace times what is known of the parts.

A job's work is counted in units: one step of the coarse stage at its first resolution. The other parts cost a known
number of them, measured for each preset, so that the pace of the first steps tells when the whole asset is there; as
soon as a part has steps of its own, theirs count. No tensors, no clock: times are given.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from statistics import median

from magic3d_cli.checks import BUILTIN_SHAPE
from magic3d_cli.presets import PRESETS
from magic3d_cli.settings import (
    AUTO,
    BALL,
    BSD,
    EDITED,
    EDITED_VOLUME,
    PICTURE_SHAPE,
    PICTURES_ALONE,
    SDS,
    VOLUME,
    BootstrapSettings,
    CoarseSettings,
    FineSettings,
    GuidanceSettings,
    Settings,
    learning_guidance,
)


@dataclass(frozen=True)
class Costs:
    """What a part costs, in steps of the coarse stage at its first resolution."""

    coarse: float  # a step at the final resolution
    fine: float  # a step
    mesh: float  # in all
    asset: float  # in all


BUILTIN = {
    "draft": Costs(coarse=1.2, fine=2.3, mesh=12.0, asset=28.0),
    "standard": Costs(coarse=1.25, fine=2.1, mesh=10.0, asset=32.0),
    "paper": Costs(coarse=1.0, fine=4.9, mesh=2.6, asset=6.1),  # no smaller resolution
}
"""Of the built-in prior: `magic3d bench` (examples/bench.md) and logs of whole runs on two cores."""

SHAPED = Costs(coarse=1.0, fine=3.2, mesh=25.0, asset=36.0)
"""The same where a shape is there from the beginning, in the presets draft and standard."""

FITTED, FITTED_TO_MESH = 40.0, 240.0
"""What the fit to that shape costs, in the same steps: to a volume a sixth of a draft; to a mesh, whose distance is
looked up for every point, as much as all the rest."""

NETWORK = {"deepfloyd-if-m": 0.46, "deepfloyd-if-l": 1.22, "deepfloyd-if-xl": 5.76, "minisd": 0.4, "builtin": 0.004}
"""TFLOP of distilling one view with a prior: two evaluations of the network. Beside it and the encoder a step's other
work is small on a CPU."""
LATENT_NETWORK, ENCODER = 1.6, 2.27  # Stable Diffusion at 512 pixels, and any that is not listed; both passes
ENCODERS = {"deepfloyd-if-m": 0.0, "deepfloyd-if-l": 0.0, "deepfloyd-if-xl": 0.0, "minisd": 0.57, "builtin": 0.0}
"""TFLOP of encoding one view, forward and backward."""
SMALL_ENCODER = 1 / 9
"""Of the encoder's work, what the small one does."""


LEARNING = 3
"""Evaluations more of a network that also learns the renders: their score, and a step of the LoRA, whose backward pass
counts as one because all other weights stay."""


def sample_work(name: str, guidance: GuidanceSettings, learns: float = 1.0, shown: bool = False) -> float:
    """TFLOP of distilling one view with a prior, as it is guided; `learns` is the share of steps that are variational,
    where any are. A prior that is `shown` a picture is asked once more."""
    evaluations = 4.0 if guidance.perp_neg and name != "builtin" else 2.0
    evaluations += 1 if shown and name != "builtin" else 0
    evaluations += LEARNING * learns if guidance.method != SDS else 0
    network = NETWORK.get(name, LATENT_NETWORK) * evaluations / 2
    return network + ENCODERS.get(name, ENCODER) * (SMALL_ENCODER if guidance.small_encoder else 1.0)


def rounds_work(bootstrap: BootstrapSettings) -> float:
    """Evaluations of the network in all rounds of bootstrapping: 25 steps at full strength with and without words, and
    both ways of a step of tuning."""
    redrawing = bootstrap.pictures * 2 * 25 * sum(bootstrap.strength) / 2
    return bootstrap.rounds * (redrawing + 2 * bootstrap.steps)


def told_of_rounds(fine: FineSettings) -> str | None:
    """What bootstrapping the texture will cost; None where it is not bootstrapped."""
    learning = learning_guidance(fine)
    if learning is None or learning.method != BSD:
        return None
    own = learning.bootstrap
    work, steps = rounds_work(own), (1 - fine.geometry_first) * fine.steps * fine.views * (2 + LEARNING)
    return (
        f"--distillation bsd: the texture is painted in {own.rounds} rounds. Before each, the prior redraws "
        f"{own.pictures} renders and learns them in {own.steps} steps: {work / steps:.0%} more evaluations."
    )


def view_work(stage: CoarseSettings | FineSettings, name: str, shown: bool = False) -> float:
    """TFLOP of distilling one view with all priors of a stage; `name` is the first one's. Those of others than the
    built-in one may be `shown` a picture."""
    learns = 1 - stage.geometry_first if isinstance(stage, FineSettings) else 1.0
    if (learning := learning_guidance(stage)) is not None and learning.method == BSD:
        learns += rounds_work(learning.bootstrap) / (LEARNING * stage.steps * stage.views)
    added = sum(sample_work(prior.prior, prior.guidance, learns, shown) for prior in stage.added_guidance)
    return sample_work(name, stage.guidance, learns, shown) + added


ASSET = {"clean": 0.06, "simplify": 0.05, "unwrap": 0.53, "bake": 0.32, "write": 0.04}
"""Share of the asset's time in each of its phases."""
EXTRAS = {"ambient occlusion": 0.42, "normal map": 0.5}
"""The same of what is baked on request, as many texels as a preset has: processor time of a draft's asset [m]."""

WINDOW = 20  # the last steps make the pace: as many, or half of all so far; a busy machine's pace comes and goes
_FEW = 3, 20.0  # steps, and seconds that they took: enough to tell a pace where steps are slow
_MANY = 8, 0.03
"""Steps, and share of the whole job: enough where they are fast; the first ones march through a full grid."""
_OUTLIER = 3.0  # a step counts as this many times the median at most: it wrote a preview, or the machine was busy


VOLUMES = (VOLUME, PICTURE_SHAPE, EDITED_VOLUME, EDITED, BUILTIN_SHAPE)
"""How settings name a shape to begin with that is no mesh file."""
FIT = "initial shape"
"""The phase in which a field is fitted to the shape that it begins with."""


@dataclass(frozen=True)
class Part:
    """A stage with steps, or a phase without (one span of one step)."""

    name: str
    spans: tuple[tuple[int, float], ...]  # steps, units each

    def units(self, step: int) -> float:
        """What the first `step` steps cost."""
        total = 0.0
        for steps, cost in self.spans:
            total += cost * min(max(step, 0), steps)
            step -= steps
        return total

    @property
    def steps(self) -> int:
        return sum(steps for steps, _ in self.spans)


def parts_of(settings: Settings, priors: dict[str, str]) -> list[Part]:
    """The parts of a whole job in order; `priors` names each stage's."""
    coarse, fine = settings.coarse, settings.fine
    fitted = 0.0
    if all(name in ("builtin", PICTURES_ALONE) for name in priors.values()) and not (
        coarse.added_guidance or fine.added_guidance
    ):
        shaped = coarse.init not in (AUTO, BALL)
        costs = SHAPED if shaped else BUILTIN.get(settings.preset, BUILTIN["draft"])
        fitted = (FITTED if coarse.init.startswith(VOLUMES) else FITTED_TO_MESH) if shaped else 0.0
    else:
        first, second = (
            view_work(own, priors[stage]) * own.views for stage, own in (("coarse", coarse), ("fine", fine))
        )
        costs = Costs(coarse=1.0, fine=second / first, mesh=0.0, asset=0.0)
    small = sum(step / coarse.steps < coarse.warmup for step in range(coarse.steps))
    return [
        *([Part(FIT, ((1, fitted),))] if fitted else []),
        Part("coarse", ((small, 1.0), (coarse.steps - small, costs.coarse))),
        Part("mesh", ((1, costs.mesh),)),
        Part("fine", ((fine.steps, costs.fine),)),
        *(Part(phase, ((1, share * costs.asset),)) for phase, share in asset_shares(settings).items()),
    ]


def asset_shares(settings: Settings) -> dict[str, float]:
    """What each phase of the asset takes, in order; 1 in all for a preset's own sizes without anything on request.

    Unwrapping goes by the triangles, everything that is painted by the texels.
    """
    asset, usual = settings.asset, PRESETS.get(settings.preset, PRESETS["draft"]).asset
    asked = {"ambient occlusion": asset.occlusion, "normal map": asset.normal_map}
    faces, texels = asset.faces / usual.faces, (asset.texture_size / usual.texture_size) ** 2

    def dressed(level: int) -> dict[str, float]:
        painted = {"bake": ASSET["bake"], **{name: share for name, share in EXTRAS.items() if asked[name]}}
        shares = {"unwrap": ASSET["unwrap"] * faces / 2**level}
        return shares | {name: share * texels / 4**level for name, share in painted.items()}

    levels = {f"LOD{level}": sum(dressed(level).values()) for level in range(1, asset.lod + 1)}
    written = ASSET["write"] * texels * sum(1 / 4**level for level in range(asset.lod + 1))
    return {name: ASSET[name] for name in ("clean", "simplify")} | dressed(0) | levels | {"write": written}


class Forecast:
    """Follows one job. Every method that takes `now` takes it from the same clock, in seconds."""

    def __init__(self, parts: list[Part]) -> None:
        self.parts = parts
        self._before = [sum(p.units(p.steps) for p in parts[:i]) for i in range(len(parts) + 1)]
        self._at = 0  # index of the present part
        self._done = 0.0  # units of it
        self._since = 0.0  # when what is told was last known
        self._paces: deque[float] = deque()  # seconds a unit, of the last steps of this stage
        self._pace: float | None = None
        self._compiled = self._fitting = False
        self._counted = 0  # steps that told a pace, in this stage

    def begin(self, name: str, done: int, now: float) -> None:
        """A part begins, or goes on after `done` steps. An unknown one belongs to the part before it.

        A fit that has just ended tells a first pace, until the steps tell theirs.
        """
        if self.parts[self._at].name == FIT and self._fitting and not self._compiled and self._pace is None:
            self._pace = (now - self._since) / self.parts[self._at].units(1)
        self._fitting, self._compiled = name == FIT, False
        self._since = now
        index = next((i for i, part in enumerate(self.parts) if part.name == name), None)
        if index is None:
            return
        self._at, self._done = index, self.parts[index].units(done)
        if self.parts[index].steps > 1:
            self._counted = 0
            self._paces.clear()  # the last stage's pace serves until this one has its own

    def compiling(self) -> None:
        """The step that runs waits for a compiler: it tells nothing of the others."""
        self._compiled = True

    def step(self, step: int, now: float) -> None:
        """Step `step` of the present part is done."""
        done = self.parts[self._at].units(step)
        cost, seconds = done - self._done, now - self._since
        self._done, self._since = done, now
        if cost > 0 and not self._compiled:
            self._paces.append(seconds / cost)
            self._counted += 1
            if len(self._paces) > max(WINDOW, self._counted // 2):
                self._paces.popleft()
        self._compiled = False
        if self._knows(cost):
            usual = median(self._paces)
            self._pace = sum(min(pace, _OUTLIER * usual) for pace in self._paces) / len(self._paces)

    def _knows(self, cost: float) -> bool:
        count, seconds = len(self._paces), sum(self._paces) * cost
        return (count >= _FEW[0] and seconds >= _FEW[1]) or (count >= _MANY[0] and self.fraction() >= _MANY[1])

    def fraction(self) -> float:
        """Of the whole job's work, 0 to 1."""
        return (self._before[self._at] + self._done) / max(self._before[-1], 1e-9)

    def left(self, now: float) -> float | None:
        """Seconds to the end of the job; None until enough steps have told the pace."""
        if self._pace is None:
            return None
        here = self.parts[self._at]
        rest = self._before[-1] - self._before[self._at + 1]
        present = (here.units(here.steps) - self._done) * self._pace
        return max(present - (now - self._since), 0.0) + rest * self._pace

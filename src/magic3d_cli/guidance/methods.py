"""The methods of distillation: which priors can follow each, and the loss that it makes of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from magic3d_cli.checks import NO_LORA, cannot_learn
from magic3d_cli.guidance.bootstrapped import BootstrappedDistillation, TunedPrior
from magic3d_cli.guidance.conditioning import Conditioning
from magic3d_cli.guidance.diffusers.prior import DiffusersPrior
from magic3d_cli.guidance.distillation import ScoreDistillation
from magic3d_cli.guidance.variational import RendersScore, VariationalDistillation
from magic3d_cli.settings import BSD, SDS, VSD, GuidanceSettings, StagePrior

Tell = Callable[[str], None]


def check_method(method: str, priors: Mapping[str, Sequence[StagePrior]], tell: Tell) -> None:
    """Tells which priors do not follow a method of distillation (BSD is for the fine stage's).

    Raises UsageError where none does.
    """
    stages = ["fine"] if method == BSD else list(priors)
    distinct = {prior.name: prior for stage in stages for prior in priors[stage]}
    others = [prior for prior in distinct.values() if not prior.learns_renders]
    if method == SDS or not others:
        return
    reasons = [f"{Path(prior.name).name} {NO_LORA[_kind(prior)]}" for prior in others]
    if len(others) == len(distinct):
        raise cannot_learn(method, reasons)
    tell(f"--distillation {method} is not for all priors: {'; '.join(reasons)}. These go on by score distillation.")


def _kind(prior: StagePrior) -> str:
    """Of a prior that cannot learn renders, see `NO_LORA`."""
    if prior.from_picture:
        return "picture"
    return "sets" if prior.open_vocabulary else "builtin"


def distillation_of(
    prior: DiffusersPrior,
    told: Conditioning,
    settings: GuidanceSettings,
    seed: int,
    shape_first: float = 0.0,
    tell: Tell = lambda text: None,
) -> ScoreDistillation:
    """The loss of a prior that is told words; where it learns, these include the plain ones.

    Args:
        seed: of LoRAs that learn.
        shape_first: share of the stage before these do.
        tell: told of each round of bootstrapping.
    """
    if settings.method == SDS:
        return ScoreDistillation(prior, told, settings)
    assert told.plain is not None
    renders = RendersScore(prior, told.plain, settings.variational, seed)
    if settings.method == VSD:
        return VariationalDistillation(prior, told, settings, renders, shape_first)
    tuned = TunedPrior(prior, told, settings.bootstrap, seed + 1, tell)
    return BootstrappedDistillation(prior, told, settings, renders, shape_first, tuned=tuned)

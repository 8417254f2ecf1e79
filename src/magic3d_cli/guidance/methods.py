"""The methods of distillation: which priors can follow each, and the loss that it makes of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from magic3d_cli.checks import check_followed
from magic3d_cli.guidance.bootstrapped import BootstrappedDistillation, TunedPrior
from magic3d_cli.guidance.conditioning import Conditioning
from magic3d_cli.guidance.diffusers.prior import DiffusersPrior
from magic3d_cli.guidance.distillation import ScoreDistillation
from magic3d_cli.guidance.variational import RendersScore, VariationalDistillation
from magic3d_cli.settings import SDS, VSD, GuidanceSettings, StagePrior

Tell = Callable[[str], None]


def check_method(method: str, priors: Mapping[str, Sequence[StagePrior]], tell: Tell) -> None:
    """Tells which priors do not follow a method of distillation, see `check_followed`.

    Raises UsageError where none does.
    """
    kinds = {stage: {prior.name: _kind(prior) for prior in some} for stage, some in priors.items()}
    if reasons := check_followed(method, kinds):
        tell(f"--distillation {method} is not for all priors: {'; '.join(reasons)}. These go on by score distillation.")


def _kind(prior: StagePrior) -> str | None:
    """Of a prior that cannot learn renders, see `NO_LORA`; None of one that can."""
    if prior.learns_renders:
        return None
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

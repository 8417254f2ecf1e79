"""What a person asks for, whoever hands it on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from magic3d_cli import settings
from magic3d_cli.guidance.priors import WeightedPrior
from magic3d_cli.picture_request import PictureRequest
from magic3d_cli.style import Style

TEXTURE, RESHAPE = "texture", "reshape"
"""What a mesh of a person's own gets: new colours on the shape as it is, or a new shape too."""


@dataclass(frozen=True)
class Request(settings.AssetChoices):
    """What a person asks for; None leaves a choice to the preset or, when refining, to the checkpoint."""

    output: Path  # the suffix says the format
    preset: str | None = None
    coarse_prior: str | None = None
    fine_prior: str | None = None
    more_priors: tuple[WeightedPrior, ...] = ()  # beside those of both stages
    init: str | None = None  # where the coarse stage begins: auto, ball, or a shape of `initial_shapes`
    init_up: str = "y"  # which axis of its mesh file points upwards
    device: str = "auto"
    perp_neg: bool | None = None
    small_encoder: bool | None = None
    distillation: str | None = None  # of `settings.METHODS`
    mesh: str | None = None  # TEXTURE or RESHAPE: what `init` names is a mesh of a person's own, and what it gets
    fresh: bool = False  # start over; an earlier run is moved aside
    strict: bool = False  # refuse words that a prior of closed vocabulary does not know
    pictures: PictureRequest | None = None  # of the thing; the prompt may then be empty
    recipe: str | None = None  # of `recipes`
    adapters: tuple[str, ...] = ()  # FILE or FILE=WEIGHT, see `guidance.adapters`
    style: Style | None = None  # of a picture: the built-in prior paints in its palette, others are shown it


def prior_names(request: Request) -> dict[str, str]:
    """The prior asked for, of each stage."""
    return {"coarse": request.coarse_prior or "auto", "fine": request.fine_prior or "auto"}


def wanted_priors(names: Mapping[str, str], request: Request) -> dict[str, list[WeightedPrior]]:
    """The priors of each stage, the one of this name first, with those that a request adds."""
    return {stage: [WeightedPrior(name), *request.more_priors] for stage, name in names.items()}

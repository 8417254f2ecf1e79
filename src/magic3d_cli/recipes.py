"""Recipes: how published programs turn a picture into a thing, as changes of this program's settings.

Each is named for what it follows, and each number has its source. Letters are of the code that was read, at the commit
named; where paper and code disagree the code is followed:

    M   guochengqian/Magic123 @11b72ac                  T   threestudio-project/threestudio @28d9d80
    D   deepseek-ai/DreamCraft3D @5829ef1               R   lukemelas/realfusion
    K   junshutang/Make-It-3D                           [m] chosen by measurement or to suit this program

Published weights stand beside a sum over latents and multiply means over pixels. Magic123's own are divided by the loss
scale of half precision on the way (its `latents.backward` runs in the forward pass), so threestudio's port of it is
followed there. Weights of losses and times that the built-in prior is not made for are left at its own: it says for
which kinds of priors a number counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from magic3d_cli.checks import check_choice
from magic3d_cli.errors import UsageError
from magic3d_cli.settings import (
    CoarseSettings,
    FineSettings,
    GuidanceSettings,
    Settings,
    StagePrior,
    TimestepSchedule,
    ViewSampling,
)

_Stage = TypeVar("_Stage", CoarseSettings, FineSettings)

_COARSE_PIXELS, _FINE_PIXELS = 64**2, 256**2
"""Of the images whose sums are the unit of both stages' losses."""


@dataclass(frozen=True)
class Published:
    """Weights as they were published; see `reference_weights`."""

    colour: float  # of the mean squared error of colours
    mask: float  # of the mean squared error of opacity
    depth: float = 0.0  # of 1 - Pearson's correlation
    words: float = 1.0  # of the prior that is told in words: a sum over its latents
    picture: float = 1.0  # of the prior that is shown the picture


@dataclass(frozen=True)
class StageRecipe:
    """Changes of one stage; None leaves what the program does.

    Attributes:
        words, shown: how a prior of open vocabulary is guided that is told in words, or shown the picture.
        builtin: diffusion times of the built-in prior.
        weights: of the losses beside open-vocabulary priors.
        reference, sampling, stage: fields of the stage's settings of these names; `sampling` counts for all priors.
    """

    words: GuidanceSettings | None = None
    shown: GuidanceSettings | None = None
    builtin: TimestepSchedule | None = None
    weights: Published | None = None
    reference: Mapping[str, Any] = field(default_factory=dict)
    sampling: Mapping[str, Any] = field(default_factory=dict)
    stage: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """One row of the table.

    Attributes:
        follows: paper and code.
        priors: the kinds that guide together: "words" (told in words), "shown" (shown the picture); "builtin" where the
            built-in prior, which is told in words and where the camera is, can do it by itself.
        draws: makes the picture itself from the prompt where none is given.
        depth: wants the picture's depth; without one that of the built-in prior's fitted model is taken.
        elevation: degrees that a picture is taken from where nothing is told and nothing is found out.
        missing: what of the original is not here, for the table.
    """

    name: str
    follows: str
    priors: tuple[str, ...]
    coarse: StageRecipe
    fine: StageRecipe
    draws: bool = False
    depth: bool = False
    elevation: float | None = None
    missing: str = ""


def _guided(scale: float, start: tuple[float, float], end: tuple[float, float] | None = None, anneal: float = 0.0,
            **more: Any) -> GuidanceSettings:  # fmt: skip
    return GuidanceSettings((scale, scale), TimestepSchedule(start, end or start, anneal), **more)


_OF_COARSE = 200 / 5000
"""The first 200 of 5000 steps, in which DreamCraft3D anneals times and lets the views grow [D, coarse NeRF]."""

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="magic123",
            follows="Magic123, arXiv 2306.17843; weights of threestudio's magic123-coarse-sd.yaml",
            priors=("words", "shown", "builtin"),
            coarse=StageRecipe(
                words=_guided(100.0, (0.2, 0.6)),  # M run_both_priors.sh
                shown=_guided(5.0, (0.2, 0.6)),  # M; --zero123_grad_scale by angle is not in the paper and left out
                weights=Published(1000.0, 100.0, words=0.025, picture=1.0),  # T
                reference={"size": 192},  # M: 1.5 times the 128 of novel views
                sampling={"elevation": (-45.0, 45.0), "shading": (0.0, 0.8, 0.2)},  # M: polar 45..135; lambertian 80 %
            ),
            fine=StageRecipe(
                words=_guided(100.0, (0.02, 0.5)),  # M main.py forces it for DMTet
                shown=_guided(5.0, (0.02, 0.5)),
                weights=Published(1000.0, 100.0, words=0.025, picture=1.0),
                reference={"depth": 0.0},  # M: lambda_depth 0 in the fine stage
                sampling={"elevation": (-45.0, 45.0)},
            ),
            missing="a token learnt from the picture, which its authors call unnecessary where a word names the thing",
        ),
        Recipe(
            name="zero123",
            follows="Zero-1-to-3, arXiv 2303.11328; threestudio's zero123.yaml",
            priors=("shown",),
            coarse=StageRecipe(
                shown=_guided(3.0, (0.4, 0.85), (0.2, 0.5), 1 / 3),  # T: until step 200 of 600
                weights=Published(500.0, 50.0, picture=0.1),  # T
                sampling={"elevation": (-10.0, 80.0)},  # T
                reference={"smoothness": 0.02},
            ),
            fine=StageRecipe(
                shown=_guided(3.0, (0.02, 0.5)),  # T zero123-geometry
                weights=Published(1e4, 100.0, picture=1.0),  # T zero123-geometry
                sampling={"elevation": (-10.0, 80.0)},
            ),
            elevation=5.0,  # T
        ),
        Recipe(
            name="realfusion",
            follows="RealFusion, arXiv 2302.10663",
            priors=("words",),
            coarse=StageRecipe(
                words=_guided(100.0, (0.02, 0.98)),  # R options.py
                weights=Published(1000.0, 100.0, words=0.025),  # R's 5 and 0.5 are in the units of half precision: T's
                reference={"size": 128, "smoothness": 0.02},  # R
                sampling={"fov": (40.0, 70.0)},  # R
            ),
            fine=StageRecipe(words=_guided(100.0, (0.02, 0.5)), weights=Published(1000.0, 100.0, words=0.025)),
            elevation=15.0,  # R
            missing="a word learnt from the picture, unless --adapter has one (magic3d personalise FILE --method word)",
        ),
        Recipe(
            name="make-it-3d",
            follows="Make-It-3D, arXiv 2303.14184",
            priors=("words", "builtin"),
            coarse=StageRecipe(
                words=_guided(10.0, (0.2, 0.6)),  # K
                weights=Published(1000.0, 100.0, depth=1.0),  # K: image 1e3, depth 1; its mask is in the image: T's 100
                reference={"colour_from": 0.2},  # [m] outline and depth first
                # K: azimuth 45 degrees to either side for 2000 of 5000 steps, then all around
                sampling={"growth": ((0.4, 0.25), (0.4, 1.0))},
            ),
            fine=StageRecipe(words=_guided(10.0, (0.02, 0.5)), weights=Published(1000.0, 100.0)),
            depth=True,
            missing="its loss on CLIP embeddings, and its stage of textured points: the fine stage refines a mesh",
        ),
        Recipe(
            name="dreamcraft3d",
            follows="DreamCraft3D, arXiv 2310.16818",
            priors=("words", "shown", "builtin"),
            coarse=StageRecipe(
                words=_guided(20.0, (0.7, 0.85), (0.2, 0.5), _OF_COARSE, perp_neg=1.0),  # D stage 1a; IF with Perp-Neg
                shown=_guided(5.0, (0.7, 0.85), (0.2, 0.5), _OF_COARSE),  # D stage 1a
                # D anneals from 0.7..0.85 to 0.2..0.5; below 0.3 the built-in prior's colours drift [m]
                builtin=TimestepSchedule((0.7, 0.85), (0.3, 0.5), 0.5),
                weights=Published(1000.0, 100.0, depth=0.05, words=0.1, picture=0.1),  # D
                sampling={"elevation": (-10.0, 45.0), "growth": ((0.0, 0.0), (_OF_COARSE, 1.0))},  # D
            ),
            fine=StageRecipe(
                # D stage 2 shows normals to the prior of words; stage 3, the texture alone, has scale 2 and a prior
                # that is taught meanwhile; without that the scale of an ordinary one [VSD, 2305.16213].
                words=_guided(7.5, (0.02, 0.5), (0.02, 0.2), 1.0, normals=True),
                shown=_guided(5.0, (0.2, 0.5)),  # D stage 2
                builtin=TimestepSchedule((0.4, 0.6), (0.3, 0.5), 0.8),  # [m]
                weights=Published(1000.0, 100.0, words=0.1, picture=0.1),  # D
                sampling={"elevation": (-10.0, 45.0)},  # D
                stage={"geometry_first": 0.5},  # D: as many steps for geometry as for texture
            ),
            draws=True,
            elevation=0.0,  # D
            missing="bootstrapped score distillation of the texture, unless --distillation bsd asks for it",
        ),
    )
}  # fmt: skip


def kind_of(prior: StagePrior) -> str:
    """ "builtin" for priors of closed vocabulary, else "shown" or "words"."""
    if prior.from_picture:
        return "shown"
    return "words" if prior.open_vocabulary else "builtin"


def named(name: str) -> Recipe:
    """Raises UsageError for an unknown name."""
    return RECIPES[check_choice("--recipe", name, tuple(RECIPES))]


def check_priors(recipe: Recipe, priors: Mapping[str, Sequence[StagePrior]]) -> None:
    """Raises UsageError where the priors of a stage cannot follow a recipe."""
    for some in priors.values():
        kinds = {kind_of(prior) for prior in some}
        alone = "builtin" in kinds and "builtin" in recipe.priors
        if alone or set(recipe.priors) - {"builtin"} <= kinds:
            continue
        names = " and ".join(dict.fromkeys(prior.name for prior in some))
        needed = {
            "words": "one that takes any words (--prior sd15)",
            "shown": "one that is shown the picture (--prior zero123-xl)",
        }
        wanted = [text for kind, text in needed.items() if kind in recipe.priors]
        options = {
            ("words", "shown"): "--prior sd15 --also-prior zero123-xl",
            ("words",): "--prior sd15",
            ("shown",): "--prior zero123-xl",
        }[tuple(kind for kind in needed if kind in recipe.priors)]
        builtin = ", or --prior builtin, which does it alone" if "builtin" in recipe.priors else ""
        raise UsageError(
            f"The recipe {recipe.name} needs {' and '.join(wanted)}; {names} cannot do it.",
            f"Use {options}{builtin}; or leave out --recipe.",
        )


def reference_weights(published: Published, lead: float, pixels: float) -> dict[str, float]:
    """Published weights in this program's unit, beside a leading prior whose published weight, `lead`, counts as 1.

    Here a loss is a sum over `pixels` of squared errors added up over the channels, and depth is (1 - Pearson) / 2.
    """
    return {
        "colour": published.colour / (3 * pixels * lead),
        "mask": published.mask / (pixels * lead),
        "depth": 2 * published.depth / (pixels * lead),
    }


def prior_weight(recipe: StageRecipe, prior: StagePrior, lead: StagePrior) -> float:
    """By which a prior's own weight is multiplied; the leading one's is 1."""
    if recipe.weights is None:
        return 1.0
    of = {"words": recipe.weights.words, "shown": recipe.weights.picture, "builtin": 1.0}
    kinds = kind_of(prior), kind_of(lead)
    return 1.0 if "builtin" in kinds else of[kinds[0]] / of[kinds[1]]


def follow(
    base: Settings, name: str, priors: Mapping[str, Sequence[StagePrior]], picture: tuple[float, float] | None
) -> Settings:
    """Resolved settings changed as a recipe says, for these priors.

    Args:
        picture: azimuth and elevation of the first picture, degrees; views grow from there.
    """
    recipe = named(name)
    return replace(
        base,
        coarse=_changed(base.coarse, recipe.coarse, priors["coarse"], _COARSE_PIXELS, picture),
        fine=_changed(base.fine, recipe.fine, priors["fine"], _FINE_PIXELS, picture),
        recipe=name,
    )


def _changed(
    stage: _Stage,
    part: StageRecipe,
    priors: Sequence[StagePrior],
    pixels: float,
    picture: tuple[float, float] | None,
) -> _Stage:
    """A stage's settings as its part of a recipe says; `pixels` are those of the images that its losses are sums of."""
    first, *others = priors
    added = tuple(
        replace(own, guidance=_guided_as(part, own.guidance, prior))
        for own, prior in zip(stage.added_guidance, others, strict=True)
    )
    weights: dict[str, float] = {}
    if part.weights is not None and kind_of(first) != "builtin":
        lead = part.weights.words if kind_of(first) == "words" else part.weights.picture
        weights = reference_weights(part.weights, lead, pixels)
    return replace(
        stage,
        guidance=_guided_as(part, stage.guidance, first),
        added_guidance=added,
        reference=replace(stage.reference, **{**weights, **part.reference}),
        sampling=replace(stage.sampling, **_sampled(part, stage.sampling, priors, picture)),
        **part.stage,
    )


def _guided_as(part: StageRecipe, own: GuidanceSettings, prior: StagePrior) -> GuidanceSettings:
    """How a recipe guides a prior; what a person chooses stays."""
    kind = kind_of(prior)
    if kind == "builtin":
        return own if part.builtin is None else replace(own, times=part.builtin)
    asked = part.words if kind == "words" else part.shown
    if asked is None:
        return own
    return replace(
        asked,
        perp_neg=own.perp_neg or asked.perp_neg,
        small_encoder=own.small_encoder,
        compile=own.compile,
        method=own.method,
        variational=own.variational,
        bootstrap=own.bootstrap,
    )


def _sampled(
    part: StageRecipe, own: ViewSampling, priors: Sequence[StagePrior], picture: tuple[float, float] | None
) -> dict[str, Any]:
    """The fields of a stage's sampling that a recipe changes, within what its priors were taught with."""
    sampling = dict(part.sampling)
    if any(kind_of(prior) != "words" for prior in priors):
        low, high = sampling.get("elevation", own.elevation)
        sampling["elevation"] = max(low, own.elevation[0]), min(high, own.elevation[1])
        sampling.pop("fov", None)
    if any(prior.from_picture for prior in priors):
        sampling.pop("shading", None)  # it was taught with photos
    if "growth" in sampling and picture is not None:
        sampling["centre"] = picture
    return sampling

"""Recipes: a table of published numbers in one unit, refused where the priors at hand cannot follow it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from magic3d_cli import checks, presets, recipes
from magic3d_cli.errors import UsageError
from magic3d_cli.presets import PRESETS
from magic3d_cli.recipes import RECIPES, Published, check_priors, follow, named, prior_weight, reference_weights
from magic3d_cli.scene.views import sample_views
from magic3d_cli.settings import Settings, StagePrior, ViewSampling

BUILTIN = StagePrior("builtin", open_vocabulary=False, has_volume=True)
WORDS = StagePrior("sd15", open_vocabulary=True)
SHOWN = StagePrior("zero123-xl", open_vocabulary=True, from_picture=True)
CAMERA = (30.0, 20.0)


def both(*priors: StagePrior) -> dict[str, Sequence[StagePrior]]:
    return dict.fromkeys(("coarse", "fine"), priors)


def followed(name: str, *priors: StagePrior) -> Settings:
    chosen = both(*priors)
    return follow(presets.resolve(PRESETS["draft"], chosen, imagine=0.5), name, chosen, CAMERA)


def test_the_command_line_names_the_recipes_of_the_table() -> None:
    assert tuple(RECIPES) == checks.RECIPES
    assert {name for name, recipe in RECIPES.items() if recipe.draws} == set(checks.DRAWING_RECIPES)


@pytest.mark.parametrize(
    ("name", "able", "unable"),
    [
        ("magic123", [(WORDS, SHOWN), (SHOWN, WORDS), (BUILTIN,)], [(WORDS,), (SHOWN,)]),
        ("zero123", [(SHOWN,)], [(BUILTIN,), (WORDS,)]),
        ("realfusion", [(WORDS,)], [(BUILTIN,), (SHOWN,)]),
        ("make-it-3d", [(WORDS,), (BUILTIN,)], [(SHOWN,)]),
        ("dreamcraft3d", [(WORDS, SHOWN), (BUILTIN, WORDS)], [(WORDS,)]),
    ],
)
def test_priors_that_cannot_follow_a_recipe_are_refused_with_those_that_can(
    name: str, able: list[tuple[StagePrior, ...]], unable: list[tuple[StagePrior, ...]]
) -> None:
    for priors in able:
        check_priors(named(name), both(*priors))
    for priors in unable:
        with pytest.raises(UsageError) as refused:
            check_priors(named(name), both(*priors))
        assert priors[0].name in refused.value.what and "--prior" in refused.value.next_step


def test_a_misspelt_recipe_is_answered_with_the_one_that_was_meant() -> None:
    with pytest.raises(UsageError, match="Did you mean 'magic123'"):
        named("magik123")


def test_published_weights_keep_their_ratio_in_this_programs_unit() -> None:
    """A mean over pixels and channels times 1000 beside a sum over latents times 0.025."""
    found = reference_weights(Published(1000.0, 100.0, depth=0.05, words=0.025), 0.025, 4096)
    error, correlation = 0.01, 0.9
    ours = (
        found["colour"] * 4096 * 3 * error,
        found["mask"] * 4096 * error,
        found["depth"] * 4096 * (1 - correlation) / 2,
    )
    theirs = 1000 * error, 100 * error, 0.05 * (1 - correlation)
    assert [a * 0.025 for a in ours] == pytest.approx(theirs)


@pytest.mark.parametrize("lead", [0, 1])
def test_magic123s_two_priors_keep_their_ratio_whichever_leads(lead: int) -> None:
    pair = (WORDS, SHOWN) if lead == 0 else (SHOWN, WORDS)
    part = named("magic123").coarse
    weights = {prior.name: prior_weight(part, prior, pair[0]) for prior in pair}
    assert weights[pair[0].name] == 1
    assert weights["zero123-xl"] / weights["sd15"] == pytest.approx(40)
    coarse = followed("magic123", *pair).coarse
    colour = coarse.reference.colour * 3 * 4096 / weights["zero123-xl"]
    assert colour == pytest.approx(1000)  # beside 1 of the prior that is shown the picture


def test_each_prior_is_guided_as_the_recipe_says_for_its_kind() -> None:
    chosen = followed("magic123", WORDS, SHOWN)
    assert chosen.recipe == "magic123"
    assert chosen.coarse.guidance.scale == (100.0, 100.0) and chosen.coarse.guidance.times.start == (0.2, 0.6)
    assert chosen.coarse.added_guidance[0].guidance.scale == (5.0, 5.0)
    assert chosen.fine.guidance.times.end == (0.02, 0.5) and chosen.fine.reference.depth == 0


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if "builtin" in recipe.priors])
def test_the_built_in_prior_keeps_its_scales_and_stays_within_what_it_was_taught(name: str) -> None:
    plain, chosen = presets.resolve(PRESETS["draft"], both(BUILTIN), imagine=0.5), followed(name, BUILTIN)
    for own, now in ((plain.coarse, chosen.coarse), (plain.fine, chosen.fine)):
        assert now.guidance.scale == own.guidance.scale and now.guidance.weighting == own.guidance.weighting
        assert min(now.guidance.times.end) >= 0.3
        low, high = now.sampling.elevation
        assert ViewSampling().elevation[0] <= low < high <= ViewSampling().elevation[1]
        assert now.reference.colour == own.reference.colour
    assert (chosen.coarse, chosen.fine) != (plain.coarse, plain.fine)


def test_following_again_changes_nothing_so_that_refine_can() -> None:
    once = followed("dreamcraft3d", BUILTIN)
    assert follow(once, "dreamcraft3d", both(BUILTIN), CAMERA) == once
    assert Settings.from_json(once.to_json()) == once


def test_views_grow_from_the_picture_to_all_around() -> None:
    sampling = followed("dreamcraft3d", BUILTIN).coarse.sampling
    assert sampling.centre == CAMERA and sampling.growth == ((0.0, 0.0), (0.04, 1.0))

    def off(progress: float) -> tuple[float, float]:
        """Mean distance from the picture's azimuth and elevation, degrees."""
        views = sample_views(400, sampling, torch.Generator().manual_seed(0), progress=progress)
        turn = torch.remainder(views.azimuth - math.radians(30) + math.pi, 2 * math.pi) - math.pi
        return math.degrees(turn.abs().mean()), math.degrees((views.elevation - math.radians(20)).abs().mean())

    assert off(0.0) == pytest.approx((0, 0), abs=1e-3)
    assert off(0.02)[0] == pytest.approx(45, abs=2)
    assert off(0.04) == off(1.0) and off(1.0)[0] == pytest.approx(90, abs=2)


def test_make_it_3d_looks_at_the_near_sides_before_all_and_at_outline_and_depth_before_colour() -> None:
    coarse = followed("make-it-3d", BUILTIN).coarse
    assert [coarse.sampling.share_at(progress) for progress in (0.0, 0.39, 0.4, 1.0)] == [0.25, 0.25, 1, 1]
    assert coarse.reference.colour_from > 0 and coarse.reference.depth > 0


def test_without_growth_the_same_views_are_drawn_as_ever() -> None:
    plain = sample_views(8, ViewSampling(), torch.Generator().manual_seed(1))
    early = sample_views(8, ViewSampling(), torch.Generator().manual_seed(1), progress=0.0)
    assert torch.equal(plain.azimuth, early.azimuth) and torch.equal(plain.elevation, early.elevation)
    grown = replace(ViewSampling(), growth=((0.0, 0.0), (0.5, 1.0)))
    assert torch.equal(plain.azimuth, sample_views(8, grown, torch.Generator().manual_seed(1), progress=0.5).azimuth)


def test_every_number_of_a_recipe_is_told_whom_it_follows() -> None:
    assert all("arXiv" in recipe.follows for recipe in recipes.RECIPES.values())

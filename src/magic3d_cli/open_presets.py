"""The presets draft, standard and paper for priors that take any words: Stable Diffusion's and DeepFloyd IF's kind.

They know much and see little at a time: a step tells less than one with the built-in prior, there is no volume to begin
with, and the view is told in words. So they take the numbers that are known to work with them, from

    [ts]    threestudio's magic3d-coarse-sd.yaml, magic3d-coarse-if.yaml and magic3d-refine-sd.yaml, with the defaults
            of its cameras (data/uncond.py) and its material (commit 28d9d80)
    [sd]    stable-dreamfusion's main.py (commit 5550b91)
    [GD]    GaussianDreamer, 2310.08529, which begins with a 3D prior's shape
    [paper] Magic3D, 2211.10440
    [m]     chosen to suit this program; none of it was seen to work with full-size weights

threestudio's box is twice as large as this one, with twice the samples a ray (512) and twice the finest resolution of
the hash grid (4096): cells and steps are the same as here, and so are distances of cameras.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from magic3d_cli.settings import (
    AUTO,
    BALL,
    AssetSettings,
    CoarseSettings,
    FieldSettings,
    FineSettings,
    GuidanceSettings,
    Settings,
    StagePrior,
    TimestepSchedule,
    ViewSampling,
)

VIEWS = ViewSampling(
    elevation=(-10.0, 90.0),  # [paper], and [ts] by default and for IF; its files for Stable Diffusion stop at 45
    fov=(40.0, 70.0),  # [ts]
    distance=(1.5, 2.0),  # [ts]: half-heights of 0.55 to 1.4
    look_at_jitter=0.2,  # [ts], [sd]; their jitter of the camera's position is in the ranges drawn from
    roll_jitter=0.02,  # [ts], [sd]
    light_by_angle=True,  # [ts], within 60 degrees of the camera [paper]; its lights are points 0.8 to 1.5 away
    ambient=(0.0, 1.0),  # [ts] soft shading
    shading=(0.25, 0.375, 0.375),  # [ts]: lit three times of four, half of them without texture
    albedo_first=0.2,  # [ts]: 2,001 of 10,000 steps
    solid_background=0.5,  # [m] [ts] has none, and 0.5 where it turns them on; fog cannot hide before a changing one
)
ZOOMED_VIEWS = replace(VIEWS, fov=(30.0, 45.0), albedo_first=0.0)  # [ts] refine: half-heights of 0.40 to 0.83
"""Of the fine stage."""

# A shape that is given fills the box, while what grows from a ball has half that size: cameras keep farther off [m].
_OF_A_SHAPE: dict[str, Any] = {"distance": None, "albedo_first": 0.0}
SHAPE_VIEWS = replace(VIEWS, fov=(30.0, 50.0), half_height=(0.75, 1.3), **_OF_A_SHAPE)
ZOOMED_SHAPE_VIEWS = replace(ZOOMED_VIEWS, fov=(30.0, 40.0), half_height=(0.6, 1.15), **_OF_A_SHAPE)
_ALL_VIEWS = (VIEWS, ZOOMED_VIEWS, SHAPE_VIEWS, ZOOMED_SHAPE_VIEWS)

_LATENTS = 64.0  # `coarse.regularisers.PIXELS`, by which this program multiplies the weights of regularisers
_COARSE = CoarseSettings(
    steps=5000,
    init=AUTO,
    views=2,
    sampling=VIEWS,
    sparsity=1.0 / _LATENTS,  # [ts] 1
    orientation_first=10.0 / _LATENTS,  # [ts] 10 at first,
    orientation=1000.0 / _LATENTS,  # 1000 later,
    orientation_until=0.5,  # after 5,000 of 10,000 steps
)
_FINE = FineSettings(
    steps=3000,
    views=2,
    sampling=ZOOMED_VIEWS,
    surface_resolution=128,
    geometry_lr=2e-2,  # [m] [ts] 1e-2 in world units is a cell a step here, which tears; so it may go 60 in 3,000 steps
)

PRESETS: dict[str, Settings] = {
    # A quarter of [ts]'s 10,000 and 5,000 steps of one view: minutes on a GPU of 8 GB, and a sketch.
    "draft": Settings(
        preset="draft",
        coarse=replace(_COARSE, steps=2500, views=1),
        fine=replace(_FINE, steps=1250, views=1, render_size=256, grid_size=96),
        asset=AssetSettings(faces=15_000, texture_size=1024, unwrap_seconds=45.0),
    ),
    # The steps of [paper] with two views: 10,000 views in all as [ts], and 6,000 for its 5,000. 8 GB do.
    "standard": Settings(
        preset="standard",
        coarse=_COARSE,
        fine=_FINE,
        asset=AssetSettings(faces=20_000, texture_size=1024, unwrap_seconds=45.0),
    ),
    # [paper], batch 32: 59 GB at once (examples/bench.md), on smaller GPUs in parts with the same gradient. Its grid of
    # 256^3 cells of occupancy is 128^3 here: a cell is as wide as a step through it.
    "paper": Settings(
        preset="paper",
        coarse=replace(_COARSE, init=BALL, views=32),
        fine=replace(_FINE, views=32),
        asset=AssetSettings(faces=40_000),
    ),
}

# Finer levels than the volume that is fitted stay near zero until the prior pulls on them [m].
SHAPE_FIELD = FieldSettings(levels=11, log2_size=19, base_resolution=8, finest_resolution=1024, density_gain=10.0)
_SHAPED: dict[str, dict[str, Any]] = {
    "draft": {"steps": 1200},  # [GD], with one view for its four
    "standard": {"steps": 1200, "views": 4},  # [GD]
}
"""Changes of the coarse stage, by preset, where the shape is there from the beginning."""
SHAPED_GUIDANCE = GuidanceSettings(times=TimestepSchedule(start=(0.02, 0.98), end=(0.02, 0.55), anneal=0.4))
"""The prior may change the shape at first; then the noise that would draw it anew is left out: at most 0.55 after 500
of 1200 steps [GD, the configuration of its code]."""
PIXEL_SCALE = (20.0, 20.0)
"""Guidance scale of priors on pixels, DeepFloyd IF [ts]; those on latents have [paper]'s and [ts]'s 100."""


def coarse_from(coarse: CoarseSettings, preset: str, init: str) -> CoarseSettings:
    """The coarse stage of a preset here with a beginning; for a shape, with a field that is fitted to it."""
    if init == BALL:
        return replace(coarse, init=init)
    return replace(coarse, init=init, field=SHAPE_FIELD, sampling=SHAPE_VIEWS, **_SHAPED.get(preset, {}))


def fine_from(fine: FineSettings, init: str) -> FineSettings:
    """The fine stage of a preset here, for what the coarse one began with."""
    return fine if init in (AUTO, BALL) else replace(fine, sampling=ZOOMED_SHAPE_VIEWS)


def usual_views(sampling: ViewSampling) -> ViewSampling:
    """What priors see that were taught with cameras or pictures, in place of the views of priors that were not."""
    return ViewSampling() if sampling in _ALL_VIEWS else sampling


def shortfall(chosen: Settings, priors: Sequence[StagePrior]) -> str | None:
    """What to say where settings cannot suffice for the coarse stage's priors; None where they can."""
    words = all(prior.takes_any_words for prior in priors)
    if not words or chosen.preset != "draft" or chosen.coarse.init != BALL:
        return None
    name = Path(priors[0].name).name
    return (
        f"From a ball, the preset draft is a sketch with {name}: a quarter of the steps that are known to make things. "
        "Take --preset standard; or begin with a shape: --init 'builtin:a dog', with a noun that is like it."
    )

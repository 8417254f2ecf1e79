"""The presets draft, standard and paper, and the settings of a run: a preset with what its priors need.

PRESETS are for the built-in prior; those of priors that take any words are in `open_presets`.

Sources: [m] chosen by measurement on two CPU cores; the others as in `settings`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from magic3d_cli import open_presets
from magic3d_cli.errors import UsageError
from magic3d_cli.settings import (
    AUTO,
    BALL,
    BSD,
    EDITED_VOLUME,
    PICTURE_SHAPE,
    SDS,
    VOLUME,
    VSD,
    AddedGuidance,
    AssetChoices,
    AssetSettings,
    CoarseSettings,
    FieldSettings,
    FineSettings,
    GuidanceSettings,
    Settings,
    StagePrior,
    TimestepSchedule,
    VariationalSettings,
    ViewSampling,
    learning_guidance,
)

# Small grids and few views keep a step below a tenth of a second on two cores [m].
_CPU_FIELD = FieldSettings(
    levels=9, log2_size=15, base_resolution=8, finest_resolution=256, hidden=32, density_gain=10.0
)

# The built-in prior predicts clean images of one object a style, so its guess itself is the target: weight 1 on the
# clean image, and low scales. Its guess is good from noise alone; at small noise it keeps whatever fog it is shown and
# its small errors in colour add up over the steps (below 0.3 a red car turned crimson), so times stay high [m].
_BUILTIN_COARSE = GuidanceSettings(
    scale=(2.0, 1.0),
    times=TimestepSchedule(start=(0.7, 0.98), end=(0.4, 0.7), anneal=0.8),
    weighting="uniform",
    clean_clip=True,
)
_BUILTIN_FINE = replace(
    _BUILTIN_COARSE,
    scale=(1.0, 1.0),  # more makes colours too strong (a car's grey panes cyan), and thin parts no better [m]
    times=TimestepSchedule(start=(0.5, 0.78), end=(0.3, 0.6), anneal=0.8),
)
# A shape that is there already is not to be drawn anew: less noise, and only steps enough to sharpen it [m].
_BUILTIN_SHAPED = replace(
    _BUILTIN_COARSE, scale=(1.0, 1.0), times=TimestepSchedule(start=(0.4, 0.7), end=(0.3, 0.6), anneal=0.8)
)
# Zero-1-to-3's kind. Scale: Magic123, DreamCraft3D, stable-dreamfusion (threestudio: 3); times: its zero123.yaml.
_PICTURE_PRIOR = GuidanceSettings(
    scale=(5.0, 5.0), times=TimestepSchedule(start=(0.4, 0.85), end=(0.2, 0.5), anneal=1 / 3)
)
# MVDream's kind (2308.16512): scale, times and rescaling of its code's mvdream-sd21-shading.yaml; both ends of the
# times go down over 8000 of 10,000 steps.
_SET_PRIOR = GuidanceSettings(
    scale=(50.0, 50.0),
    times=TimestepSchedule(start=(0.98, 0.98), end=(0.02, 0.5), anneal=0.8),
    weighting="uniform",
    rescale=0.5,
)
# The cameras of that file, whose distance is the half-height over the field of view's half tangent.
_SET_VIEWS: dict[str, Any] = {"elevation": (0.0, 30.0), "fov": (15.0, 60.0), "half_height": (0.8, 1.0)}
# It was taught with photos of whole things before white; what it is not told, it takes to be as in the picture.
_PICTURE_VIEWS: dict[str, Any] = {
    "elevation": (-10.0, 80.0),
    "shading": (0.8, 0.2, 0.0),
    "solid_background": 1.0,
    "backdrop": (1.0, 1.0, 1.0),
}
# The built-in prior's volume has 128 voxels along its side: a finer level of the hash grid would only add noise to what
# is fitted, and in a smaller table points would share entries [m].
_SHAPED_COARSE: dict[str, Any] = {
    "samples_per_ray": 128,
    "occupancy_size": 64,
    "occupancy_start": 0.0,
    "warmup": 0.0,
    "field": replace(_CPU_FIELD, levels=7, finest_resolution=128, log2_size=17),
}
# The mesh has its details from the beginning: grids fine enough to carry them, and rates that do not wash them out [m].
_SHAPED_FINE: dict[str, Any] = {"surface_resolution": 128, "geometry_lr": 2e-2, "normal_consistency": 0.08}
# A prior's own volume is the best that it knows: at the usual rates a few views at a time made it worse, twenty coarse
# steps all of its figures, fifty fine ones the detail of its colours (half of it lost) [m].
_OWN_VOLUME_COARSE: dict[str, Any] = {"lr": 2e-3}
_OWN_VOLUME_FINE: dict[str, Any] = {"lr": 1e-3}
# A picture's detail is finer than the volume's; the levels above 128 stay near zero until it pulls on them [m].
_PICTURED_FIELD: dict[str, Any] = {"levels": 10, "finest_resolution": 512, "log2_size": 18}
_SHAPED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "draft": ({"steps": 20}, {"steps": 50, "grid_size": 96}),
    "standard": ({"steps": 60}, {"steps": 180, "grid_size": 112}),
}
"""Changes of the coarse and the fine stage, by preset, where the shape is there from the beginning."""
# A few hundred steps: the terms on normals and empty space may not hold the shape back, and fog has to go [m].
_CPU_COARSE = CoarseSettings(
    steps=300,
    init=AUTO,
    views=4,
    samples_per_ray=96,
    occupancy_size=48,
    occupancy_start=2.0,
    warmup=0.4,
    sparsity=0.2,
    opaqueness=4.0,
    predicted_normal=0.3,
    orientation=1.0,
    field=_CPU_FIELD,
    guidance=_BUILTIN_COARSE,
)
# Plain walls come dented from the coarse stage, which shows in shading alone; and 80 steps must reach the depth of a
# dent, a cell or two. A tenth of this rate with half the shaded views left a toilet's and a mug's as they were [m].
_CPU_FINE = FineSettings(
    steps=80,
    views=2,
    render_size=256,
    grid_size=64,
    geometry_lr=3e-2,
    normal_consistency=0.1,
    sampling=ViewSampling(shading=(0.2, 0.4, 0.4)),
    guidance=_BUILTIN_FINE,
)

PRESETS: dict[str, Settings] = {
    "draft": Settings(
        preset="draft",
        coarse=_CPU_COARSE,
        fine=_CPU_FINE,
        asset=AssetSettings(faces=8_000, texture_size=1024, unwrap_seconds=20.0),
    ),
    "standard": Settings(
        preset="standard",
        coarse=replace(
            _CPU_COARSE,
            steps=1000,
            samples_per_ray=128,
            occupancy_size=64,
            field=replace(_CPU_FIELD, levels=10),
        ),
        fine=replace(_CPU_FINE, steps=300),
        asset=AssetSettings(faces=15_000, texture_size=1024, unwrap_seconds=45.0),
    ),
    "paper": Settings(
        preset="paper",
        coarse=CoarseSettings(guidance=_BUILTIN_COARSE),
        fine=FineSettings(guidance=_BUILTIN_FINE),
        asset=AssetSettings(faces=40_000),
    ),
}
"""For the built-in prior; see `resolve`."""
COMPILED = ("paper",)
"""Presets in which an open-vocabulary prior works long enough on a GPU to be compiled first."""


def preset(name: str) -> Settings:
    """The named preset. Raises UsageError for an unknown name."""
    if name not in PRESETS:
        raise UsageError(f"There is no preset {name!r}.", f"Use one of: {', '.join(PRESETS)}.")
    return PRESETS[name]


def _for_any_words(base: Settings, priors: Mapping[str, Sequence[StagePrior]]) -> Settings:
    """A preset with the stages of `open_presets` where the prior that leads them takes any words.

    The asset is the fine stage's. Settings that are no preset as it is, a checkpoint's, stay as they are.
    """
    own = open_presets.PRESETS.get(base.preset)
    if own is None or base != replace(PRESETS[base.preset], seed=base.seed):
        return base
    coarse, fine = (priors[stage][0].takes_any_words for stage in ("coarse", "fine"))
    return replace(
        base,
        coarse=own.coarse if coarse else base.coarse,
        fine=own.fine if fine else base.fine,
        asset=own.asset if fine else base.asset,
    )


def _begun_with(base: Settings, init: str, priors: Mapping[str, Sequence[StagePrior]]) -> Settings:
    """A preset's settings with this beginning: for another one than a ball, on finer grids.

    Also with fewer steps, unless the prior has an open vocabulary and knows nothing of the shape's details. Stages that
    a prior leads that takes any words have their own way, see `open_presets`.
    """
    own = {stage: priors[stage][0].takes_any_words for stage in ("coarse", "fine")}
    changes: dict[str, dict[str, Any]] = {"coarse": {"init": init}, "fine": {}}
    if init != BALL and base.preset in _SHAPED:
        coarse, fine = _SHAPED[base.preset]
        if priors["coarse"][0].open_vocabulary:
            coarse, fine = ({key: value for key, value in part.items() if key != "steps"} for part in (coarse, fine))
        if init == VOLUME or init.startswith(EDITED_VOLUME):
            coarse, fine = coarse | _OWN_VOLUME_COARSE, fine | _OWN_VOLUME_FINE
        if init.startswith(PICTURE_SHAPE):
            coarse = coarse | _OWN_VOLUME_COARSE  # the fine stage takes over the picture's detail, at the usual rate
        changes = {"coarse": {"init": init, **(_SHAPED_COARSE | coarse)}, "fine": _SHAPED_FINE | fine}
    return replace(
        base,
        coarse=open_presets.coarse_from(base.coarse, base.preset, init)
        if own["coarse"]
        else replace(base.coarse, **changes["coarse"]),
        fine=open_presets.fine_from(base.fine, init) if own["fine"] else replace(base.fine, **changes["fine"]),
    )


def _pictured(base: Settings, imagine: float) -> Settings:
    """Settings for a job that follows pictures: a hash grid that holds their details."""
    coarse, fine = base.coarse, base.fine
    small = base.preset in _SHAPED and coarse.field != open_presets.SHAPE_FIELD
    field = replace(_CPU_FIELD, **_PICTURED_FIELD) if small else coarse.field
    return replace(
        base,
        coarse=replace(coarse, field=field, reference=replace(coarse.reference, imagine=imagine)),
        fine=replace(fine, reference=replace(fine.reference, imagine=imagine)),
    )


def of_a_mesh(base: Settings, keep_geometry: bool) -> Settings:
    """For a mesh of a person's own: the field is fitted to it and handed over at once, without coarse steps."""
    return replace(
        base,
        coarse=replace(base.coarse, steps=0),
        fine=_kept(base.fine) if keep_geometry else base.fine,
    )


def _kept(fine: FineSettings) -> FineSettings:
    """Without steps for the shape, which stays as it is."""
    return replace(fine, freeze_geometry=True, geometry_first=0.0)


def of_an_edit(base: Settings, field: FieldSettings, keep_geometry: bool) -> Settings:
    """For an edit of a scene with such a field; without coarse steps where its shape stays."""
    coarse = replace(base.coarse, field=field, steps=0 if keep_geometry else base.coarse.steps)
    return replace(base, coarse=coarse, fine=_kept(base.fine) if keep_geometry else base.fine)


def _in_sets(stage: Any, chosen: Sequence[StagePrior], shown: bool) -> Any:
    """A stage's settings with views in sets, whole ones, as large as one of its priors is shown; at least one set.

    `shown` says that a prior is also shown a picture, which decides on the cameras.
    """
    together = max(prior.set_size for prior in chosen)
    cameras = _SET_VIEWS if together > 1 and not shown else {}
    return replace(
        stage,
        views=-(-stage.views // together) * together,
        sampling=replace(stage.sampling, together=together, **cameras),
    )


# Losses that learn the renders are shown colours alone (threestudio's prolificdreamer*.yaml: "no-material"). The mesh
# comes before its texture, by plain score distillation of its normals: in ProlificDreamer's way at scale 100 and 15,000
# of 45,000 steps, in DreamCraft3D's as many steps as the texture.
_UNLIT = (1.0, 0.0, 0.0)
_SHAPE_SHARE = {SDS: 0.0, VSD: 1 / 3, BSD: 0.5}
# Scale and times of DreamCraft3D's texture, configs/dreamcraft3d-texture.yaml.
_BOOTSTRAPPED = replace(
    VariationalSettings(), scale=2.0, times=TimestepSchedule(start=(0.05, 0.5), end=(0.05, 0.2), anneal=1.0)
)
_LEARNING: dict[str, dict[str, Any]] = {
    SDS: {},
    VSD: {"method": VSD, "normals": True},
    BSD: {"method": BSD, "normals": True, "variational": _BOOTSTRAPPED},
}


def _method_of(stage: Any) -> str:
    """What those of a stage's priors follow that can follow more than score distillation."""
    learning = learning_guidance(stage)
    return SDS if learning is None else learning.method


def _for_method(stage: Any, method: str) -> Any:
    """A stage whose priors follow this method where they followed another."""
    shading = open_presets.VIEWS.shading if method == SDS else _UNLIT
    stage = replace(stage, sampling=replace(stage.sampling, shading=shading))
    if isinstance(stage, CoarseSettings):
        return stage
    return replace(stage, geometry_first=0.0 if stage.freeze_geometry else _SHAPE_SHARE[method])


def resolve(
    base: Settings,
    priors: Mapping[str, Sequence[StagePrior]],
    *,
    seed: int | None = None,
    perp_neg: bool | None = None,
    small_encoder: bool | None = None,
    distillation: str | None = None,
    choices: AssetChoices | None = None,
    fine_preset: str | None = None,
    init: str | None = None,
    imagine: float | None = None,
    frame: tuple[float, float] | None = None,
) -> Settings:
    """The settings of a run: a preset or a checkpoint's settings, with what a person chose; None leaves a choice.

    Each stage is guided as each of its priors needs: the paper's way where the prior has an open vocabulary. What suits
    the built-in prior, a guess of one object at scale 2, leaves open-vocabulary priors foggy, and the paper's scale of
    100 burns the built-in one's colours.

    Args:
        priors: of "coarse" and "fine", the one that leads the stage first.
        fine_preset: a preset to take the fine stage and the asset from.
        choices: of the asset.
        distillation: of `settings.METHODS`, for those of the priors that can follow it.
        init: where the coarse stage begins, see `CoarseSettings.init`.
        imagine: of a job with pictures, see `ReferenceSettings`.
        frame: field of view, degrees, and half-height of the picture that a prior is shown, see `ViewSampling`.
    """
    if fine_preset is not None:
        distillation = distillation or _method_of(base.fine)
        other = _for_any_words(preset(fine_preset), priors)
        fine = replace(other.fine, guidance=replace(base.fine.guidance, method=SDS))
        if priors["fine"][0].takes_any_words:
            fine = open_presets.fine_from(fine, base.coarse.init)
        base = replace(base, preset=fine_preset, fine=fine, asset=other.asset)
    else:
        base = _for_any_words(base, priors)
    asset = base.asset if choices is None else choices.applied(base.asset)

    init = init or base.coarse.init
    if init == AUTO:
        init = VOLUME if priors["coarse"][0].has_volume else BALL
    if init != base.coarse.init:
        base = _begun_with(base, init, priors)

    if imagine is not None:
        base = _pictured(base, imagine)

    learns = (distillation or _method_of(base.coarse), distillation or _method_of(base.fine)) != (SDS, SDS)

    def guided(stage: Any, paper: GuidanceSettings, builtin: GuidanceSettings, chosen: Sequence[StagePrior]) -> Any:
        asked = stage.guidance
        paper = replace(
            paper,
            perp_neg=asked.perp_neg if perp_neg is None else float(perp_neg),
            small_encoder=asked.small_encoder if small_encoder is None else small_encoder,
            compile=base.preset in COMPILED and not learns,  # a compiler knows no hooks, and keeps the prior for both
        )
        before = _method_of(stage)
        method = distillation or before
        if method == BSD and isinstance(stage, CoarseSettings):
            method = SDS  # it is for textures
        if not any(prior.learns_renders for prior in chosen):
            method = SDS
        if method != before:
            stage = _for_method(stage, method)
        if imagine is not None or not all(prior.takes_any_words for prior in chosen):
            stage = replace(stage, sampling=open_presets.usual_views(stage.sampling))
        shown = any(prior.from_picture for prior in chosen)
        if shown and frame is not None:
            fov, half_height = ((side, side) for side in frame)
            sampling = replace(stage.sampling, fov=fov, half_height=half_height, **_PICTURE_VIEWS)
            stage = replace(stage, sampling=sampling)
        stage = _in_sets(stage, chosen, shown)
        sets = replace(_SET_PRIOR, compile=paper.compile, small_encoder=paper.small_encoder)
        if stage.init != BALL if isinstance(stage, CoarseSettings) else True:
            sets = replace(sets, times=paper.times)  # there is a shape already
        picture = replace(_PICTURE_PRIOR, compile=paper.compile, small_encoder=paper.small_encoder)
        pixels = replace(paper, scale=open_presets.PIXEL_SCALE)

        def suiting(prior: StagePrior) -> GuidanceSettings:
            if prior.from_picture:
                return picture
            if not prior.open_vocabulary:
                return builtin
            if prior.set_size > 1:
                return sets
            return replace(pixels if prior.on_pixels else paper, **_LEARNING[method])

        first, *more = map(suiting, chosen)
        added = (AddedGuidance(prior.name, prior.weight, own) for prior, own in zip(chosen[1:], more, strict=True))
        return replace(stage, guidance=first, added_guidance=tuple(added))

    return replace(
        base,
        coarse=guided(
            base.coarse,
            CoarseSettings().guidance if base.coarse.init == BALL else open_presets.SHAPED_GUIDANCE,
            _BUILTIN_COARSE if base.coarse.init == BALL else _BUILTIN_SHAPED,
            priors["coarse"],
        ),
        fine=guided(base.fine, FineSettings().guidance, _BUILTIN_FINE, priors["fine"]),
        asset=asset,
        seed=base.seed if seed is None else seed,
    )

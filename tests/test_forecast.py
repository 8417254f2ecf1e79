"""The time left that is told is the time that is left, from a tenth of the job on, whatever the first steps take."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest
import trimesh

from magic3d_cli.asset.build import build_asset
from magic3d_cli.presets import PRESETS, preset
from magic3d_cli.run import estimate
from magic3d_cli.run.forecast import FITTED, SHAPED, Forecast, asset_shares, parts_of
from magic3d_cli.settings import PICTURES_ALONE, VOLUME, Settings

BUILTIN = {"coarse": "builtin", "fine": "builtin"}
SECONDS = {
    "draft": {"small": 0.130, "coarse": 0.182, "mesh": 1.08, "fine": 0.314, "asset": 2.41},
    "standard": {"small": 0.147, "coarse": 0.196, "mesh": 1.13, "fine": 0.292, "asset": 3.77},
    "paper": {"small": 0.0, "coarse": 2.635, "mesh": 6.95, "fine": 12.817, "asset": 16.07},
}
"""What `magic3d bench` measured of each part on two CPU cores (examples/bench.md)."""


@dataclass
class Told:
    """What was said after a step, and what was so."""

    fraction: float
    left: float | None
    real: float


def job(settings: Settings, seconds: dict[str, float], noise: float = 0.0, compiling: float = 0.0) -> list[Told]:
    """Replay a run whose parts take `seconds`, its steps up to `noise` more or less, the first ones of a stage
    `compiling` more."""
    draw = random.Random(0)
    forecast, now, told = Forecast(parts_of(settings, BUILTIN)), 100.0, []
    asset = {"clean": 0.06, "simplify": 0.06, "unwrap": 0.6, "bake": 0.25, "write": 0.03}
    for part in ("coarse", "mesh", "fine", *asset):
        forecast.begin(part, 0, now)
        if part == "mesh":
            now += seconds["mesh"]
        elif part in asset:
            now += seconds["asset"] * asset[part]
        else:
            total = settings.coarse.steps if part == "coarse" else settings.fine.steps
            for step in range(1, total + 1):
                small = part == "coarse" and (step - 1) / total < settings.coarse.warmup
                now += seconds["small" if small else part] * (1 + noise * draw.uniform(-1, 1))
                if compiling and step in (1, 10):
                    forecast.compiling()
                    now += compiling
                forecast.step(step, now)
                told.append(Told(forecast.fraction(), forecast.left(now), now))
    return [Told(t.fraction, t.left, now - t.real) for t in told]


@pytest.mark.parametrize("name", PRESETS)
def test_the_whole_job_is_foretold_within_a_fifth_from_a_tenth_on(name):
    for told in job(preset(name), SECONDS[name], noise=0.3):
        if told.fraction > 0.1:
            assert told.left is not None
            # At the very end a fifth is less than a second.
            assert abs(told.left - told.real) < 0.2 * told.real + 1.5, told


def test_compilers_and_slow_first_steps_are_never_taken_for_the_pace():
    quiet = job(preset("draft"), SECONDS["draft"])
    whole = quiet[0].real
    for told in job(preset("draft"), SECONDS["draft"], compiling=40):
        assert told.left is None or told.left < 1.25 * whole
    assert job(preset("draft"), SECONDS["draft"], compiling=40)[0].left is None  # nothing is said at the first step


def test_a_step_that_takes_minutes_need_not_be_done_eight_times():
    slow = dict.fromkeys(SECONDS["paper"], 600.0)
    told = job(preset("paper"), slow)
    assert told[1].left is None and told[2].left is not None


def test_the_share_done_only_grows_and_ends_near_all():
    fractions = [told.fraction for told in job(preset("draft"), SECONDS["draft"])]
    assert all(a < b for a, b in pairwise(fractions)) and fractions[0] < 0.01 and 0.9 < fractions[-1] < 1


def test_a_job_that_goes_on_counts_what_was_done_before():
    settings = preset("draft")
    forecast = Forecast(parts_of(settings, BUILTIN))
    forecast.begin("fine", 40, 0.0)
    resumed = forecast.fraction()
    whole = job(settings, SECONDS["draft"])
    assert abs(resumed - whole[settings.coarse.steps + 39].fraction) < 1e-9
    for step in range(41, 60):
        forecast.step(step, (step - 40) * 0.3)
    left = forecast.left(19 * 0.3)
    assert left is not None and 21 * 0.3 < left < 21 * 0.3 + 5


def test_loading_a_prior_takes_no_share_but_time_runs_on():
    forecast = Forecast(parts_of(preset("draft"), BUILTIN))
    forecast.begin("coarse", 0, 0.0)
    for step in range(1, 301):
        forecast.step(step, step * 0.15)
    before, left = forecast.fraction(), forecast.left(45.0)
    forecast.begin("load the fine prior", 0, 45.0)
    assert forecast.fraction() == before
    assert forecast.left(50.0) == left is not None  # nobody knows how long it takes: the rest is still to be done
    forecast.begin("mesh", 0, 52.0)
    sooner, later = forecast.left(52.5), forecast.left(52.0)
    assert sooner is not None and later is not None and sooner < later


def test_a_job_of_pictures_alone_costs_what_one_with_the_small_prior_does():
    """Not an open prior's, beside which mesh and asset count as nothing: it was told to be done before both."""
    own = preset("draft")
    settings = replace(own, coarse=replace(own.coarse, init="picture:0123"))
    alone = parts_of(settings, {"coarse": PICTURES_ALONE, "fine": PICTURES_ALONE})
    assert alone == parts_of(settings, BUILTIN)
    assert sum(part.units(part.steps) for part in alone if part.name in ("mesh", "clean", "unwrap")) > 0


def test_an_open_prior_costs_by_its_network_and_views():
    priors = {"coarse": "deepfloyd-if-m", "fine": "sd15"}
    coarse, _, fine, *_ = parts_of(preset("paper"), priors)
    assert fine.units(1) / coarse.units(1) == pytest.approx((1.6 + 2.27) / 0.46)
    same = parts_of(preset("paper"), {"coarse": "sd15", "fine": "sd15"})
    assert same[2].units(1) == same[0].units(1)


def shaped(**asset: Any) -> Settings:
    """A draft from the prior's own volume, with further wishes for the asset."""
    found = preset("draft")
    coarse, fine = replace(found.coarse, init=VOLUME, steps=20), replace(found.fine, steps=50)
    return replace(found, coarse=coarse, fine=fine, asset=replace(found.asset, **asset))


def test_the_fit_to_a_shape_counts_and_tells_a_first_pace():
    forecast = Forecast(parts_of(shaped(), BUILTIN))
    forecast.begin("prepare", 0, 0.0)
    forecast.begin("initial shape", 0, 5.0)
    assert forecast.fraction() == 0 and forecast.left(6.0) is None
    forecast.begin("coarse", 0, 5.0 + 0.1 * FITTED)
    assert 0.1 < forecast.fraction() < 0.2
    whole = sum(part.units(part.steps) for part in forecast.parts)
    assert forecast.left(5.0 + 0.1 * FITTED) == pytest.approx(0.1 * (whole - FITTED))


def test_a_fit_that_waited_for_a_compiler_tells_no_pace():
    forecast = Forecast(parts_of(shaped(), BUILTIN))
    forecast.begin("initial shape", 0, 0.0)
    forecast.compiling()
    forecast.begin("coarse", 0, 60.0)
    assert forecast.left(60.0) is None
    forecast.begin("coarse", 0, 61.0)
    assert forecast.left(61.0) is None


@pytest.mark.parametrize(
    "asked", [{"lod": 3}, {"occlusion": True}, {"normal_map": True}, {"texture_size": 4096}, {"faces": 80_000}]
)
def test_what_is_asked_of_the_asset_is_in_the_time_that_is_told(asked):
    plain, more = (sum(asset_shares(settings).values()) for settings in (shaped(), shaped(**asked)))
    assert plain == pytest.approx(1.0) and more > 1.25
    seconds = [estimate.seconds_of(s, BUILTIN, "cpu", 0.16) for s in (shaped(), shaped(**asked))]
    assert seconds[1] - seconds[0] == pytest.approx(estimate.SHAPED_SECONDS["draft"] * SHAPED.asset * (more - plain))


def test_simpler_levels_never_set_the_share_done_back():
    """As `build_asset` tells them."""
    settings = shaped(lod=3, occlusion=True, normal_map=True)
    phases: list[str] = []
    ball = trimesh.creation.icosphere(3, 0.5)
    small = replace(settings.asset, faces=600, texture_size=64, padding=1)
    build_asset(ball.vertices, ball.faces, lambda points: points * 0 + 0.5, small, on_stage=phases.append)
    forecast, shares = Forecast(parts_of(settings, BUILTIN)), []
    for now, phase in enumerate([*phases, "write"]):
        forecast.begin(phase, 0, float(now))
        shares.append(forecast.fraction())
    assert phases[-3:] == ["LOD1", "LOD2", "LOD3"] and len(shares) == 10
    assert all(a < b for a, b in pairwise(shares))

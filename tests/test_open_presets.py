"""Priors that take any words have presets of their own, from what is known to work with them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command import magic3d
from tiny_priors import save_builtin, save_if, save_sd, save_small_encoder
from tiny_run import tiny_draft, tiny_settings

from magic3d_cli import open_presets, presets
from magic3d_cli.coarse.regularisers import regularisers
from magic3d_cli.guidance.diffusers import catalogue
from magic3d_cli.guidance.priors import WeightedPrior, choose_priors
from magic3d_cli.run import checkpoint, estimate
from magic3d_cli.scene.field import HashField
from magic3d_cli.scene.views import ALBEDO, Views, sample_views, turntable
from magic3d_cli.settings import BALL, VOLUME, Settings, StagePrior, ViewSampling

BUILTIN = StagePrior("builtin", open_vocabulary=False, has_volume=True)
WORDS, SHOWN = StagePrior("sd15"), StagePrior("zero123-xl", from_picture=True)


def resolved(preset: str, coarse: StagePrior, fine: StagePrior | None = None, *more: StagePrior, **asked) -> Settings:
    chosen = {"coarse": [coarse, *more], "fine": [fine or coarse, *more]}
    return presets.resolve(presets.PRESETS[preset], chosen, **asked)


def half_heights(sampling: ViewSampling, count: int = 4000) -> torch.Tensor:
    return sample_views(count, sampling, torch.Generator().manual_seed(0)).half_height


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_from_a_ball_the_numbers_are_threestudios(preset: str) -> None:
    found, share = resolved(preset, WORDS), 4 if preset == "draft" else 1
    coarse, fine = found.coarse, found.fine
    assert coarse.init == BALL and (coarse.lr, fine.lr) == (1e-2, 1e-2)
    assert coarse.steps * coarse.views * share >= 10_000 and fine.steps * fine.views * share >= 5_000
    grid = coarse.field
    assert (grid.levels, grid.log2_size, grid.finest_resolution, grid.density_gain) == (16, 19, 2048, 1.0)
    assert coarse.guidance.scale == fine.guidance.scale == (100.0, 100.0) and coarse.guidance.weighting == "sds"
    assert coarse.guidance.times.end == (0.02, 0.98) and fine.guidance.times.end == (0.02, 0.5)


def test_the_built_in_prior_and_those_shown_a_picture_keep_what_they_had() -> None:
    for prior in (BUILTIN, SHOWN):
        found = resolved("draft", prior, init=BALL)
        draft = presets.PRESETS["draft"]
        assert (found.coarse.steps, found.coarse.field) == (draft.coarse.steps, draft.coarse.field)
        assert found.coarse.sampling == ViewSampling() and found.coarse.orientation_first == 0


def test_each_stage_goes_by_the_prior_that_leads_it() -> None:
    builtin, words = resolved("draft", BUILTIN), resolved("draft", WORDS)
    mixed = resolved("draft", BUILTIN, WORDS)
    assert mixed.coarse == builtin.coarse and mixed.coarse.init == VOLUME
    assert (mixed.fine.steps, mixed.asset) == (words.fine.steps, words.asset)
    assert mixed.fine.sampling == open_presets.ZOOMED_SHAPE_VIEWS
    other = resolved("draft", WORDS, BUILTIN)
    assert other.coarse == words.coarse and other.fine.steps == presets.PRESETS["draft"].fine.steps


def test_with_the_built_in_prior_beside_it_views_are_those_that_one_was_taught() -> None:
    alone, both = resolved("standard", WORDS), resolved("standard", WORDS, None, BUILTIN)
    assert both.coarse.steps == alone.coarse.steps
    for stage in (both.coarse, both.fine):
        assert stage.sampling == ViewSampling() and stage.added_guidance[0].guidance.weighting == "uniform"
    assert resolved("standard", WORDS, imagine=0.5, init="picture:x").fine.sampling == ViewSampling()


def test_a_shape_takes_fewer_steps_and_a_field_that_fits_it_and_is_seen_whole() -> None:
    found, ball = resolved("draft", WORDS, init="builtin:dog"), resolved("draft", WORDS)
    assert found.coarse.steps == 1200 < ball.coarse.steps and found.fine.steps == ball.fine.steps
    assert found.coarse.field == open_presets.SHAPE_FIELD and found.coarse.guidance.times.end == (0.02, 0.55)
    assert half_heights(found.coarse.sampling).mean() > 1 and found.coarse.sampling.albedo_first == 0


def test_settings_of_a_checkpoint_stay_as_they_are_and_a_preset_asked_for_counts() -> None:
    drawn = resolved("draft", BUILTIN)
    chosen = {"coarse": [WORDS], "fine": [WORDS]}
    assert presets.resolve(drawn, chosen).fine.steps == drawn.fine.steps
    again = presets.resolve(drawn, chosen, fine_preset="standard")
    assert again.fine.steps == open_presets.PRESETS["standard"].fine.steps and again.coarse.init == VOLUME
    assert again.fine.sampling == open_presets.ZOOMED_SHAPE_VIEWS
    for name in presets.PRESETS:
        assert (once := resolved(name, WORDS)) == presets.resolve(once, chosen)
        assert Settings.from_json(json.loads(json.dumps(once.to_json()))) == once


def test_cameras_are_threestudios() -> None:
    coarse, fine = half_heights(open_presets.VIEWS), half_heights(open_presets.ZOOMED_VIEWS)
    for found, low, high in ((coarse, 0.55, 1.40), (fine, 0.40, 0.83)):
        assert low - 0.01 < found.min() < low + 0.03 and high - 0.04 < found.max() < high + 0.01
    views = sample_views(4000, open_presets.VIEWS, torch.Generator().manual_seed(1), progress=0.5)
    assert views.distance.min() >= 1.5 and views.distance.max() <= 2.0001
    elevation = torch.rad2deg(views.elevation)
    assert -10.01 < elevation.min() < -9 and 80 < elevation.max() < 90.01
    assert views.look_at is not None and views.roll is not None
    assert views.look_at.std() == pytest.approx(0.2, rel=0.05) and views.roll.std() == pytest.approx(0.02, rel=0.05)
    assert views.ambient.min() < 0.01 and views.ambient.max() > 0.99
    assert views.shading.bincount() / 4000 == pytest.approx([0.25, 0.375, 0.375], abs=0.03)


def test_the_light_is_within_60_degrees_and_as_often_at_each_angle() -> None:
    views = sample_views(4000, open_presets.VIEWS, torch.Generator().manual_seed(0))
    towards = torch.nn.functional.normalize(views.position, dim=-1)
    angle = torch.rad2deg(torch.acos((towards * views.light).sum(-1).clamp(-1, 1)))
    assert angle.max() < 60.1 and angle.mean() == pytest.approx(30, abs=1)
    usual = sample_views(4000, ViewSampling(), torch.Generator().manual_seed(0))
    assert torch.rad2deg(torch.acos((towards * usual.light).sum(-1).clamp(-1, 1))).mean() > 37


def test_a_fifth_of_the_coarse_stage_is_unlit() -> None:
    draw = {p: sample_views(400, open_presets.VIEWS, torch.Generator().manual_seed(0), progress=p) for p in (0.19, 0.2)}
    assert (draw[0.19].shading == ALBEDO).all() and not (draw[0.2].shading == ALBEDO).all()
    assert torch.equal(draw[0.19].azimuth, draw[0.2].azimuth)


def test_views_of_the_built_in_prior_are_drawn_as_ever() -> None:
    """New ranges draw no number of their own where they are not asked for: seeds keep their meaning."""
    views = sample_views(3, ViewSampling(), torch.Generator().manual_seed(0))
    assert views.look_at is None and views.roll is None
    jittered = sample_views(3, ViewSampling(look_at_jitter=0.1, roll_jitter=0.1), torch.Generator().manual_seed(0))
    for name in ("azimuth", "elevation", "fov", "half_height", "light", "backdrop", "solid_background"):
        assert torch.equal(getattr(views, name), getattr(jittered, name))


def test_what_is_looked_at_is_in_the_middle_and_a_roll_turns_the_image() -> None:
    views = turntable(5, elevation=20)
    aimed = views.replace(look_at=0.3 * torch.randn(5, 3, generator=torch.Generator().manual_seed(0)))
    assert aimed.look_at is not None
    point = torch.cat([aimed.look_at, torch.ones(5, 1)], 1)
    clip = torch.einsum("bij,bj->bi", aimed.world_to_clip(), point)
    torch.testing.assert_close(clip[:, :2], torch.zeros(5, 2), rtol=0, atol=1e-5)
    torch.testing.assert_close(aimed.position, views.position)
    frame = torch.stack(aimed.axes(), 1)
    torch.testing.assert_close(frame @ frame.mT, torch.eye(3).expand(5, 3, 3), rtol=0, atol=1e-5)
    directions = aimed.rays(9)[1]
    torch.testing.assert_close(directions[:, 4, 4], frame[:, 2], rtol=0, atol=1e-5)
    same = views.replace(look_at=torch.zeros(5, 3), roll=torch.zeros(5))
    torch.testing.assert_close(torch.stack(same.axes()), torch.stack(views.axes()), rtol=0, atol=1e-6)
    rolled = views.replace(roll=torch.full((5,), math.pi / 2))
    (right, up, _), (was_right, was_up, _) = rolled.axes(), views.axes()
    torch.testing.assert_close(right, was_up, rtol=0, atol=1e-6)
    torch.testing.assert_close(up, -was_right, rtol=0, atol=1e-6)


def test_aimed_views_are_split_and_joined_with_others() -> None:
    views = sample_views(6, open_presets.VIEWS, torch.Generator().manual_seed(0))
    assert views.look_at is not None and views.roll is not None
    parts = [views[:2], views[2:].to("cpu")]
    together = Views.concatenate(parts)
    assert together.look_at is not None and torch.equal(together.look_at, views.look_at)
    mixed = Views.concatenate([views[:2], turntable(3)])
    assert mixed.look_at is not None and mixed.roll is not None
    assert torch.equal(mixed.look_at[:2], views.look_at[:2]) and not mixed.look_at[2:].any() and len(mixed.roll) == 5
    assert Views.concatenate([turntable(1), turntable(2)]).look_at is None


def test_the_orientation_loss_grows_a_hundredfold_and_then_stays() -> None:
    field = HashField(tiny_settings().coarse.field, torch.Generator())
    weights = {term.name: term.weight for term in regularisers(resolved("draft", WORDS).coarse, field)}
    grows = weights["orientation"]
    assert callable(grows)
    assert [64 * grows(p) for p in (0.0, 0.25, 0.5, 1.0)] == pytest.approx([10, 505, 1000, 1000])


def test_pixel_priors_are_guided_at_scale_20_and_latent_ones_at_100(tmp_path: Path) -> None:
    priors = {"coarse": save_if(tmp_path / "if"), "fine": save_sd(tmp_path / "sd")}
    names = {stage: [WeightedPrior(str(folder))] for stage, folder in priors.items()}
    found = presets.resolve(presets.PRESETS["draft"], choose_priors(names, "a dog", 0, "cpu", print))
    assert (found.coarse.guidance.scale, found.fine.guidance.scale) == ((20.0, 20.0), (100.0, 100.0))


def test_a_draft_from_a_ball_is_called_a_sketch() -> None:
    assert "sketch with sd15" in str(open_presets.shortfall(resolved("draft", WORDS), [WORDS]))
    for settings, priors in (
        (resolved("standard", WORDS), [WORDS]),
        (resolved("draft", WORDS, init="builtin:dog"), [WORDS]),
        (resolved("draft", WORDS, None, BUILTIN), [WORDS, BUILTIN]),
        (resolved("draft", BUILTIN), [BUILTIN]),
    ):
        assert open_presets.shortfall(settings, priors) is None


def test_the_estimate_knows_the_small_encoder_other_priors_and_the_measured_preset() -> None:
    def minutes(chosen: Settings, device: str, teraflops: float, first: str = "sd15") -> float:
        return estimate.seconds_of(chosen, {"coarse": first, "fine": first}, device, teraflops) / 60

    paper = resolved("paper", WORDS)
    assert minutes(paper, "cuda", 760) == pytest.approx(73, rel=0.1)  # an H200, `magic3d bench`
    small = resolved("paper", WORDS, small_encoder=True)
    assert minutes(small, "cuda", 760) < 0.6 * minutes(paper, "cuda", 760)
    beside = resolved("draft", BUILTIN, None, WORDS)  # the built-in prior leads, and the other one takes the time
    assert minutes(beside, "cpu", 0.16, "builtin") > 60
    on_cpu = resolved("draft", replace(WORDS, name="minisd"), init="builtin:dog", small_encoder=True)
    assert 120 < minutes(on_cpu, "cpu", 0.16, "minisd") < 600


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with two priors, tiny presets and a small encoder."""
    save_builtin(tmp_path / "closed")
    save_sd(tmp_path / "open", scaling=(0.18215, None))
    encoder = save_small_encoder(tmp_path / "taesd")
    monkeypatch.chdir(tmp_path)
    tiny_draft(monkeypatch)
    monkeypatch.setattr("magic3d_cli.guidance.priors.small_encoder", lambda tell: encoder)
    monkeypatch.setattr(catalogue, "BUILTIN", tmp_path / "closed")
    return tmp_path


@pytest.mark.slow
def test_a_words_prior_and_the_built_in_one_make_a_thing_together_from_its_shape(folder, capsys) -> None:
    """What a machine without a GPU is best asked for."""
    command = ("generate", "a red car", "--prior", "open", "--also-prior", "builtin=0.5", "--small-encoder")
    assert magic3d(*command, "--init", "builtin:a car", "-o", "car.glb", "--device", "cpu", "--yes") == 0
    told = capsys.readouterr()
    assert "sketch" not in told.err and Path("car.glb").is_file()
    settings = checkpoint.read_header(Path("car.run") / "fine.ckpt")["settings"]
    usual = json.loads(json.dumps(presets.PRESETS["draft"].to_json()))["coarse"]["sampling"]
    for stage in ("coarse", "fine"):
        used = settings[stage]
        assert used["guidance"]["small_encoder"] is True and used["guidance"]["scale"] == [100.0, 100.0]
        (added,) = used["added_guidance"]
        assert (added["prior"], added["weight"]) == ("builtin", 0.5)
        assert used["sampling"] == usual
    assert settings["coarse"]["init"].startswith("builtin")


def test_from_a_ball_the_sketch_is_announced(folder, capsys) -> None:
    assert magic3d("generate", "a red car", "--prior", "open", "-o", "car.glb", "--device", "cpu") == 0
    assert "sketch with open" in capsys.readouterr().err

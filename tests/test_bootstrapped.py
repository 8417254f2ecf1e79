"""Bootstrapped score distillation: rounds of redrawing renders and learning them, and the score that comes of it."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command import magic3d
from test_run_resume import Stopper
from test_variational import WORDS, guide_of, load, shown
from tiny_priors import save_sd
from tiny_run import Recorder, run_tiny, tiny_settings
from torch import Tensor

from magic3d_cli import recipes
from magic3d_cli.errors import UsageError
from magic3d_cli.guidance import bootstrapped
from magic3d_cli.guidance.conditioning import condition
from magic3d_cli.guidance.diffusers import denoising
from magic3d_cli.guidance.diffusers.denoising import sample
from magic3d_cli.guidance.methods import check_method, distillation_of
from magic3d_cli.guidance.priors import STAGES
from magic3d_cli.guidance.variational import VariationalDistillation
from magic3d_cli.presets import preset, resolve
from magic3d_cli.run import checkpoint
from magic3d_cli.run.forecast import told_of_rounds
from magic3d_cli.run.interrupts import Interrupted
from magic3d_cli.scene.render import Render
from magic3d_cli.scene.views import Views, turntable
from magic3d_cli.settings import (
    BSD,
    SDS,
    VSD,
    BootstrapSettings,
    GuidanceSettings,
    Settings,
    StagePrior,
    VariationalSettings,
)
from magic3d_cli.training.distributed import Processes

NONE = torch.zeros(0)
FEW = BootstrapSettings(rounds=3, pictures=2, steps=4, rate=1e-2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sd(tmp_path_factory.mktemp("priors") / "sd")


def loss_of(folder: Path, settings: BootstrapSettings = FEW, start: float = 0.0) -> tuple[Any, list[str]]:
    prior = load(folder)
    told: list[str] = []
    own = GuidanceSettings(method=BSD, variational=VariationalSettings(scale=2.0), bootstrap=settings)
    return distillation_of(prior, condition(prior, "dragon", plain=True), own, 1, start, told.append), told


def looking(loss: Any) -> tuple[Any, list[int]]:
    """What a stage would show, and how often it was asked."""
    asked: list[int] = []

    def look(count: int) -> tuple[Render, Views]:
        asked.append(count)
        return Render(shown(loss.prior, count), NONE, NONE, NONE, NONE), turntable(count)

    return look, asked


def begin(loss: Any, progress: float, look: Any, seed: int = 0) -> None:
    loss.begin_step(progress, look, torch.Generator().manual_seed(seed), Processes())


def test_rounds_are_spread_over_the_texture_and_begin_with_it(folder: Path) -> None:
    loss, told = loss_of(folder, replace(FEW, pictures=1, steps=1), start=0.5)
    look, asked = looking(loss)
    done = []
    for step in range(12):
        begin(loss, step / 12, look)
        done.append(loss.tuned.rounds)
    assert done == [0] * 6 + [1, 1, 2, 2, 3, 3] and asked == [1, 1, 1]
    assert [text.split(":")[0] for text in told] == [f"Texture, round {n} of 3" for n in (1, 2, 3)]
    assert [text.split("strength ")[1][:4] for text in told] == ["0.50", "0.40", "0.30"]  # on the way to 0.2


def test_a_round_done_is_not_done_again_by_a_run_that_goes_on(folder: Path) -> None:
    loss, _ = loss_of(folder)
    look, asked = looking(loss)
    begin(loss, 0.4, look)
    other, told = loss_of(folder)
    other.restore(loss.state())
    begin(other, 0.5, look)
    assert len(asked) == 1 and not told and other.tuned.rounds == 2
    one, two = loss.state(), other.state()
    assert one.keys() == two.keys() and all(one[name].equal(two[name]) for name in one)
    assert any(name.startswith("tuned.") and name.endswith("up") and value.any() for name, value in one.items())


@torch.no_grad()
def test_what_is_expected_is_the_tuned_networks_and_the_rest_is_variational(folder: Path) -> None:
    loss, _ = loss_of(folder)
    begin(loss, 0.0, looking(loss)[0])
    network = copy.deepcopy(loss.prior.network)
    for name, part in loss.tuned.lora.parts.items():
        network.get_submodule(name).weight.data += part.up @ part.down
    views, time = turntable(2), torch.tensor([100, 800])
    clean, noise = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    squared = loss.prior.alphas_cumprod[time].view(-1, 1, 1, 1)
    noisy = squared.sqrt() * clean + (1 - squared).sqrt() * noise
    told, nothing = loss.conditioning.text(views), loss.conditioning.without(views)
    uncond, cond = (network(noisy, time, encoder_hidden_states=text).sample for text in (nothing, told))
    plain = loss.conditioning.plain.expand(2, -1, -1)
    renders = loss.prior.network(noisy, time, encoder_hidden_states=plain).sample  # nothing is learnt of them yet
    wanted = (1 - squared) * (uncond + 2.0 * (cond - uncond) - renders)
    found = loss.variational_gradient(clean, time, noise, views)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))
    untuned = VariationalDistillation(loss.prior, loss.conditioning, loss.settings, loss.renders)
    assert not torch.allclose(found, untuned.variational_gradient(clean, time, noise, views), atol=1e-3)


def test_each_redrawn_picture_is_learnt_with_the_words_of_its_own_view(folder: Path, monkeypatch) -> None:
    loss, _ = loss_of(folder, replace(FEW, pictures=3, steps=30))
    look, _ = looking(loss)
    pictures, texts = loss.tuned.redrawn(look, 0.3, torch.Generator().manual_seed(0))
    torch.testing.assert_close(texts, loss.conditioning.text(turntable(3)))
    seen: list[tuple[int, int]] = []
    real = denoising.predicted_and_wanted

    def noted(prior: Any, clean: Tensor, text: Tensor, time: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        known = [*texts, loss.conditioning.unconditional[0]]
        which = [next(n for n, one in enumerate(some) if one.equal(given[0])) for some, given in
                 ((pictures, clean), (known, text))]  # fmt: skip
        seen.append((which[0], which[1]))
        return real(prior, clean, text, time, noise)

    monkeypatch.setattr(denoising, "predicted_and_wanted", noted)
    monkeypatch.setattr(bootstrapped, "_UNTOLD", 0.3)
    loss.tuned._tune(pictures, texts, torch.Generator().manual_seed(0))
    assert {picture for picture, _ in seen} == {0, 1, 2}
    assert all(text in (picture, 3) for picture, text in seen)
    assert 0 < sum(text == 3 for _, text in seen) < 20  # some without words


def test_tuning_leaves_the_prior_as_it_is_and_fits_the_pictures_better(folder: Path) -> None:
    loss, _ = loss_of(folder, replace(FEW, steps=30))
    weights = copy.deepcopy(loss.prior.network.state_dict())
    pictures, texts = torch.ones(2, 4, 8, 8), loss.conditioning.text(turntable(2))

    def error() -> float:
        time, noise = torch.tensor([300, 800]), torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(9))
        with torch.no_grad(), loss.tuned.lora.applied(loss.prior.network):
            predicted, wanted = denoising.predicted_and_wanted(loss.prior, pictures, texts, time, noise)
        return float((predicted - wanted).square().mean())

    before = error()
    loss.tuned._tune(pictures, texts, torch.Generator().manual_seed(0))
    assert error() < 0.96 * before
    assert all(weights[name].equal(value) for name, value in loss.prior.network.state_dict().items())


def test_a_picture_is_redrawn_as_far_as_the_strength_says(folder: Path) -> None:
    prior = load(folder)
    text, nothing = prior.encode_prompt(["dragon", ""]).split(1)
    start = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))

    def change(strength: float) -> float:
        found = sample(prior, text, nothing, (4, 8, 8), torch.Generator().manual_seed(0), start, strength)
        return float((found - start).abs().mean())

    assert change(0.02) < 0.3 < 3 * change(0.1) < change(0.9)


def test_its_numbers_are_dreamcraft3ds_and_it_is_for_the_texture() -> None:
    words = {stage: [WORDS] for stage in STAGES}
    chosen = resolve(preset("standard"), words, distillation=BSD)
    assert chosen.coarse == resolve(preset("standard"), words).coarse
    fine, own = chosen.fine, chosen.fine.guidance
    assert (own.method, own.normals, fine.geometry_first) == (BSD, True, 0.5)
    assert (own.variational.scale, own.variational.times.start, own.variational.times.end) == (
        2,
        (0.05, 0.5),
        (0.05, 0.2),
    )
    assert (own.bootstrap.rounds, own.bootstrap.pictures, own.bootstrap.steps) == (5, 8, 200)
    assert resolve(chosen, words) == chosen and Settings.from_json(chosen.to_json()) == chosen
    assert resolve(chosen, words, distillation=VSD).fine.geometry_first == pytest.approx(1 / 3)
    # 5 x (8 x 2 x 25 x 0.35 + 400) = 2700 beside 1500 steps of two views with five evaluations
    told = told_of_rounds(fine)
    assert told is not None and "in 5 rounds" in told and "18% more" in told


def test_the_recipe_that_has_it_takes_it_over() -> None:
    words = {stage: [WORDS, StagePrior("zero123-xl", from_picture=True)] for stage in STAGES}
    base = resolve(preset("standard"), words, distillation=BSD, imagine=0.5)
    followed = recipes.follow(base, "dreamcraft3d", words, (0.0, 0.0)).fine.guidance
    assert (followed.method, followed.scale, followed.variational.scale) == (BSD, (7.5, 7.5), 2.0)
    assert recipes.follow(resolve(preset("standard"), words, imagine=0.5), "dreamcraft3d", words, None).fine.guidance.method == SDS  # fmt: skip  # noqa: E501


def test_only_the_fine_stages_prior_counts() -> None:
    builtin = StagePrior("builtin", open_vocabulary=False)
    check_method(BSD, {"coarse": [builtin], "fine": [WORDS]}, pytest.fail)
    with pytest.raises(UsageError, match="no attention"):
        check_method(BSD, {"coarse": [WORDS], "fine": [builtin]}, pytest.fail)


@pytest.mark.slow
def test_a_texture_stopped_between_rounds_ends_as_if_it_had_not_been(folder: Path, tmp_path: Path) -> None:
    settings = tiny_settings()
    base = replace(settings, coarse=replace(settings.coarse, steps=2), fine=replace(settings.fine, render_size=24))
    chosen = resolve(base, {stage: [WORDS] for stage in STAGES}, distillation=BSD)
    own = replace(chosen.fine.guidance, bootstrap=replace(FEW, steps=2))
    chosen = replace(chosen, fine=replace(chosen.fine, guidance=own))
    (tmp_path / "whole").mkdir()
    run_tiny(tmp_path / "whole" / "dragon.glb", settings=chosen, guide=guide_of(folder))
    stopper = Stopper("fine", 5)  # of 6, the last three of the texture
    with pytest.raises(Interrupted):
        run_tiny(
            tmp_path / "dragon.glb", settings=chosen, guide=guide_of(folder), observer=stopper,
            interrupts=stopper.interrupts,
        )  # fmt: skip
    run_tiny(tmp_path / "dragon.glb", settings=chosen, guide=guide_of(folder), observer=Recorder())
    one, other = (checkpoint.load(tmp_path / part / "dragon.run/fine.ckpt")[0] for part in ("", "whole"))
    assert one.keys() == other.keys() and all(one[name].equal(other[name]) for name in other)
    assert int(one["learnt/distillation/rounds"]) == 3
    assert (tmp_path / "dragon.glb").read_bytes() == (tmp_path / "whole" / "dragon.glb").read_bytes()


def test_the_built_in_prior_is_refused_at_once(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert magic3d("generate", "a red car", "--prior", "builtin", "--distillation", "bsd") == 2
    assert "no attention" in capsys.readouterr().err

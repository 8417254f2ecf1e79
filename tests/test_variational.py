"""Variational score distillation: the formula, what its LoRA learns and keeps, and whom it is for."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command import magic3d
from test_run_resume import Stopper
from tiny_priors import save_builtin, save_if, save_mvdream, save_pixart, save_sd, save_sdxl
from tiny_run import Recorder, run_tiny, tiny_draft, tiny_settings
from torch import Tensor, nn

import magic3d_cli
from magic3d_cli import assembly
from magic3d_cli.errors import Collapsed, UsageError
from magic3d_cli.guidance import variational
from magic3d_cli.guidance.conditioning import condition, view_weights
from magic3d_cli.guidance.diffusers.lora import Lora
from magic3d_cli.guidance.diffusers.prior import DiffusersPrior
from magic3d_cli.guidance.diffusers.spec import describe
from magic3d_cli.guidance.diffusion import alpha_sigma, as_clean_and_noise
from magic3d_cli.guidance.distillation import ScoreDistillation
from magic3d_cli.guidance.guide import PriorGuide
from magic3d_cli.guidance.methods import check_method
from magic3d_cli.guidance.priors import STAGES, WeightedPrior, choose_priors
from magic3d_cli.guidance.variational import RendersScore, VariationalDistillation, camera_numbers
from magic3d_cli.presets import of_a_mesh, preset, resolve
from magic3d_cli.run import checkpoint
from magic3d_cli.run.forecast import ENCODER, view_work
from magic3d_cli.run.interrupts import Interrupted
from magic3d_cli.scene.render import Render
from magic3d_cli.scene.views import Views, turntable
from magic3d_cli.settings import BSD, SDS, VSD, GuidanceSettings, Settings, StagePrior, VariationalSettings
from magic3d_cli.training.distributed import Processes
from magic3d_cli.training.terms import LearningLoss, Step

WORDS = StagePrior("sd15")
NONE = torch.zeros(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sd(tmp_path_factory.mktemp("priors") / "sd")


def load(folder: Path) -> DiffusersPrior:
    return DiffusersPrior(describe(folder, "tiny"), torch.device("cpu"), torch.float32)


def loss_of(prior: DiffusersPrior, rate: float = 1e-2, scale: float = 7.5, start: float = 0.0) -> Any:
    told = condition(prior, "dragon", plain=True)
    assert told.plain is not None
    own = VariationalSettings(rate=rate, scale=scale)
    renders = RendersScore(prior, told.plain, own, seed=1)
    return VariationalDistillation(prior, told, GuidanceSettings(method=VSD, variational=own), renders, start)


def step_of(views: Views, seed: int = 0, progress: float = 0.5) -> Step:
    return Step(views, progress, torch.Generator().manual_seed(seed), Processes())


def shown(prior: DiffusersPrior, count: int, seed: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, prior.image_size, prior.image_size, 3, generator=generator)


def in_use(loss: Any) -> None:
    """As if it had learnt: nothing of the LoRA is zero any more."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in loss.renders.lora.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))


def merged(prior: DiffusersPrior, loss: Any, views: Views) -> nn.Module:
    """Another network, whose weights are the prior's with the LoRA's added, and whose time knows the camera."""
    network = copy.deepcopy(prior.network)
    for name, part in loss.renders.lora.parts.items():
        network.get_submodule(name).weight.data += part.up @ part.down
    first, _, last = loss.renders.lora.camera
    hidden = camera_numbers(views) @ first.weight.T + first.bias
    told = (hidden * torch.sigmoid(hidden)) @ last.weight.T + last.bias
    plain = network.time_embedding.forward
    network.time_embedding.forward = lambda *given: plain(*given) + told
    return network


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@torch.no_grad()
def test_the_gradient_is_what_the_prior_expects_less_what_the_renders_are(tmp_path: Path, prediction: str) -> None:
    prior = load(save_sd(tmp_path / "sd", prediction))
    loss, views = loss_of(prior), turntable(3)
    in_use(loss)
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 3, 4, 8, 8, generator=generator)
    time = torch.tensor([20, 400, 900])
    alpha, sigma = alpha_sigma(prior.alphas_cumprod, time)
    noisy = alpha * clean + sigma * noise

    def noise_of(network: Any, text: Tensor) -> Tensor:
        output = network(noisy, time, encoder_hidden_states=text).sample
        return as_clean_and_noise(prediction, output, noisy, alpha, sigma)[1]

    told = torch.einsum("bk,kld->bld", view_weights(views), loss.conditioning.states)
    plain = prior.encode_prompt(["dragon"]).expand(3, -1, -1)
    nothing = prior.encode_prompt([""]).expand(3, -1, -1)
    uncond, cond = noise_of(prior.network, nothing), noise_of(prior.network, told)
    own = noise_of(merged(prior, loss, views), plain)
    wanted = sigma**2 * (uncond + 7.5 * (cond - uncond) - own)
    found = loss.variational_gradient(clean, time, noise, views)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))
    assert (own - noise_of(prior.network, plain)).abs().mean() > 0.01  # the LoRA has a say


@torch.no_grad()
def test_before_anything_is_learnt_at_scale_one_there_is_nothing_to_change(folder: Path) -> None:
    prior = load(folder)
    loss, views = loss_of(prior, scale=1.0), turntable(4)
    plain = loss.conditioning.plain
    loss = replace(loss, conditioning=replace(loss.conditioning, states=plain))  # no words for views
    clean, noise = torch.randn(2, 4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    time = torch.tensor([10, 300, 600, 990])
    assert not loss.variational_gradient(clean, time, noise, views).any()
    in_use(loss)
    assert loss.variational_gradient(clean, time, noise, views).any()


def test_the_prior_stays_as_it_is_bit_by_bit_whatever_is_learnt(folder: Path) -> None:
    prior = load(folder)
    text = prior.encode_prompt(["dragon"]).expand(2, -1, -1)
    noisy, time = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([100, 700])
    before, weights = prior.denoise(noisy, time, text), copy.deepcopy(prior.network.state_dict())
    loss = loss_of(prior)
    images = shown(prior, 2).requires_grad_()
    value, metrics = loss(Render(images, NONE, NONE, NONE, NONE), step_of(turntable(2)))
    value.backward()
    assert loss.finish_step(Processes())["renders_error"] > 0 and metrics["scale"] == 7.5
    assert images.grad is not None and images.grad.any()
    assert all(part.up.any() for part in loss.renders.lora.parts.values())  # it learnt
    after = prior.denoise(noisy, time, text)
    assert all(one.equal(other) for one, other in zip(before, after, strict=True))
    assert all(weights[name].equal(value) for name, value in prior.network.state_dict().items())
    assert all(parameter.grad is None for parameter in prior.network.parameters())
    assert not any(module._forward_hooks for module in prior.network.modules())


def test_the_renders_are_learnt(folder: Path) -> None:
    """As far as a random network can be bent to it."""
    prior = load(folder)
    loss, views = loss_of(prior), turntable(2)
    clean = torch.stack([torch.ones(4, 8, 8), -torch.ones(4, 8, 8)])

    def errors() -> Tensor:
        noise, found = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)), []
        for time in (torch.full((2,), t) for t in (100, 400, 900)):
            alpha, sigma = alpha_sigma(prior.alphas_cumprod, time)
            found.append((loss.renders.noise(alpha * clean + sigma * noise, time, views) - noise).square().mean())
        return torch.stack(found)

    before = errors()
    for seed in range(25):
        loss.zero_grad()
        loss.renders.learn(clean, step_of(views, seed))
        loss.finish_step(Processes())
    assert (errors() < 0.96 * before).all()


def test_parts_of_a_step_and_processes_teach_what_the_whole_step_does(folder: Path) -> None:
    prior = load(folder)
    clean, views = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(0)), turntable(4)

    class Given(Step):
        """Its draws are rows of those of all four views."""

        def draw(self, sample: Callable[[int], Tensor]) -> Tensor:
            return sample(4)[self.rows]

        rows = slice(None)

    def taught(*parts: slice) -> list[Tensor]:
        loss = loss_of(prior)
        loss.zero_grad()
        for rows in parts:
            step = Given(views[rows], 0.5, torch.Generator().manual_seed(7), Processes())
            object.__setattr__(step, "rows", rows)
            loss.renders.learn(clean[rows], step)
        seen = loss.renders._seen
        return [parameter.grad / seen for parameter in loss.renders.lora.parameters()]

    whole = taught(slice(0, 4))
    for parts in (taught(slice(0, 3), slice(3, 4)), [(a + b) / 2 for a, b in zip(
            taught(slice(0, 2)), taught(slice(2, 4)), strict=True)]):  # fmt: skip
        for one, other in zip(parts, whole, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()) + 1e-9)


def test_a_step_that_is_done_again_in_parts_forgets_what_it_had_learnt(folder: Path) -> None:
    loss = loss_of(load(folder))
    images, views = shown(loss.prior, 2), turntable(2)
    loss(Render(images, NONE, NONE, NONE, NONE), step_of(views))
    loss.zero_grad()
    assert loss.finish_step(Processes()) == {}
    assert all(parameter.grad is None for parameter in loss.renders.lora.parameters())


def test_renders_that_are_not_finite_teach_nothing_and_end_the_run(folder: Path) -> None:
    loss, before = loss_of(load(folder)), None
    before = loss.state()
    with pytest.raises(Collapsed, match="LoRA that learns the renders was not finite for 20 steps"):
        for _ in range(20):
            loss.zero_grad()
            loss.renders.learn(torch.full((1, 4, 8, 8), float("nan")), step_of(turntable(1)))
            loss.finish_step(Processes())
    after = loss.state()
    assert all(after[name].equal(before[name]) for name in before if name != "skipped")


def test_until_the_shape_is_done_it_is_score_distillation_to_the_bit(folder: Path) -> None:
    prior = load(folder)
    loss, views = loss_of(prior, start=0.5), turntable(2)
    plain = ScoreDistillation(prior, loss.conditioning, loss.settings)
    found = []
    for distillation in (loss, plain):
        images = shown(prior, 2).requires_grad_()
        value, metrics = distillation(Render(images, NONE, NONE, NONE, NONE), step_of(views, progress=0.4))
        value.backward()
        assert images.grad is not None
        found.append((images.grad, metrics))
    (one, logged), (other, usual) = found
    assert torch.equal(one, other) and logged == usual and logged["scale"] == 100
    assert loss.finish_step(Processes()) == {}
    assert loss(Render(shown(prior, 2), NONE, NONE, NONE, NONE), step_of(views, progress=0.5))[1]["scale"] == 7.5
    assert isinstance(loss, LearningLoss) and not isinstance(plain, LearningLoss)


@pytest.mark.parametrize("save", [save_if, save_pixart, save_sdxl])
def test_priors_of_other_networks_learn_too(save: Callable[[Path], Path], tmp_path: Path) -> None:
    prior = load(save(tmp_path / "prior"))
    loss, images = loss_of(prior), shown(prior, 2).requires_grad_()
    value, _ = loss(Render(images, NONE, NONE, NONE, NONE), step_of(turntable(2)))
    value.backward()
    loss.finish_step(Processes())
    learnt = [part.up for part in loss.renders.lora.parts.values()]
    assert learnt and all(up.any() and up.isfinite().all() for up in learnt)
    assert loss.renders.lora.camera[2].weight.any()
    assert images.grad is not None and images.grad.isfinite().all() and images.grad.any()


def test_a_lora_is_in_force_only_while_it_is_applied_even_after_a_fault(folder: Path) -> None:
    network = load(folder).network
    lora = Lora(network, 2, torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="a fault"), lora.applied(network):
        raise ValueError("a fault")
    assert not any(module._forward_hooks for module in network.modules())


def tiny_variational() -> Settings:
    settings = tiny_settings()
    base = replace(
        settings, coarse=replace(settings.coarse, steps=3), fine=replace(settings.fine, steps=4, render_size=24)
    )
    return resolve(base, {stage: [WORDS] for stage in STAGES}, distillation=VSD)


def guide_of(folder: Path) -> PriorGuide:
    names = {stage: [WeightedPrior(str(folder))] for stage in STAGES}
    return PriorGuide(choose_priors(names, "a dragon", 0, "cpu", print), "a dragon", 0, "cpu")


@pytest.mark.slow
def test_a_run_stopped_in_each_stage_learns_on_as_if_it_had_not_been(folder: Path, tmp_path: Path) -> None:
    settings = tiny_variational()
    (tmp_path / "whole").mkdir()
    run_tiny(tmp_path / "whole" / "dragon.glb", settings=settings, guide=guide_of(folder))
    output = tmp_path / "dragon.glb"
    for stage, step in (("coarse", 2), ("fine", 1), ("fine", 3)):  # of the shape alone, and of the texture
        stopper = Stopper(stage, step)
        with pytest.raises(Interrupted):
            run_tiny(output, settings=settings, guide=guide_of(folder), observer=stopper, interrupts=stopper.interrupts)
    run_tiny(output, settings=settings, guide=guide_of(folder), observer=Recorder())
    assert output.read_bytes() == (tmp_path / "whole" / "dragon.glb").read_bytes()
    for stage in STAGES:
        one, other = (
            checkpoint.load(tmp_path / folder / "dragon.run" / f"{stage}.ckpt")[0] for folder in ("", "whole")
        )
        assert one.keys() == other.keys() and all(one[name].equal(other[name]) for name in other)
        learnt = [name for name in one if name.startswith("learnt/distillation/lora.layers") and name.endswith("up")]
        assert learnt and all(one[name].any() for name in learnt)
        assert any(name.startswith("learnt/distillation/adam.") for name in one)


def test_each_number_of_the_settings_is_the_sources() -> None:
    chosen = resolve(preset("standard"), {stage: [WORDS] for stage in STAGES}, distillation=VSD)
    plain = resolve(preset("standard"), {stage: [WORDS] for stage in STAGES})
    for stage, usual in ((chosen.coarse, plain.coarse), (chosen.fine, plain.fine)):
        own = stage.guidance.variational
        assert stage.guidance.method == VSD and (own.scale, own.rank, own.rate) == (7.5, 4, 1e-4)
        assert (own.times.start, own.times.end) == ((0.02, 0.98), (0.02, 0.5))
        assert stage.sampling == replace(usual.sampling, shading=(1.0, 0.0, 0.0))
        assert stage.guidance.scale == usual.guidance.scale  # of the mesh's shape, which comes first
        assert usual.guidance.method == SDS
    assert chosen.fine.geometry_first == pytest.approx(1 / 3) and plain.fine.geometry_first == 0
    assert of_a_mesh(chosen, keep_geometry=True).fine.geometry_first == 0  # nothing but texture
    compiled = resolve(preset("paper"), {stage: [WORDS] for stage in STAGES}, distillation=VSD)
    assert not compiled.coarse.guidance.compile


def test_the_estimate_knows_the_steps_that_learn() -> None:
    words = {stage: [WORDS] for stage in STAGES}
    plain, learning = (resolve(preset("standard"), words, distillation=method) for method in (SDS, VSD))
    network = view_work(plain.coarse, "sd15") - ENCODER
    assert view_work(learning.coarse, "sd15") == pytest.approx(2.5 * network + ENCODER)
    assert view_work(learning.fine, "sd15") == pytest.approx(2.0 * network + ENCODER)  # a third is for the shape


def test_a_checkpoints_method_stays_unless_another_is_asked_for() -> None:
    words = {stage: [WORDS] for stage in STAGES}
    chosen = resolve(preset("standard"), words, distillation=VSD)
    assert resolve(chosen, words) == chosen
    assert resolve(chosen, words, distillation=SDS).fine == resolve(preset("standard"), words).fine
    assert Settings.from_json(chosen.to_json()) == chosen


def test_refining_with_another_preset_or_prior_keeps_what_belongs_to_the_method() -> None:
    words, builtin = ([prior] for prior in (WORDS, StagePrior("builtin", open_vocabulary=False, has_volume=True)))
    chosen = resolve(preset("draft"), {stage: words for stage in STAGES}, distillation=VSD)
    again = resolve(chosen, {stage: words for stage in STAGES}, fine_preset="standard").fine
    assert again == resolve(preset("standard"), {stage: words for stage in STAGES}, distillation=VSD).fine
    other = resolve(chosen, {stage: builtin for stage in STAGES}).fine
    assert other.guidance.method == SDS and other.geometry_first == 0 and other.sampling.shading != (1.0, 0.0, 0.0)
    led = resolve(preset("draft"), {stage: builtin + words for stage in STAGES}, distillation=VSD).fine
    assert led.geometry_first == pytest.approx(1 / 3) and led.sampling.shading == (1.0, 0.0, 0.0)
    compiled = resolve(preset("paper"), {stage: words for stage in STAGES}, distillation=BSD)
    assert not compiled.coarse.guidance.compile  # the fine stage has the same network, with hooks


def test_beside_others_only_priors_of_words_learn() -> None:
    builtin = StagePrior("builtin", open_vocabulary=False, has_volume=True)
    for first, second in ((WORDS, builtin), (builtin, WORDS)):
        stages: Any = resolve(preset("draft"), {stage: [first, second] for stage in STAGES}, distillation=VSD)
        for stage in (stages.coarse, stages.fine):
            methods = [stage.guidance.method, stage.added_guidance[0].guidance.method]
            assert methods == ([VSD, SDS] if first is WORDS else [SDS, VSD])
    told: list[str] = []
    check_method(VSD, {"coarse": [builtin], "fine": [WORDS]}, told.append)
    assert len(told) == 1 and "builtin has no attention" in told[0]
    check_method(SDS, {"coarse": [builtin]}, told.append)
    check_method(VSD, {"coarse": [WORDS]}, told.append)
    assert len(told) == 1


@pytest.mark.parametrize(
    ("prior", "reason"),
    [
        (StagePrior("builtin", open_vocabulary=False), "no attention"),
        (StagePrior("zero123-xl", from_picture=True), "told a picture"),
        (StagePrior("mvdream", set_size=4), "in sets"),
    ],
)
def test_priors_that_cannot_learn_renders_are_refused_with_the_reason(prior: StagePrior, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as refused:
        check_method(VSD, {"coarse": [prior], "fine": [prior]}, pytest.fail)
    assert "--prior sd15" in refused.value.next_step


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    tiny_draft(monkeypatch)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a red car", "--device", "cpu"], "builtin has no attention"),
        (["a red car", "--prior", "closed"], "no attention that a LoRA could change"),
        (["a red car", "--prior", "sets"], "shown views in sets"),
        (["a red car", "--prior", "mvdream", "--yes"], "mvdream is shown views in sets"),  # before the download
        (["a red car", "--prior", "sd15", "--recipe", "dreamcraft3d"], "does not go with --recipe"),
    ],
)
def test_what_it_is_not_for_is_refused_before_any_work(here: Path, arguments: list[str], message: str, capsys) -> None:
    save_builtin(here / "closed")
    save_mvdream(here / "sets")
    assert magic3d("generate", *arguments, "--distillation", "vsd", "-o", "car.glb") == 2
    err = capsys.readouterr().err
    assert message in err and "next: " in err and not Path("car.run").exists()


@pytest.mark.parametrize(
    ("method", "coarse", "fine"),
    [("vsd", "mvdream", "mvdream"), ("bsd", "sd15", "mvdream"), ("bsd", "sd15", "builtin"), ("vsd", "auto", "auto")],
)
def test_python_is_refused_as_the_command_line_is_before_a_download(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys, method: str, coarse: str, fine: str
) -> None:
    monkeypatch.setattr(assembly, "choose_priors", lambda *_, **more: pytest.fail("priors were fetched"))
    command = ("generate", "a red car", "--coarse-prior", coarse, "--fine-prior", fine, "--distillation", method)
    assert magic3d(*command, "--device", "cpu", "--yes") == 2
    said = " ".join(capsys.readouterr().err.split())
    with pytest.raises(UsageError, match="teaches a LoRA") as refused:
        magic3d_cli.generate("a red car", coarse_prior=coarse, fine_prior=fine, distillation=method, device="cpu")
    assert refused.value.what in said and refused.value.next_step in said


def test_a_prior_here_that_cannot_learn_is_refused_before_another_is_fetched(here: Path, monkeypatch) -> None:
    monkeypatch.setattr(assembly, "choose_priors", lambda *_, **more: pytest.fail("priors were fetched"))
    save_mvdream(here / "sets")
    with pytest.raises(UsageError, match="sets is shown views in sets"):
        magic3d_cli.generate("a red car", coarse_prior="sd15", fine_prior="sets", distillation="bsd", device="cpu")


def test_an_unknown_method_is_refused(here: Path, capsys) -> None:
    assert magic3d("generate", "a red car", "--distillation", "vds") == 2
    assert "Did you mean 'vsd'?" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_line_makes_a_thing_and_refines_another_way(here: Path, folder: Path, capsys) -> None:
    command = ("generate", "a dragon", "--prior", folder, "--device", "cpu", "-o", "dragon.glb")
    assert magic3d(*command, "--distillation", "vsd") == 0
    header = checkpoint.read_header(Path("dragon.run/fine.ckpt"))
    assert all(header["settings"][stage]["guidance"]["method"] == VSD for stage in STAGES)
    assert "variational" in (log := Path("dragon.run/log.jsonl").read_text()) or "renders_error" in log
    assert magic3d("refine", "dragon.run/coarse.ckpt", "-o", "same.glb") == 0
    assert magic3d("refine", "dragon.run/coarse.ckpt", "-o", "other.glb", "--distillation", "sds") == 0
    found = [checkpoint.read_header(Path(f"{n}.run/fine.ckpt"))["settings"]["fine"] for n in ("same", "other")]
    assert [fine["guidance"]["method"] for fine in found] == [VSD, SDS]
    assert Path("same.glb").read_bytes() == Path("dragon.glb").read_bytes()


def test_what_decides_on_a_render_is_told_all_of_it() -> None:
    views = turntable(2)
    told = camera_numbers(views)
    assert told.shape == (2, variational._NUMBERS) and told.abs().max() < 10
    for change in ({"fov": views.fov * 1.1}, {"roll": torch.full((2,), 0.1)}, {"backdrop": 1 - views.backdrop}):
        assert not torch.allclose(camera_numbers(views.replace(solid_background=torch.ones(2), **change)), told)

"""`magic3d bench` and `magic3d doctor`: what is measured adds up, and random weights have the big priors' shapes."""

from __future__ import annotations

import json
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import tiny_priors
import torch
from tiny_priors import is_compiled
from tiny_run import tiny_settings
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from magic3d_cli import open_presets, presets
from magic3d_cli.bench import measure as bench
from magic3d_cli.bench import random_weights as shapes
from magic3d_cli.bench.priors import SpeedGuide
from magic3d_cli.bench.random_weights import SHAPES, RandomPrior, set_size
from magic3d_cli.cli import main
from magic3d_cli.coarse import stage
from magic3d_cli.coarse.occupancy import OccupancyGrid
from magic3d_cli.coarse.stage import CoarseStage
from magic3d_cli.guidance.conditioning import condition
from magic3d_cli.guidance.diffusers import compile as compiled
from magic3d_cli.guidance.diffusers.prior import load_prior
from magic3d_cli.guidance.distillation import ScoreDistillation
from magic3d_cli.guidance.priors import STAGES
from magic3d_cli.kernels.dispatch import backends
from magic3d_cli.run import timings as ledger
from magic3d_cli.run.observer import Observer
from magic3d_cli.settings import GuidanceSettings
from magic3d_cli.training.terms import LossTerm

TERAFLOPS = {"sd15": 0.80, "sd21": 0.80, "deepfloyd-if-m": 0.23, "deepfloyd-if-l": 0.61, "deepfloyd-if-xl": 2.88}
MILLIONS = {"sd15": 859.5, "sd21": 865.9, "deepfloyd-if-m": 372, "deepfloyd-if-l": 935, "deepfloyd-if-xl": 4305}
TERAFLOPS["mvdream"], MILLIONS["mvdream"] = TERAFLOPS["sd21"], 867.6  # and two layers for the camera
TERAFLOPS["minisd"], MILLIONS["minisd"] = TERAFLOPS["sd15"], MILLIONS["sd15"]
"""Of one 64 x 64 forward pass of each network, and its parameters, as published or measured on the real ones."""


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_are_those_of_the_real_networks(name: str) -> None:
    from diffusers import UNet2DConditionModel

    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        unet: Any = UNet2DConditionModel(**SHAPES[name]["unet"])
        width = unet.config.encoder_hid_dim or unet.config.cross_attention_dim
        image = torch.empty(1, unet.config.in_channels, 64, 64)
        camera = torch.empty(1, 16) if set_size(name) > 1 else None
        unet(image, torch.empty(1, dtype=torch.int64), torch.empty(1, 77, width), class_labels=camera)
    assert sum(p.numel() for p in unet.parameters()) / 1e6 == pytest.approx(MILLIONS[name], rel=0.005)
    assert counter.get_total_flops() / 1e12 == pytest.approx(TERAFLOPS[name], rel=0.01)


def tiny_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Stable Diffusion small enough for a test, under its own name."""
    blocks = {"down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"], "up_block_types": ["UpBlock2D"] * 2}
    unet = {**blocks, "sample_size": 8, "block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 4}
    unet |= {"cross_attention_dim": 16, "attention_head_dim": 4}
    vae = {"block_out_channels": [8, 8], "down_block_types": ["DownEncoderBlock2D"] * 2, "norm_num_groups": 4}
    vae |= {"up_block_types": ["UpDecoderBlock2D"] * 2, "latent_channels": 4, "scaling_factor": 0.5}
    monkeypatch.setitem(shapes.SHAPES, "sd15", {"unet": unet, "vae": vae, "scheduler": SHAPES["sd15"]["scheduler"]})


def test_random_weights_distil_like_real_ones_and_are_never_written(tmp_path: Path, monkeypatch) -> None:
    tiny_shape(monkeypatch)
    prior = RandomPrior("sd15", tmp_path, "cpu")
    assert (prior.kind, prior.image_size, prior.camera_conditioned) == ("latent", 16, False)
    assert "random" in prior.id and not list(tmp_path.rglob("*.safetensors"))
    told = condition(prior, "a car")
    clean = prior.encode_image(torch.rand(2, 3, 16, 16))
    guess, _ = prior.denoise(clean, torch.tensor([500, 900]), told.states[:2], None)
    assert guess.shape == (2, 4, 8, 8) and guess.isfinite().all()


def test_a_small_encoder_is_measured_in_its_own_shape(tmp_path: Path) -> None:
    work = []
    for small in (True, False):
        folder = tmp_path / str(small)
        folder.mkdir()
        prior = RandomPrior("sd15", folder, "meta", small=small)
        assert (prior.kind, prior.image_size) == ("latent", 512)
        with FlopCounterMode(display=False) as counter:
            assert prior.encode_image(torch.empty(1, 3, 512, 512, device="meta")).shape == (1, 4, 64, 64)
        work.append(counter.get_total_flops() / 1e12)
    assert work == pytest.approx([0.12, 1.12], rel=0.05)


class TinyPriors:
    """A tiny built-in prior for both stages; remembers what was asked."""

    def __init__(self, folder: Path) -> None:
        self.prior = load_prior(str(tiny_priors.save_builtin(folder)), dtype=torch.float32)
        assert self.prior.vocabulary is not None
        self.told = condition(self.prior, self.prior.vocabulary.parse("a car"))
        self.asked: list[str] = []

    def distillation(self, stage: str, guidance: GuidanceSettings) -> ScoreDistillation:
        self.asked.append(stage)
        return ScoreDistillation(self.prior, self.told, guidance)

    def release(self) -> None:
        self.asked.append("release")


@pytest.mark.slow
def test_a_preset_is_predicted_from_what_its_steps_cost(tmp_path: Path) -> None:
    priors = TinyPriors(tmp_path)
    chosen = tiny_settings()
    chosen = replace(chosen, coarse=replace(chosen.coarse, views=6, warmup=0.4, warmup_render_size=16))
    found = bench.run([chosen], priors, "cpu", steps=2, views=3, observer=Observer())
    tiny = found["presets"]["tiny"]
    assert priors.asked == ["release", "coarse", "fine"] and tiny["views_measured"] == [3, 2]
    parts = tiny["parts"]
    assert [parts[name].get("steps") for name in ("coarse, small", "coarse", "fine")] == [4, 6, 6]
    whole = sum(part["steps"] * part["step"] for part in parts.values() if "step" in part)
    whole += sum(parts[name]["seconds"] for name in ("load", "mesh", "asset"))
    assert tiny["predicted_seconds"] == pytest.approx(whole)
    for name in ("coarse, small", "coarse", "fine"):
        assert parts[name]["step"] == pytest.approx(sum(parts[name]["seconds"].values()))
        assert all(seconds >= 0 for seconds in parts[name]["seconds"].values())
    # Six views are measured with three: the prior's work is doubled, and it is what a counter finds for six.
    noisy, timestep, features = torch.rand(12, 3, 16, 16), torch.full((12,), 500), torch.zeros(12, 23)
    text = torch.cat([priors.told.unconditional.expand(6, -1, -1), priors.told.states.expand(6, -1, -1)])
    priors.prior.denoise(noisy, timestep, text, features)  # decodes the caption's volume, which is done once a run
    with FlopCounterMode(display=False) as counter:
        priors.prior.denoise(noisy, timestep, text, features)
    assert parts["coarse"]["prior_flops"] == pytest.approx(counter.get_total_flops(), rel=0.05)
    assert parts["coarse"]["rays_per_second"] > 0 and parts["fine"]["triangles_per_second"] > 0


def test_a_step_in_parts_counts_the_work_of_all_of_them(tmp_path: Path) -> None:
    priors = TinyPriors(tmp_path)
    chosen = tiny_settings()
    chosen = replace(chosen, coarse=replace(chosen.coarse, views=4))
    work = []
    for at_once in (None, 2, 1):
        scene = CoarseStage(chosen, 0)
        scene._microbatches.at_once = at_once
        distillation = priors.distillation("coarse", chosen.coarse.guidance)
        found = bench._steps(scene, distillation, count=2, more=1.0, peak=1e12)
        speed = found["prior_flops"] / found["seconds"]["prior"]
        assert (found["prior_flops_per_second"], found["prior_utilisation"]) == pytest.approx((speed, speed / 1e12))
        work.append(found["prior_flops"])
    assert work == pytest.approx([work[0]] * 3, rel=0.01)


class Slow(torch.autograd.Function):
    """Nothing, with a backward pass of so many seconds."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, seconds: float) -> Tensor:
        ctx.seconds = seconds
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        time.sleep(ctx.seconds)
        return gradients[0], None


def test_the_encoders_backward_pass_is_the_encoders_and_the_scenes_is_not(tmp_path: Path, monkeypatch) -> None:
    priors = TinyPriors(tmp_path)
    resize, draw = priors.prior.encode_image, stage.render_volume
    monkeypatch.setattr(priors.prior, "encode_image", lambda images: resize(Slow.apply(images, 0.3)))

    def slowly(*arguments: Any) -> Any:
        image = draw(*arguments)
        return replace(image, rgb=Slow.apply(image.rgb, 0.6))

    monkeypatch.setattr(stage, "render_volume", slowly)
    distillation = priors.distillation("coarse", tiny_settings().coarse.guidance)
    found = bench._steps(CoarseStage(tiny_settings(), 0), distillation, count=2, more=1.0, peak=1e12)
    split = found["seconds"]
    assert 0.3 <= split["encoder"] < 0.6 <= split["backward"] < 0.9
    assert found["rest"] == pytest.approx(1 - (split["prior"] + split["encoder"]) / found["step"])


@pytest.mark.slow
@pytest.mark.parametrize("backend", [None, "aot_eager"])
def test_timing_a_prior_changes_no_bit(tmp_path: Path, monkeypatch, backend: str | None) -> None:
    tiny_shape(monkeypatch)
    monkeypatch.setattr(compiled, "BACKEND", backend)
    prior = RandomPrior("sd15", tmp_path, "cpu")
    notes: list[str] = []
    if backend:
        prior.compile(notes.append)
    told = condition(prior, "a car")
    tables = []
    timed = bench.TimedPrior(prior)
    for guiding in (prior, timed):
        scene = CoarseStage(tiny_settings(), 0)
        loss = ScoreDistillation(guiding, told, tiny_settings().coarse.guidance)
        scene.run([scene.random_views(LossTerm("distillation", loss))], until=2)
        tables.append(scene.field.table.detach().clone())
    assert torch.equal(*tables) and timed.seconds["encoder backward"] > 0
    assert len(notes) == (2 if backend else 0) and not any("uncompiled" in note for note in notes)


def test_a_step_pays_its_share_of_the_occupancy_updates_whichever_steps_are_timed(tmp_path: Path, monkeypatch) -> None:
    priors = TinyPriors(tmp_path)
    chosen = tiny_settings()
    chosen = replace(chosen, coarse=replace(chosen.coarse, warmup=0.5, occupancy_every=4))  # step 4 is timed, 8 is too
    update = OccupancyGrid.update

    def slowly(*arguments: Any) -> None:
        time.sleep(0.8)
        update(*arguments)

    monkeypatch.setattr(OccupancyGrid, "update", slowly)
    found = bench.run([chosen], priors, "cpu", 2, 2, Observer())
    parts = found["presets"]["tiny"]["parts"]
    for name in ("coarse, small", "coarse"):
        assert 0.2 <= parts[name]["seconds"]["optimizer"] < 0.4
    assert parts["fine"]["seconds"]["optimizer"] < 0.2


def test_each_part_has_its_own_peak_on_a_gpu_and_the_hosts_so_far(tmp_path: Path, monkeypatch) -> None:
    priors = TinyPriors(tmp_path)
    forgotten: list[None] = []
    monkeypatch.setattr(bench, "forget_peak", lambda: forgotten.append(None))
    peaks = iter(range(100, 200))
    monkeypatch.setattr(bench, "peak_memory", lambda: {"cuda": next(peaks), "forgotten": len(forgotten)})
    found = bench.run([tiny_settings()], priors, "cpu", 1, 2, Observer())
    parts = found["presets"]["tiny"]["parts"]
    order = enumerate(("coarse", "mesh", "fine", "asset"))
    expected = {name: {"cuda": 100 + n, "forgotten": 1 + n} for n, name in order}
    assert {name: part.get("peak_memory_bytes") for name, part in parts.items()} == {**expected, "load": None}


def test_a_gpus_peak_is_forgotten_a_hosts_is_not(monkeypatch) -> None:
    used = [7]
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: used[0])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: used.__setitem__(0, 3))
    before = ledger.peak_memory()
    ledger.forget_peak()
    after = ledger.peak_memory()
    assert (before["cuda"], after["cuda"]) == (7, 3) and after["host"] >= before["host"] > 1e7


def test_no_more_steps_are_timed_than_a_run_has(tmp_path: Path, monkeypatch) -> None:
    priors = TinyPriors(tmp_path)
    chosen = tiny_settings()
    chosen = replace(chosen, coarse=replace(chosen.coarse, warmup=0.4))
    done: list[int] = []
    work = bench._work

    def noted(stage: Any, reports: Any, views: Any) -> Any:
        done.append(len(reports))
        return work(stage, reports, views)

    monkeypatch.setattr(bench, "_work", noted)
    bench.run([chosen], priors, "cpu", 50, 2, Observer())
    assert done == [4 - bench.WARM_UP, 6 - bench.WARM_UP, 6 - bench.WARM_UP]


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    return int(stop.value.code or 0), *capsys.readouterr()


def test_bench_measures_a_prior_that_is_not_here_by_its_shape(capsys, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setitem(presets.PRESETS, "draft", tiny_settings())
    tiny_shape(monkeypatch)
    options = ("--preset", "draft", "--steps", "1", "--device", "cpu", "--quiet")
    code, out, err = answer(capsys, "bench", "--prior", "sd15", *options, "--json")
    found = json.loads(out)
    assert (code, err) == (0, "") and all("speed only" in told for told in found["priors"].values())
    assert found["presets"]["tiny"]["parts"]["fine"]["seconds"]["encoder"] > 0
    _, out, _ = answer(capsys, "bench", "--prior", "sd15", *options)
    for text in ("tiny: about ", "fine prior: random weights", " TFLOP/s, ", "; rest ", " GB host\n"):
        assert text in out
    code, out, err = answer(capsys, "bench", "--prior", "sd15", "--distillation", "vsd", *options, "--json")
    learning = json.loads(out)["presets"]["tiny"]["parts"]["coarse"]
    plain = found["presets"]["tiny"]["parts"]["coarse"]
    assert (code, err) == (0, "")
    assert learning["prior_flops"] == pytest.approx(2.5 * plain["prior_flops"])  # five evaluations in place of two
    code, _, err = answer(capsys, "bench", "--prior", "builtin", "--distillation", "vsd", *options)
    assert code == 2 and "no attention" in err


@pytest.fixture
def measured(capsys, tmp_path: Path, monkeypatch) -> Callable[..., list[tuple[str, str, bool]]]:
    """`magic3d bench` of two tiny presets; gives (preset, prior, whether compiled) of each kind of step."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    tiny_shape(monkeypatch)
    for name in ("draft", "paper"):
        for known in (presets.PRESETS, open_presets.PRESETS):
            monkeypatch.setitem(known, name, replace(tiny_settings(), preset=name))
    monkeypatch.setattr(compiled, "BACKEND", "eager")
    monkeypatch.setattr(compiled, "pays", lambda guidance, device: guidance.compile)
    seen: list[tuple[str, str, bool]] = []
    held: list[weakref.ref[Any]] = []
    steps, release = bench._steps, SpeedGuide.release

    def released(guide: SpeedGuide) -> None:
        release(guide)
        assert not any(network() for network in held), "a prior is still held where the next is loaded"

    def watched(stage, distillation, *arguments, **options):
        found = steps(stage, distillation, *arguments, **options)
        network = distillation.prior.network
        seen.append((stage.settings.preset, distillation.prior.id, is_compiled(network)))
        held.append(weakref.ref(network))
        return found

    monkeypatch.setattr(bench, "_steps", watched)
    monkeypatch.setattr(SpeedGuide, "release", released)

    def run(*arguments: str) -> list[tuple[str, str, bool]]:
        code, out, err = answer(capsys, "bench", "--steps", "1", "--device", "cpu", "--quiet", "--json", *arguments)
        assert code == 0, err
        seen.append(json.loads(out)["priors"])
        return seen

    return run


@pytest.mark.slow
def test_each_preset_is_measured_as_it_would_run(measured) -> None:
    order = ("draft", "paper", "draft")
    *seen, _ = measured("--prior", "sd15", *(argument for name in order for argument in ("--preset", name)))
    assert [(name, compiled) for name, _, compiled in seen] == [(name, name == "paper") for name in order for _ in "cf"]


@pytest.mark.parametrize("random", ["coarse", "fine", "both"])
def test_each_stage_is_measured_with_its_own_prior(measured, monkeypatch, random: str) -> None:
    monkeypatch.setitem(shapes.SHAPES, "minisd", shapes.SHAPES["sd15"])
    other = "minisd" if random == "both" else "builtin"
    one, two = (other, "sd15") if random == "fine" else ("sd15", other)
    *seen, told = measured("--preset", "draft", "--coarse-prior", one, "--fine-prior", two)
    for (_, prior, _), name, note in zip(seen, (one, two), told.values(), strict=True):
        assert prior == ("builtin" if name == "builtin" else f"random weights in the shape of {name}")
        assert note == "builtin" if name == "builtin" else f"shape of {name}, " in note and "speed only" in note


def test_each_stage_is_guided_as_its_prior_needs(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    draft = presets.preset("draft")
    for names, scales in (
        (("sd15", "builtin"), (100, 1)),
        (("builtin", "sd15"), (1, 100)),  # it begins with its own volume
        (("sd15",) * 2, (100, 100)),
    ):
        guide = SpeedGuide(dict(zip(STAGES, names, strict=True)), "a car", False, "cpu", tmp_path, print)
        suited = guide.resolve(draft, None, None)
        assert (suited.coarse.guidance.scale[0], suited.fine.guidance.scale[0]) == scales
        assert suited.coarse.steps == (20 if names[0] == "builtin" else open_presets.PRESETS["draft"].coarse.steps)
    tiny = str(tiny_priors.save_builtin(tmp_path))
    guide = SpeedGuide({"coarse": "builtin", "fine": tiny}, "a car", False, "cpu", tmp_path, print)
    assert (guide.name("coarse"), guide.name("fine")) == ("builtin", tiny)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(("--steps", "0"), "--steps 0"), (("--views", "-1"), "--views -1"), (("--preset", "best"), "'best'")],
)
def test_bench_refuses_what_cannot_be_measured(capsys, arguments: tuple[str, str], told: str) -> None:
    code, out, err = answer(capsys, "bench", *arguments)
    assert (code, out) == (2, "") and told in err and "next:" in err


def test_doctor_says_what_is_here(capsys) -> None:
    code, out, _ = answer(capsys, "doctor", "--json")
    found = json.loads(out)
    assert code == 0 and found["faults"] == []
    assert found["versions"]["torch"] == torch.__version__
    chosen = backends(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    assert found["kernels"] == {operation: str(choice) for operation, choice in chosen.items()}
    assert {"builtin, coarse", "builtin, fine"} <= found["priors"].keys()
    code, out, _ = answer(capsys, "doctor")
    assert code == 0 and out.endswith("magic3d works here.\n")


def test_doctor_names_what_is_missing_and_fails(capsys, monkeypatch, tmp_path: Path) -> None:
    from magic3d_cli.guidance.diffusers import catalogue as sources

    monkeypatch.setattr(sources, "BUILTIN", tmp_path)
    code, out, _ = answer(capsys, "doctor")
    assert code == 3 and "no diffusers pipeline" in out and "cannot work here" in out
    monkeypatch.setattr("magic3d_cli.cli.doctor.PACKAGES", ("torch", "nosuchpackage"))
    code, out, _ = answer(capsys, "doctor")
    assert code == 3 and "nosuchpackage is missing; next: pip install" in out

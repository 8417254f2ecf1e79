"""What a person may choose for priors of open vocabulary, and the built-in one has no use for."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.constants
import pytest
import torch
from command import magic3d
from guides import guided
from tiny_priors import is_compiled, save_builtin, save_sd, save_small_encoder
from tiny_run import tiny_draft

from magic3d_cli import presets
from magic3d_cli.bench import measure as bench
from magic3d_cli.guidance import guide as guide_module
from magic3d_cli.guidance.diffusers import compile as compiled
from magic3d_cli.guidance.diffusers.prior import DiffusersPrior
from magic3d_cli.run import checkpoint
from magic3d_cli.scene.render import Render
from magic3d_cli.scene.views import turntable
from magic3d_cli.training.distributed import Processes
from magic3d_cli.training.terms import Step


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with two priors, tiny presets and an empty hub cache."""
    save_builtin(tmp_path / "closed")
    save_sd(tmp_path / "open", scaling=(0.18215, None))
    monkeypatch.chdir(tmp_path)
    tiny_draft(monkeypatch)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """A hub with a small encoder; what was asked of it."""
    encoder, asked = save_small_encoder(folder / "taesd"), []

    def download(repository: str, revision: str, allow_patterns: list[str]) -> str:
        asked.append((repository, revision))
        return str(encoder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return asked


def guidance(run: str, stage: str = "fine") -> dict[str, Any]:
    return checkpoint.read_header(Path(f"{run}.run") / "fine.ckpt")["settings"][stage]["guidance"]


def test_choices_are_kept_in_the_run_and_by_refine(folder, hub, capsys) -> None:
    command = ("generate", "a red car", "--prior", "open", "--perp-neg", "--small-encoder", "-o", "car.glb")
    assert magic3d(*command) == 0
    told = capsys.readouterr().err
    assert "10 MB" in told and "licence MIT" in told  # before it is fetched
    assert hub[0][0] == "madebyollin/taesd" and len(hub[0][1]) == 40
    for stage in ("coarse", "fine"):
        used = guidance("car", stage)
        assert used["perp_neg"] == 1 and used["small_encoder"] is True
    assert magic3d(*command) == 0
    assert "finished already" in capsys.readouterr().err
    assert magic3d("refine", "car.run/coarse.ckpt", "-o", "same.glb", "--preset", "draft") == 0
    assert guidance("same") == guidance("car")
    assert magic3d("refine", "car.run/coarse.ckpt", "-o", "other.glb", "--no-perp-neg", "--no-small-encoder") == 0
    assert guidance("other") == {**guidance("car"), "perp_neg": 0, "small_encoder": False}


def test_another_choice_is_another_run(folder, hub, capsys) -> None:
    assert magic3d("generate", "a red car", "--prior", "open", "-o", "car.glb") == 0
    assert guidance("car")["perp_neg"] == 0 and guidance("car")["small_encoder"] is False and not hub
    assert magic3d("generate", "a red car", "--prior", "open", "-o", "car.glb", "--perp-neg", "--force") == 0
    assert "An earlier run was kept" in capsys.readouterr().err and guidance("car")["perp_neg"] == 1


def test_the_built_in_prior_has_no_use_for_them_and_says_so(folder, hub, capsys) -> None:
    options = ("--perp-neg", "--small-encoder", "-o", "car.glb")
    assert magic3d("generate", "a red car", "--prior", "closed", *options) == 0
    told = capsys.readouterr().err
    assert "--perp-neg is not used" in told and "--small-encoder is not used" in told
    assert guidance("car")["perp_neg"] == 0 and guidance("car")["small_encoder"] is False and not hub


def test_the_small_encoder_that_cannot_be_fetched_is_explained_before_any_work(folder, monkeypatch, capsys) -> None:
    real = huggingface_hub.snapshot_download
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: real(*a, **k, local_files_only=True))
    assert magic3d("generate", "a car", "--prior", "open", "--small-encoder", "-o", "car.glb") == 3
    told = capsys.readouterr().err
    assert "madebyollin/taesd is not in the cache" in told and "leave out --small-encoder" in told
    assert not Path("car.run").exists()


def test_the_small_encoder_is_refused_where_the_latents_are_others(folder, hub, capsys) -> None:
    save_sd(folder / "xl", scaling=(0.13025, None))
    assert magic3d("generate", "a car", "--prior", "xl", "--small-encoder", "-o", "car.glb") == 2
    assert "latents of Stable Diffusion 1 and 2" in capsys.readouterr().err and not hub


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is told by a prior that is compiled on this CPU, by a compiler that changes nothing."""
    monkeypatch.setattr(compiled, "BACKEND", "eager")
    monkeypatch.setattr(compiled, "pays", lambda settings, device: settings.compile)
    torch._dynamo.reset()
    return []


def distillation(folder: Path, told: list[str], preset: str = "paper"):
    guide, chosen = guided(folder, base=presets.PRESETS[preset], tell=told.append)
    return guide.distillation("fine", chosen.fine.guidance)


def distil(loss, seed: int = 0, views: int = 2) -> torch.Tensor:
    images = torch.rand(views, 16, 16, 3, generator=torch.Generator().manual_seed(9)).requires_grad_()
    step = Step(turntable(views), 0.5, torch.Generator().manual_seed(seed), Processes())
    loss(Render(images, *[torch.zeros(0)] * 4), step)[0].backward()
    assert images.grad is not None
    return images.grad


def test_a_compiled_prior_is_freed_before_the_next_is_loaded(folder, told, monkeypatch) -> None:
    save_sd(folder / "other", scaling=(0.18215, None))
    guide, chosen = guided(folder / "open", folder / "other", base=presets.PRESETS["paper"], tell=told.append)
    first = guide.distillation("coarse", chosen.coarse.guidance)
    distil(first)
    assert isinstance(first.prior, DiffusersPrior)
    network = weakref.ref(first.prior.network)
    del first
    load = guide_module.DiffusersPrior
    held: list[bool] = []

    def noted(*arguments: Any) -> DiffusersPrior:
        held.append(network() is not None)
        return load(*arguments)

    monkeypatch.setattr(guide_module, "DiffusersPrior", noted)
    gc.disable()
    try:
        guide.distillation("fine", chosen.fine.guidance)
    finally:
        gc.enable()
    assert held == [False] and len(told) == 2


def test_a_compiled_prior_guides_as_before_and_tells_its_time_once(folder, told) -> None:
    plain, fast = distillation(folder / "open", told, "draft"), distillation(folder / "open", told)
    assert not told and not plain.settings.compile and fast.settings.compile
    for seed in (0, 1):
        torch.testing.assert_close(distil(fast, seed), distil(plain, seed))
    for model in (fast.prior.network, fast.prior.vae.encoder):
        assert is_compiled(model)
    assert not is_compiled(plain.prior.network)
    assert [text.partition(" in ")[0] for text in told] == [
        "Compiled the image encoder for batches of 2",
        "Compiled the prior's network for batches of 4",
    ]


@pytest.mark.slow
def test_smaller_batches_are_compiled_anew_and_told(folder, told) -> None:
    fast, plain = distillation(folder / "open", told), distillation(folder / "open", told, "draft")
    for views in (2, 1, 2):
        torch.testing.assert_close(distil(fast, views=views), distil(plain, views=views))
    assert [text.partition(" in ")[0].rpartition(" ")[2] for text in told] == ["2", "4", "1", "2"]


@pytest.mark.slow
def test_what_fails_to_compile_for_smaller_batches_goes_on_as_it_is(folder, told, monkeypatch) -> None:
    fast, plain = distillation(folder / "open", told), distillation(folder / "open", told, "draft")
    distil(fast)

    def broken(network, args, kwargs) -> None:
        raise RuntimeError("Failed to find C compiler.")

    monkeypatch.setattr(compiled, "_run", broken)
    torch.testing.assert_close(distil(fast, views=1), distil(plain, views=1))
    assert len(told) == 4 and all("uncompiled" in text for text in told[2:])
    assert not is_compiled(fast.prior.network)


def test_what_fails_to_compile_runs_as_it_is_and_the_reason_is_told(folder, told, monkeypatch) -> None:
    def broken(graph: object, inputs: object) -> None:
        raise RuntimeError("Failed to find C compiler.\nPlease set CC")

    monkeypatch.setattr(compiled, "BACKEND", broken)
    fast, plain = distillation(folder / "open", told), distillation(folder / "open", told, "draft")
    torch.testing.assert_close(distil(fast), distil(plain))
    assert not is_compiled(fast.prior.network)
    assert len(told) == 2 and all("uncompiled" in text and "C compiler" in text for text in told)
    distil(fast)
    assert len(told) == 2


def test_too_little_memory_while_compiling_is_left_to_smaller_batches(folder, told, monkeypatch) -> None:
    fast, run, sizes = distillation(folder / "open", told), compiled._run, []

    def short_of_memory(network, args, kwargs) -> None:
        sizes.append(len(args[0]))
        if len(args[0]) > 2:
            raise torch.OutOfMemoryError("full")
        run(network, args, kwargs)

    monkeypatch.setattr(compiled, "_run", short_of_memory)
    with pytest.raises(torch.OutOfMemoryError):
        distil(fast, views=3)
    assert not told and not is_compiled(fast.prior.vae.encoder)
    distil(fast, views=1)
    assert sizes == [3, 1, 2] and len(told) == 2


def test_only_long_presets_of_open_priors_are_compiled_and_only_on_a_gpu(folder) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    for preset in ("draft", "standard", "paper"):
        for name, is_open in (("open", True), ("closed", False)):
            _, chosen = guided(name, base=replace(presets.PRESETS["paper"], preset=preset))
            for guidance in (chosen.coarse.guidance, chosen.fine.guidance):
                assert compiled.pays(guidance, cuda) == (is_open and preset == "paper")
                assert not compiled.pays(guidance, cpu)


def test_bench_compiles_a_prior_and_still_counts_its_work(folder, told) -> None:
    operations = []
    for preset in ("draft", "paper"):
        found = distillation(folder / "open", told, preset)
        timed = bench.TimedPrior(found.prior)
        distil(replace(found, prior=timed))
        operations.append(timed.operations)
    assert len(told) == 2 and operations[0] == operations[1] > 0

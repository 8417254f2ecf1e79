"""A prior that cannot be used is refused before any work starts, with exit code 3, what is wrong and what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from guides import guided
from tiny_priors import save_builtin, save_if, save_pixart, save_sd

from magic3d_cli.errors import EnvironmentFault
from magic3d_cli.guidance import guide as guide_module
from magic3d_cli.guidance import priors as priors_module
from magic3d_cli.guidance.conditioning import Conditioning
from magic3d_cli.guidance.diffusers import prior as prior_module
from magic3d_cli.guidance.diffusers.prior import DiffusersPrior, load_prior
from magic3d_cli.guidance.diffusers.spec import describe
from magic3d_cli.presets import PRESETS


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Priors that work."""
    root = tmp_path_factory.mktemp("good")
    save_sd(root / "sd")
    save_if(root / "if")
    save_pixart(root / "pixart")
    save_builtin(root / "builtin")
    return root


def weights(part: str, keep: int) -> Callable[[Path], None]:
    """A damage: only so many bytes of a component's weights."""

    def damage(folder: Path) -> None:
        (file,) = (folder / part).glob("*.safetensors")
        file.write_bytes(file.read_bytes()[:keep])

    return damage


def without(part: str) -> Callable[[Path], None]:
    return lambda folder: shutil.rmtree(folder / part)


def edited(file: str, remove: str = "", **changes: object) -> Callable[[Path], None]:
    """A damage: other settings in one of the files."""

    def damage(folder: Path) -> None:
        settings = {**json.loads((folder / file).read_text()), **changes}
        settings.pop(remove, None)
        (folder / file).write_text(json.dumps(settings))

    return damage


def half_the_shards(folder: Path) -> None:
    (file,) = (folder / "unet").glob("*.safetensors")
    shards = [f"diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": {"conv_in.weight": shards[0], "conv_in.bias": shards[1]}})
    )
    file.rename(folder / "unet" / shards[0])


def written_by_edm(folder: Path) -> None:
    (folder / "scheduler/scheduler_config.json").write_text(
        json.dumps({"_class_name": "EDMEulerScheduler", "prediction_type": "epsilon", "sigma_max": 80.0})
    )


_NOISE = "scheduler/scheduler_config.json"
DAMAGES = {
    "the network's weights cut short": (weights("unet", 5000), "unet.*damaged or incomplete"),
    "the text encoder's weights cut short": (weights("text_encoder", 5000), "text_encoder.*damaged or incomplete"),
    "the VAE's weights cut short": (weights("vae", 5000), "vae.*damaged or incomplete"),
    "empty weights": (weights("unet", 0), "damaged or incomplete"),
    "one of two shards": (half_the_shards, "1 of the 2 files"),
    "no tokenizer": (without("tokenizer"), "tokenizer"),
    "a tokenizer without its words": (lambda folder: (folder / "tokenizer/tokenizer.json").unlink(), "no tokenizer"),
    "a tokenizer cut short": (lambda folder: (folder / "tokenizer/tokenizer.json").write_text("{"), "no tokenizer"),
    "another's tokenizer settings": (
        lambda folder: (folder / "tokenizer/tokenizer_config.json").write_text("{}"),
        "names no token to fill up with",
    ),
    "no text encoder": (without("text_encoder"), "text_encoder"),
    "no folder of the VAE": (without("vae"), "vae"),
    "no VAE in the index": (edited("model_index.json", remove="vae"), "latents .4 channels.*no vae"),
    "a VAE left out by diffusers": (edited("model_index.json", vae=[None, None]), "latents .4 channels.*no vae"),
    "another network": (
        edited("model_index.json", unet=["diffusers", "FluxTransformer2DModel"]),
        "Flux.*flow matching",
    ),
    "Stable Diffusion 3": (edited("model_index.json", unet=["diffusers", "SD3Transformer2DModel"]), "flow matching"),
    "a class nobody knows": (edited("model_index.json", unet=["diffusers", "FancyModel"]), "FancyModel"),
    "another text encoder": (edited("model_index.json", text_encoder=["transformers", "GemmaModel"]), "GemmaModel"),
    "another VAE": (edited("model_index.json", vae=["diffusers", "AutoencoderDC"]), "AutoencoderDC"),
    "half of SDXL": (edited("unet/config.json", addition_embed_type="text_time"), "text_time.*SDXL"),
    "GLIGEN": (edited("unet/config.json", attention_type="gated"), "gated"),
    "weights of another model": (edited("unet/config.json", cross_attention_dim=24), "by config.json"),
    "another model's VAE": (edited("vae/config.json", block_out_channels=[4, 4]), "by config.json"),
    "another model's text encoder": (edited("text_encoder/config.json", hidden_size=8), "by config.json"),
    "an unknown block": (
        edited("unet/config.json", down_block_types=["FancyDownBlock2D", "DownBlock2D"]),
        "FancyDownBlock2D",
    ),
    "inpainting": (edited("unet/config.json", in_channels=9), "inpainting"),
    "an image size of null": (edited("unet/config.json", sample_size=None), "no usable sample_size: None"),
    "no image size": (edited("unet/config.json", remove="sample_size"), "no usable sample_size: None"),
    "flow matching": (edited(_NOISE, _class_name="FlowMatchEulerDiscreteScheduler"), "FlowMatch"),
    "EDM, which has no betas": (written_by_edm, "EDMEulerScheduler.*without betas"),
    "an unknown beta schedule": (edited(_NOISE, beta_schedule="fancy"), "fancy"),
    "no scheduler": (without("scheduler"), "scheduler_config"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_fine_prior_that_cannot_be_used_is_refused_at_the_start(good: Path, tmp_path: Path, damage: str) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(good / "sd", bad)
    spoil, message = DAMAGES[damage]
    spoil(bad)
    with pytest.raises(EnvironmentFault, match=message) as caught:
        guided(good / "sd", bad, "a dragon")
    assert caught.value.exit_code == 3 and caught.value.next_step


def test_a_prior_that_draws_what_it_knows_is_nothing_without_its_word_list(good: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(good / "builtin", tmp_path / "builtin"))
    (folder / "vocabulary.json").unlink()
    (folder / "vocabulary.json").mkdir()
    with pytest.raises(EnvironmentFault, match=r"vocabulary\.json, is missing"):
        guided(folder, prompt="a red dragon")


@pytest.mark.parametrize("name", ["sd", "if", "pixart", "builtin"])
def test_a_prior_that_works_passes_without_loading_weights(good: Path, monkeypatch, name: str) -> None:
    monkeypatch.setattr(prior_module, "_load", lambda *_: pytest.fail("weights were loaded"))
    guided(good / name, prompt="a red dragon")


def test_a_damaged_file_of_the_hub_cache_names_the_copy_to_delete(good: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(good / "sd", tmp_path / "sd"))
    (file,) = (folder / "unet").glob("*.safetensors")
    blob = tmp_path / "blob"
    blob.write_bytes(file.read_bytes()[:5000])
    file.unlink()
    file.symlink_to(blob)
    with pytest.raises(EnvironmentFault) as caught:
        load_prior(str(folder))
    assert f"rm {blob}" in caught.value.next_step


def test_weights_that_spoil_during_a_run_are_a_clear_fault_too(good: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(good / "sd", tmp_path / "sd"))
    prior = load_prior(str(folder))
    weights("text_encoder", 5000)(folder)
    with pytest.raises(EnvironmentFault, match="text_encoder cannot be loaded"):
        prior.encode_prompt(["a dragon"])


def test_too_little_memory_while_weights_load_is_not_taken_for_damage(good: Path, monkeypatch) -> None:
    class Greedy:
        @staticmethod
        def from_pretrained(*_: object, **__: object) -> None:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 19 bytes.")

    monkeypatch.setattr(prior_module, "class_named", lambda cls: Greedy)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        DiffusersPrior(describe(good / "sd", "sd"), torch.device("cpu"), torch.float32)


def test_a_file_is_told_from_a_hub_id(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("models").mkdir()
    Path("models/dragon.ckpt").write_bytes(b"PK")
    with pytest.raises(EnvironmentFault, match=r"models/dragon\.ckpt is a file"):
        load_prior("models/dragon.ckpt")


def test_a_prior_is_looked_up_once_in_a_run_and_loaded_from_there(good: Path, monkeypatch) -> None:
    asked: list[str] = []

    def find(name: str, tell: object) -> Path:
        asked.append(name)
        return good / "sd"

    monkeypatch.setattr(priors_module, "find", find)
    guide, _ = guided("someone/model", prompt="a dragon")
    loaded = [guide.distillation(stage, PRESETS["draft"].coarse.guidance).prior for stage in ("coarse", "fine")]
    assert asked == ["someone/model"] and loaded[0] is loaded[1] and loaded[0].id == "someone/model"


@pytest.mark.parametrize(("coarse", "fine", "times"), [("if", "if", 1), ("builtin", "builtin", 1), ("if", "sd", 2)])
def test_a_prompt_is_encoded_once_by_each_text_encoder(good: Path, monkeypatch, coarse, fine, times) -> None:
    encoded: list[DiffusersPrior] = []
    real = guide_module.condition

    def condition(prior, words, plain):
        encoded.append(prior)
        return real(prior, words, plain)

    monkeypatch.setattr(guide_module, "condition", condition)
    guide, _ = guided(good / coarse, good / fine, "a red dragon")
    found = [guide.distillation(stage, PRESETS["draft"].coarse.guidance) for stage in ("coarse", "fine")]
    assert len(encoded) == times
    alone, _ = guided(good / fine, prompt="a red dragon")
    expected = alone.distillation("fine", PRESETS["draft"].coarse.guidance)
    told, meant = found[1].conditioning, expected.conditioning
    assert isinstance(told, Conditioning) and isinstance(meant, Conditioning)
    assert torch.equal(told.states, meant.states)

"""One loader reads every prior in diffusers layout, and takes what it is from its own files."""

from __future__ import annotations

import json
import re
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_priors import save_builtin, save_if, save_pixart, save_sd, save_small_encoder

from magic3d_cli.errors import EnvironmentFault
from magic3d_cli.guidance.diffusers import catalogue, files, hub
from magic3d_cli.guidance.diffusers import prior as prior_module
from magic3d_cli.guidance.diffusers.prior import load_prior
from magic3d_cli.guidance.diffusers.spec import describe
from magic3d_cli.guidance.diffusion import alpha_sigma, as_clean_and_noise
from magic3d_cli.scene.views import turntable


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("priors")
    save_sd(root / "sd")
    save_sd(root / "sd-v", prediction="v_prediction", variant="fp16")
    save_if(root / "if")
    save_pixart(root / "pixart")
    save_builtin(root / "builtin")
    return root


def load(path: Path, **kwargs):
    return load_prior(str(path), "cpu", torch.float32, **kwargs)


SHAPES = [
    ("sd", "latent", 16, (4, 8, 8), "epsilon", False),
    ("sd-v", "latent", 16, (4, 8, 8), "v_prediction", False),
    ("if", "pixel", 16, (3, 16, 16), "epsilon", False),
    ("pixart", "latent", 16, (4, 8, 8), "epsilon", False),
    ("builtin", "pixel", 16, (3, 16, 16), "sample", True),
]


@pytest.mark.parametrize(("name", "kind", "size", "shape", "prediction", "camera_conditioned"), SHAPES)
def test_each_shape_of_prior_encodes_and_denoises(folder, name, kind, size, shape, prediction, camera_conditioned):
    prior = load(folder / name)
    assert (prior.kind, prior.image_size, prior.prediction) == (kind, size, prediction)
    assert prior.camera_conditioned == camera_conditioned
    images = torch.rand(2, 3, 40, 40, requires_grad=True)
    clean = prior.encode_image(images)
    assert clean.shape == (2, *shape)
    clean.square().sum().backward()
    assert images.grad is not None and images.grad.abs().sum() > 0
    text = prior.encode_prompt(["dragon", ""])
    features = turntable(2).camera_embedding() if camera_conditioned else None
    timestep = torch.tensor([20, 777])
    noisy = torch.randn(2, *shape)
    guess, noise = prior.denoise(noisy, timestep, text, features)
    assert guess.shape == noise.shape == noisy.shape and guess.dtype == torch.float32
    alpha, sigma = alpha_sigma(prior.alphas_cumprod, timestep)
    torch.testing.assert_close(alpha * guess + sigma * noise, noisy, atol=1e-4, rtol=1e-3)
    assert not guess.is_inference() and not guess.requires_grad


def test_a_prior_is_frozen_and_in_evaluation_mode(folder):
    prior = load(folder / "sd")
    for module in (prior.network, prior.vae):
        assert not module.training and not any(p.requires_grad for p in module.parameters())
    assert prior.vae.decoder is None


def test_a_prior_of_two_stages_gives_each_its_own_size(folder):
    coarse, fine = (load(folder / "builtin", stage=stage) for stage in ("coarse", "fine"))
    assert (coarse.image_size, fine.image_size) == (16, 32)
    assert files.weights_sha256(coarse.spec.folder) != files.weights_sha256(fine.spec.folder)
    assert "palm tree" in coarse.vocabulary.nouns and coarse.vocabulary == fine.vocabulary


def test_latents_are_the_shifted_and_scaled_mean(folder):
    prior = load(folder / "sd")
    images = torch.rand(1, 3, 16, 16)
    mean = prior.vae.encode(images * 2 - 1).latent_dist.mean
    torch.testing.assert_close(prior.encode_image(images), (mean - 0.25) * 0.5)


def test_a_small_encoder_takes_the_place_of_the_vae_and_its_latents_are_scaled_already(folder, monkeypatch):
    encoder = save_small_encoder(folder / "taesd")
    monkeypatch.setattr(prior_module, "small_encoder", lambda: encoder)
    prior = load(folder / "sd", small=True)
    assert (prior.kind, prior.image_size, prior.vae.decoder) == ("latent", 16, None)
    assert sum(p.numel() for p in prior.vae.parameters()) < 5000
    images = torch.rand(2, 3, 16, 16, requires_grad=True)
    latents = prior.encode_image(images)
    torch.testing.assert_close(latents, prior.vae.encoder(images * 2 - 1))  # neither factor nor shift of its VAE
    latents.square().sum().backward()
    assert latents.shape == (2, 4, 8, 8) and images.grad is not None and images.grad.abs().sum() > 0
    half = load_prior(str(folder / "sd"), dtype=torch.bfloat16, small=True)
    assert half.vae is not None and half.vae.dtype == torch.bfloat16  # the one it replaces wants float32


def test_a_small_encoder_fits_the_latents_of_stable_diffusion_1_and_2_alone(folder, tmp_path):
    like = save_sd(tmp_path / "sd1", scaling=(0.18215, None))
    assert describe(like, "sd1").fits_small_encoder
    assert not describe(folder / "sd", "sd").fits_small_encoder and not describe(folder / "if", "if").fits_small_encoder
    config = json.loads((like / "vae/config.json").read_text())
    del config["scaling_factor"], config["shift_factor"]  # as in Stable Diffusion 1.5's own file
    (like / "vae/config.json").write_text(json.dumps(config))
    assert describe(like, "sd1").fits_small_encoder


@pytest.mark.parametrize("name", ["sd", "if"])
def test_weights_are_laid_out_for_convolutions_in_the_asked_precision(folder, name):
    prior = load_prior(str(folder / name), dtype=torch.float16)
    convolutions = [p for part in (prior.network, prior.vae) if part for p in part.parameters() if p.ndim == 4]
    assert convolutions and all(p.is_contiguous(memory_format=torch.channels_last) for p in convolutions)
    assert prior.network.dtype == torch.float16


def test_a_vae_that_overflows_stays_in_float32_and_others_follow_the_prior(folder):
    vae = load_prior(str(folder / "sd"), dtype=torch.bfloat16).vae
    assert vae is not None and vae.dtype == torch.float32
    plain = folder / "sd-plain"
    shutil.copytree(folder / "sd", plain)
    config = json.loads((plain / "vae/config.json").read_text())
    del config["force_upcast"]  # as in Stable Diffusion 1.5, whose VAE is safe in fp16
    (plain / "vae/config.json").write_text(json.dumps(config))
    vae = load_prior(str(plain), dtype=torch.bfloat16).vae
    assert vae is not None and vae.dtype == torch.bfloat16


def test_pixel_priors_see_images_from_minus_one_to_one(folder):
    prior = load(folder / "if")
    assert prior.encode_image(torch.zeros(1, 3, 16, 16)).unique().tolist() == [-1.0]
    assert prior.encode_image(torch.ones(1, 3, 64, 64)).unique().tolist() == [1.0]


def test_the_learned_variance_is_ignored(folder):
    prior = load(folder / "if")
    noisy, text = torch.randn(1, 3, 16, 16), prior.encode_prompt(["dragon"])
    timestep = torch.tensor([500])
    raw = prior.network(noisy, timestep, text)[0]
    assert raw.shape[1] == 6
    torch.testing.assert_close(prior.denoise(noisy, timestep, text)[1], raw[:, :3])


def test_the_noise_schedule_is_the_schedulers(folder):
    expected = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square()
    expected = (1 - expected).cumprod(0).float()
    torch.testing.assert_close(load(folder / "sd").alphas_cumprod, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_a_network_that_knows_the_truth_gives_it_back_under_every_prediction_type(folder, prediction):
    alphas = load(folder / "sd").alphas_cumprod
    generator = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(3, 4, 8, 8, generator=generator) for _ in range(2))
    alpha, sigma = alpha_sigma(alphas, torch.tensor([20, 500, 980]))
    output = {"epsilon": noise, "v_prediction": alpha * noise - sigma * clean, "sample": clean}[prediction]
    found = as_clean_and_noise(prediction, output, alpha * clean + sigma * noise, alpha, sigma)
    torch.testing.assert_close(found[0], clean, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found[1], noise, atol=1e-4, rtol=1e-4)


def test_a_v_prediction_prior_is_not_read_as_epsilon(folder):
    v, text = load(folder / "sd-v"), load(folder / "sd").encode_prompt(["dragon"])
    noisy, timestep = torch.randn(1, 4, 8, 8), torch.tensor([600])
    output = v.network(noisy, timestep, text)[0]
    alpha, sigma = alpha_sigma(v.alphas_cumprod, timestep)
    torch.testing.assert_close(v.denoise(noisy, timestep, text)[0], alpha * noisy - sigma * output)


def test_timesteps_that_are_not_integers_are_refused(folder):
    prior = load(folder / "sd")
    with pytest.raises(ValueError, match="int64"):
        prior.denoise(torch.randn(1, 4, 8, 8), torch.tensor([999.0]), prior.encode_prompt(["dragon"]))


def test_timesteps_reach_the_network_unrounded_in_bfloat16(folder):
    prior = load_prior(str(folder / "if"), dtype=torch.bfloat16)
    seen = []
    prior.network.time_proj.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    prior.denoise(torch.randn(2, 3, 16, 16), torch.tensor([999, 777]), prior.encode_prompt(["dragon", ""]))
    assert seen[0].dtype == torch.int64 and seen[0].tolist() == [999, 777]


def test_view_features_are_demanded_and_used(folder):
    prior = load(folder / "builtin")
    text, noisy = prior.encode_prompt(["red car"]), torch.randn(1, 3, 16, 16)
    timestep = torch.tensor([300])
    for wrong in (None, torch.zeros(1, 7), torch.zeros(2, 23)):
        with pytest.raises(ValueError, match="view features"):
            prior.denoise(noisy, timestep, text, wrong)
    front, side = (prior.denoise(noisy, timestep, text, turntable(4).camera_embedding()[i : i + 1])[0] for i in (0, 1))
    assert not torch.allclose(front, side)


def test_a_prior_trained_with_other_view_features_is_refused(tmp_path):
    save_builtin(tmp_path, features=17)
    with pytest.raises(EnvironmentFault, match="17 view features"):
        load(tmp_path)


def test_padding_matters_to_stable_diffusion_and_not_to_pixart(folder):
    prior = load(folder / "pixart")
    text = prior.encode_prompt(["dragon"])
    assert text.shape[1] == 120 and (text[0] != 0).any(-1).sum() == 3  # <s> dragon </s>
    noisy, timestep = torch.randn(1, 4, 8, 8), torch.tensor([300])
    short = prior.denoise(noisy, timestep, text[:, :3])[0]
    torch.testing.assert_close(prior.denoise(noisy, timestep, text)[0], short, atol=1e-5, rtol=1e-4)


def test_the_text_encoder_is_freed_and_comes_back(folder):
    prior = load(folder / "if")
    first = prior.encode_prompt(["dragon"])
    prior.release_text_encoder()
    assert prior._text_encoder is None
    assert torch.equal(prior.encode_prompt(["dragon"]), first)


def test_weights_stored_in_half_precision_load(folder):
    assert (folder / "sd-v/unet/diffusion_pytorch_model.fp16.safetensors").exists()
    assert load(folder / "sd-v").network.dtype == torch.float32


def test_pickled_weights_are_refused(folder, tmp_path):
    shutil.copytree(folder / "sd", tmp_path / "sd")
    (weights,) = (tmp_path / "sd/unet").glob("*.safetensors")
    weights.unlink()
    torch.save({}, tmp_path / "sd/unet/diffusion_pytorch_model.bin")
    with pytest.raises(EnvironmentFault, match="pickled") as caught:
        load(tmp_path / "sd")
    assert caught.value.exit_code == 3 and caught.value.next_step


@pytest.mark.parametrize("damage", ["truncate", "index", "scheduler"])
def test_a_damaged_prior_is_a_clear_fault(folder, tmp_path, damage):
    target = shutil.copytree(folder / "if", tmp_path / "if")
    if damage == "truncate":
        (weights,) = (target / "unet").glob("*.safetensors")
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "index":
        (target / "model_index.json").write_text("{")
    else:
        (target / "scheduler/scheduler_config.json").unlink()
    with pytest.raises(EnvironmentFault):
        load(target)


def test_unsupported_models_are_named(folder, tmp_path):
    target = shutil.copytree(folder / "sd", tmp_path / "sd")
    config = json.loads((target / "scheduler/scheduler_config.json").read_text())
    config["_class_name"] = "FlowMatchEulerDiscreteScheduler"
    (target / "scheduler/scheduler_config.json").write_text(json.dumps(config))
    with pytest.raises(EnvironmentFault, match="FlowMatch"):
        load(target)
    index = json.loads((target / "model_index.json").read_text())
    index["unet"] = ["diffusers", "FluxTransformer2DModel"]
    (target / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(EnvironmentFault, match="Flux was trained by flow matching"):
        load(target)


def test_an_unknown_name_lists_what_exists():
    with pytest.raises(EnvironmentFault) as caught:
        load_prior("sd-fifteen")
    assert "builtin" in caught.value.next_step and "sd15" in caught.value.next_step


def test_a_directory_without_a_pipeline_is_a_clear_fault(tmp_path):
    with pytest.raises(EnvironmentFault, match=r"model_index\.json"):
        load(tmp_path)


def test_a_hub_prior_that_is_not_cached_offline_says_what_to_do(monkeypatch, tmp_path):
    import huggingface_hub

    real = huggingface_hub.snapshot_download

    def offline(*args, **kwargs):
        return real(*args, **kwargs, cache_dir=tmp_path, local_files_only=True)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(EnvironmentFault, match="not in the cache") as caught:
        load_prior("sd15")
    assert "builtin" in caught.value.next_step


def test_a_hub_prior_is_downloaded_pinned_and_without_pickles(monkeypatch, folder, tmp_path):
    import huggingface_hub
    import huggingface_hub.constants

    asked: dict[str, Any] = {}

    def download(repository, revision, allow_patterns):
        asked.update(repository=repository, revision=revision, patterns=allow_patterns)
        return str(folder / "sd")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(hub, "_measured", lambda source, patterns: source)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    told: list[str] = []
    assert catalogue.locate("sd15", "coarse", told.append) == folder / "sd"
    assert "4.3 GB" in told[0] and "OpenRAIL" in told[0]  # before a byte is fetched
    catalogue.locate("someone/model", "coarse", told.append)
    assert "someone/model, see its licence there: https://huggingface.co/someone/model" in told[1]
    assert load_prior("sd15", dtype=torch.float32).kind == "latent"
    assert asked["repository"] == catalogue.HUB["sd15"].repository and len(asked["revision"]) == 40
    load_prior("someone/model@v2", dtype=torch.float32)
    assert (asked["repository"], asked["revision"]) == ("someone/model", "v2")
    unwanted = [
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "v1-5.ckpt",
    ]
    assert not any(fnmatch(name, pattern) for name in unwanted for pattern in asked["patterns"])
    assert any(fnmatch("unet/diffusion_pytorch_model.safetensors", pattern) for pattern in asked["patterns"])


def test_size_and_licence_are_told_at_the_first_use_alone(monkeypatch, folder, tmp_path):
    import huggingface_hub
    import huggingface_hub.constants

    def download(repository, revision, allow_patterns, local_files_only=False):
        """What the hub's own would leave in its cache."""
        target = tmp_path / f"models--{repository.replace('/', '--')}" / "snapshots" / revision
        shutil.copytree(folder / ("taesd-tiny" if "taesd" in repository else "sd"), target, dirs_exist_ok=True)
        return str(target)

    save_small_encoder(folder / "taesd-tiny")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    told: list[str] = []
    for _ in range(3):
        catalogue.locate("sd15", "coarse", told.append)
        catalogue.small_encoder(told.append)
    assert ["licence CreativeML OpenRAIL-M" in told[0], "licence MIT" in told[1], len(told)] == [True, True, 2]


def test_pinned_commits_are_whole_hashes():
    for source in (*catalogue.HUB.values(), catalogue.SMALL_ENCODER):
        assert source.revision is None or re.fullmatch("[0-9a-f]{40}", source.revision)
    assert {name for name, source in catalogue.HUB.items() if source.revision is None} == {
        "deepfloyd-if-m",
        "deepfloyd-if-l",
        *catalogue.FROM_PICTURE,
        "mvdream",  # no independent source quotes its commit
    }


@pytest.mark.parametrize(("name", "part"), [("sd", "text_encoder"), ("builtin", "volume"), ("builtin", "coarse/unet")])
def test_the_hash_covers_every_weight(folder, tmp_path, name, part):
    target = shutil.copytree(folder / name, tmp_path / name)
    stage = load(target).spec.folder  # where the stage's own files are; the volume lies above
    before = files.weights_sha256(stage)
    assert before == files.weights_sha256(load(folder / name).spec.folder)
    (weights,) = (target / part).glob("*.safetensors")
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    assert files.weights_sha256(stage) != before


def test_t5_is_asked_in_lower_case_as_its_pipelines_do(folder) -> None:
    prior = load(folder / "if")
    assert torch.equal(
        prior.encode_prompt([" A Red Dragon, front view"]), prior.encode_prompt(["a red dragon, front view"])
    )


@pytest.mark.parametrize(
    ("processor", "library", "dtype"),
    [(True, True, torch.bfloat16), (True, False, torch.float32), (False, True, torch.float32)],
)
def test_a_cpu_uses_bfloat16_only_where_processor_and_onednn_have_it(
    monkeypatch: pytest.MonkeyPatch, processor: bool, library: bool, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: processor, raising=False)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: library, raising=False)
    assert prior_module.default_dtype(torch.device("cpu")) == dtype

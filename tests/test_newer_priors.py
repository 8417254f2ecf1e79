"""Priors in diffusers layout that came after Stable Diffusion 2: PixArt as it was published, and SDXL."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionXLPipeline, Transformer2DModel
from tiny_priors import publish_pixart, save_sd, save_sdxl

from magic3d_cli.errors import EnvironmentFault
from magic3d_cli.guidance.conditioning import condition
from magic3d_cli.guidance.diffusers.files import is_whole, weights_sha256
from magic3d_cli.guidance.diffusers.prior import DiffusersPrior, load_prior
from magic3d_cli.guidance.diffusers.spec import REFUSED, check, describe
from magic3d_cli.guidance.diffusion import alpha_sigma, as_clean_and_noise
from magic3d_cli.scene.views import turntable


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sdxl(tmp_path_factory.mktemp("sdxl"))


def load(folder: Path) -> DiffusersPrior:
    return load_prior(str(folder), "cpu", torch.float32)


@pytest.fixture(scope="module")
def pipeline(sdxl: Path) -> Any:
    """diffusers' own."""
    return StableDiffusionXLPipeline.from_pretrained(sdxl, add_watermarker=False)


def test_the_prompt_of_sdxl_is_encoded_as_diffusers_does(sdxl: Path, pipeline: Any) -> None:
    found = load(sdxl).encode_prompt(["dragon front", ""])
    states, none, summary, no_summary = pipeline.encode_prompt("dragon front", device="cpu")
    torch.testing.assert_close(found[:1, :-1], states)
    torch.testing.assert_close(found[:1, -1, :24], summary)
    assert not found[1].any() and not none.any() and not no_summary.any()  # its pipeline's zeros for no prompt
    assert found.shape == (2, 9, 40) and not found[:, -1, 24:].any()


def test_an_empty_prompt_is_encoded_where_the_pipeline_says_so(tmp_path: Path) -> None:
    folder = save_sdxl(tmp_path / "other")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "force_zeros_for_empty_prompt": False}))
    assert load(folder).encode_prompt([""]).any()


def test_sdxl_denoises_as_its_pipelines_network_does(sdxl: Path, pipeline: Any) -> None:
    prior = load(sdxl)
    noisy, timestep = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([900, 40])
    states, _, summary, _ = pipeline.encode_prompt("dragon front", device="cpu")
    sizes = pipeline._get_add_time_ids((16, 16), (0, 0), (16, 16), torch.float32, text_encoder_projection_dim=24)
    added = {"text_embeds": summary.expand(2, -1), "time_ids": sizes.expand(2, -1)}
    with torch.no_grad():
        output = pipeline.unet(noisy, timestep, states.expand(2, -1, -1), added_cond_kwargs=added)[0]
    alpha, sigma = alpha_sigma(prior.alphas_cumprod, timestep)
    expected = as_clean_and_noise("epsilon", output, noisy, alpha, sigma)
    text = prior.encode_prompt(["dragon front"]).expand(2, -1, -1)
    torch.testing.assert_close(prior.denoise(noisy, timestep, text), expected)
    assert not torch.allclose(prior.denoise(noisy, timestep, prior.encode_prompt(["view"] * 2))[0], expected[0])


def test_sdxl_is_told_the_view_in_words_and_its_latents_are_its_own(sdxl: Path) -> None:
    prior: Any = load(sdxl)
    told = condition(prior, "dragon").text(turntable(4))
    assert told.shape == (4, 9, 40) and not torch.equal(told[0, -1], told[2, -1])  # the summary too
    images = torch.rand(1, 3, 16, 16)
    mean = prior.vae.encode(images * 2 - 1).latent_dist.mean
    torch.testing.assert_close(prior.encode_image(images), mean * 0.13025)
    assert not prior.spec.fits_small_encoder


def test_both_text_encoders_of_sdxl_count_and_have_to_be_there(sdxl: Path, tmp_path: Path) -> None:
    folder = save_sdxl(tmp_path / "copy")
    assert is_whole(folder) and weights_sha256(folder) == weights_sha256(sdxl)
    (weights,) = (folder / "text_encoder_2").glob("*.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert weights_sha256(folder) != weights_sha256(sdxl)
    weights.unlink()
    assert not is_whole(folder)
    with pytest.raises(EnvironmentFault, match="text_encoder_2"):
        check(describe(folder, "xl"))


def test_pixart_is_read_as_it_was_published(tmp_path: Path) -> None:
    folder = publish_pixart(tmp_path / "pixart")
    prior = load(folder)
    assert type(prior.network).__name__ == "PixArtTransformer2DModel" and prior.image_size == 256
    sizes = prior._resolution(2)
    assert sizes["resolution"] is not None and sizes["resolution"].tolist() == [[256.0, 256.0]] * 2
    told: dict[str, Any] = {}
    prior.network.register_forward_pre_hook(lambda _, args, kwargs: told.update(kwargs), with_kwargs=True)
    noisy, timestep = torch.randn(1, 4, 128, 128), torch.tensor([500])
    text = prior.encode_prompt(["dragon"])
    clean, _ = prior.denoise(noisy, timestep, text)
    assert told["added_cond_kwargs"]["aspect_ratio"].tolist() == [[1.0]] and clean.isfinite().all()
    # The older class, for which its weights were written, makes the same of them.
    config = json.loads((folder / "transformer/config.json").read_text())
    older: Any = Transformer2DModel(**{key: value for key, value in config.items() if not key.startswith("_")})
    older.load_state_dict(prior.network.state_dict())
    mask, added = (text != 0).any(-1).float(), told["added_cond_kwargs"]
    with torch.no_grad():
        output = older(noisy, text, timestep, added, encoder_attention_mask=mask, return_dict=False)[0][:, :4]
    alpha, sigma = alpha_sigma(prior.alphas_cumprod, timestep)
    expected = as_clean_and_noise("epsilon", output, noisy, alpha, sigma)[0]
    torch.testing.assert_close(clean, expected, rtol=1e-3, atol=1e-3)


def test_pixart_of_512_pixels_is_told_no_sizes(tmp_path: Path) -> None:
    prior = load(publish_pixart(tmp_path / "pixart", sample_size=64))
    assert prior.image_size == 128 and prior._resolution(1) == {"resolution": None, "aspect_ratio": None}


@pytest.mark.parametrize("network", REFUSED)
def test_what_cannot_be_used_is_refused_with_the_reason(network: str, tmp_path: Path) -> None:
    folder = save_sd(tmp_path / "prior")
    index = json.loads((folder / "model_index.json").read_text())
    del index["unet"]
    (folder / "model_index.json").write_text(json.dumps({**index, "transformer": ["diffusers", network]}))
    with pytest.raises(EnvironmentFault) as refused:
        describe(folder, "theirs")
    assert REFUSED[network] in refused.value.what and "--prior sd15" in refused.value.next_step

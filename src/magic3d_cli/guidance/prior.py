"""One loader for every diffusion prior in diffusers layout: pixel or latent, told the view or the words.

What a prior is comes from its own files: prediction type and noise schedule from scheduler/, image size,
channels and conditioning from unet/ or transformer/, scaling and shift from vae/, the text encoder's class
from model_index.json. Nothing is hard-coded for one model; the built-in prior is loaded by the same lines.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from magic3d_cli.errors import EnvironmentFault
from magic3d_cli.guidance.compiled import compile_at_first_call
from magic3d_cli.guidance.diffusion import PREDICTIONS, alpha_sigma, as_clean_and_noise
from magic3d_cli.guidance.prompts import Vocabulary
from magic3d_cli.guidance.sources import (
    locate,
    part_of,
    read_json,
    small_encoder,
    vocabulary_of,
    weight_variant,
)
from magic3d_cli.views import FEATURES

DENOISERS = {"UNet2DConditionModel": "unet", "PixArtTransformer2DModel": "transformer", "VolumeUNet": "unet"}
TEXT_ENCODERS = ("CLIPTextModel", "T5EncoderModel")
AUTOENCODERS = ("AutoencoderKL", "AutoencoderTiny")
_LONGEST = {"UNet2DConditionModel": 77, "PixArtTransformer2DModel": 120, "VolumeUNet": 77}
"""Prompt length in tokens; IF and PixArt-alpha were trained with T5 padded to it."""


class DiffusersPrior:
    """A `Prior` read from a local diffusers directory; see `load_prior`."""

    def __init__(
        self, folder: Path, name: str, device: torch.device, dtype: torch.dtype, encoder: Path | None = None
    ) -> None:
        """`encoder` is the folder of an AutoencoderTiny that takes the place of a latent prior's VAE."""
        self.folder, self.id, self.device, self.dtype, self.encoder = folder, name, device, dtype, encoder
        self.index = read_json(folder / "model_index.json")
        part = next((p for p in ("unet", "transformer") if p in self.index), "unet")
        cls = self._class_of(part, tuple(DENOISERS))
        self.network = self._component(part_of(folder, part), cls, dtype)
        self.volume = self._load_volume() if "volume" in self.index else None
        self.alphas_cumprod, self.prediction = _read_schedule(folder, self.index)
        self.alphas_cumprod = self.alphas_cumprod.to(device)
        self.vae = self._load_vae() if "vae" in self.index else None
        for model in (self.network, self.vae):
            if model is not None:
                # Tensor cores want it, and convolutions in bf16 on a CPU are ten times slower in the default one.
                model.to(memory_format=torch.channels_last)
        self.kind = "pixel" if self.vae is None else "latent"
        self._read_shapes()
        self._read_view_conditioning()
        words = vocabulary_of(folder)
        self.vocabulary = Vocabulary.load(words) if words else None
        self._text_encoder: Any = None
        self._compiled = False

    def _component(self, folder: Path, cls: str, dtype: torch.dtype) -> Any:
        """A part's network, ready for use."""
        return _load(folder, cls, dtype, self.device)

    def _class_of(self, part: str, known: tuple[str, ...]) -> str:
        entry = self.index.get(part)
        name = entry[1] if isinstance(entry, list) and len(entry) == 2 else None
        if name not in known:
            raise EnvironmentFault(
                f"{self.id}: its {part} is {name or 'missing'}; this program can use {', '.join(known)}.",
                "Use Stable Diffusion 1.x or 2.x, DeepFloyd IF stage I or PixArt-alpha: --prior sd15.",
            )
        return name

    def _load_volume(self) -> Any:
        """The built-in prior's knowledge of things; it makes a volume for each caption it is given."""
        return self._component(part_of(self.folder, "volume"), self._class_of("volume", ("CaptionVolume",)), self.dtype)

    def _load_vae(self) -> Any:
        folder, cls = part_of(self.folder, "vae"), self._class_of("vae", AUTOENCODERS)
        if self.encoder is not None:
            folder, cls = self.encoder, "AutoencoderTiny"
        # Only where the file itself says so: diffusers' default is true, also for VAEs that are safe in fp16.
        upcast = read_json(folder / "config.json").get("force_upcast", False)
        vae = self._component(folder, cls, torch.float32 if upcast else self.dtype)
        vae.decoder = None  # score distillation only encodes
        return vae

    def _read_shapes(self) -> None:
        """Channels, patch and image size; refuses upscalers and inpainting models."""
        config = self.network.config
        channels, out = config.in_channels, config.out_channels
        self.patch = math.isqrt(channels // 3) if self.vae is None else 1
        expected = 3 * self.patch**2 if self.vae is None else self.vae.config.latent_channels
        if channels != expected or out not in (channels, 2 * channels):
            raise EnvironmentFault(
                f"{self.id}: its network maps {channels} channels to {out}, expected {expected} to "
                f"{expected} or {2 * expected}; it looks like an upscaling or inpainting model.",
                "Use the base text-to-image model.",
            )
        size = config.sample_size[0] if isinstance(config.sample_size, list | tuple) else config.sample_size
        factor = self.patch if self.vae is None else 2 ** (len(self.vae.config.block_out_channels) - 1)
        self.image_size = int(size) * factor

    def _read_view_conditioning(self) -> None:
        config = self.network.config
        self.takes_views = config.get("class_embed_type") == "projection"
        width = config.get("projection_class_embeddings_input_dim")
        if self.takes_views and width != FEATURES:
            raise EnvironmentFault(
                f"{self.id}: wants {width} view features, this program has {FEATURES}.",
                "The prior was trained for another version of magic3d; use --prior builtin.",
            )
        known = {
            "class_embed_type": (None, "projection"),
            "addition_embed_type": (None, "text"),
            "num_class_embeds": (None,),
        }
        foreign = {key: config.get(key) for key, allowed in known.items() if config.get(key) not in allowed}
        if foreign:
            raise EnvironmentFault(
                f"{self.id}: its network needs inputs this program does not have: {foreign}.",
                "SDXL and image-conditioned models are not supported; use for example --prior sd15.",
            )

    @property
    def masks_text(self) -> bool:
        """PixArt ignores padding; UNets of Stable Diffusion and IF were trained to see it."""
        return type(self.network).__name__ == "PixArtTransformer2DModel"

    @torch.no_grad()
    def encode_prompt(self, prompts: list[str]) -> Float[Tensor, "B L D"]:
        """Text states [B, L, D] of each prompt, float32; padding is zeroed for networks that mask it."""
        from transformers import AutoTokenizer

        if self._text_encoder is None:
            cls = self._class_of("text_encoder", TEXT_ENCODERS)
            # T5-XXL is 19 GB in float32; the small CLIP encoders are cheap enough to keep exact.
            dtype = self.dtype if cls.startswith("T5") else torch.float32
            encoder = self._component(part_of(self.folder, "text_encoder"), cls, dtype)
            tokenizer = AutoTokenizer.from_pretrained(part_of(self.folder, "tokenizer"), local_files_only=True)
            self._text_encoder = encoder, tokenizer
        encoder, tokenizer = self._text_encoder
        length = min(tokenizer.model_max_length, _LONGEST[type(self.network).__name__])
        tokens = tokenizer(prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt").to(
            self.device
        )
        # Stable Diffusion was trained to read CLIP's padding too, IF and PixArt to mask T5's.
        masked = encoder.config.model_type == "t5" or getattr(encoder.config, "use_attention_mask", False)
        mask = tokens.attention_mask if masked else None
        states = encoder(tokens.input_ids, attention_mask=mask)[0].float()
        return states * tokens.attention_mask[:, :, None] if self.masks_text else states

    def release_text_encoder(self) -> None:
        self._text_encoder = None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def compile(self, tell: Callable[[str], None]) -> None:
        """Have the network and the image encoder compiled at their first calls; `tell` as `compile_at_first_call`."""
        if self._compiled:
            return
        self._compiled = True
        compile_at_first_call(self.network, "prior's network", tell)
        if self.vae is not None:
            compile_at_first_call(self.vae.encoder, "image encoder", tell)

    def encode_image(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Images in [0, 1] to float32 x: [-1, 1] pixels at `image_size`, or the VAE's scaled mean.

        AutoencoderTiny was distilled to give that mean already shifted and scaled: its factor is 1, its shift 0.
        """
        images = resize(images, self.image_size) * 2 - 1
        if self.vae is None:
            return images
        encoded = self.vae.encode(images.to(self.vae.dtype, memory_format=torch.channels_last))
        # The mean, not a sample: one source of noise less in the gradient.
        latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
        shift = self.vae.config.get("shift_factor") or 0.0
        return (latents.float() - shift) * self.vae.config.scaling_factor

    def denoise(
        self,
        noisy: Float[Tensor, "B C h w"],
        timestep: Int[Tensor, "B"],
        text: Float[Tensor, "B L D"],
        features: Float[Tensor, "B 23"] | None = None,
    ) -> tuple[Float[Tensor, "B C h w"], Float[Tensor, "B C h w"]]:
        """Predicted clean x and noise, float32. Raises ValueError for wrong timestep types or features."""
        if timestep.dtype != torch.int64:
            raise ValueError(f"timesteps are {timestep.dtype}, not int64; rounding changes the noise level")
        with torch.inference_mode():
            output = self._network(noisy, timestep, text, features).float()
        with torch.no_grad():
            alpha, sigma = alpha_sigma(self.alphas_cumprod, timestep)
            return as_clean_and_noise(self.prediction, output.clone(), noisy.float(), alpha, sigma)

    def _network(self, noisy: Tensor, timestep: Tensor, text: Tensor, features: Tensor | None) -> Tensor:
        """The raw output, in the space of `noisy`."""
        extra: dict[str, Any] = {}
        text = text.to(self.device, self.dtype)
        if self.takes_views:
            if features is None or features.shape != (len(noisy), FEATURES):
                shape = None if features is None else tuple(features.shape)
                raise ValueError(f"view features are {shape}, expected {(len(noisy), FEATURES)}")
            features = features.to(self.device)
            extra["class_labels"] = features.to(self.dtype)
        if self.masks_text:
            extra["encoder_attention_mask"] = (text != 0).any(-1).to(self.dtype)
            extra["added_cond_kwargs"] = self._resolution(len(noisy))
        if self.volume is not None:
            extra["look"] = self.volume(_distinct(text), features, self.image_size)
        else:
            extra["encoder_hidden_states"] = text
        packed = F.pixel_unshuffle(noisy, self.patch).to(self.device, self.dtype)
        packed = packed.contiguous(memory_format=torch.channels_last)
        output = self.network(packed, timestep=timestep.to(self.device), return_dict=False, **extra)[0]
        # A second half of the channels is a learned variance (IF, PixArt), which distillation does not use.
        return F.pixel_shuffle(output[:, : self.network.config.in_channels], self.patch)

    def _resolution(self, batch: int) -> dict[str, Tensor | None]:
        if not self.network.config.get("use_additional_conditions"):
            return {"resolution": None, "aspect_ratio": None}
        size = torch.full((batch, 2), float(self.image_size), device=self.device, dtype=self.dtype)
        return {"resolution": size, "aspect_ratio": size[:, :1] / size[:, 1:]}


def load_prior(
    name: str = "auto",
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    stage: str = "coarse",
    small: bool = False,
) -> DiffusersPrior:
    """Load a prior, frozen and in evaluation mode.

    Args:
        name: "auto" (the built-in one), "builtin", a name from `sources.HUB`, a local directory or a hub id.
        device: where it runs.
        dtype: of its weights; by default fp16 on CUDA, bf16 on CPUs with AVX512-BF16, else fp32.
        stage: "coarse" or "fine"; matters for priors that keep one model per stage, as the built-in one does.
        small: encode with `sources.SMALL_ENCODER`; only for priors that `fits_small_encoder`.

    Raises:
        EnvironmentFault: no such prior, not cached while offline, pickled weights, an unsupported model.
    """
    device = torch.device(device)
    encoder = small_encoder() if small else None
    return DiffusersPrior(locate(name, stage), name, device, dtype or default_dtype(device), encoder)


def default_dtype(device: torch.device) -> torch.dtype:
    """fp16 on CUDA: strong guidance amplifies rounding, and bf16 rounds eight times more coarsely."""
    if device.type == "cuda":
        return torch.float16
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return torch.bfloat16 if device.type == "cpu" and supported() else torch.float32


def resize(images: Float[Tensor, "B C H W"], size: int) -> Float[Tensor, "B C S S"]:
    """Anti-aliased resampling; a box filter where the factor is whole, so that nothing is blurred twice."""
    height, width = images.shape[-2:]
    if (height, width) == (size, size):
        return images
    if height % size == 0 and width % size == 0:
        return F.interpolate(images, size=(size, size), mode="area")
    return F.interpolate(images, size=(size, size), mode="bilinear", antialias=True, align_corners=False)


def _distinct(text: Float[Tensor, "B L D"]) -> Float[Tensor, "N L D"]:
    """One row of each of N equal runs of equal rows: one caption for all views, or without and with the prompt."""
    for count in (1, 2):
        if len(text) % count == 0 and (groups := text.unflatten(0, (count, -1))).eq(groups[:, :1]).all():
            return groups[:, 0]
    return text


def _read_schedule(folder: Path, index: dict[str, Any]) -> tuple[Float[Tensor, "T"], str]:
    """Noise schedule and prediction type, whatever sampler the scheduler's file was written for."""
    from diffusers import DDPMScheduler

    config = read_json(part_of(folder, "scheduler") / "scheduler_config.json")
    name = str(config.get("_class_name", (index.get("scheduler") or [None, ""])[1]))
    prediction = config.get("prediction_type", "epsilon")
    if "Flow" in name or prediction not in PREDICTIONS:
        raise EnvironmentFault(
            f"{folder.name}: scheduler {name} with prediction {prediction!r} is not supported.",
            f"Use a prior that predicts one of: {', '.join(PREDICTIONS)}.",
        )
    known = set(inspect.signature(DDPMScheduler.__init__).parameters) - {"self"}
    scheduler = DDPMScheduler.from_config({key: value for key, value in config.items() if key in known})
    return scheduler.alphas_cumprod.float(), prediction


def _load(folder: Path, cls: str, dtype: torch.dtype, device: torch.device) -> Any:
    """One component: safetensors only, evaluation mode, frozen."""
    import diffusers
    import transformers

    from magic3d_cli.guidance.caption_volume import CaptionVolume
    from magic3d_cli.guidance.volume_unet import VolumeUNet

    own = {"VolumeUNet": VolumeUNet, "CaptionVolume": CaptionVolume}
    library = transformers if cls in TEXT_ENCODERS else diffusers
    model_class = own.get(cls) or getattr(library, cls)
    variant = weight_variant(folder)
    naming = {"dtype" if cls in TEXT_ENCODERS else "torch_dtype": dtype}
    try:
        model = model_class.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, variant=variant, **naming
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise EnvironmentFault(
            f"{folder} cannot be loaded: {reason[:300]}",
            "The prior is incomplete or damaged; fetch it again.",
        ) from error
    if cls in own:  # diffusers leaves a model with 8-bit numbers as its file has it
        model.to(dtype)
    return model.to(device).eval().requires_grad_(False)

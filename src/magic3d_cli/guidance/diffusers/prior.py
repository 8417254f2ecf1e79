"""One loader for every diffusion prior in diffusers layout: pixel or latent, told the view or the words.

What a prior is, its `PriorSpec` says; the built-in prior is loaded by the same lines as Stable Diffusion.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from magic3d_cli.errors import EnvironmentFault, first_line, out_of_memory
from magic3d_cli.guidance.builtin.vocabulary import Vocabulary
from magic3d_cli.guidance.diffusers.catalogue import locate, small_encoder
from magic3d_cli.guidance.diffusers.compile import compile_at_first_call
from magic3d_cli.guidance.diffusers.files import read_json, vocabulary_of, weight_variant
from magic3d_cli.guidance.diffusers.mvdream import MULTI_VIEW, attend_across_views, load_network
from magic3d_cli.guidance.diffusers.spec import (
    OF_TRANSFORMERS,
    OWN,
    SIZES,
    Component,
    PriorSpec,
    check,
    class_named,
    describe,
    load_tokenizer,
)
from magic3d_cli.guidance.diffusion import alpha_sigma, as_clean_and_noise

_LONGEST = {"UNet2DConditionModel": 77, MULTI_VIEW: 77, "PixArtTransformer2DModel": 120, "VolumeUNet": 77}
"""Prompt length in tokens; IF and PixArt-alpha were trained with T5 padded to it."""


@dataclass(frozen=True)
class ImageTokens:
    """What a prior is shown beside the words: tokens of a picture, and of none; see `ip_adapter`."""

    picture: Float[Tensor, "1 n D"]
    nothing: Float[Tensor, "1 n D"]


class DiffusersPrior:
    """A `Prior` loaded as its `PriorSpec` says."""

    def __init__(self, spec: PriorSpec, device: torch.device, dtype: torch.dtype) -> None:
        self.spec, self.id, self.device, self.dtype = spec, spec.name, device, dtype
        self.image_size, self.patch, self.camera_conditioned = spec.image_size, spec.patch, spec.camera_conditioned
        self.alphas_cumprod, self.prediction = spec.alphas_cumprod.to(device), spec.prediction
        self.set_size = spec.set_size
        self.network = self.component(spec.network, dtype)
        if self.set_size > 1:
            attend_across_views(self.network, self.set_size)
        self.volume = self.component(spec.volume, dtype) if spec.volume else None
        self.vae = self._load_vae(spec.vae) if spec.vae else None
        for model in (self.network, self.vae):
            if model is not None:
                # Tensor cores want it, and convolutions in bf16 on a CPU are ten times slower in the default one.
                model.to(memory_format=torch.channels_last)
        self.kind = "pixel" if self.vae is None else "latent"
        words = vocabulary_of(spec.folder)
        self.vocabulary = Vocabulary.load(words) if words else None
        self.on_text_encoder: list[Callable[[Any, Any], None]] = []  # what adapters do to it and its tokenizer
        self.spellings: list[Callable[[str], str]] = []  # how they spell prompts
        self.picture: ImageTokens | None = None  # what it is shown beside the words
        self._text_encoder: Any = None
        self._compiled = False

    def component(self, part: Component, dtype: torch.dtype) -> Any:
        """A part's network, ready for use."""
        return _load(part, dtype, self.device)

    def _load_vae(self, part: Component) -> Any:
        # Only where the file itself says so: diffusers' default is true, also for VAEs that are safe in fp16.
        upcast = read_json(part.folder / "config.json").get("force_upcast", False)
        vae = self.component(part, torch.float32 if upcast else self.dtype)
        vae.decoder = None  # score distillation only encodes
        return vae

    @property
    def masks_text(self) -> bool:
        """PixArt ignores padding; UNets of Stable Diffusion and IF were trained to see it."""
        return self.spec.network.cls == "PixArtTransformer2DModel"

    @torch.no_grad()
    def encode_prompt(self, prompts: list[str]) -> Float[Tensor, "B L D"]:
        """Text states [B, L, D] of each prompt, float32; padding is zeroed for networks that mask it.

        SDXL's have one row more, its second encoder's summary of the prompt, filled up with zeros. The tokens of a
        picture come last, those of none beside the empty prompt.
        """
        if self.spec.second_text_encoder is not None:
            return self._encode_twice(prompts)
        states = self.text_states(prompts)
        if self.picture is None:
            return states
        shown = torch.cat([self.picture.picture if prompt else self.picture.nothing for prompt in prompts])
        return torch.cat([states, shown.to(states)], 1)

    def text_encoder(self) -> tuple[Any, Any]:
        """The text encoder and its tokenizer, loaded where they are not yet."""
        if self._text_encoder is None:
            part, words = self.spec.text_encoder, self.spec.tokenizer
            if part is None or words is None:
                raise ValueError(f"{self.id} is told nothing in words")
            # T5-XXL is 19 GB in float32; the small CLIP encoders are cheap enough to keep exact.
            dtype = self.dtype if part.cls.startswith("T5") else torch.float32
            self._text_encoder = self.component(part, dtype), load_tokenizer(words)
            for change in self.on_text_encoder:
                change(*self._text_encoder)
        return self._text_encoder

    def text_states(self, prompts: list[str]) -> Float[Tensor, "B L D"]:
        """As `encode_prompt`, with gradients to what of the encoder asks for them."""
        encoder, tokenizer = self.text_encoder()
        for spelt in self.spellings:
            prompts = [spelt(prompt) for prompt in prompts]
        if encoder.config.model_type == "t5":  # T5 tells capitals apart; IF and PixArt-alpha were trained without them
            prompts = [prompt.lower().strip() for prompt in prompts]
        length = min(tokenizer.model_max_length, _LONGEST[self.spec.network.cls])
        tokens = tokenizer(prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt").to(
            self.device
        )
        # Stable Diffusion was trained to read CLIP's padding too, IF and PixArt to mask T5's.
        masked = encoder.config.model_type == "t5" or getattr(encoder.config, "use_attention_mask", False)
        mask = tokens.attention_mask if masked else None
        states = encoder(tokens.input_ids, attention_mask=mask)[0].float()
        return states * tokens.attention_mask[:, :, None] if self.masks_text else states

    def _encode_twice(self, prompts: list[str]) -> Float[Tensor, "B L D"]:
        """SDXL's (2307.01952, section 2.1): the last states but one of both encoders side by side, and a summary."""
        spec = self.spec
        pairs = (spec.text_encoder, spec.tokenizer), (spec.second_text_encoder, spec.second_tokenizer)
        if self._text_encoder is None:
            self._text_encoder = [
                (self.component(part, torch.float32), load_tokenizer(words)) for part, words in pairs if part and words
            ]
        states = []
        for encoder, tokenizer in self._text_encoder:
            length = min(tokenizer.model_max_length, _LONGEST[spec.network.cls])
            tokens = tokenizer(prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
            found = encoder(tokens.input_ids.to(self.device), output_hidden_states=True)
            states.append(found.hidden_states[-2].float())
        both, summary = torch.cat(states, -1), found.text_embeds.float()
        rows = torch.cat([both, F.pad(summary, (0, both.shape[-1] - summary.shape[-1]))[:, None]], 1)
        if spec.zero_unconditional:
            rows = rows * torch.tensor([bool(prompt) for prompt in prompts], device=rows.device)[:, None, None]
        return rows

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
        features: Float[Tensor, "B F"] | None = None,
    ) -> tuple[Float[Tensor, "B C h w"], Float[Tensor, "B C h w"]]:
        """Predicted clean x and noise, float32. Raises ValueError for wrong timestep types or features.

        Where `set_size` is more than one, every so many rows are a set, evenly round the object.
        """
        if timestep.dtype != torch.int64:
            raise ValueError(f"timesteps are {timestep.dtype}, not int64; rounding changes the noise level")
        with torch.inference_mode():
            output = self._network(noisy, timestep, text, features).float()
        with torch.no_grad():
            alpha, sigma = alpha_sigma(self.alphas_cumprod, timestep)
            return as_clean_and_noise(self.prediction, output.clone(), noisy.float(), alpha, sigma)

    def predict(
        self, noisy: Float[Tensor, "B C h w"], timestep: Int[Tensor, "B"], text: Float[Tensor, "B L D"]
    ) -> Float[Tensor, "B C h w"]:
        """What the network predicts, as it is: with gradients to what of it asks for them."""
        return self._network(noisy, timestep, text, None)

    def _network(self, noisy: Tensor, timestep: Tensor, text: Tensor, features: Tensor | None) -> Tensor:
        """The raw output, in the space of `noisy`."""
        if len(noisy) % self.set_size:
            raise ValueError(f"{len(noisy)} views are not whole sets of {self.set_size}")
        extra: dict[str, Any] = {}
        text = text.to(self.device, self.dtype)
        if self.camera_conditioned:
            expected = (len(noisy), self.network.config["projection_class_embeddings_input_dim"])
            if features is None or features.shape != expected:
                shape = None if features is None else tuple(features.shape)
                raise ValueError(f"view features are {shape}, expected {expected}")
            features = features.to(self.device)
            extra["class_labels"] = features.to(self.dtype)
        if self.masks_text:
            extra["encoder_attention_mask"] = (text != 0).any(-1).to(self.dtype)
            extra["added_cond_kwargs"] = self._resolution(len(noisy))
        if self.spec.second_text_encoder is not None:
            text, extra["added_cond_kwargs"] = text[:, :-1], self._summary(text[:, -1])
        if self.volume is not None:
            extra["look"] = self.volume(_distinct(text), features, self.image_size)
        else:
            extra["encoder_hidden_states"] = text if self.picture is None else self._apart(text, self.picture)
        packed = F.pixel_unshuffle(noisy, self.patch).to(self.device, self.dtype)
        packed = packed.contiguous(memory_format=torch.channels_last)
        output = self.network(packed, timestep=timestep.to(self.device), return_dict=False, **extra)[0]
        # A second half of the channels is a learned variance (IF, PixArt), which distillation does not use.
        return F.pixel_shuffle(output[:, : self.network.config.in_channels], self.patch)

    def _apart(
        self, states: Float[Tensor, "B L D"], shown: ImageTokens
    ) -> tuple[Float[Tensor, "B K D"], list[Float[Tensor, "B 1 n D"]]]:
        """The words, and the tokens of a picture, as diffusers hands both to attention."""
        words = states.shape[1] - shown.picture.shape[1]
        return states[:, :words], [states[:, None, words:]]

    def _resolution(self, batch: int) -> dict[str, Tensor | None]:
        if not self.network.use_additional_conditions:  # its configuration may leave that to the size
            return {"resolution": None, "aspect_ratio": None}
        size = torch.full((batch, 2), float(self.image_size), device=self.device, dtype=self.dtype)
        return {"resolution": size, "aspect_ratio": size[:, :1] / size[:, 1:]}

    def _summary(self, row: Float[Tensor, "B D"]) -> dict[str, Tensor]:
        """SDXL's further inputs: the summary of the prompt, and the sizes of an image that is whole."""
        config, side = self.network.config, float(self.image_size)
        width = config.projection_class_embeddings_input_dim - SIZES * config.addition_time_embed_dim
        sizes = torch.tensor([side, side, 0.0, 0.0, side, side], device=self.device, dtype=self.dtype)
        return {"text_embeds": row[:, :width], "time_ids": sizes.expand(len(row), SIZES)}


def load_prior(
    name: str = "auto",
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    stage: str = "coarse",
    small: bool = False,
) -> DiffusersPrior:
    """Load a prior, frozen and in evaluation mode.

    Args:
        name: "auto" (the built-in one), "builtin", a name from `catalogue.HUB`, a local directory or a hub id.
        device: where it runs.
        dtype: of its weights; by default fp16 on CUDA, bf16 on CPUs with AVX512-BF16, else fp32.
        stage: "coarse" or "fine"; matters for priors that keep one model per stage, as the built-in one does.
        small: encode with `catalogue.SMALL_ENCODER`; only where `PriorSpec.fits_small_encoder`.

    Raises:
        EnvironmentFault: no such prior, not cached while offline, pickled or damaged weights, an unsupported model.
    """
    spec = describe(locate(name, stage), name, small_encoder() if small else None)
    check(spec)
    device = torch.device(device)
    return DiffusersPrior(spec, device, dtype or default_dtype(device))


def default_dtype(device: torch.device) -> torch.dtype:
    """fp16 on CUDA: strong guidance amplifies rounding, and bf16 rounds eight times more coarsely.

    bf16 on a CPU that has instructions for it, unless oneDNN may not use them (ONEDNN_MAX_CPU_ISA): it would emulate
    them, far slower than fp32.
    """
    if device.type == "cuda":
        return torch.float16
    processor = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    library = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    return torch.bfloat16 if device.type == "cpu" and processor() and library() else torch.float32


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


def _load(part: Component, dtype: torch.dtype, device: torch.device) -> Any:
    """One component: safetensors only, evaluation mode, frozen."""
    from safetensors import SafetensorError
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # a bar for each file, over before it can be read; downloads were before this
    if part.in_other_layout:
        network = load_network(
            class_named(part.cls), part.settings, part.folder, part.camera, part.renamed_layers, dtype
        )
        return network.to(device).eval().requires_grad_(False)
    variant = weight_variant(part.folder)
    naming = {"dtype" if part.cls in OF_TRANSFORMERS else "torch_dtype": dtype}
    try:
        model = class_named(part.cls).from_pretrained(
            part.folder, use_safetensors=True, local_files_only=True, variant=variant, **naming
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        if out_of_memory(error):
            raise
        raise EnvironmentFault(
            f"{part.folder} cannot be loaded: {first_line(error)}",
            "The prior is incomplete or damaged; fetch it again.",
        ) from error
    if part.cls in OWN:  # diffusers leaves a model with 8-bit numbers as its file has it
        model.to(dtype)
    return model.to(device).eval().requires_grad_(False)

"""What a prior is, read from its configuration files before any of its weights.

Prediction type and noise schedule come from scheduler/, image size, channels and conditioning from unet/ or
transformer/, latents from vae/, classes from model_index.json. Nothing is hard-coded for one model. The loader reads
the same description, so that what `check` passes at the start of a run is what is loaded hours later.
"""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from magic3d_cli.errors import EnvironmentFault, first_line, out_of_memory
from magic3d_cli.guidance.builtin.unet import VolumeUNet
from magic3d_cli.guidance.builtin.volume import CaptionVolume
from magic3d_cli.guidance.diffusers.files import (
    CAMERA_LAYER,
    PROJECTIONS,
    has,
    part_of,
    read_json,
    vocabulary_of,
    weight_shapes,
)
from magic3d_cli.guidance.diffusers.mvdream import (
    CAMERA_SETTINGS,
    MULTI_VIEW,
    SET_SIZE,
    camera_name,
    renamed,
    unet_settings,
)
from magic3d_cli.guidance.diffusion import PREDICTIONS
from magic3d_cli.scene.views import CAMERA_EMBEDDING, CAMERA_MATRIX

DENOISERS = {"unet": ("UNet2DConditionModel", MULTI_VIEW, "VolumeUNet"), "transformer": ("PixArtTransformer2DModel",)}
_PIXART = "Transformer2DModel"
"""The class that published PixArt-alpha names: its layers are PixArtTransformer2DModel's, which came later."""
REFUSED = {
    "SD3Transformer2DModel": "Stable Diffusion 3 was trained by flow matching, with three text encoders",
    "FluxTransformer2DModel": "Flux was trained by flow matching, and its guidance is built in: there is no scale",
    "SanaTransformer2DModel": "Sana was trained by flow matching, with another autoencoder",
    "HunyuanDiT2DModel": "Hunyuan-DiT has two text encoders of other kinds",
    "AuraFlowTransformer2DModel": "AuraFlow was trained by flow matching",
    "Kandinsky3UNet": "Kandinsky 3 has another network and autoencoder",
}
"""Why priors cannot be used that have a network of this class."""
TEXT_ENCODERS = ("CLIPTextModel", "T5EncoderModel")
SECOND_TEXT_ENCODERS = ("CLIPTextModelWithProjection",)
"""Of SDXL: the states of both are read side by side, and this one's summary of the prompt."""
IMAGE_ENCODERS = ("CLIPVisionModelWithProjection",)
OF_TRANSFORMERS = (*TEXT_ENCODERS, *SECOND_TEXT_ENCODERS, *IMAGE_ENCODERS)
"""Classes that the package transformers has, not diffusers."""
AUTOENCODERS = ("AutoencoderKL", "AutoencoderTiny")
ABSOLUTE = "stable-zero123"
"""In the name of a prior that is told the picture's own elevation: nothing in the files of Stable Zero123 says so."""
SIZES = 6
"""Numbers that SDXL is told of an image: its height and width, what was cut off at the top and left, and the size
wanted."""
OWN = {"VolumeUNet": VolumeUNet, "CaptionVolume": CaptionVolume}
"""The built-in prior's networks."""


@dataclass(frozen=True)
class Component:
    """One component: where its files are, and the class that reads them."""

    folder: Path
    cls: str
    camera: Path | None = None  # layers for the camera that lie beside the network; see `mvdream`

    @property
    def settings(self) -> dict[str, Any]:
        """Its config.json, as diffusers' class takes it. Raises EnvironmentFault."""
        file = self.folder / "config.json"
        stored = read_json(file)
        if self.cls == MULTI_VIEW:
            return unet_settings(stored, file)
        return stored | CAMERA_SETTINGS if self.camera else stored

    @property
    def config(self) -> dict[str, Any]:
        """Its settings, and the class's own defaults for what they leave out. Raises EnvironmentFault."""
        parameters = inspect.signature(class_named(self.cls).__init__).parameters.values()
        defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
        return defaults | self.settings

    @property
    def renamed_layers(self) -> int | None:
        """Layers a block of a network whose tensors have the names of MVDream's authors; None for others."""
        return self.settings["layers_per_block"] if self.cls == MULTI_VIEW else None

    @property
    def in_other_layout(self) -> bool:
        """Whether its files are not as diffusers itself reads them."""
        return self.cls == MULTI_VIEW or self.camera is not None

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of its tensors, by diffusers' names. Errors as `weight_shapes`."""
        layers, stored = self.renamed_layers, weight_shapes(self.folder)
        found = {renamed(key, layers) if layers else key: shape for key, shape in stored.items()}
        if self.camera is not None:
            found |= {camera_name(key): shape for key, shape in weight_shapes(self.camera).items()}
        return found


@dataclass(frozen=True, eq=False)
class PriorSpec:
    """A prior without its weights."""

    folder: Path
    name: str
    network: Component
    vae: Component | None  # None: it works on pixels
    volume: Component | None  # the built-in prior's knowledge of things
    text_encoder: Component | None  # None: it is told nothing in words
    tokenizer: Path | None
    second_text_encoder: Component | None  # of SDXL
    second_tokenizer: Path | None
    zero_unconditional: bool  # SDXL: without a prompt the states are zeros, not those of an empty one
    image_encoder: Component | None  # of a prior that is shown a picture of the thing: Zero-1-to-3's kind
    projection: Path | None  # its layer for picture and camera
    patch: int  # pixels are packed patch x patch to a position
    image_size: int
    camera_conditioned: bool
    alphas_cumprod: Float[Tensor, "T"]
    prediction: str

    @property
    def set_size(self) -> int:
        """Views that it is shown together."""
        known = self.network.config.get("projection_class_embeddings_input_dim")
        return SET_SIZE if self.camera_conditioned and known == CAMERA_MATRIX else 1

    @property
    def from_picture(self) -> bool:
        """Whether it is shown a picture of the thing, from another side."""
        return self.image_encoder is not None

    @property
    def absolute(self) -> bool:
        """Whether it is told the picture's own elevation, see ABSOLUTE."""
        return ABSOLUTE in f"{self.name} {self.folder}".lower().replace("_", "-")

    @property
    def fits_small_encoder(self) -> bool:
        """Whether its latents are those of Stable Diffusion 1 and 2."""
        config = self.vae.config if self.vae else {}
        found = config.get("latent_channels"), config.get("scaling_factor"), config.get("shift_factor") or 0
        return found == (4, 0.18215, 0)


def describe(folder: Path, name: str, encoder: Path | None = None) -> PriorSpec:
    """Read the description of a local prior called `name`.

    `encoder` is the folder of an AutoencoderTiny that takes the place of a latent prior's VAE. Raises EnvironmentFault
    for files that are missing or malformed, and for models that this program cannot use.
    """
    index = read_json(folder / "model_index.json")

    def part(key: str, *known: str) -> Component:
        entry = index.get(key)
        cls = entry[1] if isinstance(entry, list) and len(entry) == 2 else None
        if cls == _PIXART and read_json(part_of(folder, key) / "config.json").get("norm_type") == "ada_norm_single":
            cls = "PixArtTransformer2DModel"
        if cls in REFUSED:
            raise EnvironmentFault(
                f"{name}: {REFUSED[cls]}, which this program cannot use.",
                "Use Stable Diffusion 1.x, 2.x or XL, DeepFloyd IF stage I or PixArt-alpha: --prior sd15.",
            )
        if cls not in known:
            raise EnvironmentFault(
                f"{name}: its {key} is {cls or 'missing'}; this program can use {', '.join(known)}.",
                "Use Stable Diffusion 1.x, 2.x or XL, DeepFloyd IF stage I or PixArt-alpha: --prior sd15.",
            )
        return Component(part_of(folder, key), cls)

    denoiser = next((key for key in DENOISERS if has(index, key)), "unet")
    network = part(denoiser, *DENOISERS[denoiser])
    if has(index, CAMERA_LAYER):
        network = replace(network, camera=part_of(folder, CAMERA_LAYER))
    vae = part("vae", *AUTOENCODERS) if has(index, "vae") else None
    if vae and encoder:
        vae = Component(encoder, "AutoencoderTiny")
    projection = next((key for key in PROJECTIONS if has(index, key)), None)
    shown = projection is not None and has(index, "image_encoder")
    two = _has_two_texts(name, network.config, has(index, "text_encoder_2"))
    patch, image_size = _shapes(name, network, vae, shown)
    alphas_cumprod, prediction = _schedule(part_of(folder, "scheduler"), name)
    return PriorSpec(
        folder,
        name,
        network,
        vae,
        part("volume", "CaptionVolume") if has(index, "volume") else None,
        None if shown else part("text_encoder", *TEXT_ENCODERS),
        None if shown else part_of(folder, "tokenizer"),
        part("text_encoder_2", *SECOND_TEXT_ENCODERS) if two else None,
        part_of(folder, "tokenizer_2") if two else None,
        two and bool(index.get("force_zeros_for_empty_prompt", True)),  # the pipeline's default
        part("image_encoder", *IMAGE_ENCODERS) if shown else None,
        part_of(folder, projection) if shown and projection else None,
        patch,
        image_size,
        _takes_views(name, network.config),
        alphas_cumprod,
        prediction,
    )


def check(spec: PriorSpec) -> None:
    """Raises EnvironmentFault where a part could not be loaded later; builds the networks without their weights."""
    texts = spec.text_encoder, spec.second_text_encoder
    for part in (spec.network, spec.vae, spec.volume, *texts, spec.image_encoder):
        if part is not None:
            check_part(part)
    for words in (spec.tokenizer, spec.second_tokenizer):
        if words is not None:
            load_tokenizer(words)
    if spec.volume is not None and vocabulary_of(spec.folder) is None:
        raise EnvironmentFault(
            f"{spec.folder} draws only what it knows, and the list of that, vocabulary.json, is missing.",
            "The prior is incomplete or damaged; fetch it again.",
        )
    if spec.projection is not None and spec.image_encoder is not None:
        _check_projection(spec.projection, spec.image_encoder, spec.network)


def check_part(part: Component) -> None:
    """Raises EnvironmentFault where the settings of a part make no network, or its weights are another one's."""
    settings, cls = part.settings, class_named(part.cls)
    found = part.shapes()
    try:
        with torch.device("meta"):  # shapes without memory
            if part.cls in OF_TRANSFORMERS:
                network = cls(cls.config_class.from_pretrained(part.folder, local_files_only=True))
            else:
                network = cls.from_config(settings)
    except Exception as error:  # whatever a class trips over in settings that are not its own
        raise EnvironmentFault(
            f"{part.folder} describes no {part.cls} that can be made: {first_line(error)}",
            "The prior is damaged, or for other versions of diffusers and transformers; use for example --prior sd15.",
        ) from error
    wanted = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    if part.in_other_layout and (odd := sorted(wanted.keys() ^ found.keys())):
        raise EnvironmentFault(
            f"{part.folder}: {len(odd)} tensors are missing or have no place in the network ({odd[0]}).",
            "The prior is of another model, or incomplete; fetch it again, for example --prior mvdream.",
        )
    # Names in one alone are otherwise the loader's business: it renames those of older versions.
    wanted = {key: shape for key, shape in wanted.items() if key in found}
    if wrong := next((key for key, shape in wanted.items() if shape != found[key]), None):
        raise EnvironmentFault(
            f"{part.folder}: {wrong} is {list(found[wrong])} in the weights, {list(wanted[wrong])} by config.json.",
            "The two are of different models; fetch the prior again.",
        )


def _check_projection(folder: Path, encoder: Component, network: Component) -> None:
    shapes = [shape for key, shape in weight_shapes(folder).items() if key.endswith(".weight")]
    wanted = (network.config["cross_attention_dim"], encoder.config["projection_dim"] + 4)
    if shapes != [wanted]:
        raise EnvironmentFault(
            f"{folder}: its weights are {[list(shape) for shape in shapes]}, expected one of {list(wanted)}.",
            "It is of another model; fetch the prior again, for example --prior zero123-xl.",
        )


def load_tokenizer(folder: Path) -> Any:
    """A text encoder's tokenizer. Raises EnvironmentFault when it is missing or malformed."""
    from transformers import AutoTokenizer

    settings = folder / "tokenizer_config.json"
    read_json(settings)  # without it transformers guesses, and says something else
    again = "The prior is incomplete or damaged; fetch it again."
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # tokenizers raises a bare Exception for a damaged file
        raise EnvironmentFault(f"{folder} holds no tokenizer that can be read: {first_line(error)}", again) from error
    if tokenizer.pad_token is None:
        raise EnvironmentFault(f"{settings} is not that of a text encoder: it names no token to fill up with.", again)
    return tokenizer


def class_named(cls: str) -> Any:
    """The class of a component, one of those that a `PriorSpec` may name."""
    import diffusers
    import transformers

    cls = "UNet2DConditionModel" if cls == MULTI_VIEW else cls
    return OWN.get(cls) or getattr(transformers if cls in OF_TRANSFORMERS else diffusers, cls)


def _shapes(name: str, network: Component, vae: Component | None, shown: bool) -> tuple[int, int]:
    """Patch and image size; refuses upscalers and inpainting models. One that is shown a picture has its latent too."""
    channels, out = _whole_number(network, "in_channels"), _whole_number(network, "out_channels")
    channels -= _whole_number(vae, "latent_channels") if shown and vae is not None else 0
    same = out in (channels, 2 * channels)  # twice as many: a learned variance
    if vae is None and same and channels % 3:
        raise EnvironmentFault(
            f"{name}: its network works on latents ({channels} channels), but model_index.json names no vae.",
            "Get the whole pipeline, with its vae folder; or use for example --prior sd15.",
        )
    patch = math.isqrt(channels // 3) if vae is None else 1
    expected = 3 * patch**2 if vae is None else _whole_number(vae, "latent_channels")
    if channels != expected or not same:
        raise EnvironmentFault(
            f"{name}: its network maps {channels} channels to {out}, expected {expected} to "
            f"{expected} or {2 * expected}; it looks like an upscaling or inpainting model.",
            "Use the base text-to-image model.",
        )
    if vae is None:
        return patch, _whole_number(network, "sample_size") * patch
    # The small encoder's class has no block_out_channels of its own; saved files do.
    levels = vae.config.get("block_out_channels") or vae.config["decoder_block_out_channels"]
    return patch, _whole_number(network, "sample_size") * 2 ** (len(levels) - 1)


def _whole_number(part: Component, key: str) -> int:
    value = part.config.get(key)
    value = value[0] if isinstance(value, list | tuple) and value else value
    if not isinstance(value, int) or value < 1:
        file = part.folder / "config.json"
        raise EnvironmentFault(
            f"{file} has no usable {key}: {value!r}.", f"Write the model's {key} there, or use another prior."
        )
    return value


def _takes_views(name: str, config: dict[str, Any]) -> bool:
    """Whether the network is told the camera; refuses networks that want what this program does not have."""
    camera_conditioned = config.get("class_embed_type") == "projection"
    width = config.get("projection_class_embeddings_input_dim")
    if camera_conditioned and width not in (CAMERA_EMBEDDING, CAMERA_MATRIX):
        raise EnvironmentFault(
            f"{name}: wants {width} view features, this program has {CAMERA_EMBEDDING}, or {CAMERA_MATRIX} as MVDream.",
            "The prior was trained for another version of magic3d; use --prior builtin.",
        )
    known = {
        "class_embed_type": (None, "projection"),
        "addition_embed_type": (None, "text", "text_time"),
        "num_class_embeds": (None,),
        "attention_type": (None, "default"),  # GLIGEN
    }
    foreign = {key: config.get(key) for key, allowed in known.items() if config.get(key) not in allowed}
    if foreign:
        raise EnvironmentFault(
            f"{name}: its network needs inputs this program does not have: {foreign}.",
            "Image-conditioned models are not supported; use for example --prior sd15.",
        )
    return camera_conditioned


def _has_two_texts(name: str, config: dict[str, Any], second: bool) -> bool:
    """Whether a network is SDXL's: told a summary of the prompt and six numbers of the image's size beside the states.

    Raises EnvironmentFault for a part of SDXL, and for its refiner, which has one text encoder and other numbers.
    """
    if config.get("addition_embed_type") != "text_time":
        return False
    width, numbers = config.get("projection_class_embeddings_input_dim"), config.get("addition_time_embed_dim")
    if not second or not isinstance(width, int) or not isinstance(numbers, int) or width <= SIZES * numbers:
        raise EnvironmentFault(
            f"{name}: its network wants text_time inputs, and its files are not those of SDXL's base model.",
            "Use the whole base model, not the refiner, with text_encoder and text_encoder_2; or --prior sd15.",
        )
    return True


def _schedule(folder: Path, name: str) -> tuple[Float[Tensor, "T"], str]:
    """Noise schedule and prediction type, whatever sampler the scheduler's file was written for."""
    from diffusers import DDPMScheduler

    file = folder / "scheduler_config.json"
    config = read_json(file)
    sampler = str(config.get("_class_name", "without a name"))
    prediction = config.get("prediction_type", "epsilon")
    # Without betas (EDM, flow matching) the noise is another one, and DDPM's defaults would be read in its place.
    betas = config.keys() & {"beta_start", "beta_schedule", "trained_betas"}
    if "Flow" in sampler or not betas or prediction not in PREDICTIONS:
        raise EnvironmentFault(
            f"{name}: its scheduler {sampler} with prediction {prediction!r}"
            f"{'' if betas else ' and without betas'} is not supported.",
            f"Use a prior that predicts one of: {', '.join(PREDICTIONS)}; for example --prior sd15.",
        )
    known = set(inspect.signature(DDPMScheduler.__init__).parameters) - {"self"}
    try:
        # Not `from_config`: that loads every sampler there is, for a second.
        chosen: dict[str, Any] = {key: value for key, value in config.items() if key in known}
        scheduler: Any = DDPMScheduler(**chosen)
    except (NotImplementedError, TypeError, ValueError, RuntimeError) as error:
        if out_of_memory(error):
            raise
        raise EnvironmentFault(
            f"{file} is no noise schedule: {first_line(error)}.", "Use another prior, for example --prior sd15."
        ) from error
    return scheduler.alphas_cumprod.float(), prediction

"""A prior that is shown a picture beside its prompt: IP-Adapter (Ye et al., arXiv 2308.06721), the plain variant.

CLIP's embedding of the picture becomes four tokens (section 3.2.1), for which every cross-attention has keys and values
of its own; what they give is added to what the words give (section 3.2.2):

    attention(Q, K, V) + scale attention(Q, K', V')

The tokens stand after those of the words; without the prompt they are those of an embedding of zeros, as in the
authors' code and in diffusers. How words and picture share the guidance is Magic3D's, whose own prior, eDiff-I, was
trained with CLIP's embedding of a picture: see `distillation`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
from jaxtyping import Float
from torch import Tensor

from magic3d_cli.errors import UsageError
from magic3d_cli.guidance.adapters import Adapter
from magic3d_cli.guidance.diffusers.files import weight_shapes
from magic3d_cli.guidance.diffusers.prior import DiffusersPrior, ImageTokens
from magic3d_cli.guidance.diffusers.spec import IMAGE_ENCODERS, Component, PriorSpec, check_part, class_named
from magic3d_cli.guidance.diffusers.zero123 import embedded
from magic3d_cli.guidance.ip_adapter_file import GET, NORM, PROJECTION
from magic3d_cli.style import Style

TOKENS = 4
"""Of the plain variant [the authors' code]."""
_WORDS, _OWN = "attn2.processor", "attn1.processor"  # attention to the words, and of a picture to itself


def check_fits(adapter: Adapter, spec: PriorSpec) -> None:
    """Raises UsageError where an IP-Adapter was made for another base model or another image encoder.

    By the shapes in their headers; EnvironmentFault where the encoder's files are damaged.
    """
    config = spec.network.config
    told = ("encoder_hid_dim_type", "addition_embed_type", "class_embed_type")
    layers = _layers(spec.network) if spec.network.cls == "UNet2DConditionModel" else ()
    if spec.from_picture or not layers or any(config.get(key) is not None for key in told):
        raise UsageError(
            f"{adapter.path} cannot be used with {spec.name}: IP-Adapters are for Stable Diffusion 1 and 2 alone here.",
            "Use such a prior: --prior sd15",
        )
    for number, shape in layers:
        for name in (f"ip_adapter.{number}.to_{letter}_ip.weight" for letter in "kv"):
            found = adapter.shapes.get(name)
            if found != shape:
                raise _unfit(
                    adapter, spec, f"{name} is {'missing' if found is None else list(found)}, not {list(shape)}"
                )
    more = len([name for name in adapter.shapes if name.startswith("ip_adapter.")]) - 2 * len(layers)
    if more:
        raise _unfit(adapter, spec, f"it has {more} tensors that no attention of {spec.name} takes")
    made, width = adapter.shapes[f"{PROJECTION}.weight"], layers[0][1][1]
    if made[0] != TOKENS * width:
        raise _unfit(adapter, spec, f"it makes {made[0]} numbers, not {TOKENS} tokens of {width}")
    _check_encoder(adapter, made[1])


def attend(prior: DiffusersPrior, adapter: Adapter) -> None:
    """Have the network of a prior that was just loaded attend to a picture too, as strongly as the adapter counts.

    Which picture, `show` says; before that it cannot be asked.
    """
    tensors = safetensors.torch.load_file(adapter.path)
    names = [name for name in prior.network.attn_processors if name.endswith(_WORDS)]
    numbers = [number for number, _ in _layers(prior.spec.network)]
    processors = {
        name: _attention(tensors, number, adapter.weight).to(prior.device, prior.dtype)
        for name, number in zip(names, numbers, strict=True)
    }
    prior.network.set_attn_processor(prior.network.attn_processors | processors)


def show(prior: DiffusersPrior, adapter: Adapter, style: Style) -> None:
    """Have a prior see the picture of a style wherever it is told a prompt from now on, in place of an earlier one.

    What was encoded before keeps its own picture. The image encoder is loaded for this alone.
    """
    tensors = safetensors.torch.load_file(adapter.path)
    encoder = prior.component(_encoder(adapter), torch.float32)
    image = torch.from_numpy(style.pixels).to(prior.device).movedim(-1, 0)[None].float() / 255
    embedding = embedded(encoder, image)
    del encoder
    if prior.device.type == "cuda":
        torch.cuda.empty_cache()
    prior.picture = ImageTokens(_tokens(tensors, embedding), _tokens(tensors, torch.zeros_like(embedding)))


def _attention(tensors: dict[str, Tensor], number: int, scale: float) -> IPAdapterAttnProcessor2_0:
    """diffusers' own attention to words and picture, with the adapter's keys and values."""
    key, value = (tensors[f"ip_adapter.{number}.to_{letter}_ip.weight"] for letter in "kv")
    made = IPAdapterAttnProcessor2_0(len(key), key.shape[1], num_tokens=(TOKENS,), scale=scale)
    made.load_state_dict({"to_k_ip.0.weight": key, "to_v_ip.0.weight": value})
    return made.requires_grad_(False)


def _tokens(tensors: dict[str, Tensor], embedding: Float[Tensor, "1 E"]) -> Float[Tensor, "1 4 D"]:
    """The tokens of a picture's embedding: a linear layer and a normalisation."""
    weight, bias, gain, offset = (
        tensors[f"{layer}.{part}"].float().to(embedding.device)
        for layer in (PROJECTION, NORM)
        for part in ("weight", "bias")
    )
    rows = F.linear(embedding, weight, bias).view(len(embedding), TOKENS, -1)
    return F.layer_norm(rows, gain.shape, gain, offset)


@cache
def _layers(network: Component) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """The attentions to the words: the number that an IP-Adapter knows each by, and the shape of its keys' layer.

    Numbers are places among all attentions in the network's own order [the authors' code]. Empty where a network
    has attention of another kind.
    """
    with torch.device("meta"):  # shapes without memory
        made: Any = class_named(network.cls).from_config(network.settings)
    names = list(made.attn_processors)
    if not all(name.endswith((_WORDS, _OWN)) for name in names):
        return ()
    return tuple(
        (number, tuple(made.get_submodule(name.removesuffix(".processor")).to_k.weight.shape))
        for number, name in enumerate(names)
        if name.endswith(_WORDS)
    )


def _encoder(adapter: Adapter) -> Component:
    return Component(adapter.encoder, IMAGE_ENCODERS[0])


def _check_encoder(adapter: Adapter, wanted: int) -> None:
    """Raises UsageError for an image encoder whose embeddings have not so many numbers."""
    check_part(_encoder(adapter))
    shape = weight_shapes(adapter.encoder).get("visual_projection.weight")
    if shape is None or shape[0] != wanted:
        gives = "no embedding" if shape is None else f"{shape[0]} numbers"
        raise UsageError(
            f"The image encoder {adapter.encoder} gives {gives} of a picture, and {adapter.path} takes {wanted}.",
            f"Use the one that it was trained with: {GET}",
        )


def _unfit(adapter: Adapter, spec: PriorSpec, why: str) -> UsageError:
    return UsageError(
        f"The IP-Adapter {adapter.path} was made for another base model than {spec.name}: {why}.",
        "Use the prior that it was made for: --prior NAME",
    )

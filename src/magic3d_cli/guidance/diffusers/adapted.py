"""LoRAs, learnt words and IP-Adapters of others' making and of ours, put into a prior as it is loaded.

A LoRA (Hu et al., arXiv 2106.09685) adds `up @ down * alpha / rank` to some weights; it is added once, so that it costs
nothing at a step. Its tensors are named as by diffusers (`unet.….to_q.lora_A.weight`, or the older `.lora.down.weight`
and `.processor.to_q_lora.down.weight`) or by kohya (`lora_unet_…_to_q.lora_down.weight`, with an `.alpha` each). A
learnt word (textual inversion, Gal et al., arXiv 2208.01618) is one or more embeddings of new tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor

from magic3d_cli.errors import UsageError
from magic3d_cli.guidance.adapters import IMAGE_PROMPT, LORA, SUBJECT, TOKENS, Adapter
from magic3d_cli.guidance.diffusers import ip_adapter
from magic3d_cli.guidance.diffusers.files import weight_shapes
from magic3d_cli.guidance.diffusers.prior import DiffusersPrior
from magic3d_cli.guidance.diffusers.spec import PriorSpec

Shapes = Mapping[str, tuple[int, ...]]
NETWORK, TEXT = "network", "text_encoder"
_ENDS = {  # of a LoRA's tensors by what they are; longer ones first
    "down": (
        ".lora_linear_layer.down.weight", ".lora_down.weight", ".lora.down.weight", "_lora.down.weight",
        ".lora_A.default.weight", ".lora_A.weight",
    ),
    "up": (
        ".lora_linear_layer.up.weight", ".lora_up.weight", ".lora.up.weight", "_lora.up.weight",
        ".lora_B.default.weight", ".lora_B.weight",
    ),
    "alpha": (".alpha",),
}  # fmt: skip
_NETWORKS, _TEXTS = ("unet", "transformer"), ("text_encoder", "te", "te1")


@dataclass(frozen=True)
class Change:
    """One weight that a LoRA changes: its part and name in the prior, and the LoRA's own tensors."""

    part: str  # NETWORK or TEXT
    weight: str
    down: str
    up: str
    alpha: str | float | None  # the tensor's name, or the number that PEFT wrote beside the tensors


def fitting(adapters: Sequence[Adapter], spec: PriorSpec) -> list[Adapter]:
    """Those that are made for a prior."""
    found = []
    for adapter in adapters:
        try:
            check_fits(adapter, spec)
            found.append(adapter)
        except UsageError:
            continue
    return found


def check_any_fits(adapters: Sequence[Adapter], specs: Sequence[PriorSpec]) -> None:
    """Raises UsageError for an adapter that fits none of some priors that are told words. Reads no weights."""
    for adapter in adapters:
        if adapter.kind == SUBJECT or not specs or fitting([adapter], specs[-1]):
            continue
        if not any(fitting([adapter], spec) for spec in specs[:-1]):
            check_fits(adapter, specs[-1])


def check_fits(adapter: Adapter, spec: PriorSpec) -> None:
    """Raises UsageError where an adapter was made for another base model, by the shapes in both headers."""
    if spec.second_text_encoder is not None:
        raise UsageError(
            f"{adapter.path} cannot be used with {spec.name}: priors with two text encoders take none.",
            "Use a prior of Stable Diffusion 1 or 2, or leave out --adapter.",
        )
    if adapter.kind == LORA:
        changes_of(adapter, _shapes(spec))
    elif adapter.kind == IMAGE_PROMPT:
        ip_adapter.check_fits(adapter, spec)
    elif adapter.kind == TOKENS:
        width, here = _token_width(adapter), _embedding(_shapes(spec)[TEXT])[1]
        if width != here:
            raise UsageError(
                f"{adapter.path} was made for another base model: its word has {width} numbers a token, and "
                f"{spec.name} reads {here}.",
                "Use the prior that it was made for: --prior NAME",
            )


def changes_of(adapter: Adapter, base: Mapping[str, Shapes]) -> list[Change]:
    """What a LoRA changes of a prior whose weights have these shapes. Raises UsageError where it does not fit."""
    groups: dict[str, dict[str, str]] = {}
    for name in adapter.shapes:
        role, end = next(((r, e) for r, ends in _ENDS.items() for e in ends if name.endswith(e)), ("", ""))
        if not role:
            raise _unfit(adapter, f"its tensor {name} is not a LoRA's")
        groups.setdefault(name.removesuffix(end), {})[role] = name
    lookup = {part: _lookup(shapes) for part, shapes in base.items()}
    return [_change(adapter, name, found, lookup, base) for name, found in sorted(groups.items())]


def _change(
    adapter: Adapter,
    name: str,
    found: dict[str, str],
    lookup: Mapping[str, Mapping[str, str]],
    base: Mapping[str, Shapes],
) -> Change:
    if not {"down", "up"} <= set(found):
        raise _unfit(adapter, f"half of {name} is missing")
    part, bare = _place(name)
    weight = lookup.get(part, {}).get(_squeezed(bare))
    if weight is None:
        raise _unfit(adapter, f"it changes {name}, which that prior does not have")
    down, up, shape = adapter.shapes[found["down"]], adapter.shapes[found["up"]], base[part][weight]
    if len(down) < 2 or len(up) < 2 or up[1] != down[0]:
        raise _unfit(adapter, f"the ranks of {name} differ: {list(up)} and {list(down)}")
    size = up[0], torch.Size(down[1:]).numel()
    wanted = shape[0], torch.Size(shape[1:]).numel()
    if size != wanted:
        raise _unfit(adapter, f"{name} is for {size[1]} inputs and {size[0]} outputs, and there are {wanted[1]} and {wanted[0]}")  # fmt: skip  # noqa: E501
    prefix = next((p for p in (*_NETWORKS, *_TEXTS) if name.startswith(f"{p}.")), "unet")
    alpha = found.get("alpha", adapter.meta.get("peft", {}).get(f"{prefix}.lora_alpha"))
    return Change(part, weight, found["down"], found["up"], alpha)


def adapt(prior: DiffusersPrior, adapters: Sequence[Adapter]) -> None:
    """Change a prior that was just loaded; the text encoder is changed when it is loaded.

    With an IP-Adapter it has to be shown a picture next: `ip_adapter.show`.
    """
    for number, adapter in enumerate(adapters):
        if adapter.kind == TOKENS:
            word = LearntWord(str(adapter.word), _embeddings(adapter), number)
            prior.on_text_encoder.append(word.teach)
            prior.spellings.append(word.spelt)
        elif adapter.kind == LORA:
            tensors = safetensors.torch.load_file(adapter.path)
            changes = changes_of(adapter, _shapes(prior.spec))
            _add(prior.network, tensors, [c for c in changes if c.part == NETWORK], adapter.weight)
            texts = [change for change in changes if change.part == TEXT]
            if texts:
                prior.on_text_encoder.append(_adder(tensors, texts, adapter.weight))
        elif adapter.kind == IMAGE_PROMPT:
            ip_adapter.attend(prior, adapter)


def _adder(tensors: Mapping[str, Tensor], changes: list[Change], weight: float) -> Any:
    return lambda encoder, tokenizer: _add(encoder, tensors, changes, weight)


@torch.no_grad()
def _add(network: Any, tensors: Mapping[str, Tensor], changes: Sequence[Change], weight: float) -> None:
    """Add what a LoRA says to a network's weights."""
    own = dict(network.named_parameters())
    own |= {name.removeprefix("text_model."): parameter for name, parameter in own.items()}
    for change in changes:
        target = own.get(change.weight)
        target = own[change.weight.removeprefix("text_model.")] if target is None else target
        down, up = tensors[change.down].float(), tensors[change.up].float()
        alpha = float(tensors[change.alpha]) if isinstance(change.alpha, str) else change.alpha
        scale = 1.0 if alpha is None else alpha / len(down)
        delta = weight * scale * (up.flatten(1) @ down.flatten(1)).view(target.shape)
        target.copy_((target.float() + delta.to(target.device)).to(target.dtype))


@dataclass(frozen=True)
class LearntWord:
    """A word and the embeddings of its tokens; `number` tells it from other words of a run."""

    word: str
    embeddings: Float[Tensor, "n D"]
    number: int = 0

    @property
    def tokens(self) -> list[str]:
        return [f"<own-{self.number}-{n}>" for n in range(len(self.embeddings))]

    def spelt(self, prompt: str) -> str:
        """A prompt with the word's tokens in its place."""
        return re.sub(rf"(?<!\w){re.escape(self.word)}(?!\w)", " ".join(self.tokens), prompt, flags=re.IGNORECASE)

    @torch.no_grad()
    def teach(self, encoder: Any, tokenizer: Any) -> None:
        """Give an encoder and its tokenizer the tokens."""
        tokenizer.add_tokens(self.tokens)
        encoder.resize_token_embeddings(max(len(tokenizer), len(encoder.get_input_embeddings().weight)))
        weight = encoder.get_input_embeddings().weight
        weight[tokenizer.convert_tokens_to_ids(self.tokens)] = self.embeddings.to(weight)


def _embeddings(adapter: Adapter) -> Float[Tensor, "n D"]:
    (tensor,) = safetensors.torch.load_file(adapter.path).values()
    return tensor.float().reshape(-1, tensor.shape[-1])


def _token_width(adapter: Adapter) -> int:
    return next(iter(adapter.shapes.values()))[-1]


def _shapes(spec: PriorSpec) -> dict[str, Shapes]:
    """Shapes of the weights of a prior's network and text encoder."""
    parts: dict[str, Shapes] = {NETWORK: weight_shapes(spec.network.folder)}
    return parts | ({TEXT: weight_shapes(spec.text_encoder.folder)} if spec.text_encoder else {})


def _embedding(shapes: Shapes) -> tuple[int, ...]:
    """Of the token embedding: CLIP's, or T5's."""
    names = ("token_embedding.weight", "shared.weight", "embed_tokens.weight")
    return next(shape for name in names for key, shape in shapes.items() if key.endswith(name))


def _lookup(shapes: Shapes) -> dict[str, str]:
    """Names of weights by their modules' names without dots, as kohya writes them; CLIP's also without text_model."""
    found: dict[str, str] = {}
    for name in shapes:
        if name.endswith(".weight"):
            for key in _spellings(name.removesuffix(".weight")):
                found[key] = name
    return found


def _spellings(module: str) -> Iterator[str]:
    yield _squeezed(module)
    yield _squeezed(module.removeprefix("text_model."))
    if module.endswith(".to_out.0"):  # of the older names, which know no list
        yield _squeezed(module.removesuffix(".0"))


def _squeezed(name: str) -> str:
    return name.replace(".processor.", ".").replace(".", "_")


def _place(name: str) -> tuple[str, str]:
    """The part of a prior that a LoRA's tensor is for, and its name there."""
    name = name.removeprefix("base_model.model.")
    for part, prefixes in ((NETWORK, _NETWORKS), (TEXT, _TEXTS)):
        for prefix in prefixes:
            for start in (f"lora_{prefix}_", f"{prefix}."):
                if name.startswith(start):
                    return part, name.removeprefix(start).removeprefix("text_model.").removeprefix("text_model_")
    return NETWORK, name


def _unfit(adapter: Adapter, why: str) -> UsageError:
    return UsageError(
        f"The LoRA {adapter.path} was made for another base model: {why}.",
        "Use the prior that it was made for: --prior NAME",
    )

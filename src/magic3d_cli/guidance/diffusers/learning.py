"""What a prior that is told words learns of a person's own thing from a few photos: a LoRA, or a word alone.

DreamBooth (Ruiz et al., arXiv 2208.12242) tunes the network until "a photo of a sks cat" is the photos' cat, while what
it knows of cats is kept by its own pictures of "a photo of a cat" (prior preservation). Here the network is tuned by a
LoRA on its attention. Textual inversion (Gal et al., arXiv 2208.01618) learns the embedding of the word and leaves the
network as it is. Photos whose side is known are told with it ("..., back view"), so that the few viewpoints of photos
are not taken for the thing itself: that they are is what DreamBooth3D (arXiv 2303.13508) sets out from. Its own remedy,
a second tuning on pictures of a first volume from all sides, is not here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from magic3d_cli.guidance.conditioning import VIEW_WORDS
from magic3d_cli.guidance.diffusers.augment import TEMPLATES, augmented
from magic3d_cli.guidance.diffusers.denoising import denoising_loss, sample
from magic3d_cli.guidance.diffusers.lora import Lora
from magic3d_cli.guidance.diffusers.prior import DiffusersPrior

_GRADIENT = 1.0  # longest norm


@dataclass(frozen=True)
class Recipe:
    """Numbers of diffusers' examples: train_dreambooth_lora.py (1e-4, 500 steps, rank 4), textual_inversion.py (5e-4
    times 4, 3000 steps). They draw 200 pictures to keep; 50 are our choice, which cost 2500 evaluations.

    Attributes:
        kept: the prior's own pictures that are kept by prior preservation. preservation: the weight of their loss.
    """

    steps: int
    rate: float
    rank: int = 4
    kept: int = 0
    preservation: float = 1.0


LORA_RECIPE = Recipe(steps=500, rate=1e-4, kept=50)
WORD_RECIPE = Recipe(steps=3000, rate=2e-3)
Report = Callable[[int, float], None]
"""Told the step and its loss; may raise to stop."""


def learn_lora(
    prior: DiffusersPrior,
    photos: Sequence[Float[Tensor, "3 S S"]],
    words: Sequence[str],
    kind: str,
    recipe: Recipe,
    seed: int,
    report: Report,
) -> dict[str, Tensor]:
    """A LoRA of the network by diffusers' names; the prior itself is as it was.

    Args:
        photos: in [0, 1], at the prior's size. words: what each shows, "a photo of a sks cat, back view".
        kind: what it is, "cat": of it the prior's own pictures are kept.
    """
    generator = torch.Generator().manual_seed(seed)
    states = prior.encode_prompt([*words, f"a photo of a {kind}", ""])
    prior.release_text_encoder()
    own, plain, nothing = states[: len(words)], states[-2:-1], states[-1:]
    clean = torch.cat([prior.encode_image(photo[None].to(prior.device)) for photo in photos])
    kept = [sample(prior, plain, nothing, clean.shape[1:], generator) for _ in range(recipe.kept)]
    lora = Lora(prior.network, recipe.rank, generator)
    with lora.applied(prior.network):
        parameters = list(lora.parameters())
        adam = torch.optim.AdamW(parameters, recipe.rate, weight_decay=1e-2)
        for step in range(recipe.steps):
            n = int(torch.randint(len(clean), (1,), generator=generator))
            loss = denoising_loss(prior, clean[n : n + 1], own[n : n + 1], generator)
            if kept:
                one = kept[int(torch.randint(len(kept), (1,), generator=generator))]
                loss = loss + recipe.preservation * denoising_loss(prior, one, plain, generator)
            _step(adam, loss, parameters)
            report(step + 1, float(loss.detach()))
    return {
        f"unet.{name}.lora_{letter}.weight": part.detach().cpu().contiguous()
        for name, layer in lora.parts.items()
        for letter, part in (("A", layer.down), ("B", layer.up))
    }


def learn_word(
    prior: DiffusersPrior,
    photos: Sequence[Float[Tensor, "3 S S"]],
    words: Sequence[str],
    word: str,
    kind: str,
    recipe: Recipe,
    seed: int,
    report: Report,
) -> dict[str, Tensor]:
    """The embedding of a word, which begins as that of its kind; the network and the text encoder are as they were.

    Arguments as of `learn_lora`; `words` have the `word` in them. One photo alone is shown and told in many ways.
    """
    generator = torch.Generator().manual_seed(seed)
    clean = torch.cat([prior.encode_image(photo[None].to(prior.device)) for photo in photos])
    encoder, tokenizer = prior.text_encoder()
    known = tokenizer(kind, add_special_tokens=False).input_ids[:1]
    table = encoder.get_input_embeddings()
    new = nn.Parameter(table.weight[known].detach().clone().float())  # [1, D]
    place = "<own-new>"
    tokenizer.add_tokens([place])
    encoder.resize_token_embeddings(max(len(tokenizer), len(table.weight)))
    encoder.requires_grad_(False)
    number = tokenizer.convert_tokens_to_ids(place)
    hook = encoder.get_input_embeddings().register_forward_hook(
        lambda module, ids, found: torch.where((ids[0] == number)[..., None], new[0].to(found.dtype), found)
    )
    texts = [text.replace(word, place) for text in words]
    adam = torch.optim.AdamW([new], recipe.rate, weight_decay=1e-2)
    try:
        for step in range(recipe.steps):
            n = int(torch.randint(len(clean), (1,), generator=generator))
            shown, text = clean[n : n + 1], texts[n]
            if len(photos) == 1:
                shown = prior.encode_image(augmented(photos[0], generator)[None].to(prior.device))
                text = TEMPLATES[step % len(TEMPLATES)].format(place)
            loss = denoising_loss(prior, shown, prior.text_states([text]), generator)
            _step(adam, loss, [new])
            report(step + 1, float(loss.detach()))
    finally:
        hook.remove()
        prior.release_text_encoder()  # it has a token too many
    return {word: new.detach().cpu().contiguous()}


def said(word: str, azimuth: float | None) -> str:
    """What a photo shows, and from which side where that is known."""
    if azimuth is None:
        return f"a photo of a {word}"
    turned = abs(math.remainder(azimuth, 360.0))
    return f"a photo of a {word}, {VIEW_WORDS[0 if turned < 45 else 1 if turned < 135 else 2]}"


def _step(adam: Any, loss: Tensor, parameters: list[nn.Parameter]) -> None:
    adam.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, _GRADIENT)
    adam.step()

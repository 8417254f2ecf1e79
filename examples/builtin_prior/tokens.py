"""The prior's words: a closed vocabulary of whole words, fixed random vectors for them, and what may be asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from manifest import NOUNS, Noun
from paint import COLOURS, MATERIALS
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from magic3d_cli.asset.size import usual_size

TEXT_WIDTH, TEXT_LENGTH = 192, 8


def make_tokenizer(known: dict[str, int] | None = None) -> PreTrainedTokenizerFast:
    """Whole words, so that an unknown word cannot be mistaken for a known one; those known already keep their ids."""
    words = ["<pad>", "<s>", "</s>", "<unk>", *COLOURS, *MATERIALS]
    words += [noun.token for noun in NOUNS] + [style for noun in NOUNS for style in noun.styles]
    ids = dict(known or {})
    for word in words:
        ids.setdefault(word, len(ids))
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", ids["<s>"]), ("</s>", ids["</s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        model_max_length=TEXT_LENGTH,
    )  # fmt: skip


def find_tokenizer(start: Path) -> PreTrainedTokenizerFast:
    """That of the prior started from, with the manifest's further words after its own: its vectors are in its order."""
    folder = start / "tokenizer"
    return make_tokenizer(PreTrainedTokenizerFast.from_pretrained(folder).get_vocab() if folder.exists() else None)


def make_text(vocabulary: int) -> CLIPTextModel:
    """Word embeddings in the form of a CLIP text model without layers."""
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary, hidden_size=TEXT_WIDTH, intermediate_size=TEXT_WIDTH, num_hidden_layers=0,
            num_attention_heads=1, max_position_embeddings=TEXT_LENGTH, projection_dim=TEXT_WIDTH,
            pad_token_id=0, bos_token_id=1, eos_token_id=2,
        )
    )  # fmt: skip
    with torch.no_grad():  # the layer norm that follows makes words vectors of unit scale; their order says nothing
        text.get_parameter(next(n for n, _ in text.named_parameters() if "position_embedding" in n)).zero_()
    return text.requires_grad_(False)  # fixed, and so all different, and every word found exactly


@torch.no_grad()
def states(text: CLIPTextModel, tokenizer: PreTrainedTokenizerFast, words: list[str]) -> Tensor:
    """The text states of single words, [N, TEXT_WIDTH]."""
    ids = torch.tensor([tokenizer.get_vocab()[word] for word in words])
    return text(ids[:, None].to(text.device)).last_hidden_state[:, 0]


def write_vocabulary(path: Path, nouns: dict[Noun, list[str]]) -> None:
    """What the program may be asked for: these nouns with these styles, colours and materials."""
    entries: dict[str, dict[str, Any]] = {}
    for noun, styles in nouns.items():
        entries[noun.name] = {"words": list(noun.words), "styles": styles}
        if size := usual_size(noun.name):
            entries[noun.name]["metres"] = size[1]
    vocabulary = {
        "nouns": entries,
        "colours": {name: list(words) for name, (words, _) in COLOURS.items()},
        "materials": {name: list(words) for name, words in MATERIALS.items()},
    }
    path.write_text(json.dumps(vocabulary, indent=1) + "\n")

"""Tokenizers in the files that the big priors are published with, and no others."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import sentencepiece
import torch
from tiny_priors import save_if, save_sd

from magic3d_cli.guidance.diffusers.prior import load_prior


def test_the_t5_of_deepfloyd_and_pixart_is_read_from_its_sentencepiece_model_alone(tmp_path: Path) -> None:
    folder = save_if(tmp_path / "if")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a red dragon, front view", "a blue car, side view"] * 20),
        model_writer=model, vocab_size=30, hard_vocab_limit=False,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    told = {
        "additional_special_tokens": [f"<extra_id_{i}>" for i in range(100)],
        "extra_ids": 100,
        "model_max_length": 512,
        "tokenizer_class": "T5Tokenizer",
        **_special,
    }
    _replace_tokenizer(folder, {"spiece.model": model.getvalue(), "tokenizer_config.json": told})
    prior = load_prior(str(folder), dtype=torch.float32)
    seen = _tokens_that_reach_the_text_encoder(prior, ["a red dragon"])
    expected = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()).encode("a red dragon")
    assert seen[0, : len(expected) + 2].tolist() == [*expected, 1, 0] and seen.shape == (1, 77)


def test_the_clip_of_stable_diffusion_is_read_from_vocabulary_and_merges_alone(tmp_path: Path) -> None:
    folder = save_sd(tmp_path / "sd")
    words = ["<|startoftext|>", "<|endoftext|>", "a</w>", "r", "e", "d</w>", "re", "red</w>", "c", "ar</w>", "car</w>"]
    words += ["a", "r</w>"]
    end = "<|endoftext|>"
    told = {
        "bos_token": words[0],
        "eos_token": end,
        "pad_token": end,
        "unk_token": end,
        "model_max_length": 8,
        "tokenizer_class": "CLIPTokenizer",
    }
    files: dict[str, object] = {
        "vocab.json": {word: i for i, word in enumerate(words)},
        "merges.txt": b"#version: 0.2\nr e\nre d</w>\na r</w>\nc ar</w>\n",
        "tokenizer_config.json": told,
    }
    _replace_tokenizer(folder, files)
    seen = _tokens_that_reach_the_text_encoder(load_prior(str(folder), dtype=torch.float32), ["a Red car"])
    assert seen.tolist() == [[0, 2, 7, 10, 1, 1, 1, 1]]


_special = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}


def _replace_tokenizer(folder: Path, files: dict[str, object]) -> None:
    shutil.rmtree(folder / "tokenizer")
    (folder / "tokenizer").mkdir()
    for name, data in files.items():
        (folder / "tokenizer" / name).write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())


def _tokens_that_reach_the_text_encoder(prior, prompts: list[str]) -> torch.Tensor:
    prior.encode_prompt(prompts)
    seen = []
    prior._text_encoder[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    prior.encode_prompt(prompts)
    return seen[0]

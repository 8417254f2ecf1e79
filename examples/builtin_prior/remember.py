"""Put models into the prior: `python remember.py RUN POOL [LATENTS] [--start PRIOR]`, after train.py or fit.py.

RUN/volume gets every model of the manifest that has a latent in LATENTS (fit.py) or in RUN/shapes.pt (train.py), and
those that it remembers already, each with its tones and the words that name it; RUN gets the tokenizer, the words'
vectors and the vocabulary that belong to them. Nothing is learned here: a caption finds its model by its words. What
RUN does not have yet is copied from PRIOR.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from batches import find_styles, load_tones
from best import best_first
from fit import read_latent
from manifest import NOUNS
from paint import COLOURS, MATERIALS
from tokens import find_tokenizer, states, write_vocabulary
from train import make_models, stored_sizes, take_over

from magic3d_cli.guidance.builtin.latents import Latent
from magic3d_cli.guidance.builtin.volume import REMEMBERED, CaptionVolume
from magic3d_cli.guidance.diffusers.catalogue import BUILTIN

Known = dict[str, tuple[Latent, list[float]]]
"""Latent and tones of models, by style token."""


def remembered(prior: Path) -> Known:
    """What a prior knows of the manifest's models."""
    if not stored_sizes(prior).get("models"):
        return {}
    volume = CaptionVolume.from_pretrained(prior / "volume").float()
    tokenizer = find_tokenizer(prior)
    text = make_models(len(tokenizer), 64)["text"]
    take_over(text, prior / "text_encoder")
    nouns = json.loads((prior / "vocabulary.json").read_text())["nouns"]
    now = {style for noun in NOUNS for style in noun.styles}
    tokens = [style for noun in nouns.values() for style in noun["styles"] if style in now]
    found = volume.find(states(text, tokenizer, tokens)[:, None]).tolist()
    return {token: (volume.latent(n), volume.tones[n].tolist()) for token, n in zip(tokens, found, strict=True)}


def fitted(run: Path, pool: Path, folder: Path | None) -> Known:
    """What has been learned: by fit.py into a folder, or else by train.py."""
    known: Known = {}
    styles, learned = find_styles(pool), run / "shapes.pt"
    if learned.exists():
        rows = torch.load(learned, map_location="cpu", weights_only=True)["latents"]["weight"]
        shape = make_models(4, 64)["volume"].latent_shape
        for style, row in zip(styles, rows, strict=True):
            known[style.token] = Latent.whole(row.view(shape)), list(load_tones(style))
    for style in styles:
        path = folder / f"{style.path.name}.npz" if folder else None
        if path and path.exists() and Path(f"{style.path}.tones.npy").exists():
            known[style.token] = read_latent(path)[0], list(load_tones(style))
    return known


def remember(run: Path, pool: Path, start: Path, folder: Path | None = None) -> int:
    """See the module; the number of models."""
    for part in ("volume", "text_encoder", "tokenizer", "vocabulary.json", "coarse", "fine", "scheduler"):
        if not (run / part).exists() and (start / part).exists():
            (shutil.copytree if (start / part).is_dir() else shutil.copy)(start / part, run / part)
    known = remembered(run) | fitted(run, pool, folder)
    tokenizer = find_tokenizer(run)
    made = make_models(len(tokenizer), 64)
    volume, text = made["volume"], made["text"]
    take_over(volume, run / "volume", but=REMEMBERED)
    take_over(text, run / "text_encoder")
    nouns = {
        noun: best_first(noun, kept) for noun in NOUNS if (kept := [style for style in noun.styles if style in known])
    }
    tokens = [token for kept in nouns.values() for token in kept]
    volume.remember(
        [known[token][0] for token in tokens],
        torch.tensor([known[token][1] for token in tokens]),
        states(text, tokenizer, [*tokens, *(noun.token for noun in nouns)]),
        torch.tensor([*range(len(tokens)), *(tokens.index(kept[0]) for kept in nouns.values())]),
        states(text, tokenizer, [*COLOURS, *MATERIALS]),
    )
    volume.half().save_pretrained(run / "volume")
    text.half().save_pretrained(run / "text_encoder")
    tokenizer.save_pretrained(run / "tokenizer")
    write_vocabulary(run / "vocabulary.json", nouns)
    return len(tokens)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("pool", type=Path)
    parser.add_argument("latents", type=Path, nargs="?")
    parser.add_argument("--start", type=Path, default=BUILTIN)
    args = parser.parse_args()
    args.run.mkdir(parents=True, exist_ok=True)
    models = remember(args.run, args.pool, args.start, args.latents)
    nouns = len(json.loads((args.run / "vocabulary.json").read_text())["nouns"])
    size = sum(path.stat().st_size for path in args.run.glob("**/*.safetensors"))
    print(f"{args.run}: {nouns} nouns, {models} models, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()

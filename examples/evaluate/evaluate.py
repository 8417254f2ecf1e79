"""Judge the built-in prior and the meshes made with it.

    python evaluate.py DATA RECOGNISER --views POOL --unseen POOL --meshes DIR -o table.json

DATA holds the unpacked models, RECOGNISER is recogniser.py's file, --views and --unseen are pools that
builtin_prior/render.py wrote with another --seed, from the prior's own models and from held_out.tsv, and DIR holds one
GLB a prompt (generate.py). Measured, as a table and in the JSON file:

- noise: error of the clean image by diffusion time on those pools, with the style and with the noun alone;
- precision: share of prompts whose noun the recogniser puts first (and among five) of all nouns, over eight views
  together, of real models (the ceiling), of the prior's samples and of the meshes, with and without texture;
- azimuth: median error of the recogniser's azimuth, and double faces: objects with two of three back views taken for
  the front, over nouns whose real model has a front that it can tell;
- composition: colour and material, by Lab distance to the real model painted in every colour and material;
- likeness, of meshes: overlap of silhouettes with the real, painted model, and error of colours and of white shading.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pictures
import torch
from batches import Style, ViewBatches, find_styles
from jaxtyping import Float
from manifest import file_stem, read_manifest
from paint import COLOURS, MATERIALS
from prompts import REPORT, TUNING
from recogniser import HELD_OUT, Recogniser, load_recogniser
from torch import Tensor

from magic3d_cli.guidance.builtin.vocabulary import Caption, Vocabulary
from magic3d_cli.guidance.diffusers.catalogue import BUILTIN
from magic3d_cli.guidance.diffusers.prior import DiffusersPrior, load_prior
from magic3d_cli.guidance.diffusion import alpha_sigma

Source = Callable[[str, bool], tuple[Tensor, Tensor | None]]
"""Pictures and, where known, coverage of a prompt, with or without texture."""
TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)
TELLS_FRONT = math.radians(30)
BACKS, DOUBLE = [3, 4, 5], 2
"""Cameras at 135, 180 and 225 degrees. A back with two of them taken for the front has a face of its own: the middle
one alone may be a mere silhouette."""


def lab(rgb: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 3"]:
    """CIE L*a*b* (D65) of sRGB colours in [0, 1]."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ matrix.T / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)


@torch.inference_mode()
def denoising(
    prior: DiffusersPrior, styles: list[Style], captions: Callable[[Style], str], batches: int
) -> list[float]:
    """Mean squared error of the clean image at each of TIMES, in [-1, 1], over painted views of the styles."""
    data = ViewBatches(styles, prior.image_size, captions=16, views=1, seed=5)
    generator = torch.Generator().manual_seed(5)
    totals = np.zeros(len(TIMES))
    for _ in range(batches):
        drawn: list[str] = []
        data.draw = _recorded(ViewBatches.draw.__get__(data), captions, data, drawn)  # type: ignore[method-assign]
        (images, features), _ = data.make()
        text = prior.encode_prompt(drawn)
        noise = torch.randn(images.shape, generator=generator)
        for i, time in enumerate(TIMES):
            t = torch.full((len(images),), int(time * 1000))
            alpha, sigma = alpha_sigma(prior.alphas_cumprod, t)
            clean, _ = prior.denoise(alpha * images + sigma * noise, t, text, features)
            totals[i] += (clean - images).square().mean().item() / batches
    return totals.round(5).tolist()


def _recorded(draw: Callable[[], Any], captions: Callable[[Style], str], data: ViewBatches, drawn: list[str]) -> Any:
    """`draw` whose caption is made by `captions` and remembered, empty captions avoided."""

    def wrapper() -> tuple[int, str | None, str | None, str]:
        index, colour, material, _ = draw()
        caption = " ".join(w for w in (colour, material, captions(data.styles[index])) if w)
        drawn.append(caption)
        return index, colour, material, caption

    return wrapper


@torch.inference_mode()
def recognised(
    network: Recogniser, nouns: list[str], source: Source, captions: dict[str, Caption]
) -> dict[str, dict[str, Any]]:
    """Rank and probability of the noun and estimated azimuths [8] of every prompt, with and without texture."""
    out: dict[str, dict[str, Any]] = {}
    for prompt, caption in captions.items():
        entry: dict[str, Any] = {}
        for textured in (True, False):
            images, _ = source(prompt, textured)
            logits, direction = network(images * 2 - 1)
            together = logits.log_softmax(-1).mean(0).softmax(-1)
            order = together.argsort(descending=True)
            place = "textured" if textured else "untextured"
            entry[place] = {
                "rank": int((order == nouns.index(caption.noun)).nonzero()[0, 0]),
                "probability": float(together[nouns.index(caption.noun)]),
                "taken_for": nouns[int(order[0])],
                "azimuth": torch.atan2(direction[:, 0], direction[:, 1]).tolist(),
            }
        out[prompt] = entry
    return out


def summary(found: dict[str, dict[str, Any]], real: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Precision at 1 and 5, mean probability of the noun, azimuth error and double faces.

    `real` tells which nouns have a front.
    """
    out: dict[str, float] = {}
    for place in ("textured", "untextured"):
        ranks = np.array([entry[place]["rank"] for entry in found.values()])
        out[f"{place} @1"] = float((ranks == 0).mean())
        out[f"{place} @5"] = float((ranks < 5).mean())
        out[f"{place} probability"] = float(np.mean([entry[place]["probability"] for entry in found.values()]))
    fronted = [
        prompt
        for prompt, entry in real.items()
        if prompt in found
        and np.median(_turn(entry["untextured"]["azimuth"])) < TELLS_FRONT
        and _backs_like_fronts(entry["untextured"]["azimuth"]) < DOUBLE
    ]
    azimuths = [found[prompt]["untextured"]["azimuth"] for prompt in fronted]
    backs = np.array([_backs_like_fronts(estimated) for estimated in azimuths])
    out["prompts with a front"] = len(fronted)
    out["azimuth error, degrees"] = float(np.degrees(np.median([_turn(estimated) for estimated in azimuths])))
    out["back views taken for the front"] = float(backs.mean() / len(BACKS))
    out["double faces"] = float((backs >= DOUBLE).mean())
    return out


def _backs_like_fronts(estimated: list[float]) -> int:
    """Of the three back views, how many are taken for the front: an error of more than 120 degrees."""
    return int((_turn(estimated)[BACKS] > math.radians(120)).sum())


def _turn(estimated: list[float]) -> Float[np.ndarray, "8"]:
    """Absolute angle between estimated and true azimuths."""
    apart = np.array(estimated) - pictures.azimuths().numpy()
    return np.abs((apart + np.pi) % (2 * np.pi) - np.pi)


def _look(images: Tensor, covered: Tensor) -> Float[np.ndarray, "6"]:
    """Mean and spread of an object's Lab colour."""
    pixels = lab(images.movedim(1, -1)[covered > 0.95].numpy().astype(float))
    return np.concatenate([pixels.mean(0), pixels.std(0)])


@cache
def _real_look(data: Path, caption: Caption) -> Float[np.ndarray, "6"]:
    return _look(*pictures.of_model(data, caption, True))


def composition(source: Source, captions: dict[str, Caption], data: Path) -> dict[str, Any]:
    """Share of prompts whose colour, and whose material, is the nearest one in the pictures; and the misses."""
    out: dict[str, Any] = {"misses": []}
    for role, names, numbers in (("colour", list(COLOURS), 3), ("material", list(MATERIALS), 6)):
        right = total = 0
        for prompt, caption in captions.items():
            asked = getattr(caption, role)
            if asked is None:
                continue
            images, covered = source(prompt, True)
            if covered is None:
                _, covered = pictures.of_model(data, caption, True)
            shown = _look(images, covered)
            apart = {}
            for name in names:
                painted = _real_look(data, replace(caption, **{role: name}))
                apart[name] = float(np.abs(painted - shown)[:numbers].sum())
            nearest = min(apart, key=lambda name: apart[name])
            right, total = right + (nearest == asked), total + 1
            if nearest != asked:
                out["misses"].append(f"{prompt}: {nearest}")
        out[role] = right / total if total else math.nan
        out[f"{role} prompts"] = total
    return out


def likeness(source: Source, captions: dict[str, Caption], data: Path) -> dict[str, float]:
    """`pictures.alike` of the real, painted models, the mean over prompts."""
    found = []
    for prompt, caption in captions.items():
        looks = partial(pictures.of_model, data, caption), partial(source, prompt)
        found.append(pictures.alike(*looks))
    return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("recogniser", type=Path)
    parser.add_argument("--prior", type=Path, default=BUILTIN)
    parser.add_argument("--views", type=Path, help="pool of new views of the prior's models")
    parser.add_argument("--unseen", type=Path, help="pool of held_out.tsv")
    parser.add_argument("--meshes", type=Path, help="folder of GLBs, named by their prompts")
    parser.add_argument("--set", choices=("tuning", "report"), default="report")
    parser.add_argument("--batches", type=int, default=16)
    parser.add_argument("-o", "--out", type=Path, default=Path("evaluation.json"))
    args = parser.parse_args()
    network, nouns = load_recogniser(args.recogniser)
    vocabulary = Vocabulary.load(args.prior / "vocabulary.json")
    captions = {prompt: vocabulary.parse(prompt) for prompt in (TUNING if args.set == "tuning" else REPORT)}
    coarse = load_prior(str(args.prior), stage="coarse")
    result: dict[str, Any] = {"prompts": len(captions)}
    if args.views and args.unseen:
        own = find_styles(args.views)
        tokens = {noun.name: noun.token for noun in read_manifest(HELD_OUT)}
        unseen = [
            Style(tokens[noun.name], "", args.unseen / file_stem(*model))
            for noun in read_manifest(HELD_OUT)
            for model in noun.models
        ]
        result["noise"] = {
            "times": TIMES,
            "new views": denoising(coarse, own, lambda s: f"{s.noun} {s.token}", args.batches),
            "new views, noun alone": denoising(coarse, own, lambda s: s.noun, args.batches),
            "unseen models": denoising(coarse, unseen, lambda s: s.noun, args.batches),
        }
    sources: dict[str, Source] = {
        "real models": lambda prompt, textured: pictures.of_model(args.data, captions[prompt], textured),
        "samples": lambda prompt, textured: (pictures.of_prior(coarse, prompt, textured), None),
    }
    if args.meshes:
        captions = {prompt: c for prompt, c in captions.items() if pictures.mesh_path(args.meshes, prompt).exists()}
        result["meshes"] = len(captions)
        sources["meshes"] = lambda prompt, textured: pictures.of_mesh(pictures.mesh_path(args.meshes, prompt), textured)
    found = {name: recognised(network, nouns, source, captions) for name, source in sources.items()}
    for name, source in sources.items():
        result[name] = summary(found[name], found["real models"])
        result[name] |= composition(source, captions, args.data)
        result[name]["found"] = found[name]
    if args.meshes:
        result["likeness"] = likeness(sources["meshes"], captions, args.data)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    report(result, list(sources))


def report(result: dict[str, Any], sources: list[str]) -> None:
    """The table, on stdout."""
    for name, values in result.get("noise", {}).items():
        print(f"{name:24}", *(f"{value:8.4g}" for value in values))
    keys = [key for key, value in result["real models"].items() if not isinstance(value, dict | list)]
    print(f"{'':24}", *(f"{name:>12}" for name in sources))
    for key in keys:
        print(f"{key:24}", *(f"{result[name][key]:12.3f}" for name in sources))
    for name in sources:
        print(f"{name}: composition missed:", "; ".join(result[name]["misses"]) or "nothing")
        wrong = [
            f"{p} ({e['textured']['taken_for']})" for p, e in result[name]["found"].items() if e["textured"]["rank"]
        ]
        print(f"{name}: taken for something else:", "; ".join(wrong) or "nothing")
    for name, value in result.get("likeness", {}).items():
        print(f"meshes, likeness to the real models: {name} {value:.3f}")


if __name__ == "__main__":
    main()

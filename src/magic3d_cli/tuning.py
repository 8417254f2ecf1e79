"""From photos of a person's own thing to an adapter for a prior that is told words: DreamBooth, textual inversion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from magic3d_cli.atomic import write_atomically
from magic3d_cli.errors import UsageError
from magic3d_cli.guidance.adapters import LORA, header_of
from magic3d_cli.guidance.diffusers.catalogue import find, of_stage
from magic3d_cli.guidance.diffusers.files import weights_sha256
from magic3d_cli.guidance.diffusers.learning import LORA_RECIPE, WORD_RECIPE, learn_lora, learn_word, said
from magic3d_cli.guidance.diffusers.prior import DiffusersPrior
from magic3d_cli.guidance.diffusers.spec import check, describe
from magic3d_cli.guidance.priors import full_name
from magic3d_cli.photos import Photo
from magic3d_cli.run.interrupts import Interrupts
from magic3d_cli.version import __version__

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Lesson:
    """What is to be learnt, and how; None leaves a number to the recipe.

    Attributes:
        kind: what the thing is, in one noun: "cat".
        method: LORA or TOKENS.
        kept: the prior's own pictures of its kind that a LoRA keeps.
    """

    photos: tuple[Photo, ...]
    word: str
    kind: str
    output: Path
    prior: str
    method: str = LORA
    steps: int | None = None
    rank: int | None = None
    kept: int | None = None
    seed: int = 0
    device: str = "cpu"


def learn(lesson: Lesson, interrupts: Interrupts, tell: Tell) -> dict[str, Any]:
    """Tune and write the adapter; a JSON-able report.

    Raises EnvironmentFault where there is no such prior, UsageError for one that cannot learn from photos, OSError.
    """
    name = full_name(lesson.prior, lesson.device)
    folder = of_stage(find(name, tell), "fine")
    spec = describe(folder, name)
    if spec.volume is not None or spec.from_picture or spec.camera_conditioned:
        raise UsageError(f"{name} is not told in words, and learns nothing from photos.", "Use --prior sd15.")
    if spec.second_text_encoder is not None or spec.set_size > 1:
        kind = "has two text encoders" if spec.set_size == 1 else "is shown four views at once"
        raise UsageError(f"{name} {kind}: tuning it is not supported.", "Use --prior sd15.")
    check(spec)
    prior = DiffusersPrior(spec, torch.device(lesson.device), torch.float32)  # half precision loses such small steps
    recipe = LORA_RECIPE if lesson.method == LORA else WORD_RECIPE
    given = {"steps": lesson.steps, "rank": lesson.rank, "kept": lesson.kept}
    recipe = replace(recipe, **{key: value for key, value in given.items() if value is not None})
    photos = [_pixels(photo.image, spec.image_size) for photo in lesson.photos]
    words = [said(lesson.word, photo.azimuth) for photo in lesson.photos]
    tell(f"{len(photos)} photos, {recipe.steps} steps" + (f", {recipe.kept} kept pictures." if recipe.kept else "."))

    def report(step: int, loss: float) -> None:
        interrupts.check()
        if step % max(recipe.steps // 10, 1) == 0 or step == recipe.steps:
            tell(f"step {step} of {recipe.steps}, loss {loss:.3f}")

    with interrupts.held():
        if lesson.method == LORA:
            tensors = learn_lora(prior, photos, words, lesson.kind, recipe, lesson.seed, report)
        else:
            tensors = learn_word(prior, photos, words, lesson.word, lesson.kind, recipe, lesson.seed, report)
    meta = {
        "kind": lesson.method,
        "word": lesson.word,
        "of": lesson.kind,
        "prior": name,
        "prior_sha256": weights_sha256(folder),
        "steps": recipe.steps,
        "version": __version__,
    }
    write_atomically(lesson.output, safetensors.torch.save(tensors, header_of(meta)))
    size = lesson.output.stat().st_size
    tell(f'"{lesson.word}" is kept in {lesson.output} ({size / 1000:.0f} kB).')
    return {"output": str(lesson.output), "word": lesson.word, "method": lesson.method, "bytes": size, **meta}


def _pixels(image: Image.Image, size: int) -> Float[Tensor, "3 S S"]:
    small = image.resize((size, size), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(small, np.float32) / 255).movedim(-1, 0)

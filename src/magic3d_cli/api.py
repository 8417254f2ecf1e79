"""magic3d from Python: `generate` does what `magic3d generate` does and returns the asset."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from magic3d_cli import job
from magic3d_cli.asset.write import Asset, write
from magic3d_cli.checks import (
    UPS,
    check_choice,
    check_distillation,
    check_output,
    check_prompt,
    check_recipe,
    check_seed,
    check_sizes,
)
from magic3d_cli.guidance.adapters import check_company, marks, read_adapters
from magic3d_cli.guidance.priors import WeightedPrior
from magic3d_cli.picture_request import read_pictures
from magic3d_cli.precheck import check_init, choose_output, drawn_digest, styled
from magic3d_cli.request import Request
from magic3d_cli.run.interrupts import Interrupts
from magic3d_cli.run.observer import Observer
from magic3d_cli.training.report import StepReport
from magic3d_cli.training.terms import ViewGroup


@dataclass(frozen=True)
class GeneratedAsset:
    """A finished mesh with its texture, standing on y = 0, +Y up, facing +Z."""

    asset: Asset
    prompt: str
    report: dict[str, Any]  # what `magic3d generate --json` prints

    @property
    def vertices(self) -> Float[np.ndarray, "V 3"]:
        return self.asset.positions

    @property
    def normals(self) -> Float[np.ndarray, "V 3"]:
        return self.asset.normals

    @property
    def uvs(self) -> Float[np.ndarray, "V 2"]:
        """Texture coordinates, glTF's: (0, 0) is the texture's top left."""
        return self.asset.uvs

    @property
    def faces(self) -> Int[np.ndarray, "F 3"]:
        """Vertex indices, counter-clockwise seen from outside."""
        return self.asset.faces

    @property
    def texture(self) -> UInt8[np.ndarray, "S S 3"]:
        """sRGB base colour."""
        return self.asset.texture

    def save(self, path: str | Path) -> list[Path]:
        """Write the asset in the format of the suffix; returns the files. Raises UsageError, OSError."""
        return write(self.asset, check_output(Path(path)), self.prompt)


def generate(
    prompt: str = "",
    *,
    image: str | Path | Sequence[str | Path] | None = None,
    mask: str | Path | None = None,
    depth: str | Path | None = None,
    normals: str | Path | None = None,
    elevation: float | None = None,
    fov: float | None = None,
    imagine: float | None = None,
    recipe: str | None = None,
    style: str | Path | None = None,
    output: str | Path | None = None,
    preset: str = "draft",
    seed: int = 0,
    prior: str = "auto",
    coarse_prior: str | None = None,
    fine_prior: str | None = None,
    also_priors: dict[str, float] | None = None,
    adapters: Sequence[str | Path] = (),
    init: str = "auto",
    init_up: str = "y",
    perp_neg: bool | None = None,
    small_encoder: bool | None = None,
    distillation: str | None = None,
    device: str = "auto",
    faces: int | None = None,
    texture_size: int | None = None,
    height: float | None = None,
    lod: int | None = None,
    ao: bool | None = None,
    normal_map: bool | None = None,
    fresh: bool = False,
    force: bool = False,
    on_progress: Callable[[StepReport], None] | None = None,
    on_note: Callable[[str], None] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    more_views: Sequence[ViewGroup] = (),
) -> GeneratedAsset:
    """Make a textured mesh from a sentence, a picture, or both; also in a notebook and outside the main thread.

    Args:
        image: a picture, or several as FILE@AZIMUTH; with it the prompt may be left out.
        style: a picture whose colours the built-in prior paints in, and that others are shown by an IP-Adapter.
        output: a file to write, for instance a .glb; its run folder beside it keeps checkpoints, and the same call
            resumes. Without it the run is made in a temporary folder and nothing is left.
        also_priors: names and weights of priors beside the others.
        adapters: files of `magic3d personalise`, LoRAs, learnt words, an IP-Adapter; FILE or FILE=WEIGHT.
        on_progress: called after each step.
        on_note: called with what is worth knowing: resumed, fell back, downloading.
        cancelled: asked between two steps; where it returns true the run stops (`threading.Event().is_set` will do).
        more_views: a caller's own views and losses, added to every step of both stages.

    Other arguments are those of `magic3d generate`.

    Raises:
        Magic3DError: an expected failure; its `what` and `next_step` say what the command line would.
        Interrupted: stopped by `cancelled` or a signal; with `output`, the checkpoint is kept.
    """
    shown = None
    if image is not None:
        some = [image] if isinstance(image, str | Path) else image
        beside = {"mask": Path(mask) if mask else None, "normals": Path(normals) if normals else None}
        shown = read_pictures([*map(str, some)], **beside, depth=depth, elevation=elevation, fov=fov, imagine=imagine)
    if prompt or shown is None:
        prompt = check_prompt(prompt)
    check_recipe(recipe, shown is not None)
    check_distillation(distillation, recipe)
    digest = shown.digest if shown else drawn_digest(recipe, prompt, seed)
    check_seed(seed)
    check_sizes(faces, texture_size, height, lod)
    added = read_adapters(map(str, adapters))
    check_company(added, shown is not None, None)
    palette = styled(
        Path(style) if style else None,
        (coarse_prior or prior, fine_prior or prior, *(also_priors or {})),
        device,
        added,
        shown is not None or recipe is not None,
    )
    added_marks = marks(added, palette.digest if palette else None)
    with ExitStack() as stack:
        if output is None:
            output = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "asset.glb"
        interrupts = stack.enter_context(Interrupts(cancelled).installed())
        request = Request(
            choose_output(Path(output), prompt, seed, preset, force, digest, prompt, adapters=added_marks, lod=lod),
            preset=preset,
            coarse_prior=coarse_prior or prior,
            fine_prior=fine_prior or prior,
            more_priors=tuple(WeightedPrior(name, weight) for name, weight in (also_priors or {}).items()),
            init=check_init(init, seed),
            init_up=check_choice("init_up", init_up, UPS),
            device=device,
            perp_neg=perp_neg,
            small_encoder=small_encoder,
            distillation=distillation,
            faces=faces,
            texture_size=texture_size,
            height=height,
            lod=lod,
            occlusion=ao,
            normal_map=normal_map,
            fresh=fresh,
            pictures=shown,
            recipe=recipe,
            adapters=tuple(map(str, adapters)),
            style=palette,
        )
        observer = _Callbacks(on_progress, on_note)
        asset, report = job.generate(prompt, seed, request, observer, interrupts, more_views=more_views)
    assert asset is not None  # only torchrun's other processes make none
    return GeneratedAsset(asset, report["prompt"], report)


class _Callbacks(Observer):
    def __init__(self, on_progress: Callable[[StepReport], None] | None, on_note: Callable[[str], None] | None) -> None:
        self._on_progress, self._on_note = on_progress, on_note

    def step(self, report: StepReport) -> None:
        if self._on_progress is not None:
            self._on_progress(report)

    def note(self, text: str) -> None:
        if self._on_note is not None:
            self._on_note(text)

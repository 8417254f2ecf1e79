"""From a finished stage to the files that a person gets, and what is reported of them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from magic3d_cli.asset.build import build_asset
from magic3d_cli.asset.covers import Cover, Share, everywhere
from magic3d_cli.asset.material import of_prompt, of_things
from magic3d_cli.asset.size import size_of_things
from magic3d_cli.asset.write import Asset, write
from magic3d_cli.atomic import write_atomically
from magic3d_cli.fine.edit import RunLook
from magic3d_cli.fine.stage import FineStage
from magic3d_cli.guidance.diffusers.catalogue import licence_of
from magic3d_cli.guidance.priors import drawn_things
from magic3d_cli.run.context import OwnSurface
from magic3d_cli.run.directory import RunDirectory
from magic3d_cli.run.observer import Observer
from magic3d_cli.run.resume import Saved, as_json
from magic3d_cli.run.timings import Timings, peak_memory
from magic3d_cli.scene.field import HashField
from magic3d_cli.scene.region import COLOUR, Region, RegionField
from magic3d_cli.scene.things import share_of
from magic3d_cli.settings import AssetSettings, Settings
from magic3d_cli.version import __version__


def save_surface(path: Path, surface: OwnSurface) -> None:
    """Keep a mesh of a person's own beside its run. Raises OSError."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, vertices=surface[0], faces=surface[1])
    write_atomically(path, buffer.getvalue())


def build_files(
    fine: FineStage,
    output: Path,
    about: dict[str, Any],
    settings: AssetSettings,
    observer: Observer,
    runs: Sequence[RunLook],
    surface: OwnSurface | None = None,
) -> tuple[Asset, list[Path]]:
    """Unwrap, bake, write the fine stage's mesh, or this surface in its colours.

    Args:
        runs: what the scene shows: the run's own prompt, then those of the runs that it is an edit of.
    """
    vertices, faces = surface or tuple(tensor.numpy() for tensor in fine.mesh())
    things = drawn_things(about["prior"], about["prompt"], about["seed"])
    asset = build_asset(
        vertices,
        faces,
        fine.albedo,
        settings,
        on_stage=observer.phase,
        device=fine.device,
        **_materials(fine.field, [_materials_of(run) for run in runs]),
        about=about,
        usual=size_of_things(things),
        keep_shape=surface is not None,
    )
    if asset.report["size"]["from"] == "usual":
        longest = max(asset.report["size"]["metres"])
        observer.note(f"Usual size: {asset.report['size']['of']}, {longest:g} m (--height METRES chooses another).")
    for kind, asked, formats in (
        ("ambient occlusion", settings.occlusion, ("glb", "usdz")),
        ("normal map", settings.normal_map, ("glb", "obj", "usdz")),
        ("metal and roughness of parts", asset.surface is not None, ("glb", "obj", "usdz")),
    ):
        if asked and output.suffix.lower().lstrip(".") not in formats:
            observer.note(f"{output.suffix} has no room for the {kind}; {' and '.join(formats)} have.")
    if len(asset.levels) < settings.lod:
        observer.note(f"{len(asset.levels)} simpler levels instead of {settings.lod}: nothing simpler is left.")
    if reason := asset.report.get("atlas_reason"):
        observer.note(f"Unwrapped by the simple atlas: {reason}.")
    observer.phase("write")
    return asset, write(asset, output, about["prompt"])


def _materials_of(run: RunLook) -> list[Cover]:
    """What a run's prompt asks for: of each thing where it is, or where that is not known one material for all."""
    prompts = [prompt for _, prompt in drawn_things(run.prior, run.prompt, run.seed)]
    if run.things is None or int(run.things.max()) >= len(prompts):
        return [Cover(of_things(prompts), everywhere)]
    return [Cover(of_prompt(prompt), partial(share_of, run.things, number)) for number, prompt in enumerate(prompts)]


def _materials(field: HashField, layers: Sequence[Sequence[Cover]]) -> dict[str, Any]:
    """Arguments of `build_asset`: of an edited scene, the materials of the prompts that it has had, the newest first.

    Each layer covers the places in which the edit to its prompt could change colours; the oldest lies under all.
    """
    regions: list[Region] = []
    while len(regions) + 1 < len(layers) and isinstance(field, RegionField):
        regions.append(field.region)
        field = field.kept
    (base, *rest), above = layers[len(regions)], list(zip(regions, layers, strict=False))[::-1]
    edited = [Cover(own.material, partial(_changed, region, own.share)) for region, layer in above for own in layer]
    return {"material": base.material, "covers": [*rest, *edited]}


def _changed(region: Region, share: Share, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
    """A material's share of places, as far as an edit could change their colours."""
    return region.share(points, COLOUR) * share(points)


def own_surface(saved: Saved) -> OwnSurface | None:
    """The mesh of a person's own that a run was written with, if it was."""
    own = RunDirectory(saved.path.parent).mesh
    return load_surface(own) if saved.settings.fine.freeze_geometry and own.is_file() else None


def load_surface(path: Path) -> OwnSurface:
    """Inverse of `save_surface`."""
    with np.load(path) as data:
        return data["vertices"], data["faces"]


def about_asset(prompt: str, seed: int, prior: str) -> dict[str, Any]:
    """What the files say of where the asset comes from."""
    about = {"prompt": prompt, "seed": seed, "prior": prior, "version": __version__}
    return about | ({"prior_licence": licence} if (licence := licence_of(prior)) else {})


def report_of(
    prompt: str,
    settings: Settings,
    prior: dict[str, str],
    files: list[Path],
    fine: FineStage,
    asset: Asset,
    timings: Timings,
) -> dict[str, Any]:
    """What a run leaves behind of itself, for result.json and `--json`."""
    return {
        "output": str(files[0]),
        "files": [str(file) for file in files],
        "prompt": prompt,
        "preset": settings.preset,
        "seed": settings.seed,
        "prior": prior,
        "seconds": {part: round(seconds, 2) for part, seconds in timings.seconds.items()},
        "seconds_per_step": timings.per_step(),
        "handover": as_json(fine.handover),
        "asset": as_json(asset.report),
        "peak_memory_bytes": peak_memory(),
    }

"""What `--init` names: a caption of the built-in prior, a mesh file, or a checkpoint, as a shape to begin with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from magic3d_cli.asset.mesh import at_samples, surface_samples
from magic3d_cli.asset.read import ColouredMesh, read_coloured
from magic3d_cli.checks import BUILTIN_SHAPE, expanded, is_checkpoint
from magic3d_cli.coarse.stage import CoarseStage
from magic3d_cli.fine.stage import FineStage
from magic3d_cli.guidance.guide import PriorGuide
from magic3d_cli.guidance.priors import STAGES, WeightedPrior, choose_priors
from magic3d_cli.run.resume import Saved
from magic3d_cli.scene.mesh_shape import SAMPLES, MeshShape
from magic3d_cli.scene.shape import InitialShape
from magic3d_cli.settings import AUTO, BALL, VOLUME


@dataclass(frozen=True)
class NamedShape:
    """A shape and what a checkpoint says of it: the same words for the same shape, wherever its file lies."""

    identity: str
    load: Callable[[], InitialShape | None]
    mesh: ColouredMesh | None = None  # of a mesh file


def named_shape(init: str, up: str, seed: int, device: str, tell: Callable[[str], None]) -> NamedShape | None:
    """The shape that `init` names; None for those that settings know by themselves: auto, ball, volume.

    A mesh file is read at once, everything else is looked up and loaded by `load`.

    Args:
        up: which axis of a mesh file points upwards.
        seed: chooses among the built-in prior's styles of a thing.

    Raises UsageError for a file that cannot be read and a caption in which nothing can be drawn.
    """
    if init in (AUTO, BALL, VOLUME):
        return None
    if init.startswith(BUILTIN_SHAPE):
        caption = init.removeprefix(BUILTIN_SHAPE).strip()
        priors = choose_priors({stage: [WeightedPrior("builtin")] for stage in STAGES}, caption, seed, device, tell)
        return NamedShape(f"{BUILTIN_SHAPE}{caption}", PriorGuide(priors, caption, seed, device, None, tell).volume)
    path = expanded(init)
    if is_checkpoint(path):
        saved = Saved.load(path)
        if saved.unfinished:
            tell(f"{path}: only {saved.header['step']} of {saved.header['total']} steps were done.")
        return NamedShape(f"checkpoint:{_digest(path)}", lambda: _of_checkpoint(saved, device))
    mesh = read_coloured(path, up)
    axis = up.upper() if up.startswith("-") else f"+{up.upper()}"
    tell(f"{path}: begins with its {len(mesh.faces)} faces, centred and scaled; {axis} is up.")
    return NamedShape(f"mesh:{_digest(path)}:{up}", lambda: MeshShape(*mesh.samples(SAMPLES)), mesh)


def _of_checkpoint(saved: Saved, device: str) -> InitialShape:
    """The surface of a run as it was saved, in its colours."""
    stage = saved.stage(saved.settings, device)
    if isinstance(stage, CoarseStage):
        stage = FineStage.from_coarse(saved.settings, stage)
    vertices, faces = (tensor.numpy() for tensor in stage.mesh())
    face, weight = surface_samples(vertices, faces, SAMPLES)
    points = at_samples(vertices, faces, face, weight)
    with torch.no_grad():
        colours = stage.albedo(torch.from_numpy(points).float().to(stage.device)).cpu()
    return MeshShape(points, colours.numpy())


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]

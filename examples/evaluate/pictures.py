"""The same eight views of real models, of the prior's samples and of generated meshes, as pictures to be judged."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "builtin_prior"))

from batches import indexed
from gbuffer import draw, pack
from manifest import NOUNS
from paint import Tones, dress, tones_seen
from render import brighten, dimness, load, normalise
from sample import ddim

from magic3d_cli.asset.check import read_mesh
from magic3d_cli.asset.preview import render_glb
from magic3d_cli.guidance.builtin.vocabulary import Caption
from magic3d_cli.guidance.conditioning import condition, read_prompt
from magic3d_cli.guidance.diffusers.prior import DiffusersPrior, resize
from magic3d_cli.scene.shape import EXTENT, RADIUS
from magic3d_cli.scene.views import ALBEDO, TEXTURELESS, Views, turntable

SIDE, COUNT = 96, 8
BACKDROP = 0.75

Images = Float[Tensor, "8 3 S S"]
"""In [0, 1]; one for each of COUNT azimuths from 0 on."""
Look = Callable[[bool], tuple[Images, Tensor]]
"""Whether textured -> pictures and coverage [8, S, S]."""


def mesh_path(folder: Path, prompt: str) -> Path:
    """Where generate.py writes a prompt's mesh."""
    return folder / f"{prompt.replace(' ', '-')}.glb"


def views(textured: bool) -> Views:
    """The eight views; without texture a white object lit from beside the camera."""
    around = turntable(COUNT, elevation=15)
    towards = around.position / around.distance[:, None] + torch.tensor([0.0, 0.6, 0.0])
    return around.replace(
        shading=torch.full((COUNT,), ALBEDO if textured else TEXTURELESS),
        light=torch.nn.functional.normalize(towards, dim=-1),
        backdrop=torch.full((COUNT, 3), BACKDROP),
    )


@cache
def _drawn(data: Path, source: str, yaw: float, side: int) -> tuple[Int[np.ndarray, "8 s s 10"], Tones]:
    """Geometry buffers of a model at twice the side, and its tones."""
    arrays = pack(normalise(load(data, source), yaw))
    buffers = np.stack([draw(*arrays, matrix, 2 * side, 2) for matrix in views(True).world_to_clip().numpy()])
    brighten(buffers, dimness(buffers))
    return buffers, tones_seen(buffers)


def of_model(data: Path, caption: Caption, textured: bool, side: int = SIDE) -> tuple[Images, Tensor]:
    """The real model behind a caption's style, painted as the caption says; pictures and coverage [8, S, S]."""
    noun = next(noun for noun in NOUNS if noun.name == caption.noun)
    source, yaw = noun.models[noun.styles.index(caption.style) if caption.style else 0]
    buffers, tones = _drawn(data, source, yaw, side)
    seen = views(textured)
    tint, material = indexed(caption.colour, caption.material)
    out = np.empty((COUNT, 3, side, side), np.float32)
    for k in range(COUNT):
        backdrop = np.full((4, 3), BACKDROP, np.float32)
        light, shading = seen.light[k].numpy(), int(seen.shading[k])
        dress(buffers[k], side, tones, tint, material, light, 0.5, shading, backdrop, 1.0, out[k])
    covered = buffers[..., 9].reshape(COUNT, side, 2, side, 2).mean((2, 4)) / 255
    return torch.from_numpy(out / 2 + 0.5), torch.from_numpy(covered)


def of_prior(prior: DiffusersPrior, prompt: str, textured: bool) -> Images:
    """What the prior paints of a prompt, each view on its own from the same noise."""
    text = condition(prior, read_prompt(prior, prompt, 0))
    images = ddim(prior, text, views(textured), steps=20, scale=2.0, seed=0)
    return resize(images.clamp(0, 1), SIDE)


def of_mesh(path: Path, textured: bool, side: int = SIDE) -> tuple[Images, Tensor]:
    """A written GLB, from as far as the real models are seen; pictures and coverage [8, S, S]."""
    seen = views(textured)
    half = np.ptp(read_mesh(path).positions, axis=0) / 2
    radius = min(EXTENT * np.linalg.norm(half) / half.max(), RADIUS)  # of the model; render_glb makes it 1
    seen = seen.replace(half_height=seen.half_height / float(radius))
    shown = [
        torch.from_numpy(render_glb(path, seen.replace(backdrop=torch.full((COUNT, 3), grey)), side)) / 255
        for grey in (BACKDROP, 0.0, 1.0)
    ]
    covered = 1 - (shown[2] - shown[1]).mean(-1).clamp(0, 1)
    return shown[0].permute(0, 3, 1, 2), covered


def alike(real: Look, mine: Look) -> dict[str, float]:
    """Overlap of silhouettes (IoU); error of colours, and of a white thing's shading, which tells dents.

    Errors are in [0, 1] and where both are, over the eight views together.
    """
    found: dict[str, float] = {}
    for textured, error in ((True, "colour error"), (False, "shading error")):
        one, other = (cut_out(*look(textured)) for look in (real, mine))
        inside, either = (one[:, 3] > 0.5) & (other[:, 3] > 0.5), (one[:, 3] > 0.5) | (other[:, 3] > 0.5)
        if textured:
            found["silhouettes"] = float(inside.sum() / either.sum())
        found[error] = float((one - other)[:, :3].movedim(1, -1)[inside].square().mean().sqrt())
    return found


def cut_out(images: Float[Tensor, "8 3 S S"], covered: Float[Tensor, "8 S S"]) -> Float[Tensor, "8 4 S S"]:
    """Pictures and coverage, scaled to the thing's extents in all views: its size in a file says nothing."""
    both = torch.cat([images, covered[:, None].float()], 1)
    rows, columns = ((covered > 0.5).any(0).any(axis).nonzero()[:, 0] for axis in (1, 0))
    both = both[..., rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return F.interpolate(both, size=images.shape[-2:], mode="bilinear", antialias=True)


def azimuths() -> Float[Tensor, "8"]:
    """Radians."""
    return torch.arange(COUNT) * 2 * math.pi / COUNT

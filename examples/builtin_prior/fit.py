"""Latents of further models, the decoder as it is: `python fit.py POOL LATENTS [--prior PRIOR]`, after voxels.py.

Learning decoder and latents together visits every model a hundred times in hours (train.py). Once the decoder can read
any shape off its planes, a model's latent can be found by itself: all steps at once, in the box that holds the model
alone, with a momentum that makes sense. LATENTS receives `<name>.npz` per model. Models that have one of as many steps
are left alone, so the command can be interrupted, and run again after the manifest has grown, or with more steps to
go on from what is there.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
from batches import Style, find_styles, load_cells, load_voxels
from torch import Tensor
from train import CELL_WEIGHT, cell_loss, voxel_loss
from voxels import SOLID

from magic3d_cli.guidance.builtin.latents import AXES, Latent
from magic3d_cli.guidance.builtin.volume import CHILDREN, CaptionVolume
from magic3d_cli.guidance.diffusers.catalogue import BUILTIN

RATE, WARM = 0.5, 5
"""Learning rate of latents, which end with a spread of about 1, and steps until it is reached."""
NOISE = 0.1
"""Added to latents, so that rounding them to `latents.STEP` does no harm."""
PLACES = 2560
"""Voxels with surface that a step compares, voxels close to them, voxels anywhere, and half as many cells."""
MARGIN = 2
"""Cells around a model that belong to its box."""
START = 0.6
"""What latents start at: their mean."""


def box_of(solid: np.ndarray) -> tuple[tuple[int, int], ...]:
    """The cells around what is solid, with a margin, along y, x and z."""
    ends = []
    for axis in range(3):
        hit = np.flatnonzero(solid.any(tuple(a for a in range(3) if a != axis))) // CHILDREN
        ends.append((max(int(hit[0]) - MARGIN, 0), min(int(hit[-1]) + 1 + MARGIN, SOLID // CHILDREN)))
    return tuple(ends)


class Fit:
    """One model's latent on the way."""

    def __init__(self, volume: CaptionVolume, style: Style, start: Latent | None = None) -> None:
        self.volume, self.random = volume, np.random.default_rng(0)
        packed, places, self.looks = load_voxels(style)
        self.solid = np.unpackbits(packed).reshape((SOLID,) * 3)
        self.near, self.inside = (np.unpackbits(cells).reshape((SOLID // CHILDREN,) * 3) for cells in load_cells(style))
        self.places = np.stack(np.unravel_index(places, (SOLID,) * 3))
        box = start.box if start else box_of(self.solid)
        self.low, self.high = (np.array(ends)[:, None] for ends in zip(*box, strict=True))
        sides = (self.high - self.low)[:, 0]
        channels = volume.latent_shape[1]
        planes = start.planes if start else [torch.full((channels, sides[a], sides[b]), START) for a, b in AXES]
        self.latent = Latent(box, tuple(plane.clone().requires_grad_() for plane in planes))

    def loss(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Of some of its voxels and cells, as the decoder's training has it."""
        random, count = self.random, PLACES
        surface, other = random.integers(self.places.shape[1], size=(2, count))
        beside = self.places[:, other] + random.integers(-2, 3, (3, count))
        anywhere = random.integers(CHILDREN * self.low, CHILDREN * self.high, (3, count))
        voxels = np.concatenate([self.places[:, surface], beside, anywhere], 1)
        voxels = np.clip(voxels, CHILDREN * self.low, CHILDREN * self.high - 1)
        solid = torch.from_numpy(self.solid[tuple(voxels)]).view(3, 1, -1)
        looks = torch.from_numpy(self.looks[surface])[None]
        about = self.places[:, other[: count // 2]] // CHILDREN + random.integers(-4, 5, (3, count // 2))
        cells = np.concatenate([about, random.integers(self.low, self.high, (3, count // 2))], 1)
        cells = np.clip(cells, self.low, self.high - 1)
        known = torch.from_numpy(np.stack([self.near[tuple(cells)], self.inside[tuple(cells)]]))
        noisy = tuple(plane + NOISE * torch.randn_like(plane) for plane in self.latent.planes)
        coarse, fine = self.volume.refine_box(Latent(self.latent.box, noisy))
        found = self.volume.voxels_at(fine, self.latent.box, torch.from_numpy(voxels))
        loss, parts = voxel_loss(found.view(3, 1, count, -1), solid, looks)
        found_cells = self.volume.cells_at(coarse, self.latent.box, torch.from_numpy(cells))
        more, others = cell_loss(found_cells, known)
        return loss + CELL_WEIGHT * more, parts | others

    def run(self, steps: int, rate: float = RATE) -> dict[str, float]:
        """So many steps; the mean of the last tenth's errors."""
        optimiser = torch.optim.Adam(self.latent.planes, rate, betas=(0.8, 0.95), eps=1e-6)
        last: list[dict[str, float]] = []
        for step in range(steps):
            cosine = 0.5 + 0.5 * math.cos(math.pi * step / steps)
            optimiser.param_groups[0]["lr"] = rate * min(1, (step + 1) / WARM) * cosine
            loss, parts = self.loss()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if step >= steps - max(steps // 10, 1):
                last.append({name: part.item() for name, part in parts.items()})
        return {name: float(np.mean([errors[name] for errors in last])) for name in last[0]}


def read_latent(path: Path) -> tuple[Latent, int]:
    """A stored latent and the steps it has had."""
    with np.load(path) as stored:
        planes = tuple(torch.from_numpy(stored[f"plane{n}"].astype(np.float32)) for n in range(3))
        box = tuple((int(low), int(high)) for low, high in stored["box"])
        return Latent(box, planes), int(stored["steps"])


def write_latent(path: Path, latent: Latent, steps: int) -> None:
    """Store a latent in half precision, whole or not at all."""
    planes = {f"plane{n}": plane.detach().numpy().astype(np.float16) for n, plane in enumerate(latent.planes)}
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.savez(file, box=np.array(latent.box), steps=steps, **planes)
    part.rename(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pool", type=Path)
    parser.add_argument("latents", type=Path)
    parser.add_argument("--prior", type=Path, default=BUILTIN, help="folder of the prior whose decoder is used")
    parser.add_argument("--steps", type=int, default=300, help="that every model shall have had")
    args = parser.parse_args()
    args.latents.mkdir(parents=True, exist_ok=True)
    volume = CaptionVolume.from_pretrained(args.prior / "volume").float().requires_grad_(False)
    for style in find_styles(args.pool):
        path = args.latents / f"{style.path.name}.npz"
        start, had = read_latent(path) if path.exists() else (None, 0)
        if had >= args.steps or not Path(f"{style.path}.voxels.npz").exists():
            continue
        begun = time.time()
        fit = Fit(volume, style, start)
        # What goes on goes on gently: at the full rate it would lose what it has.
        errors = fit.run(args.steps - had, RATE if start is None else RATE / 2)
        write_latent(path, fit.latent, args.steps)
        told = " ".join(f"{name} {value:.4f}" for name, value in errors.items())
        print(f"{style.token} {told} {time.time() - begun:.1f} s", flush=True)


if __name__ == "__main__":
    main()

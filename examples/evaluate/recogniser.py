"""A recogniser of its own to judge the prior and its meshes with: `python recogniser.py POOL [POOL ...] -o FILE`.

A small residual network (He et al. 2016) at 64 px names the noun and the azimuth of a picture. It shares nothing
with the prior but the models: other architecture, other seeds, and the pools may hold models that the prior never
saw (held_out.tsv). Colours are random, a quarter of the pictures have no texture, many are blurred or noisy, so that
it has to look at shapes, and sees what a small prior or a coarse mesh shows.
"""

from __future__ import annotations

import argparse
import math
import queue
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "builtin_prior"))

from batches import Style, load_views
from manifest import NOUNS, file_stem, read_manifest
from paint import COLOURS, MATERIALS, dress

from magic3d_cli.views import ViewSampling, sample_views

SIZE = 64
HELD_OUT = Path(__file__).with_name("held_out.tsv")
SAMPLING = ViewSampling(shading=(0.4, 0.35, 0.25))


class Recogniser(nn.Module):
    """Pictures [B, 3, 64, 64] in [-1, 1] to noun logits [B, N] and azimuth as (sin, cos) [B, 2]."""

    def __init__(self, nouns: int, width: int = 40) -> None:
        super().__init__()
        widths = (width, 2 * width, 4 * width, 6 * width)
        layers: list[nn.Module] = [nn.Conv2d(3, width, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(width)]
        for before, after in zip((width, *widths), widths, strict=False):
            layers += [_Block(before, after, 1 if before == after else 2), _Block(after, after, 1)]
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2))
        self.noun, self.azimuth = nn.Linear(widths[-1], nouns), nn.Linear(widths[-1], 2)

    def forward(self, images: Float[Tensor, "B 3 64 64"]) -> tuple[Float[Tensor, "B N"], Float[Tensor, "B 2"]]:
        seen = self.body(images)
        return self.noun(seen), self.azimuth(seen)


class _Block(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(),
            nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after),
        )  # fmt: skip
        self.skip = nn.Identity() if before == after else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.skip(x))


def load_recogniser(path: Path) -> tuple[Recogniser, list[str]]:
    """A trained recogniser in evaluation mode, and its nouns."""
    state = torch.load(path, weights_only=True)
    network = Recogniser(len(state["nouns"]))
    network.load_state_dict(state["weights"])
    return network.eval(), state["nouns"]


@dataclass
class Batch:
    images: Float[Tensor, "B 3 64 64"]
    noun: Int[Tensor, "B"]
    azimuth: Float[Tensor, "B 2"]  # sin, cos


class Pictures:
    """Random painted views of all models whose files lie in the pools, drawn in balance by noun."""

    def __init__(self, pools: list[Path], size: int, batch: int, seed: int) -> None:
        self.names = [noun.name for noun in NOUNS]
        self.models: list[list] = [[] for _ in self.names]
        for noun in [*NOUNS, *read_manifest(HELD_OUT)]:
            for stem in (file_stem(*model) for model in noun.models):
                for pool in pools:
                    if (pool / f"{stem}.npy").exists():
                        style = Style(noun.token, stem, pool / stem)
                        self.models[self.names.index(noun.name)].append(load_views(style, size))
        self.size, self.batch = size, batch
        self.random = np.random.default_rng(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.queue: queue.Queue[Batch] = queue.Queue(4)

    def start(self) -> Pictures:
        threading.Thread(target=self._fill, daemon=True).start()
        return self

    def _fill(self) -> None:
        while True:
            self.queue.put(self.make())

    def make(self) -> Batch:
        random, size = self.random, self.size
        views = sample_views(self.batch, SAMPLING, self.generator, stratified=False)
        images = np.empty((self.batch, 3, size, size), np.float32)
        nouns, azimuths = np.empty(self.batch, np.int64), np.empty(self.batch, np.float32)
        for b in range(self.batch):
            nouns[b] = random.integers(len(self.names))
            model = self.models[nouns[b]][random.integers(len(self.models[nouns[b]]))]
            index = random.integers(len(model.cameras))
            azimuths[b] = model.cameras[index, 0]
            paint = random.random()
            colour = COLOURS[list(COLOURS)[random.integers(len(COLOURS))]][1] if 0.4 < paint < 0.8 else (-1, -1, -1)
            material = random.integers(len(MATERIALS)) if paint > 0.7 else -1
            grey = random.uniform(0.5, 1.0) + random.normal(0, 0.05, 3)  # the evaluation's pictures are on grey
            backdrop = np.tile(np.clip(grey, 0, 1), (4, 1)).astype(np.float32)
            dress(
                model.buffers[index], size, model.mean, np.array(colour, np.float32), material,
                views.light[b].numpy(), float(views.ambient[b]), int(views.shading[b]), backdrop, 1.0, images[b],
            )  # fmt: skip
        azimuth = torch.from_numpy(azimuths)
        return Batch(
            spoilt(torch.from_numpy(images), self.generator),
            torch.from_numpy(nouns),
            torch.stack([azimuth.sin(), azimuth.cos()], -1),
        )


def spoilt(images: Float[Tensor, "B 3 S S"], generator: torch.Generator) -> Float[Tensor, "B 3 64 64"]:
    """Shifted, scaled, and half of them blurred and noisy."""
    count = len(images)
    scale = 0.85 + 0.35 * torch.rand(count, generator=generator)
    move = 0.2 * (torch.rand(count, 2, generator=generator) - 0.5)
    matrix = torch.cat([scale[:, None, None] * torch.eye(2), move[:, :, None]], 2)
    grid = F.affine_grid(matrix, [count, 3, SIZE, SIZE], align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    half, side = count // 2, int(torch.randint(20, SIZE, (1,), generator=generator))
    small = F.interpolate(images[:half], size=(side, side), mode="area")
    images[:half] = F.interpolate(small, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    noise = 0.06 * torch.rand(half, 1, 1, 1, generator=generator)
    images[:half] += noise * torch.randn(half, 3, SIZE, SIZE, generator=generator)
    return images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pools", type=Path, nargs="+", help="folders written by builtin_prior/render.py")
    parser.add_argument("-o", "--out", type=Path, default=Path("recogniser.pt"))
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    args = parser.parse_args()
    torch.manual_seed(77)
    pictures = Pictures(args.pools, SIZE, args.batch, seed=77).start()
    network = Recogniser(len(NOUNS)).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), args.lr, weight_decay=0.02, fused=True)
    begun, step, right = time.time(), 0, 0.0
    while (fraction := (time.time() - begun) / (60 * args.minutes)) < 1:
        for group in optimiser.param_groups:
            group["lr"] = args.lr * min(1, (step + 1) / 200) * (0.5 + 0.5 * math.cos(math.pi * fraction))
        batch = pictures.queue.get()
        with torch.autocast("cpu", torch.bfloat16):
            logits, azimuth = network(batch.images.contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits.float(), batch.noun, label_smoothing=0.05)
            loss = loss + 0.5 * (azimuth.float() - batch.azimuth).square().mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        step += 1
        right += 0.01 * ((logits.argmax(1) == batch.noun).float().mean().item() - right)
        if step % 100 == 0:
            speed = step * args.batch / (time.time() - begun)
            print(f"{step} loss {loss.item():.3f} right {right:.1%} {speed:.0f} images/s {fraction:.0%}", flush=True)
    torch.save({"nouns": pictures.names, "weights": network.state_dict(), "images": step * args.batch}, args.out)


if __name__ == "__main__":
    main()

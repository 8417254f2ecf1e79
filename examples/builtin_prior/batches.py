"""What the training of the built-in prior reads: captions in balance, their models' voxels, painted views of them."""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from gbuffer import halve, premultiplied
from manifest import NOUNS, file_stem
from paint import COLOURS, MATERIALS, dress
from torch import Tensor
from voxels import SOLID, SURFACE

from magic3d_cli.guidance.volume_unet import SUPERVISED
from magic3d_cli.views import Views, ViewSampling, sample_views

RAYS = 64
"""Side of the feature image."""


@dataclass(frozen=True)
class Style:
    """One training model: its caption words and where its data is."""

    noun: str
    token: str
    path: Path  # without suffix


@dataclass
class Rendered:
    """A model's pool of views."""

    style: Style
    buffers: np.ndarray  # uint8 [views, S, S, 10], memory-mapped
    cameras: np.ndarray  # [views, 4]
    mean: float  # mean luminance of the model


def find_styles(pool: Path) -> list[Style]:
    return [
        Style(noun.token, token, pool / file_stem(*model))
        for noun in NOUNS
        for token, model in zip(noun.styles, noun.models, strict=True)
    ]


def load_views(style: Style, size: int) -> Rendered:
    """A style's geometry buffers at `size` pixels, in memory if they had to be reduced."""
    buffers = np.load(f"{style.path}.npy", mmap_mode="r")
    while buffers.shape[1] > size:
        buffers = halve(np.asarray(buffers))
    some = np.asarray(buffers[:32]).astype(np.float32)
    luma = (some[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32)).sum() / some[..., 9].sum()
    return Rendered(style, buffers, np.load(f"{style.path}.cameras.npy"), max(float(luma), 0.04))


@cache
def load_voxels(style: Style) -> tuple[np.ndarray, np.ndarray]:
    """Packed solid voxels and surface voxels of a style."""
    stored = np.load(f"{style.path}.voxels.npz")
    return stored["solid"], stored["surface"]


class Batches:
    """Random captions, drawn in balance by noun, and what belongs to them, made by a background thread."""

    def __init__(self, styles: list[Style], seed: int) -> None:
        self.nouns: dict[str, list[int]] = {}
        for index, style in enumerate(styles):
            self.nouns.setdefault(style.noun, []).append(index)
        self.styles, self.names = styles, list(self.nouns)
        self.random = np.random.default_rng(seed)
        self.queue: queue.Queue[tuple[list[Tensor], list[str]]] = queue.Queue(4)

    def start(self) -> Batches:
        threading.Thread(target=self._fill, daemon=True).start()
        return self

    def _fill(self) -> None:
        while True:
            self.queue.put(self.make())

    def make(self) -> tuple[list[Tensor], list[str]]:
        raise NotImplementedError

    def draw(self) -> tuple[int, str | None, str | None, str]:
        """A style, colour, material and the caption that tells some of them."""
        random = self.random
        options = self.nouns[self.names[random.integers(len(self.names))]]
        index = options[random.integers(len(options))]
        paint = random.random()
        colour = list(COLOURS)[random.integers(len(COLOURS))] if 0.3 < paint < 0.75 else None
        material = list(MATERIALS)[random.integers(len(MATERIALS))] if paint > 0.65 else None
        style = self.styles[index]
        words = [colour, material, style.noun, style.token if random.random() > 0.1 else None]
        return index, colour, material, " ".join(w for w in words if w)


class VoxelBatches(Batches):
    """Captions and their models' voxels."""

    def __init__(self, styles: list[Style], captions: int, seed: int) -> None:
        super().__init__(styles, seed)
        self.captions = captions

    def make(self) -> tuple[list[Tensor], list[str]]:
        """Solid, float32 [C, 64, 64, 64], surface, uint8 [C, 32, 32, 32, 7]; captions."""
        draws = [self.draw() for _ in range(self.captions)]
        return self.voxels_of([index for index, *_ in draws]), [caption for *_, caption in draws]

    def voxels_of(self, indices: list[int]) -> list[Tensor]:
        chosen = [load_voxels(self.styles[index]) for index in indices]
        solid = np.array([packed for packed, _ in chosen], np.uint8).reshape(-1, SOLID**3 // 8)
        bits = np.unpackbits(solid, axis=1).reshape(-1, SOLID, SOLID, SOLID)
        surface = np.array([shown for _, shown in chosen], np.uint8).reshape(-1, SURFACE, SURFACE, SURFACE, 7)
        # NumPy, not torch: a parallel region of torch's in this thread would leave the process with more OpenMP threads
        # than cores, after which every barrier of the main thread sleeps: three times slower steps.
        return [torch.from_numpy(bits.astype(np.float32)), torch.from_numpy(surface)]


class ViewBatches(VoxelBatches):
    """Captions, their models' voxels and several painted views of each."""

    def __init__(self, styles: list[Style], size: int, captions: int, views: int, solid: int, seed: int) -> None:
        super().__init__(styles, captions, seed)
        self.size, self.views, self.solid = size, views, solid
        self.rendered = [load_views(style, size) for style in styles]
        self.generator = torch.Generator().manual_seed(seed)

    def make(self) -> tuple[list[Tensor], list[str]]:
        """Voxels of the first `solid` captions; pictures of all.

        Images [B, 3, size, size] in [-1, 1], feature image targets [B, 7, RAYS, RAYS], view features [B, 23].
        """
        random, batch = self.random, self.captions * self.views
        views = sample_views(batch, ViewSampling(), self.generator, stratified=False)
        cameras = np.empty((batch, 4), np.float32)
        images = np.empty((batch, 3, self.size, self.size), np.float32)
        targets = np.empty((batch, SUPERVISED, RAYS, RAYS), np.float32)
        captions, picks, indices = [], [], []
        for _ in range(self.captions):
            index, colour, material, caption = self.draw()
            captions.append("" if random.random() < 0.1 else caption)
            indices.append(index)
            model = self.rendered[index]
            picks += [(model, colour, material, random.integers(len(model.cameras))) for _ in range(self.views)]
        # The views' cameras come from the pool; their lights are drawn about those cameras.
        for b, (model, _, _, index) in enumerate(picks):
            cameras[b] = model.cameras[index]
        views = turned(views, torch.from_numpy(cameras))
        for b, (model, colour, material, index) in enumerate(picks):
            backdrop = np.tile(views.backdrop[b].numpy(), (4, 1))
            if not views.plain[b]:
                backdrop = np.clip(0.5 + random.normal(0, 0.2, 3) + random.normal(0, 0.12, (4, 3)), 0, 1)
            dress(
                model.buffers[index], self.size, model.mean,
                np.array(COLOURS[colour][1] if colour else (-1, -1, -1), np.float32),
                list(MATERIALS).index(material) if material else -1,
                views.light[b].numpy(), float(views.ambient[b]), int(views.shading[b]),
                backdrop.astype(np.float32), float(views.plain[b]), images[b],
            )  # fmt: skip
            premultiplied(model.buffers[index], targets[b])
        painted = [torch.from_numpy(images), torch.from_numpy(targets), views.features()]
        return [*self.voxels_of(indices[: self.solid]), *painted], captions


def turned(views: Views, cameras: Tensor) -> Views:
    """The views with other cameras [B, 4], their lights kept at the same angle to the camera."""
    old = torch.stack(views.axes(), 1)
    views = views.replace(azimuth=cameras[:, 0], elevation=cameras[:, 1], fov=cameras[:, 2], frame=cameras[:, 3])
    new = torch.stack(views.axes(), 1)
    return views.replace(light=(new.mT @ (old @ views.light[:, :, None]))[:, :, 0])

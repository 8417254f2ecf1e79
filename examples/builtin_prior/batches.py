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
from paint import COLOURS, MATERIALS, Tones, dress
from render import SIZE
from torch import Tensor
from voxels import SOLID

from magic3d_cli.guidance.builtin.volume import CHILDREN, SURFACE
from magic3d_cli.scene.views import Views, sample_views
from magic3d_cli.settings import ViewSampling

PLACES, CELL_PLACES = 2048, 1024
"""Surface voxels of each model that are compared, and its cells that are."""
NONE = 0.1
"""Share of captions that say nothing."""


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
    tones: Tones


def find_styles(pool: Path) -> list[Style]:
    return [
        Style(noun.token, token, pool / file_stem(*model))
        for noun in NOUNS
        for token, model in zip(noun.styles, noun.models, strict=True)
    ]


def load_views(style: Style, size: int) -> Rendered:
    """A style's geometry buffers at `size` pixels, in memory if they had to be reduced."""
    buffers = np.load(f"{style.path}{'.large' if size > SIZE else ''}.npy", mmap_mode="r")
    while buffers.shape[1] > size:
        buffers = halve(np.asarray(buffers))
    cameras = np.load(f"{style.path}.cameras.npy")[: len(buffers)]
    return Rendered(style, buffers, cameras, load_tones(style))


@cache
def load_tones(style: Style) -> Tones:
    """What paint asks about a style's own colours; voxels.py found it."""
    return Tones(*np.load(f"{style.path}.tones.npy").tolist())


@cache
def load_voxels(style: Style) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Packed solid voxels of a style, flat indices of those with surface, and what it looks like there."""
    stored = np.load(f"{style.path}.voxels.npz")
    return stored["solid"], stored["places"], stored["surface"]


class Batches:
    """Random captions, drawn in balance by noun, and what belongs to them, made by a background thread."""

    def __init__(self, styles: list[Style], captions: int, seed: int) -> None:
        self.captions = captions
        self.nouns: dict[str, list[int]] = {}
        for index, style in enumerate(styles):
            self.nouns.setdefault(style.noun, []).append(index)
        self.styles, self.names = styles, list(self.nouns)
        self.random = np.random.default_rng(seed)
        self.queue: queue.Queue[tuple[list[Tensor], list[str]] | Exception] = queue.Queue(4)

    def start(self) -> Batches:
        threading.Thread(target=self._fill, daemon=True).start()
        return self

    def _fill(self) -> None:
        try:
            while True:
                self.queue.put(self.make())
        except Exception as error:
            self.queue.put(error)  # or the main thread would wait for ever

    def next(self) -> tuple[list[Tensor], list[str]]:
        """The next batch."""
        batch = self.queue.get()
        if isinstance(batch, Exception):
            raise batch
        return batch

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
    """Captions and places in their models' voxels and cells."""

    def make(self) -> tuple[list[Tensor], list[str]]:
        indices = [self.draw()[0] for _ in range(self.captions)]
        return [torch.tensor(indices), *self.voxels_of(indices), *self.cells_of(indices)], []

    def cells_of(self, indices: list[int]) -> list[Tensor]:
        """Places in the models' cells, int64 [2, C, CELL_PLACES], flat indices into all of them: not far from surface,

        anywhere; whether they are near a surface and whether inside, uint8 [2, 2, C, CELL_PLACES].
        """
        side = SOLID // CHILDREN
        places = np.empty((2, len(indices), CELL_PLACES), np.int64)
        known = np.empty((2, *places.shape), np.uint8)
        for i, index in enumerate(indices):
            near, inside = load_cells(self.styles[index])
            chosen = np.unravel_index(self.random.choice(load_voxels(self.styles[index])[1], CELL_PLACES), (SOLID,) * 3)
            around = np.stack(chosen) // CHILDREN + self.random.integers(-4, 5, (3, CELL_PLACES))
            here = np.ravel_multi_index(tuple(around), (side,) * 3, mode="clip")
            here = np.stack([here, self.random.integers(side**3, size=CELL_PLACES)])
            places[:, i] = here + i * side**3
            for k, packed in enumerate((near, inside)):
                known[k, :, i] = _bits(packed, here)
        return [torch.from_numpy(places), torch.from_numpy(known)]

    def voxels_of(self, indices: list[int]) -> list[Tensor]:
        """Places in the models' voxels, int64 [3, C, PLACES], flat indices into all of them: with surface, within two

        voxels of it, anywhere; whether they are solid, uint8 [3, C, PLACES]; what the first of them look like, uint8
        [C, PLACES, 6].
        """
        # NumPy, not torch: a parallel region of torch's in this thread would leave the process with more OpenMP threads
        # than cores, after which every barrier of the main thread sleeps: three times slower steps.
        random = self.random
        places = np.empty((3, len(indices), PLACES), np.int64)
        solid = np.empty(places.shape, np.uint8)
        looks = np.empty((len(indices), PLACES, SURFACE), np.uint8)
        for i, index in enumerate(indices):
            packed, surface, seen = load_voxels(self.styles[index])
            first, second = random.integers(len(surface), size=(2, PLACES))
            shifted = np.stack(np.unravel_index(surface[second], (SOLID,) * 3)) + random.integers(-2, 3, (3, PLACES))
            near = np.ravel_multi_index(tuple(shifted), (SOLID,) * 3, mode="clip")
            here = np.stack([surface[first], near, random.integers(SOLID**3, size=PLACES)])
            places[:, i], looks[i] = here + i * SOLID**3, seen[first]
            solid[:, i] = _bits(packed, here)
        return [torch.from_numpy(array) for array in (places, solid, looks)]


def _bits(packed: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Some bits of many, by their flat indices."""
    return packed[places >> 3] >> (7 - (places & 7)).astype(np.uint8) & 1


@cache
def load_cells(style: Style) -> tuple[np.ndarray, np.ndarray]:
    """A style's cells [h, h, h] in packed bits: those with surface in or next to them, and those inside."""
    packed, places, _ = load_voxels(style)
    near = np.zeros((SOLID,) * 3, bool)
    near.flat[places] = True
    for axis in range(3):
        moved, grown = np.moveaxis(near, axis, 0), np.moveaxis(near.copy(), axis, 0)
        grown[1:] |= moved[:-1]
        grown[:-1] |= moved[1:]
        near = np.moveaxis(grown, 0, axis)
    solid = np.unpackbits(packed).reshape(near.shape)
    return tuple(np.packbits(_by_cell(voxels).any((1, 3, 5))) for voxels in (near, solid))


def _by_cell(voxels: np.ndarray) -> np.ndarray:
    """Voxels [J, I, K] as [h, 2, h, 2, h, 2]."""
    return voxels.reshape([n for side in voxels.shape for n in (side // CHILDREN, CHILDREN)])


@cache
def load_shell(style: Style) -> np.ndarray:
    """Flat indices of the voxels in cells near a style's surface, int32."""
    near = np.unpackbits(load_cells(style)[0]).reshape((SOLID // CHILDREN,) * 3)
    return np.flatnonzero(np.kron(near, np.ones((CHILDREN,) * 3, np.uint8))).astype(np.int32)


def indexed(colour: str | None, material: str | None) -> tuple[np.ndarray, int]:
    """A colour and a material as paint takes them."""
    tint = COLOURS[colour][1] if colour else (-1, -1, -1)
    return np.array(tint, np.float32), list(MATERIALS).index(material) if material else -1


class ViewBatches(VoxelBatches):
    """Captions and several painted views of their models."""

    def __init__(self, styles: list[Style], size: int, captions: int, views: int, seed: int) -> None:
        super().__init__(styles, captions, seed)
        self.size, self.views = size, views
        self.rendered = [load_views(style, size) for style in styles]
        self.generator = torch.Generator().manual_seed(seed)

    def make(self) -> tuple[list[Tensor], list[str]]:
        """Images [B, 3, size, size] in [-1, 1], view features [B, 23]."""
        random, batch = self.random, self.captions * self.views
        views = sample_views(batch, ViewSampling(), self.generator, stratified=False)
        images = np.empty((batch, 3, self.size, self.size), np.float32)
        draws = [self.draw() for _ in range(self.captions)]
        captions = ["" if random.random() < NONE else caption for *_, caption in draws]
        # The views' cameras come from the pool; their lights are drawn about those cameras.
        picks, cameras = self.pick([index for index, *_ in draws])
        views = turned(views, cameras)
        for b, (model, buffer) in enumerate(picks):
            _, colour, material, _ = draws[b // self.views]
            backdrop = np.tile(views.backdrop[b].numpy(), (4, 1))
            if not views.solid_background[b]:
                backdrop = np.clip(0.5 + random.normal(0, 0.2, 3) + random.normal(0, 0.12, (4, 3)), 0, 1)
            dress(
                buffer, self.size, model.tones,
                *indexed(colour, material),
                views.light[b].numpy(), float(views.ambient[b]), int(views.shading[b]),
                backdrop.astype(np.float32), float(views.solid_background[b]), images[b],
            )  # fmt: skip
        return [torch.from_numpy(images), views.camera_embedding()], captions

    def pick(self, indices: list[int]) -> tuple[list[tuple[Rendered, np.ndarray]], Tensor]:
        """Random views of each model, with their geometry buffers, and the cameras [B, 4]."""
        picks, cameras = [], []
        for index in indices:
            model = self.rendered[index]
            for view in self.random.integers(len(model.cameras), size=self.views):
                picks.append((model, model.buffers[view]))
                cameras.append(model.cameras[view])
        return picks, torch.from_numpy(np.stack(cameras))


class ShapeBatches(ViewBatches):
    """Models by their voxels and by several views."""

    def make(self) -> tuple[list[Tensor], list[str]]:
        """Indices [C]; what `voxels_of` and `cells_of` give; the voxels in cells near surfaces, flat indices into all;

        which cells are inside, bool [C, h, h, h]; feature images [B, 7, size, size], view features [B, 23].
        """
        indices = [self.draw()[0] for _ in range(self.captions)]
        shells = [load_shell(self.styles[index]).astype(np.int64) + i * SOLID**3 for i, index in enumerate(indices)]
        inside = np.stack([np.unpackbits(load_cells(self.styles[index])[1]) for index in indices]).astype(bool)
        views = sample_views(self.captions * self.views, ViewSampling(), self.generator, stratified=False)
        picks, cameras = self.pick(indices)
        maps = np.empty((len(picks), 1 + SURFACE, self.size, self.size), np.float32)
        for b, (_, buffer) in enumerate(picks):
            premultiplied(buffer, maps[b])
        arrays = np.concatenate(shells), inside.reshape(-1, *(SOLID // CHILDREN,) * 3), maps
        tensors = [torch.from_numpy(array) for array in arrays]
        known = [*self.voxels_of(indices), *self.cells_of(indices)]
        return [torch.tensor(indices), *known, *tensors, turned(views, cameras).camera_embedding()], []


def turned(views: Views, cameras: Tensor) -> Views:
    """The views with other cameras [B, 4], their lights kept at the same angle to the camera."""
    old = torch.stack(views.axes(), 1)
    views = views.replace(azimuth=cameras[:, 0], elevation=cameras[:, 1], fov=cameras[:, 2], half_height=cameras[:, 3])
    new = torch.stack(views.axes(), 1)
    return views.replace(light=(new.mT @ (old @ views.light[:, :, None]))[:, :, 0])

"""Pictures of the built-in prior's models, made on whatever device trains from them.

A model's volume is rendered once from many sides into geometry buffers; each training picture is then painted, lit and
put before a backdrop anew, by the prior's own formulas. On a GPU a thousand models take a minute, a batch milliseconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from magic3d_cli.guidance.builtin.paint import paint
from magic3d_cli.guidance.builtin.vocabulary import Caption, Vocabulary
from magic3d_cli.guidance.builtin.volume import CaptionVolume
from magic3d_cli.guidance.diffusers.catalogue import BUILTIN, of_stage
from magic3d_cli.guidance.diffusers.prior import DiffusersPrior
from magic3d_cli.guidance.diffusers.spec import describe
from magic3d_cli.scene.shading import shade
from magic3d_cli.scene.views import ALBEDO, DIFFUSE, TEXTURELESS, Views, direction

SET = 4
"""Views of a set: a quarter turn apart, at one elevation, from one distance; multi-view priors see them together."""


@dataclass(frozen=True)
class Model:
    """A model of the built-in prior: its number there, and what it shows."""

    number: int
    caption: Caption


def load_volume(device: torch.device | str) -> CaptionVolume:
    """The built-in prior's network of volumes."""
    spec = describe(of_stage(BUILTIN, "coarse"), "builtin")
    return DiffusersPrior(spec, torch.device(device), torch.float32).volume


def all_models() -> list[Model]:
    """Every model of the built-in prior, in the order of its vocabulary, which is that of its latents."""
    vocabulary = Vocabulary.load(BUILTIN / "vocabulary.json")
    named = [Caption(noun, style=style) for noun, styles in vocabulary.styles.items() for style in styles]
    return [Model(number, caption) for number, caption in enumerate(named)]


@dataclass(frozen=True)
class Pictures:
    """Geometry buffers of M models from V views each: straight own colour, normal, position and coverage as bytes.

    Views come in sets of `SET`. Signed quantities are stored as 128 + 127 x.
    """

    buffers: UInt8[Tensor, "M V 10 S S"]
    tones: Float[Tensor, "M 6"]
    views: list[Views]  # of each model

    def pick(self, model: Int[Tensor, "B"], view: Int[Tensor, "B"]) -> tuple[UInt8[Tensor, "B 10 S S"], Views]:
        """Some of the buffers, and their cameras."""
        flat = model * self.buffers.shape[1] + view
        return self.buffers.flatten(0, 1)[flat], Views.concatenate(self.views)[flat]

    def azimuths(self) -> Float[Tensor, "M V"]:
        """Degrees from the front, -180 to 180."""
        turn = torch.stack([views.azimuth for views in self.views])
        return torch.rad2deg(torch.atan2(torch.sin(turn), torch.cos(turn)))


def random_sets(count: int, elevations: tuple[float, float], generator: torch.Generator) -> Views:
    """`count` sets of views from all round; elevations in degrees, lights to be drawn later."""

    def uniform(low: float, high: float) -> Tensor:
        return (low + (high - low) * torch.rand(count, generator=generator)).repeat_interleave(SET)

    quarter = torch.arange(SET).repeat(count) * (math.pi / 2)
    zeros = torch.zeros(count * SET)
    return Views(
        azimuth=uniform(0, 2 * math.pi) + quarter,
        elevation=torch.deg2rad(uniform(*elevations)),
        fov=torch.deg2rad(uniform(30, 50)),
        half_height=uniform(0.95, 1.15),
        light=direction(zeros, zeros),
        ambient=zeros + 1,
        shading=torch.full((count * SET,), ALBEDO),
        backdrop=torch.zeros(count * SET, 3),
        solid_background=zeros + 1,
    )


@torch.no_grad()
def draw(
    network: CaptionVolume,
    models: list[Model],
    sets: int,
    size: int,
    elevations: tuple[float, float] = (-10.0, 60.0),
    seed: int = 0,
) -> Pictures:
    """Render `sets` sets of views of every model at `size` pixels, on the network's device."""
    device = network.known.device
    generator = torch.Generator().manual_seed(seed)
    buffers = torch.empty(len(models), sets * SET, 10, size, size, dtype=torch.uint8, device=device)
    views = [random_sets(sets, elevations, generator).to(device) for _ in models]
    for row, model, seen in zip(buffers, models, views, strict=True):
        volume = network.volume_of(network.latent(model.number))
        row[:] = _packed(network.render(volume[None], seen, size))
    numbers = torch.tensor([model.number for model in models], device=device)
    return Pictures(buffers, network.tones.float()[numbers], views)


def _packed(maps: Float[Tensor, "B 10 S S"]) -> UInt8[Tensor, "B 10 S S"]:
    opacity = maps[:, :1]
    straight = maps[:, 1:] / opacity.clamp(min=0.05)
    normal = F.normalize(straight[:, :3], dim=1)
    signed = torch.cat([normal, straight[:, 6:]], 1).clamp(-1, 1) * 127 + 128
    plain = torch.cat([straight[:, 3:6], opacity], 1).clamp(0, 1) * 255
    return torch.cat([plain[:, :3], signed, plain[:, 3:]], 1).round().to(torch.uint8)


def unpacked(buffers: UInt8[Tensor, "B 10 S S"], size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Own colour, unit normal, position [B, 3, size, size] and coverage [B, 1, size, size]; `size` divides S."""
    values = buffers.float()
    opacity = values[:, 9:] / 255
    rest = torch.cat([values[:, :3] / 255, (values[:, 3:9] - 128) / 127], 1) * opacity
    scale = buffers.shape[-1] // size
    opacity, rest = F.avg_pool2d(opacity, scale), F.avg_pool2d(rest, scale)
    straight = rest / opacity.clamp(min=1e-3)
    return straight[:, :3], F.normalize(straight[:, 3:6], dim=1), straight[:, 6:], opacity


def lit(views: Views, chances: tuple[float, float, float], generator: torch.Generator) -> Views:
    """The views under new lights: `chances` are those of flat colour, of light on colour, and of light on white."""
    count, device = len(views), views.azimuth.device

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator, device=device)

    mode = torch.tensor([ALBEDO, DIFFUSE, TEXTURELESS], device=device)
    drawn = torch.multinomial(torch.tensor(chances, device=device), count, True, generator=generator)
    around = math.radians(60)
    light = direction(views.azimuth + uniform(-around, around), (views.elevation + uniform(0, around)).clamp(max=1.5))
    return views.replace(light=light, ambient=uniform(0.3, 0.8), shading=mode[drawn])


def dress(
    buffers: UInt8[Tensor, "B 10 S S"],
    views: Views,
    tones: Float[Tensor, "B 6"],
    colour: Int[Tensor, "B"],
    material: Int[Tensor, "B"],
    size: int,
) -> tuple[Float[Tensor, "B 3 size size"], Float[Tensor, "B 1 size size"]]:
    """Painted and lit pictures in [0, 1], not yet before a backdrop and not multiplied by coverage; and the coverage.

    Args:
        tones: of each picture's model. colour, material: indices into the prior's COLOURS and MATERIALS, -1 for none.
        size: of the pictures, a divisor of S.
    """
    own, normal, place, opacity = unpacked(buffers, size)
    flat = [part.movedim(1, -1).reshape(-1, 3) for part in (own, normal, place)]
    each = [part.repeat_interleave(size * size, 0) for part in (tones, colour, material)]
    albedo = paint(*flat, *each).view(-1, size, size, 3)
    rgb = shade(albedo, normal.movedim(1, -1), views).movedim(-1, 1)
    return rgb, opacity


def backdrops(count: int, size: int, generator: torch.Generator, device: torch.device) -> Float[Tensor, "B 3 s s"]:
    """Half of them one colour, half blended between four corners' colours."""
    corners = torch.rand(count, 3, 2, 2, generator=generator, device=device)
    plain = torch.rand(count, 1, 1, 1, generator=generator, device=device) < 0.5
    corners = torch.where(plain, corners[:, :, :1, :1], corners)
    return F.interpolate(corners, size=(size, size), mode="bilinear", align_corners=True)

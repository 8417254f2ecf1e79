"""From a mesh or pictures of a person's own to a file that teaches the built-in prior a word for it."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from magic3d_cli.asset.read import read_coloured
from magic3d_cli.atomic import write_atomically
from magic3d_cli.errors import UsageError
from magic3d_cli.guidance.builtin.fitting import azimuth_of
from magic3d_cli.guidance.builtin.looks import Looks
from magic3d_cli.guidance.builtin.own_words import known_kind, sheet_of
from magic3d_cli.guidance.builtin.subject import Subject, save_subject, tones_of, volume_of
from magic3d_cli.guidance.builtin.vocabulary import Caption, article
from magic3d_cli.guidance.builtin.volume import CHILDREN, CaptionVolume
from magic3d_cli.guidance.conditioning import condition
from magic3d_cli.guidance.diffusers.catalogue import BUILTIN, of_stage
from magic3d_cli.guidance.diffusers.files import weights_sha256
from magic3d_cli.guidance.diffusers.prior import DiffusersPrior
from magic3d_cli.guidance.diffusers.spec import describe
from magic3d_cli.guidance.pictured import Pictured
from magic3d_cli.picture_request import PictureRequest
from magic3d_cli.pictures import look_at
from magic3d_cli.scene.hull_shape import HullShape
from magic3d_cli.scene.mesh_shape import SAMPLES, MeshShape
from magic3d_cli.scene.reference import Camera
from magic3d_cli.scene.views import turntable
from magic3d_cli.version import __version__

Tell = Callable[[str], None]
_GLANCE, _SHOWN = 96, 256  # pixels of the picture that is looked up, and of the four that are shown
_SEEN = 30.0, 15.0  # degrees, azimuth and elevation of the picture that is looked up
ALIKE = 0.55
"""Overlap of outlines below which a picture is taken to show another thing [m]."""


@dataclass(frozen=True)
class Wish:
    """What a person asks for.

    Attributes:
        mesh, pictures: one of them is given.
        word: as `own_word` gives it. kind: what it is, in words that the prior knows; None: found out.
        up: which axis of a mesh points upwards. turn: degrees by which a mesh is turned to the left, seen from above.
    """

    word: str
    output: Path
    mesh: Path | None = None
    pictures: PictureRequest | None = None
    kind: str | None = None
    up: str = "y"
    turn: float = 0.0


def personalise(wish: Wish, tell: Tell) -> dict[str, Any]:
    """Make the file, and a picture of what it holds beside it; a JSON-able report.

    Raises UsageError for sources that cannot be used, OSError.
    """
    prior = DiffusersPrior(describe(of_stage(BUILTIN, "coarse"), "builtin"), torch.device("cpu"), torch.float32)
    network, vocabulary = prior.volume, prior.vocabulary
    assert network is not None and vocabulary is not None
    noun = known_kind(vocabulary, wish.word, wish.kind)
    if wish.pictures is not None:
        volume, source = _of_pictures(prior, wish, noun, tell)
    else:
        volume, source = _of_mesh(network, wish, tell), "mesh"
    nearest = _like(network, volume, Looks.load(BUILTIN, vocabulary), noun)
    subject = Subject(wish.word, nearest.noun, nearest.style, volume, tones_of(volume), network.extent)
    about = {"prior": weights_sha256(of_stage(BUILTIN, "coarse")), "version": __version__, "source": source}
    save_subject(wish.output, subject, about)
    shown = sheet_of(wish.output)
    write_atomically(shown, _sheet(network, volume), durable=False)
    size = wish.output.stat().st_size
    tell(
        f'"{wish.word}" is kept in {wish.output} ({size / 1000:.0f} kB), in the place of {article(nearest.noun)}; '
        f"{shown} shows it."
    )
    return {
        "output": str(wish.output),
        "picture": str(shown),
        "word": wish.word,
        "kind": nearest.noun,
        "style": nearest.style,
        "source": source,
        "bytes": size,
    }


def _of_mesh(network: CaptionVolume, wish: Wish, tell: Tell) -> Float[Tensor, "J I K 7"]:
    path = wish.mesh
    assert path is not None
    mesh = read_coloured(path, wish.up)
    turn = np.deg2rad(wish.turn)
    about_y = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    mesh = replace(mesh, vertices=mesh.vertices @ about_y.T)
    tell(f"{path}: {len(mesh.faces)} faces, centred and scaled; its front is taken to be +Z.")
    shape = MeshShape(*mesh.samples(SAMPLES))
    return volume_of(shape, CHILDREN * network.latent_shape[-1], network.extent)


def _of_pictures(
    prior: DiffusersPrior, wish: Wish, noun: str | None, tell: Tell
) -> tuple[Float[Tensor, "J I K 7"], str]:
    """The model that pictures look like, bent and painted, or what fits into their outlines; and how many they are."""
    network = prior.volume
    assert network is not None
    assert wish.pictures is not None
    request = wish.pictures
    count = len(request.cutouts)
    if count == 1:
        tell("One picture: the sides that it does not show are guessed. Three or more say more.")
    searched = None in request.azimuths[1:]
    if searched:
        first = replace(request, cutouts=request.cutouts[:1], azimuths=request.azimuths[:1])
        azimuths = _azimuths(prior, request, look_at(first, noun or "", 0, tell), tell)
        request = replace(request, azimuths=azimuths)
        for note in (note for cutout in request.cutouts[1:] for note in cutout.notes):
            tell(note)
    # What the first looks like has been told by then.
    pictured = look_at(request, noun or "", 0, (lambda text: None) if searched else tell)
    source = f"{count} picture{'s' * (count > 1)}"
    if pictured.fit is None:
        return volume_of(HullShape(pictured.references), CHILDREN * network.latent_shape[-1], network.extent), source
    return _fitted(prior, pictured), source


def _azimuths(
    prior: DiffusersPrior, request: PictureRequest, pictured: Pictured, tell: Tell
) -> tuple[float | None, ...]:
    """From where each picture was taken, relative to the first, by the model that looks like the first.

    Raises UsageError where no model does, and for a picture that shows something else.
    """
    if pictured.fit is None:
        raise UsageError(
            f"From where {request.cutouts[1].name} shows the thing cannot be found out: nothing known is like it.",
            "Write it into the names, in degrees from the front: front@0.png, left@90.png, back@180.png",
        )
    network, volume, fit = prior.volume, _fitted(prior, pictured), pictured.fit
    assert network is not None
    start = request.azimuths[0] or 0.0
    found: list[float | None] = [request.azimuths[0] or 0.0]
    for cutout, azimuth in zip(request.cutouts[1:], request.azimuths[1:], strict=True):
        if azimuth is None:
            seen, overlap = azimuth_of(network, volume, cutout.rgba, fit.elevation, request.fov or Camera.fov)
            if overlap < ALIKE:
                raise UsageError(
                    f"{cutout.name} does not seem to show the same thing as {request.cutouts[0].name}: their outlines "
                    f"agree by {overlap:.0%} from no side better.",
                    "Leave it out, or say from where it was taken: left@90.png",
                )
            azimuth = (seen - fit.azimuth + start) % 360.0
            tell(f"{cutout.name}: seen from {azimuth:.0f} degrees round.")
        found.append(azimuth)
    return tuple(found)


@torch.no_grad()
def _fitted(prior: DiffusersPrior, pictured: Pictured) -> Float[Tensor, "J I K 7"]:
    network, fit = prior.volume, pictured.fit
    assert network is not None and fit is not None
    return pictured.volume(network, int(network.find(condition(prior, fit.caption).states)[0]))


@torch.no_grad()
def _like(network: CaptionVolume, volume: Float[Tensor, "J I K 7"], looks: Looks, noun: str | None) -> Caption:
    """The known model whose place a thing takes: of its kind, or else of any, the one that looks most like it."""
    pixels = _drawn(network, volume, [_SEEN], _GLANCE)[0]
    azimuth, elevation = _SEEN
    near = looks.like(pixels, 1, azimuth=azimuth, elevation=elevation, noun=noun)
    if not near:
        raise UsageError(f"The built-in prior has no model of {noun!r}.", "Say what it is by --kind.")
    return near[0].caption


def _sheet(network: CaptionVolume, volume: Float[Tensor, "J I K 7"]) -> bytes:
    """Four sides of a volume over grey, as PNG."""
    tiles = []
    for image in _drawn(network, volume, [(a, 15.0) for a in (30.0, 120.0, 210.0, 300.0)], _SHOWN):
        alpha = image[..., 3:].astype(np.float32) / 255
        tiles.append((image[..., :3] * alpha + 128 * (1 - alpha)).round().astype(np.uint8))
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(tiles, 1)).save(buffer, "PNG")
    return buffer.getvalue()


@torch.no_grad()
def _drawn(
    network: CaptionVolume, volume: Float[Tensor, "J I K 7"], cameras: Sequence[tuple[float, float]], size: int
) -> UInt8[np.ndarray, "B S S 4"]:
    """A volume in its own colours, straight, with opacity, from azimuths and elevations in degrees."""
    found = []
    for azimuth, elevation in cameras:
        maps = network.render(volume[None], turntable(1, elevation, azimuth), size)[0]
        rgba = torch.cat([maps[4:7] / maps[:1].clamp(min=0.05), maps[:1]]).clamp(0, 1)
        found.append((rgba.movedim(0, -1) * 255).round().to(torch.uint8).numpy())
    return np.stack(found)

"""From pictures of a thing to what a job needs: a prompt, cameras, references, a shape to begin with, and a guide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from scipy import ndimage
from torch import Tensor

from magic3d_cli.errors import UsageError
from magic3d_cli.guidance.builtin import classifier
from magic3d_cli.guidance.builtin.arrangement import show_together
from magic3d_cli.guidance.builtin.encoder import likely_models
from magic3d_cli.guidance.builtin.fitting import Fit, fit_model, likeliest, placement, seen_from
from magic3d_cli.guidance.builtin.looks import Looks
from magic3d_cli.guidance.builtin.paint import COLOURS
from magic3d_cli.guidance.builtin.understanding import understand
from magic3d_cli.guidance.builtin.vocabulary import Caption, article
from magic3d_cli.guidance.builtin.volume import CaptionVolume
from magic3d_cli.guidance.builtin.voxels import mended
from magic3d_cli.guidance.conditioning import condition
from magic3d_cli.guidance.depth import with_depth
from magic3d_cli.guidance.diffusers.catalogue import BUILTIN, of_stage
from magic3d_cli.guidance.diffusers.prior import DiffusersPrior
from magic3d_cli.guidance.diffusers.spec import describe
from magic3d_cli.guidance.pictured import Pictured
from magic3d_cli.picture_request import PictureRequest
from magic3d_cli.reference import Cutout, cut_out
from magic3d_cli.scene.reference import Camera, Reference
from magic3d_cli.scene.shape import InitialShape
from magic3d_cli.settings import PICTURES_ALONE, CoarseSettings, FineSettings, StagePrior
from magic3d_cli.training.terms import LossTerm

Tell = Callable[[str], None]
SIZE = 512
"""Pixels of the references that a checkpoint keeps."""
_DEPTH_SIDE = 128  # pixels of a model's depth: as fine as its volume
SHARE = 0.72
"""Of the frame, that the longer side of an unknown thing takes: as large as the built-in prior's models."""
ELEVATION = 10.0
"""Degrees above the horizon, of a picture of an unknown thing: products are mostly photographed from there."""
CANDIDATES, BENT = 8, 2
"""Models whose cameras are looked for, and of these whose volume is bent."""
FITS = 0.65
"""Overlap of the silhouettes from which a model that is bent to them is begun with. Below it (a torus knot, a coil) the
outline made solid is no worse from the unseen sides. Otherwise it is: of 16 models that the prior never saw, 0.48 of
their silhouettes' overlap against 0.72 of the nearest model [m]."""
KNOWN, FITS_KNOWN, FITS_UNKNOWN = 0.4, 0.5, 0.9
"""The same where a classifier of photos is asked too: for a noun that is this likely, and for one that is not. Of 84
photos the likeliest noun is right in 60 of 79 above, in none of 5 below. Of 20 things that the prior has no word for
unseen sides overlap by 0.546, with `FITS` alone by 0.504; of 24 that it knows by 0.590 and 0.592. All chose it [m]."""
CERTAIN = 0.95
"""From this on something known is there, and what looks more like it than the likeliest noun's own models has to
overlap by `FITS`: an electric guitar that has the outline of an acoustic one."""
SURE = 0.8
"""Overlap from which it is said to be the thing, and not merely like it [m]."""
_NAMED = 0.5  # of the thing's pixels, from which a colour names it


NO_PRIOR = StagePrior(PICTURES_ALONE, open_vocabulary=False, has_volume=True)
"""What settings depend on where there is no prior, pictures alone; the volume is their `HullShape`."""


class PictureAlone:
    """In place of a guide: nothing but the pictures' losses."""

    def name(self, stage: str) -> str:
        return NO_PRIOR.name

    def sha256(self, stage: str) -> str:
        return NO_PRIOR.name

    def terms(self, stage: str, settings: CoarseSettings | FineSettings) -> list[LossTerm]:
        return []

    def things(self) -> None:
        return None

    def volume(self) -> InitialShape:
        raise UsageError("Pictures alone have no volume of a prior.", "Leave out --init, or use --init ball.")


def draw_picture(prompt: str, seed: int, elevation: float, digest: str | None) -> PictureRequest:
    """A picture of the prompt, for recipes that begin with one: the built-in prior's volume seen from the front.

    Raises UsageError for a prompt in which it can draw nothing.
    """
    prior = DiffusersPrior(describe(of_stage(BUILTIN, "coarse"), "builtin"), torch.device("cpu"), torch.float32)
    network = prior.volume
    assert prior.vocabulary is not None and network is not None
    try:
        caption = understand(prior.vocabulary, prompt, seed).caption
    except UsageError as error:
        raise UsageError(
            f"The picture to begin with is drawn by the built-in prior. {error.what}",
            "Give a picture of it: --image FILE.",
        ) from error
    if caption.others:
        show_together(network, prior.encode_prompt, caption)
    states = _states(prior, caption)
    with torch.no_grad():
        maps = network.render(network.imagine(states), Camera(elevation=elevation).views(), SIZE)
        rgba = torch.cat([network.paint(maps, states), maps[:, :1]], 1)[0].movedim(0, -1)
    pixels = (rgba.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return PictureRequest((cut_out(pixels, "the picture drawn"),), (0.0,), elevation, drawn_for=digest)


def look_at(
    request: PictureRequest,
    prompt: str,
    seed: int,
    tell: Tell,
    *,
    elevation: float | None = None,
    depth: bool = False,
) -> Pictured:
    """Find out what pictures show and from where; `prompt` may be empty, and overrides what they look like.

    Tells what they look like. Works without any download, in some ten seconds on two cores.

    Args:
        elevation: degrees, of an unknown thing where the request does not say; default `ELEVATION`.
        depth: where there is no depth picture, take the depth of the model that looks like the picture.
    """
    for note in (note for cutout in request.cutouts for note in cutout.notes):
        tell(note)
    if request.depth_by:
        known = [with_depth(cutout, request.depth_by, tell) if cutout.depth is None else cutout
                 for cutout in request.cutouts]  # fmt: skip
        request = replace(request, cutouts=tuple(known), drawn_for=request.digest)  # the same request still
    prior = DiffusersPrior(describe(of_stage(BUILTIN, "coarse"), "builtin"), torch.device("cpu"), torch.float32)
    noun = _noun(prior, prompt, seed)
    fov, first = request.fov or Camera.fov, request.cutouts[0]
    fit, needed = None, 0.0
    if noun is not None or not prompt:
        fit, needed = _fit(prior, request, noun, fov)
    if fit is not None and fit.overlap[1] < needed:
        tell(
            f"{first.name} looks like nothing that the built-in prior knows (the nearest: {article(fit.noun)}, "
            f"{fit.overlap[1]:.0%} of the outline): its outline is made solid, and unseen sides are guessed from it. "
            f"A prompt says what it is{_more()}."
        )
        fit = None
    if fit is None:
        imagine = 0.0 if request.imagine is None else request.imagine
        references = _outlined(request, fov, ELEVATION if elevation is None else elevation)
        return Pictured(prompt, tuple(references), None, imagine, request.digest)
    said = article(" ".join(word for word in (colour_name(first), fit.noun) if word))
    looks = "looks like" if fit.overlap[1] >= SURE else "is unlike all that the built-in prior knows, and most like"
    tell(
        f"{first.name} {looks}: {said}, seen {_around(fit.azimuth)} and from {fit.elevation:.0f} degrees above "
        f"({fit.overlap[1]:.0%} of the outline, bent to it)."
        + ("" if fit.overlap[1] >= SURE or noun else f" A prompt says what it is{_more()}.")
    )
    imagine = 0.5 if request.imagine is None else request.imagine
    references = _fitted(prior, request, fit, fov, depth)
    return Pictured(prompt or said, tuple(references), fit, imagine, request.digest)


def colour_name(cutout: Cutout) -> str | None:
    """The colour that most of a thing has, by the built-in prior's names; None where it has several."""
    solid = cutout.rgba[..., 3] > 200
    pixels = cutout.rgba[..., :3][solid].astype(np.float32) / 255
    if len(pixels) == 0:
        return None
    named = np.array([rgb for _, rgb in COLOURS.values()], np.float32)
    some = pixels[:: max(len(pixels) // 5000, 1)]
    nearest = np.linalg.norm(_opponent(some)[:, None] - _opponent(named)[None], axis=-1).argmin(1)
    counts = np.bincount(nearest, minlength=len(named))
    return list(COLOURS)[int(counts.argmax())] if counts.max() > _NAMED * len(some) else None


def _opponent(rgb: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 3"]:
    """Lightness at half its weight, red against green, blue against yellow: shade matters less than hue."""
    r, g, b = rgb.T
    return np.stack([(r + g + b) / 6, r - g, (r + g) / 2 - b], 1)


def _noun(prior: DiffusersPrior, prompt: str, seed: int) -> str | None:
    """What a prompt names in the built-in prior's words, if anything."""
    if not prompt or prior.vocabulary is None:
        return None
    try:
        return understand(prior.vocabulary, prompt, seed).caption.noun
    except UsageError:
        return None


def _more() -> str:
    """What else helps to name a picture, if anything is left."""
    return "" if classifier.is_installed() else f"; pip install {classifier.TO_INSTALL} tells what photos show"


def _fit(prior: DiffusersPrior, request: PictureRequest, noun: str | None, fov: float) -> tuple[Fit | None, float]:
    """The model that looks most like the first picture, bent to it, and the overlap from which it is one of these."""
    assert prior.vocabulary is not None and prior.volume is not None
    picture, azimuth = request.cutouts[0].rgba, request.azimuths[0]
    looks = Looks.load(BUILTIN, prior.vocabulary)
    likely = likely_models(BUILTIN, picture) if noun is None else None
    chances = dict[str, float]()  # of nouns, where the classifier is asked
    if likely is not None and classifier.is_installed():
        likely = classifier.together(likely, classifier.noun_chances(BUILTIN, picture), prior.vocabulary)
        chances = classifier.by_noun(likely, prior.vocabulary)
    sightings = looks.like(picture, CANDIDATES, azimuth=azimuth, elevation=request.elevation, noun=noun, likely=likely)
    models = [int(prior.volume.find(_states(prior, sighting.caption))[0]) for sighting in sightings]
    chosen = likeliest(prior.volume, models, sightings, picture, fov, Camera.half_height, azimuth, request.elevation)
    fits = [fit_model(prior.volume, *one, picture, fov, Camera.half_height) for one in chosen[:BENT]]
    fit = max(fits, key=lambda fit: fit.score, default=None)
    if fit is None or likely is None:
        return fit, 0.0
    if not chances:
        return fit, FITS
    if chances[fit.noun] >= KNOWN:
        return fit, FITS_KNOWN
    return fit, FITS if max(chances.values()) >= CERTAIN else FITS_UNKNOWN


def _states(prior: DiffusersPrior, caption: Caption) -> Float[Tensor, "1 L D"]:
    return condition(prior, caption).states


def _fitted(prior: DiffusersPrior, request: PictureRequest, fit: Fit, fov: float, depth: bool) -> list[Reference]:
    """The pictures where the fitted model stands in them; if `depth` with the model's own where they have none."""
    network = prior.volume
    assert network is not None
    model = int(network.find(_states(prior, fit.caption))[0])
    with torch.no_grad():
        volume = fit.bent(mended(network.volume_of(network.latent(model))), network.extent)
    references = []
    for cutout, azimuth in zip(request.cutouts, request.azimuths, strict=True):
        turn = 0.0 if cutout is request.cutouts[0] else (azimuth or 0.0) - (request.azimuths[0] or 0.0)
        camera = Camera((fit.azimuth + turn) % 360.0, fit.elevation, fov)
        height, centre = fit.height, fit.centre
        if cutout is not request.cutouts[0]:
            height, centre = placement(seen_from(network, volume, camera), cutout.aspect)
        reference = _reference(cutout, camera, height, centre)
        if depth and reference.depth is None:
            reference = replace(reference, depth=depth_from(network, volume, camera, reference.mask))
        references.append(reference)
    return references


@torch.no_grad()
def depth_from(
    network: CaptionVolume, volume: Float[Tensor, "J I K 7"], camera: Camera, mask: UInt8[Tensor, "S S"]
) -> Float[Tensor, "S S"]:
    """How far a volume is within a picture's mask, from 0 (near) to 1; where the volume is missing, as beside it."""
    views = camera.views()
    maps = network.render(volume[None], views, _DEPTH_SIDE)[0]
    opacity = maps[0].numpy()
    far = (maps[7:10].movedim(0, -1) @ views.axes()[2][0] / maps[0].clamp(min=1e-3)).numpy()
    solid = opacity > 0.5
    if not solid.any():
        return torch.zeros(mask.shape)
    nearest = ndimage.distance_transform_edt(~solid, return_distances=False, return_indices=True)
    filled = torch.from_numpy(far[tuple(nearest)])[None, None]
    whole = F.interpolate(filled, size=mask.shape, mode="bilinear")[0, 0]
    inside = whole[mask > 127]
    low, high = (inside.min(), inside.max()) if len(inside) else (whole.min(), whole.max())
    return ((whole - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)


def _outlined(request: PictureRequest, fov: float, elevation: float = ELEVATION) -> list[Reference]:
    """Pictures of an unknown thing: in the middle, all of the same height."""
    elevation = elevation if request.elevation is None else request.elevation
    widest = max(max(cutout.aspect, 1.0) for cutout in request.cutouts)
    return [
        _reference(cutout, Camera(azimuth or 0.0, elevation, fov), SHARE / widest, (0.0, 0.0))
        for cutout, azimuth in zip(request.cutouts, request.azimuths, strict=True)
    ]


def _reference(cutout: Cutout, camera: Camera, height: float, centre: tuple[float, float]) -> Reference:
    rgba, depth = cutout.placed(SIZE, height, centre)
    normals = cutout.placed_normals(SIZE, height, centre)
    pixels: UInt8[np.ndarray, "S S 4"] = np.ascontiguousarray(rgba)
    return Reference(
        camera,
        torch.from_numpy(pixels[..., :3].copy()),
        torch.from_numpy(pixels[..., 3].copy()),
        None if depth is None else torch.from_numpy(np.ascontiguousarray(depth)).float(),
        cutout.name,
        None if normals is None else torch.from_numpy(np.ascontiguousarray(normals)).float(),
    )


def _around(azimuth: float) -> str:
    """An azimuth in words."""
    turn = round((azimuth + 180) % 360 - 180)
    if abs(turn) < 5:
        return "from the front"
    return f"from {abs(turn)} degrees to the {'right' if turn > 0 else 'left'} of its front"

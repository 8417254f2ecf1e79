"""A model is found among many, bent to a picture and painted with it: on a made-up box with wheels."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from magic3d_cli.guidance.builtin import fitting
from magic3d_cli.guidance.builtin.fitting import Fit, fit_model, likeliest, placement
from magic3d_cli.guidance.builtin.looks import SIDE, Looks, Sighting, looks_views, thumbnail
from magic3d_cli.guidance.builtin.projection import painted
from magic3d_cli.guidance.builtin.vocabulary import Caption, Vocabulary
from magic3d_cli.guidance.diffusers.catalogue import BUILTIN
from magic3d_cli.kernels.dispatch import composite_volume
from magic3d_cli.reference import Cutout
from magic3d_cli.scene.reference import Camera, Reference
from magic3d_cli.scene.views import Views

EXTENT, SAMPLES, VOXELS = 0.95, 96, 64
BODY, NOSE = (0.2, 0.3, 0.8), (0.9, 0.8, 0.1)
FRONT = Camera()


class Network:
    """As much of `CaptionVolume` as fitting asks for; its "latents" are volumes."""

    extent, samples = EXTENT, SAMPLES

    def latent(self, model: Tensor) -> Tensor:
        return model

    def volume_of(self, latent: Tensor) -> Tensor:
        return latent

    def render(self, volume: Tensor, views: Views, size: int) -> Tensor:
        origins, directions = views.rays(size)
        jitter = torch.full((len(views), size * size), 0.5)
        start = views.distance - EXTENT
        maps = composite_volume(volume, origins[:, 0, 0], directions.flatten(1, 2), start, jitter, SAMPLES, EXTENT)
        return maps.unflatten(-1, (size, size))


def box(half: tuple[float, float, float], nose: bool = True) -> Tensor:
    """A blue box with a yellow nose on its front, upper half; [J, I, K, 7], indexed y, x, z."""
    along = ((torch.arange(VOXELS) + 0.5) / VOXELS * 2 - 1) * EXTENT
    y, x, z = torch.meshgrid(along, along, along, indexing="ij")

    def inside(centre: tuple[float, float, float], half: tuple[float, float, float]) -> Tensor:
        away = [(p - c).abs() - h for p, c, h in zip((x, y, z), centre, half, strict=True)]
        return -torch.stack(away).amax(0)  # positive inside

    body = inside((0, 0, 0), half)
    front = inside((0, half[1] / 2, half[2]), (half[0] / 2, half[1] / 3, 0.12))
    deep = torch.maximum(body, front) if nose else body
    volume = torch.zeros(VOXELS, VOXELS, VOXELS, 7)
    volume[..., 0] = (deep * 100).clamp(-10, 10)
    slopes = torch.stack(torch.gradient(deep), -1)[..., [1, 0, 2]]  # to x, y, z
    volume[..., 1:4] = F.normalize(-slopes, dim=-1)
    volume[..., 4:7] = torch.where((front > body)[..., None], torch.tensor(NOSE), torch.tensor(BODY))
    return volume


def shot(volume: Tensor, camera: Camera, size: int = 160) -> np.ndarray:
    """A cut-out picture of a volume."""
    maps = Network().render(volume[None], camera.views(), size)[0].numpy()
    rgba = np.concatenate([maps[4:7] / np.maximum(maps[:1], 0.05), maps[:1]]).transpose(1, 2, 0)
    pixels = (rgba.clip(0, 1) * 255).round().astype(np.uint8)
    rows, columns = (np.flatnonzero((pixels[..., 3] > 128).any(axis)) for axis in (1, 0))
    return pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def sighting(azimuth: float, elevation: float = 15.0) -> Sighting:
    return Sighting(Caption("box", style="<box-0>"), azimuth, elevation, 0.0, 0.0)


@pytest.fixture(scope="module")
def fitted() -> tuple[Fit, Tensor, Tensor]:
    """A box bent to the picture of a wider, lower one; with both volumes."""
    real, model = box((0.5, 0.3, 0.7)), box((0.35, 0.38, 0.7))
    camera = Camera(35.0, 20.0)
    network: Any = Network()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "TAKEN", 1.0)
        found = fit_model(network, model, sighting(35.0, 20.0), shot(real, camera), 40.0, 1.05)  # type: ignore[arg-type]
    return found, model, real


def test_the_camera_is_found_near_where_it_was_sighted() -> None:
    volume, network = box((0.35, 0.3, 0.7)), Network()
    picture = shot(volume, Camera(48.0, 9.0))
    found = likeliest(network, [volume], [sighting(30.0)], picture, 40.0, 1.05)  # type: ignore[arg-type, list-item]
    assert abs(found[0][1].azimuth - 48) <= 6 and abs(found[0][1].elevation - 9) <= 6
    told = likeliest(network, [volume], [sighting(30.0)], picture, 40.0, 1.05, 50.0, 10.0)  # type: ignore[arg-type, list-item]
    assert (told[0][1].azimuth, told[0][1].elevation) == (50.0, 10.0)


def test_the_likelier_of_two_models_comes_first() -> None:
    right, wrong, network = box((0.35, 0.3, 0.7)), box((0.3, 0.75, 0.3)), Network()
    picture = shot(right, Camera(30.0, 15.0))
    found = likeliest(network, [wrong, right], [sighting(30.0)] * 2, picture, 40.0, 1.05)  # type: ignore[arg-type, list-item]
    best: Any = found[0][0]
    assert best is right


def test_bending_brings_the_outline_to_the_pictures(fitted: tuple[Fit, Tensor, Tensor]) -> None:
    fit, model, real = fitted
    assert fit.overlap[1] > 0.93 and fit.overlap[1] > fit.overlap[0] + 0.03
    # The unseen sides follow: the bent box is nearer to the real one from behind too, once both have one size.
    behind = Camera(215.0, 20.0)
    outlines = [thumbnail(shot(volume, behind))[..., 3] > 128 for volume in (real, model, fit.bent(model, EXTENT))]
    before, after = ((outlines[0] & one).sum() / (outlines[0] | one).sum() for one in outlines[1:])
    assert after > before + 0.02


@pytest.mark.parametrize(("before", "share"), [(0.6, 1.0), (0.8, fitting.TAKEN)])
def test_of_a_model_that_fits_already_only_a_part_of_the_bend_is_taken(
    before: float, share: float, fitted: tuple[Fit, Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, model, real = fitted
    lattice = torch.tensor(whole.lattice).view(1, 3, 5, 5, 5)
    monkeypatch.setattr(fitting, "_bend", lambda *rest: (lattice, (before, 0.9), 0.0))
    network: Any = Network()
    found = fit_model(network, model, sighting(35.0, 20.0), shot(real, Camera(35.0, 20.0)), 40.0, 1.05)  # type: ignore[arg-type]
    assert torch.allclose(torch.tensor(found.lattice), share * torch.tensor(whole.lattice), atol=1e-4)
    assert found.overlap == (before, 0.9)


def test_the_left_is_bent_like_the_right_and_normals_stay_unit(fitted: tuple[Fit, Tensor, Tensor]) -> None:
    fit, model, _ = fitted
    lattice = torch.tensor(fit.lattice).view(3, 5, 5, 5)  # x, y, z of control points y, x, z
    mirrored = lattice.flip(2) * torch.tensor([-1.0, 1.0, 1.0]).view(3, 1, 1, 1)
    assert (lattice - mirrored).abs().max() < 0.35 * lattice.abs().max()
    bent = fit.bent(model, EXTENT)
    near = bent[..., 0].abs() < 5
    assert (bent[near][:, 1:4].norm(dim=1) - 1).abs().median() < 0.05


def test_a_fit_survives_a_checkpoint(fitted: tuple[Fit, Tensor, Tensor]) -> None:
    fit = fitted[0]
    assert Fit.from_json(json.loads(json.dumps(fit.to_json()))) == fit
    with pytest.raises((KeyError, TypeError)):
        Fit.from_json({"noun": "box"})


def test_a_thing_is_placed_over_what_it_replaces() -> None:
    opacity = np.zeros((100, 100))
    opacity[20:60, 30:90] = 1
    height, centre = placement(opacity, 1.5)
    assert height == pytest.approx(0.4) and centre == pytest.approx((0.2, 0.2))
    assert placement(opacity, 6.0)[0] == pytest.approx(0.2 * 0.8, abs=0.05)  # between its height and its width


def reference(volume: Tensor, camera: Camera, colour: tuple[float, float, float]) -> Reference:
    """A picture in which the body has another colour and the nose is black."""
    mask = Network().render(volume[None], camera.views(), 128)[0]
    nose = mask[4] > mask[6]  # yellow: more red than blue
    rgb = torch.where(nose[..., None], torch.zeros(3), torch.tensor(colour))
    return Reference(camera, (rgb * 255).round().to(torch.uint8), (mask[0] * 255).round().to(torch.uint8))


def at(volume: Tensor, x: float, y: float, z: float) -> Tensor:
    """Colour of the voxel at a point."""
    index = [int((p / EXTENT + 1) / 2 * VOXELS) for p in (y, x, z)]
    return volume[index[0], index[1], index[2], 4:7]


def test_a_picture_is_painted_on_what_it_shows_on_its_mirror_image_and_by_likeness_behind() -> None:
    volume, red = box((0.4, 0.4, 0.4)), torch.tensor([0.9, 0.1, 0.1])
    network: Any = Network()
    out = painted(network, volume, [reference(volume, Camera(40.0, 0.0), (0.9, 0.1, 0.1))])
    front, right, left, back = (0.0, -0.2, 0.39), (0.39, 0.0, 0.0), (-0.39, 0.0, 0.0), (0.0, 0.0, -0.39)
    for point in (front, right, left, back):
        assert (at(out, *point) - red).abs().max() < 0.15, point
    assert at(out, 0.0, 0.2, 0.5).max() < 0.2  # the nose, black in the picture
    assert torch.equal(out[..., :4], volume[..., :4])  # the shape is left alone


def test_the_first_of_several_pictures_has_the_last_word() -> None:
    volume, network = box((0.4, 0.4, 0.4), nose=False), Network()
    first = reference(volume, Camera(0.0, 0.0), (0.1, 0.8, 0.1))
    second = reference(volume, Camera(30.0, 0.0), (0.8, 0.1, 0.1))
    out = painted(network, volume, [first, second])  # type: ignore[arg-type]
    assert at(out, 0.0, 0.0, 0.39)[1] > 0.6 and at(out, 0.39, 0.0, 0.0)[0] > 0.6


ONE_SIDED = ("giraffe", "forklift", "motorcycle")
"""Things that look like no other and not alike from any two sides."""


@pytest.fixture(scope="module")
def looks() -> Looks:
    """Some of the built-in prior's models, those that are asked for below among them."""
    whole = Looks.load(BUILTIN, Vocabulary.load(BUILTIN / "vocabulary.json"))
    rows = [i for i, caption in enumerate(whole.captions) if i % 20 == 0 or caption.noun in ONE_SIDED]
    return replace(whole, captions=tuple(whole.captions[i] for i in rows), thumbnails=whole.thumbnails[rows])


def test_there_are_looks_of_every_model_of_the_prior(looks: Looks) -> None:
    vocabulary = Vocabulary.load(BUILTIN / "vocabulary.json")
    whole = Looks.load(BUILTIN, vocabulary)
    assert len(whole.captions) == sum(map(len, vocabulary.styles.values())) == len(whole.thumbnails)
    solid = (whole.thumbnails[..., 3] > 128).mean((2, 3))
    assert (solid.max(1) > 0.01).all()
    assert len(looks_views()) == whole.thumbnails.shape[1]


@pytest.mark.parametrize("noun", ONE_SIDED)
def test_a_picture_of_a_model_looks_like_that_model(looks: Looks, noun: str) -> None:
    number = next(i for i, caption in enumerate(looks.captions) if caption.noun == noun)
    view = 13  # 30 degrees round, 15 above
    picture = np.kron(looks.thumbnails[number, view], np.ones((4, 4, 1), np.uint8))
    best = looks.like(picture, 3)[0]
    assert (best.caption, best.azimuth, best.elevation) == (looks.captions[number], 30.0, 15.0)
    assert best.overlap > 0.97


def test_what_is_known_of_a_picture_is_kept_to(looks: Looks) -> None:
    picture = looks.thumbnails[5, 13]
    assert all(abs(one.azimuth - 180) <= 20 for one in looks.like(picture, 5, azimuth=180.0))
    assert all(one.elevation >= 15 for one in looks.like(picture, 5, elevation=35.0))
    noun = looks.captions[9].noun
    assert {one.caption.noun for one in looks.like(picture, 5, noun=noun)} == {noun}


def test_a_thumbnail_is_the_thing_as_large_as_it_can_be_without_its_hidden_colours() -> None:
    picture = np.zeros((90, 120, 4), np.uint8)
    picture[..., 2] = 255  # blue where it is transparent
    picture[30:50, 20:100] = (255, 0, 0, 255)
    small = thumbnail(picture)
    solid = small[..., 3] > 128
    assert solid.any(0).all() and abs(solid.any(1).sum() - SIDE / 4) <= 1
    assert (small[solid][:, 0] > 250).all() and (small[solid][:, 2] < 5).all()
    assert not thumbnail(np.zeros((4, 4, 4), np.uint8)).any()


def test_a_cutout_is_placed_where_the_model_stands(fitted: tuple[Fit, Tensor, Tensor]) -> None:
    fit, model, real = fitted
    camera = Camera(fit.azimuth, fit.elevation)
    cut = Cutout("", shot(real, camera), None, "mask")
    placed = cut.placed(96, fit.height, fit.centre)[0][..., 3] > 128
    bent = Network().render(fit.bent(model, EXTENT)[None], camera.views(), 96)[0, 0].numpy() > 0.5
    assert (placed & bent).sum() / (placed | bent).sum() > 0.9
    assert SimpleNamespace(**fit.to_json()).overlap == fit.overlap

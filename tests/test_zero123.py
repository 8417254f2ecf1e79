"""Priors that are shown a picture and told how the camera is turned from it: Zero-1-to-3 in its authors' formulas."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from command import magic3d
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_priors import save_builtin, save_sd, save_zero123
from tiny_run import tiny_draft
from torch import Tensor

from magic3d_cli import job, pictures, recipes
from magic3d_cli.errors import EnvironmentFault, UsageError
from magic3d_cli.guidance.conditioning import PictureConditioning, relative_camera
from magic3d_cli.guidance.diffusers.catalogue import FROM_PICTURE, HUB
from magic3d_cli.guidance.diffusers.spec import check, describe
from magic3d_cli.guidance.diffusers.zero123 import PicturePrior, load_projection
from magic3d_cli.guidance.distillation import ScoreDistillation
from magic3d_cli.guidance.guide import imagined
from magic3d_cli.guidance.pictured import Pictured
from magic3d_cli.guidance.priors import STAGES, WeightedPrior, choose_priors, foresee_priors, takes_words
from magic3d_cli.kernels.rasterize import rasterize_reference
from magic3d_cli.picture_request import PictureRequest
from magic3d_cli.run import checkpoint
from magic3d_cli.scene.reference import Camera, Reference
from magic3d_cli.scene.render import Render
from magic3d_cli.scene.views import Views, turntable
from magic3d_cli.settings import GuidanceSettings
from magic3d_cli.training.distributed import Processes
from magic3d_cli.training.terms import Step


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_zero123(tmp_path_factory.mktemp("priors") / "zero123")


def loaded(folder: Path) -> PicturePrior:
    return PicturePrior(describe(folder, "prior"), torch.device("cpu"), torch.float32)


@pytest.fixture
def prior(folder: Path) -> PicturePrior:
    return loaded(folder)


@pytest.fixture
def reference() -> Reference:
    """Half red over nothing."""
    rgb, mask = torch.zeros(32, 32, 3, dtype=torch.uint8), torch.zeros(32, 32, dtype=torch.uint8)
    rgb[..., 0], mask[:, :16] = 200, 255
    return Reference(Camera(azimuth=30.0, elevation=10.0), rgb, mask)


def as_the_authors(views: Views, picture: Camera) -> Tensor:
    """get_T of the authors' data set: both cameras' places in a world with z up, in spherical coordinates."""

    def spherical(place: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, y, z = place[:, 2], place[:, 0], place[:, 1]  # ours turned, not mirrored
        return torch.arctan2((x**2 + y**2).sqrt(), z), torch.arctan2(y, x), place.norm(dim=1)

    theta, azimuth, radius = spherical(views.position)
    theta_cond, azimuth_cond, radius_cond = spherical(picture.views().position)
    turn = (azimuth - azimuth_cond) % (2 * math.pi)
    return torch.stack([theta - theta_cond, turn.sin(), turn.cos(), radius - radius_cond], 1)


@pytest.mark.parametrize("picture", [Camera(), Camera(azimuth=70.0, elevation=20.0)])
def test_the_camera_is_told_as_the_authors_tell_it(picture: Camera) -> None:
    views = Views.concatenate([turntable(5, elevation, fov=40.0) for elevation in (-20.0, 0.0, 45.0)])
    told = relative_camera(views, picture)
    torch.testing.assert_close(told, as_the_authors(views, picture), atol=1e-5, rtol=0)
    same = relative_camera(picture.views(), picture)
    torch.testing.assert_close(same, torch.tensor([[0.0, 0.0, 1.0, 0.0]]), atol=1e-6, rtol=0)


def test_a_turn_to_the_right_shows_the_right_half_of_the_front() -> None:
    """A rendered pair: the sign of the turn, seen and not read."""
    marks = torch.tensor([[0.6, 0, 0], [-0.6, 0, 0], [0, 0, 0.6], [0, 0, -0.6]])  # right, left, front, back; world
    corners = torch.tensor([[0.0, 0.3, 0], [0.2, -0.2, 0.2], [-0.2, -0.2, 0.2], [0, -0.2, -0.3]])
    vertices = (marks[:, None] + corners).flatten(0, 1)
    faces = torch.tensor([[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2]])
    faces = (faces + 4 * torch.arange(4)[:, None, None]).flatten(0, 1)
    views = Views.concatenate([turntable(1, 0.0), turntable(1, 0.0, 90.0)])
    homogeneous = torch.cat([vertices, torch.ones(len(vertices), 1)], 1)
    clip = torch.einsum("bij,vj->bvi", views.world_to_clip(), homogeneous)
    seen = rasterize_reference(clip, faces, 64)
    mark = torch.where(seen >= 0, seen // 4, -1)  # which of the four each pixel shows
    column = torch.arange(64).expand(64, 64)
    assert column[mark[0] == 0].float().mean() > 40  # in front the first is on the right,
    middle = mark[1][:, 28:36]
    assert (middle == 0).sum() > 10 and not (mark[1] == 1).any()  # and after the turn nearest, hiding the second
    told = relative_camera(views, Camera())
    torch.testing.assert_close(told[1], torch.tensor([0.0, 1.0, 0.0, 0.0]), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("projection", "key"), [("clip_camera_projection", "proj"), ("cc_projection", "projection")])
def test_the_projection_is_read_by_either_name(projection: str, key: str, tmp_path: Path) -> None:
    folder = save_zero123(tmp_path / "prior", projection, key)
    spec = describe(folder, "prior")
    check(spec)
    assert spec.from_picture and not spec.absolute and spec.projection is not None
    tensors = load_file(folder / projection / "diffusion_pytorch_model.safetensors")
    layer = load_projection(spec.projection)
    assert torch.equal(layer.weight, tensors[f"{key}.weight"]) and torch.equal(layer.bias, tensors[f"{key}.bias"])


def test_it_is_told_the_picture_and_the_turn_in_one_token_and_nothing_by_zeros(
    prior: PicturePrior, reference: Reference
) -> None:
    told, views = prior.see(reference), turntable(3, 20.0)
    assert isinstance(told, PictureConditioning)
    camera = relative_camera(views, reference.camera)
    row = torch.cat([told.embedding.expand(3, -1), camera], 1)
    expected = row @ told.projection.weight.T + told.projection.bias
    torch.testing.assert_close(told.text(views), expected[:, None])
    assert told.text(views).shape == (3, 1, 16) and not told.without(views).any()
    assert told.negatives(views) == []


def test_stable_zero123_is_told_the_pictures_own_elevation(reference: Reference, tmp_path: Path) -> None:
    folder = save_zero123(tmp_path / "stable-zero123")
    prior = loaded(folder)
    assert prior.spec.absolute
    assert prior.see(reference).absolute
    told = relative_camera(turntable(4, 30.0), reference.camera, absolute=True)
    torch.testing.assert_close(told[:, 3], torch.full((4,), math.radians(80)))
    torch.testing.assert_close(told[:, :3], relative_camera(turntable(4, 30.0), reference.camera)[:, :3])


def test_the_pictures_latent_lies_beside_the_noisy_one_without_the_usual_factor(
    prior: PicturePrior, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, views = prior.see(reference), turntable(2)
    taken: list[Tensor] = []
    network = prior.network.forward

    def spy(sample: Tensor, **rest: Tensor) -> Tensor:
        taken.append(sample)
        return network(sample, **rest)

    monkeypatch.setattr(prior.network, "forward", spy)
    noisy = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    text = torch.cat([told.without(views), told.text(views)])
    clean, noise = prior.denoise(noisy, torch.full((4,), 500), text)
    assert clean.shape == noise.shape == noisy.shape
    (sample,) = taken
    rgb, alpha, _ = reference.at(prior.image_size)
    white = (rgb * alpha[..., None] + 1 - alpha[..., None]).movedim(-1, 0)[None]
    assert prior.vae is not None
    with torch.no_grad():
        mode = prior.vae.encode(white * 2 - 1).latent_dist.mode()  # not times 0.18215
    torch.testing.assert_close(sample[:, :4], noisy)
    torch.testing.assert_close(sample[2:, 4:], mode.expand(2, -1, -1, -1))
    assert not sample[:2, 4:].any()
    torch.testing.assert_close(prior.encode_image(white), mode * 0.18215)  # what is guided has the factor


def test_it_pulls_and_needs_to_have_seen_the_picture(prior: PicturePrior, reference: Reference) -> None:
    with pytest.raises(ValueError, match="has seen no picture"):
        prior.denoise(torch.zeros(1, 4, 8, 8), torch.tensor([1]), torch.ones(1, 1, 16))
    images = torch.rand(2, 16, 16, 3, requires_grad=True)
    loss = ScoreDistillation(prior, prior.see(reference), GuidanceSettings(scale=(5.0, 5.0)))
    step = Step(turntable(2), 0.5, torch.Generator().manual_seed(2), Processes())
    value, _ = loss(Render(images, *[torch.zeros(0)] * 4), step)
    (pull,) = torch.autograd.grad(value, images)
    assert pull.isfinite().all() and pull.abs().sum() > 0


def test_pickled_and_foreign_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    pickled = save_zero123(tmp_path / "pickled")
    (pickled / "unet" / "diffusion_pytorch_model.safetensors").rename(pickled / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(EnvironmentFault, match="only pickled weights"):
        check(describe(pickled, "pickled"))
    foreign = save_zero123(tmp_path / "foreign")
    file = foreign / "clip_camera_projection" / "diffusion_pytorch_model.safetensors"
    save_file({"proj.weight": torch.zeros(16, 16), "proj.bias": torch.zeros(16)}, file)
    with pytest.raises(EnvironmentFault, match=r"expected one of \[16, 20\]"):
        check(describe(foreign, "foreign"))


def test_without_a_picture_it_is_refused_before_any_download(folder: Path, tmp_path: Path) -> None:
    wanted = {stage: [WeightedPrior(str(folder))] for stage in STAGES}
    with pytest.raises(UsageError, match="there is none"):
        choose_priors(wanted, "a dog", 0, "cpu", lambda text: None)
    assert not takes_words(str(folder), "cpu") and takes_words("sd15", "cpu") and takes_words("builtin", "cpu")
    for name in FROM_PICTURE:
        assert not takes_words(name, "cpu") and HUB[name].licence
        assert magic3d("generate", "a dog", "--prior", name) == 2


def test_a_recipe_that_needs_it_takes_it_from_a_folder(folder: Path, tmp_path: Path) -> None:
    sd = save_sd(tmp_path / "sd")
    wanted = {stage: [WeightedPrior(str(sd)), WeightedPrior(str(folder))] for stage in STAGES}
    foreseen = foresee_priors(wanted, "cpu")["coarse"]
    assert [prior.from_picture for prior in foreseen] == [False, True]
    for recipe, some in {"magic123": foreseen, "zero123": foreseen[1:], "realfusion": foreseen[:1]}.items():
        recipes.check_priors(recipes.named(recipe), dict.fromkeys(STAGES, some))
    with pytest.raises(UsageError, match="zero123"):
        recipes.check_priors(recipes.named("zero123"), dict.fromkeys(STAGES, foreseen[:1]))


def test_beside_a_prior_of_words_it_keeps_to_what_is_known(folder: Path, tmp_path: Path) -> None:
    sd = save_sd(tmp_path / "sd")
    wanted = {stage: [WeightedPrior(str(sd)), WeightedPrior(str(folder))] for stage in STAGES}
    chosen = choose_priors(wanted, "a dog", 0, "cpu", lambda text: None, pictured=True)
    assert imagined(chosen["coarse"], 0.25) == [0.5, 1.5]
    assert imagined(chosen["coarse"], 1.0) == [2.0, 0.0]


def test_a_picture_becomes_an_asset_with_it_without_a_word(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unknown(request: PictureRequest, prompt: str, seed: int, tell: object) -> Pictured:
        return Pictured(prompt, tuple(pictures._outlined(request, request.fov or 40.0)), None, 0.5, request.digest)

    tiny_draft(monkeypatch)
    save_builtin(tmp_path / "closed")
    monkeypatch.setattr(job, "look_at", unknown)
    monkeypatch.chdir(tmp_path)
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    disc = np.where((np.hypot(x, y) < 0.7)[..., None], [220, 30, 30, 255], 0).astype(np.uint8)
    Image.fromarray(disc).save("ball.png")
    command = ("generate", "--image", "ball.png", "--prior", str(folder), "--fov", "30", "-o", "ball.glb")
    assert magic3d(*command) == 0, capsys.readouterr().err
    for stage in STAGES:
        header = checkpoint.read_header(Path("ball.run") / f"{stage}.ckpt")
        settings = header["settings"][stage]
        assert settings["guidance"]["scale"] == [5.0, 5.0]
        assert settings["sampling"]["fov"] == [30.0, 30.0] and settings["sampling"]["backdrop"] == [1.0, 1.0, 1.0]
        assert header["prior"]["id"] == str(folder.resolve())
    assert magic3d("refine", "ball.run/coarse.ckpt", "-o", "again.glb") == 0, capsys.readouterr().err
    assert Path("again.glb").read_bytes() == Path("ball.glb").read_bytes()

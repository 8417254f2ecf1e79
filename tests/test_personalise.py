"""`magic3d personalise`: a mesh or pictures become a thing of the built-in prior, drawn wherever its word is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from command import magic3d
from PIL import Image
from test_adapters import cube
from tiny_priors import save_builtin

from magic3d_cli import personalise
from magic3d_cli.asset.read import read_coloured
from magic3d_cli.errors import UsageError
from magic3d_cli.guidance.adapters import read_adapters
from magic3d_cli.guidance.builtin.subject import Subject, save_subject, tones_of, volume_of
from magic3d_cli.guidance.diffusers.catalogue import of_stage
from magic3d_cli.guidance.diffusers.prior import DiffusersPrior
from magic3d_cli.guidance.diffusers.spec import describe
from magic3d_cli.guidance.guide import PriorGuide
from magic3d_cli.guidance.priors import STAGES, WeightedPrior, choose_priors
from magic3d_cli.photos import are_pictures, read_sources
from magic3d_cli.picture_request import PictureRequest
from magic3d_cli.reference import read_cutout
from magic3d_cli.scene.mesh_shape import MeshShape

EXTENT = 0.95
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def two_coloured(path: str) -> None:
    """A wide slab, blue, with a yellow post at its front left."""
    slab, post = trimesh.creation.box((2.0, 0.4, 1.2)), trimesh.creation.box((0.3, 1.0, 0.3))
    post.apply_translation((0.8, 0.7, 0.4))
    slab.visual.vertex_colors, post.visual.vertex_colors = [30, 60, 220, 255], [240, 220, 30, 255]
    trimesh.util.concatenate([slab, post]).export(path)


def test_a_mesh_becomes_a_volume_with_its_shape_normals_and_colours() -> None:
    two_coloured("thing.glb")
    mesh = read_coloured(Path("thing.glb"))
    side = 48
    volume = volume_of(MeshShape(*mesh.samples(400_000)), side, EXTENT)
    edge = 2 * EXTENT / side
    scale = np.ptp(mesh.vertices[:, 0]) / 2.0
    filled = volume[..., 0] > 0
    assert float(filled.sum()) * edge**3 == pytest.approx((2 * 0.4 * 1.2 + 0.3 * 0.3 * 1.0) * scale**3, rel=0.1)
    y, x, z = filled.nonzero().T
    post = y > y.min() + 0.5 * (y.max() - y.min())
    assert (x[post].float().mean() > side / 2) and (z[post].float().mean() > side / 2)  # its left is +X, its front +Z
    surface = volume[..., 0].abs() < 5
    top = surface & (volume[..., 2] > 0.9)
    assert top.any() and (surface & (volume[..., 1] > 0.9)).any() and (surface & (volume[..., 3] < -0.9)).any()
    torch.testing.assert_close(
        volume[..., 1:4][surface].norm(dim=-1), torch.ones(int(surface.sum())), atol=1e-3, rtol=0
    )
    shown = volume[y[post], x[post], z[post]]
    outside = shown[shown[:, 0] < 5][:, 4:]
    torch.testing.assert_close(outside.median(0).values, torch.tensor([240, 220, 30]) / 255, atol=0.02, rtol=0)


def test_a_colour_goes_onto_the_body_of_a_thing() -> None:
    two_coloured("thing.glb")
    volume = volume_of(MeshShape(*read_coloured(Path("thing.glb")).samples(50_000)), 32, EXTENT)
    _, light, red, blue, near, far = tones_of(volume).tolist()
    slab = np.array([30, 60, 220]) / 255
    luma = slab @ [0.299, 0.587, 0.114]
    assert (light, red, blue) == pytest.approx((luma / 2, slab[0] - luma, slab[2] - luma), abs=0.05)
    assert 0 < near <= far < 1  # the yellow post keeps its colour
    with pytest.raises(ValueError, match="empty"):
        tones_of(torch.full((8, 8, 8, 7), -10.0))


def guide_of(prior: Path, prompt: str, *adapters: str) -> PriorGuide:
    added = read_adapters(adapters)
    names = {stage: [WeightedPrior(str(prior))] for stage in STAGES}
    chosen = choose_priors(names, prompt, 0, "cpu", lambda text: None, adapters=added)
    return PriorGuide(chosen, prompt, 0, "cpu", adapters=added)


def test_the_prior_shows_the_thing_where_its_word_is_and_nowhere_else(tmp_path: Path) -> None:
    prior = save_builtin(tmp_path / "prior")
    tones = torch.tensor([0.5, 0.25, 0.0, 0.0, 10.0, 10.0])
    save_subject(Path("box.safetensors"), Subject("my box", "car", "<car-0>", cube(8), tones, EXTENT), {})
    middle = torch.tensor([[0.0, 0.0, 0.0], [0.7, 0.7, 0.7]])
    shape = guide_of(prior, "my box", "box.safetensors").volume()
    assert shape is not None
    inside, outside = shape.density(middle).tolist()
    assert inside > 100 * max(outside, 1e-6)
    red = torch.tensor([[1.0, 0.0, 0.0]])
    torch.testing.assert_close(shape.albedo(torch.tensor([[0.0, 0.4, 0.0]])), red, atol=0.01, rtol=0)
    plain, beside = guide_of(prior, "a car"), guide_of(prior, "a car", "box.safetensors")
    shapes = [guide.volume() for guide in (plain, beside)]
    assert shapes[0] is not None and shapes[1] is not None
    torch.testing.assert_close(shapes[0].density(middle), shapes[1].density(middle))
    assert plain.sha256("coarse") != beside.sha256("coarse")  # it is part of what a run is
    assert guide_of(prior, "a car", "box.safetensors").sha256("fine") == beside.sha256("fine")


def test_a_thing_of_another_size_of_volume_is_refused(tmp_path: Path) -> None:
    prior = save_builtin(tmp_path / "prior")
    save_subject(Path("box.safetensors"), Subject("my box", "car", "<car-0>", cube(16), torch.ones(6), EXTENT), {})
    with pytest.raises(UsageError, match=r"16\^3 voxels"):
        guide_of(prior, "my box", "box.safetensors").volume()


def picture(path: str, colour: tuple[int, int, int] = (200, 40, 40)) -> None:
    image = np.full((64, 64, 4), 0, np.uint8)
    image[16:48, 20:44] = (*colour, 255)
    Image.fromarray(image).save(path)


def test_pictures_of_a_folder_are_read_with_the_azimuths_of_their_names() -> None:
    Path("photos").mkdir()
    for name in ("left@270.png", "front@0.png", "other.png", "back@-170.5.png"):
        picture(f"photos/{name}")
    request = read_sources(["photos"], 12.0)
    assert [c.name for c in request.cutouts] == ["front@0.png", "back@-170.5.png", "left@270.png", "other.png"]
    assert request.azimuths == (0.0, -170.5, 270.0, None) and request.elevation == 12.0
    one_by_one = read_sources(["photos/front@0.png", "photos/left@270.png", "photos/other.png@90"], 12.0)
    assert one_by_one.azimuths == (0.0, 270.0, 90.0)  # as from photos/*.png
    assert are_pictures(["photos/front@0.png"]) and are_pictures(["photos"]) and not are_pictures(["chair.glb"])


def test_pictures_of_known_azimuths_are_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first alone, which takes as long, only where it has to tell from where the others were taken."""
    looked: list[int] = []

    def look_at(request: PictureRequest, noun: str, seed: int, tell: Callable[[str], None]) -> None:
        looked.append(len(request.cutouts))
        raise UsageError("enough")

    monkeypatch.setattr(personalise, "look_at", look_at)
    prior = DiffusersPrior(describe(of_stage(save_builtin(tmp_path / "prior"), "coarse"), "p"), CPU, torch.float32)
    picture("box.png")
    cutouts = (read_cutout(Path("box.png")),) * 2
    for azimuths in ((0.0, 180.0), (None, None)):
        wish = personalise.Wish("my box", Path("x"), pictures=PictureRequest(cutouts, azimuths))
        with pytest.raises(UsageError, match="enough"):
            personalise._of_pictures(prior, wish, None, print)
    assert looked == [2, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.glb"], "none.glb"),
        (["text.glb"], "cannot be read as a mesh"),
        (["none"], "There is no file none"),
        (["empty"], "holds no pictures"),
        (["many"], "21 pictures"),
        (["clear.png"], "transparent everywhere"),
        (["one.png", "two.png"], "not said from where two.png"),
        (["one.png", "--kind", "zzyzx"], "zzyzx"),
        (["one.png", "--up", "w"], "--up 'w'"),
        (["one.png", "-o", "x.glb"], "does not end in .safetensors"),
        (["one.png", "-o", "absent/x.safetensors"], "does not exist"),
        (["one.png", "-o", "taken.safetensors"], "exists already"),
        (["one.png", "two.png@90", "-o", "two.safetensors"], "two.png exists already, and a picture of what is learnt"),
        (["one.png", "two@720.png"], "two@720.png: the azimuth is out of range"),
        (["turned"], "two@720.png: the azimuth is out of range"),
        (["many/1.png", "--elevation", "500"], "--elevation 500 is out of range"),
        (["turned", "--elevation", "500"], "--elevation 500 is out of range"),
        (["~nobody-of-that-name/one.png"], "home folder"),
    ],
)
def test_what_cannot_be_used_is_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("text.glb").write_text("not a mesh")
    Path("taken.safetensors").write_text("something")
    for folder in ("empty", "many", "turned"):
        Path(folder).mkdir()
    for name in ("one.png", "two.png", "two@720.png", "turned/two@720.png", *(f"many/{n}.png" for n in range(21))):
        picture(name)
    Image.new("RGBA", (32, 32)).save("clear.png")
    assert magic3d("personalise", *arguments, "--word", "my box") == 2
    err = capsys.readouterr().err
    assert message in err and "next: " in err and "Traceback" not in err
    assert not Path("my-box.safetensors").exists()
    assert Image.open("two.png").size == (64, 64)


@pytest.mark.slow
def test_a_thing_is_learnt_from_a_mesh_and_drawn_in_gold_and_beside_others(capsys: pytest.CaptureFixture[str]) -> None:
    two_coloured("thing.glb")
    assert magic3d("personalise", "thing.glb", "--word", "my gizmo", "--json", "-q") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["output"], report["word"], report["source"]) == ("my-gizmo.safetensors", "my gizmo", "mesh")
    assert report["bytes"] < 400_000 and Image.open(report["picture"]).size == (1024, 256)
    mesh = read_coloured(Path("thing.glb"))
    top = torch.tensor(mesh.vertices.max(0) * [0.8, 0.95, 0.5], dtype=torch.float32)[None]  # in the post
    away = top * torch.tensor([[-1.0, 1.0, 1.0]])
    made = {}
    for prompt in ("my gizmo", "a golden my gizmo", "my gizmo next to a chair"):
        shape = guide_of(Path("builtin"), prompt, "my-gizmo.safetensors").volume()
        assert shape is not None
        made[prompt] = shape
        if "chair" not in prompt:
            assert shape.density(top) > 50 > shape.density(away)
    own, gold = (made[prompt].albedo(top)[0] for prompt in ("my gizmo", "a golden my gizmo"))
    torch.testing.assert_close(own, torch.tensor([240, 220, 30]) / 255, atol=0.05, rtol=0)
    assert (gold - own).abs().max() > 0.05 and gold[0] > gold[1] > gold[2]

"""`magic3d generate --image`, from the picture to the file: with nothing but the pictures' losses, which are real."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_run import play_tiny

import magic3d_cli
from magic3d_cli import job, pictures
from magic3d_cli.cli import main
from magic3d_cli.coarse import initial
from magic3d_cli.errors import UsageError
from magic3d_cli.guidance.diffusers.prior import load_prior
from magic3d_cli.guidance.guide import imagined
from magic3d_cli.guidance.pictured import Pictured
from magic3d_cli.picture_request import PictureRequest, read_pictures
from magic3d_cli.pictures import colour_name, look_at
from magic3d_cli.reference import Cutout
from magic3d_cli.run.resume import Saved
from magic3d_cli.scene.hull_shape import HullShape
from magic3d_cli.scene.reference import Camera, Reference
from magic3d_cli.scene.views import turntable


def drawn(folder: Path, name: str = "ball.png", colour: tuple[int, int, int] = (220, 30, 30)) -> Path:
    """A picture of a disc on transparency."""
    y, x = (np.mgrid[0:128, 0:128] + 0.5) / 64 - 1
    inside = np.hypot(x, y) < 0.7
    pixels = np.where(inside[..., None], [*colour, 255], [0, 0, 0, 0]).astype(np.uint8)
    Image.fromarray(pixels).save(folder / name)
    return folder / name


def unknown(request: PictureRequest, prompt: str, seed: int, tell: Any, **more: Any) -> Pictured:
    """`look_at` as if the built-in prior knew nothing like it."""
    tell("looks like nothing")
    return Pictured(
        prompt, tuple(pictures._outlined(request, Camera.fov)), None, request.imagine or 0.0, request.digest
    )


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with a picture; jobs are tiny, and look at pictures as `unknown` does."""
    play_tiny(monkeypatch)
    monkeypatch.setattr(job, "look_at", unknown)
    monkeypatch.setattr(initial, "POOL", 1 << 15)
    monkeypatch.chdir(tmp_path)
    return drawn(tmp_path)


def test_a_picture_alone_becomes_an_asset_that_looks_like_it(tiny: Path) -> None:
    notes: list[str] = []
    asset = magic3d_cli.generate(image=tiny, output="out.glb", on_note=notes.append)
    assert "looks like nothing" in notes
    middle = asset.texture.reshape(-1, 3).astype(int).mean(0)
    assert middle[0] > middle[1] + 35  # red, as far as ten steps go
    wide, high, deep = np.ptp(asset.vertices, axis=0)
    assert abs(wide / high - 1) < 0.2 and abs(deep / high - 1) < 0.35  # a ball
    assert {p.name for p in Path("out.run").iterdir()} >= {"picture.png", "coarse.ckpt", "fine.ckpt"}
    with Image.open("out.run/picture.png") as sheet:
        assert sheet.size == (pictures.SIZE, pictures.SIZE)
        pixels = np.asarray(sheet)
        assert pixels[256, 256, 0] > 200 and (pixels[3, 3] == 128).all()
    steps = [json.loads(line) for line in Path("out.run/log.jsonl").read_text().splitlines()]
    metrics = [step["metrics"] for step in steps if step["event"] == "step"]
    assert all("reference_colour" in one and "reference_mask" in one for one in metrics)


@pytest.mark.slow
def test_the_checkpoint_keeps_the_picture_so_that_it_is_refined_and_exported_without_the_file(
    tiny: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    magic3d_cli.generate(image=tiny, output="out.glb")
    tiny.unlink()
    saved = Saved.load(Path("out.run/coarse.ckpt"))
    assert saved.pictured is not None and saved.pictured.fit is None
    assert saved.pictured.references[0].mask[256, 256] == 255
    with pytest.raises(SystemExit) as done:
        main(["refine", "out.run/coarse.ckpt", "-o", "again.glb", "-q"])
    assert not done.value.code, capfd.readouterr().err
    again = Saved.load(Path("again.run/fine.ckpt"))
    assert again.pictured is not None and torch.equal(
        again.pictured.references[0].rgb, saved.pictured.references[0].rgb
    )
    first = Saved.load(Path("out.run/fine.ckpt"))
    for name, tensor in first.tensors.items():  # the pictures' losses were the same ones
        assert torch.equal(again.tensors[name], tensor), name
    with pytest.raises(SystemExit) as done:
        main(["export", "out.run/fine.ckpt", "-o", "out.obj", "-q"])
    assert not done.value.code and Path("out.obj").is_file()


@pytest.mark.slow
def test_another_picture_does_not_go_on_with_the_run_of_the_first(tiny: Path) -> None:
    magic3d_cli.generate(image=tiny, output="out.glb")
    other = drawn(tiny.parent, "other.png", (30, 30, 220))
    with pytest.raises(UsageError, match="exists already"):
        magic3d_cli.generate(image=other, output="out.glb")
    with pytest.raises(UsageError, match="exists already"):
        magic3d_cli.generate(image=tiny, output="out.glb", elevation=30)
    notes: list[str] = []
    magic3d_cli.generate(image=tiny, output="out.glb", on_note=notes.append)  # the same request: its own run
    assert any("finished already" in note for note in notes)
    notes.clear()
    sheet = Path("out.run/picture.png").read_bytes()
    magic3d_cli.generate(image=other, output="out.glb", force=True, on_note=notes.append)
    assert any("An earlier run was kept" in note for note in notes)
    assert Path("out.run.1/picture.png").read_bytes() == sheet != Path("out.run/picture.png").read_bytes()


@pytest.mark.slow
def test_a_folder_of_pictures_becomes_one_asset_each_and_bad_ones_are_named(
    tiny: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tiny.parent / "shots"
    folder.mkdir()
    drawn(folder, "one.png")
    (folder / "two.png").write_text("no picture")
    drawn(folder, "three.png", (30, 200, 30))
    (tiny.parent / "made").mkdir()
    with pytest.raises(SystemExit) as done:
        main(["generate", "--images", str(folder), "-o", "made", "-q"])
    assert done.value.code == 2
    told = capfd.readouterr()
    assert sorted(p.name for p in (tiny.parent / "made").glob("*.glb")) == ["one.glb", "three.glb"]
    assert "text, not a picture" in told.err and "Nothing was made of two.png" in told.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--elevation", "20"], "--elevation says something of a picture"),
        (["--image", "ball.png", "--images", "."], "--images takes whole folders"),
        (["--image", "ball.png", "--elevation", "95"], "out of range"),
        (["--image", "ball.png", "--imagine", "2"], "out of range"),
        (["--images", "nowhere"], "no folder"),
        (["--image", "none.png"], "no file"),
        (["--image", "ball.png", "--recipe", "magik123"], "Did you mean 'magic123'"),
        (["a cat", "--recipe", "magic123"], "Show one"),
        (["--image", "ball.png", "--recipe", "make-it-3d"], "needs a prior that knows"),
        (["a cat", "--recipe", "dreamcraft3d", "--variations", "2"], "--variations are of words"),
        ([], "empty"),
    ],
)
def test_wrong_options_of_pictures_are_refused(
    tiny: Path, capfd: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    with pytest.raises(SystemExit) as done:
        main(["generate", *options])
    assert done.value.code == 2 and words in capfd.readouterr().err
    assert not list(tiny.parent.glob("*.glb"))


def cone(azimuth: float, colour: tuple[int, int, int], high: float = 0.5, wide: float = 0.5) -> Reference:
    """A picture, from level, of a rectangle of these half-sides."""
    along = (torch.arange(128) + 0.5) / 64 - 1
    mask = (along.abs()[:, None] < high) & (along.abs()[None] < wide)
    rgb = torch.tensor(colour, dtype=torch.uint8).expand(128, 128, 3).contiguous()
    return Reference(Camera(azimuth, 0.0, 10.0, 1.0), rgb, (mask * 255).to(torch.uint8))


def test_one_outline_is_made_as_thick_as_it_is_wide() -> None:
    shape = HullShape([cone(0.0, (200, 30, 30), high=0.7, wide=0.25)])  # a tall bar: a rod
    depth = torch.linspace(-0.9, 0.9, 181)
    line = torch.stack([torch.zeros(181), torch.zeros(181), depth], 1)
    thick = depth[shape.density(line) > 30]
    assert -thick.min() == pytest.approx(0.25, abs=0.05) and thick.max() == pytest.approx(0.25, abs=0.05)


def test_several_outlines_cut_each_other_and_each_gives_its_side_its_colour() -> None:
    shape = HullShape([cone(0.0, (200, 30, 30), wide=0.3), cone(90.0, (30, 200, 30), wide=0.6)])
    points = torch.tensor([[0.0, 0, 0.5], [0.5, 0, 0], [0.25, 0.4, -0.55], [0, 0.6, 0]])
    assert (shape.density(points) > 30).tolist() == [True, False, True, False]
    sides = shape.albedo(torch.tensor([[0.0, 0, 0.6], [0.3, 0, 0]]))
    assert sides[0, 0] > 0.6 > sides[0, 1] and sides[1, 1] > 0.6 > sides[1, 0]
    on_it = shape.surface(500, torch.Generator().manual_seed(0))
    assert ((on_it[:, 0].abs() - 0.3).abs().min(torch.stack([(on_it[:, 1].abs() - 0.5).abs(),
            (on_it[:, 2].abs() - 0.6).abs()]).amin(0)) < 0.06).all()  # fmt: skip


def test_pictures_of_an_unknown_thing_stand_as_tall_as_each_other(tmp_path: Path) -> None:
    tall, wide = (Cutout(name, np.full(shape, 255, np.uint8), None, "mask")
                  for name, shape in (("a", (80, 40, 4)), ("b", (80, 160, 4))))  # fmt: skip
    asked = PictureRequest((tall, wide), (0.0, 90.0))
    masks = [reference.mask > 128 for reference in pictures._outlined(asked, 40.0)]
    heights = [int(mask.any(1).sum()) for mask in masks]
    assert abs(heights[0] - heights[1]) <= 2
    assert int(masks[1].any(0).sum()) == pytest.approx(pictures.SHARE * pictures.SIZE, abs=3)


def test_a_colour_names_a_thing_only_where_most_of_it_has_it() -> None:
    def of(*colours: tuple[int, int, int]) -> str | None:
        pixels = np.concatenate([np.full((10, 10, 4), [*c, 255], np.uint8) for c in colours])
        return colour_name(Cutout("", pixels, None, "mask"))

    assert of((210, 20, 25)) == "red" and of((110, 10, 12), (210, 20, 25)) in ("red", "maroon", None)
    assert of((210, 20, 25), (20, 40, 210), (240, 240, 240)) is None


def test_imagine_turns_priors_down_or_weighs_two_kinds() -> None:
    def of(*cameras: bool) -> list[Any]:
        return [replace_spec(camera) for camera in cameras]

    assert imagined(of(True), 0.5) == [1.0] and imagined(of(True), 0.0) == [0.0] and imagined(of(False), 1.0) == [2.0]
    assert imagined(of(True, False), 0.5) == [1.0, 1.0] and imagined(of(True, False), 0.25) == [1.5, 0.5]


def replace_spec(camera_conditioned: bool) -> Any:
    """A prior as far as `imagined` is concerned."""
    from types import SimpleNamespace

    return SimpleNamespace(spec=SimpleNamespace(from_picture=False, camera_conditioned=camera_conditioned))


def test_pictures_survive_a_checkpoint(tmp_path: Path) -> None:
    asked = read_pictures([str(drawn(tmp_path)), f"{drawn(tmp_path, 'b.png')}@90"])
    before = replace(unknown(asked, "", 0, print), imagine=0.25)
    after = Pictured.restored(before.to_tensors(), json.loads(json.dumps(before.to_json())))
    assert after.digest == before.digest and after.imagine == 0.25
    assert [one.camera.azimuth for one in after.references] == [0.0, 90.0]


@pytest.mark.slow
def test_a_recipe_draws_its_picture_of_the_prompt_and_takes_the_models_depth() -> None:
    asked = pictures.draw_picture("a red car", 0, 10.0, "digest")
    assert asked.digest == "digest" and colour_name(asked.cutouts[0]) == "red" and asked.cutouts[0].aspect > 0.6
    found = look_at(asked, "a red car", 0, print, depth=True)
    assert found.fit is not None and found.fit.noun == "car" and found.fit.overlap[1] > 0.9
    assert abs((found.fit.azimuth + 180) % 360 - 180) < 15
    depth, mask = found.references[0].depth, found.references[0].mask > 127
    assert depth is not None and 0 <= depth.min() < 0.05 and 0.95 < depth.max() <= 1
    rows = mask.any(1).nonzero()[:, 0]
    low, high = depth[rows[-1]][mask[rows[-1]]].mean(), depth[rows[0]][mask[rows[0]]].mean()
    assert low < high  # seen from above, the bumper is nearer than the roof's far edge
    with pytest.raises(UsageError, match="drawn by the built-in prior"):
        pictures.draw_picture("a torus knot", 0, 0.0, None)


@pytest.mark.slow
def test_a_render_of_a_model_of_the_prior_is_recognised_and_followed(tmp_path: Path) -> None:
    prior = load_prior("builtin", stage="coarse")
    volume = prior.volume
    assert volume is not None
    with torch.inference_mode():
        text = prior.encode_prompt(["a horse"]).to(next(volume.parameters()))
        maps = volume.render(volume.imagine(text), turntable(1, 15.0, 30.0), 224)[0]
    layers = torch.cat([maps[4:7] / maps[:1].clamp(min=1e-3), maps[:1]]).clamp(0, 1)
    Image.fromarray((layers.movedim(0, -1) * 255).byte().numpy()).save(tmp_path / "h.png")
    notes: list[str] = []
    found = look_at(read_pictures([str(tmp_path / "h.png")]), "", 0, notes.append)
    assert found.fit is not None and found.fit.noun == "horse" and "looks like:" in notes[-1]
    assert abs(found.fit.azimuth - 30) < 15 and found.fit.overlap[1] > 0.8
    told = look_at(read_pictures([str(tmp_path / "h.png")], elevation=15), "a golden zebra", 0, notes.append)
    assert told.fit is not None and told.fit.noun == "zebra" and told.prompt == "a golden zebra"
    assert told.fit.elevation == 15

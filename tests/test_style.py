"""`--style PICTURE`: a thing in the colours of a picture, and what that is part of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from command import magic3d
from PIL import Image
from tiny_run import play_tiny, tiny_draft
from torch import Tensor

from magic3d_cli import editing
from magic3d_cli.coarse import initial
from magic3d_cli.errors import UsageError
from magic3d_cli.guidance.builtin.palette import dress
from magic3d_cli.guidance.guide import Loaded, PriorGuide
from magic3d_cli.guidance.priors import STAGES, WeightedPrior, choose_priors
from magic3d_cli.run.resume import Saved
from magic3d_cli.style import Style, read_style

NAVY, TEAL, SAND = (20, 30, 80), (30, 140, 140), (230, 210, 160)


def layered(path: Path, size: tuple[int, int] = (60, 40)) -> Path:
    """Half sand below, a quarter each of teal and navy above."""
    rows = np.repeat([NAVY, TEAL, SAND, SAND], size[1] // 4, 0)
    Image.fromarray(np.repeat(rows[:, None], size[0], 1).astype(np.uint8)).save(path)
    return path


def checked(path: Path) -> Path:
    """The same colours as squares."""
    squares = np.array([NAVY, SAND, TEAL, SAND])[(np.arange(8)[:, None] + np.arange(8)) % 4]
    Image.fromarray(np.kron(squares, np.ones((8, 8, 1))).astype(np.uint8)).save(path)
    return path


class Thing:
    """A ball of radius 0.5: a tenth of it, its bottom, is black, the rest light grey."""

    def density(self, points: Tensor) -> Tensor:
        return 100 * (points.norm(dim=-1) < 0.5).float()

    def albedo(self, points: Tensor) -> Tensor:
        return torch.where(points[:, 1:2] < -0.4, 0.05, 0.7).expand(-1, 3)

    def surface(self, count: int, generator: torch.Generator) -> Tensor:
        return 0.5 * torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)


# The picture.


def test_a_pictures_colours_are_found_with_their_shares_and_where_they_lie(tmp_path: Path) -> None:
    style = read_style(layered(tmp_path / "layers.png"))
    np.testing.assert_allclose(style.colours, np.array([NAVY, TEAL, SAND]) / 255, atol=1e-3)
    assert style.shares == (0.25, 0.25, 0.5)
    assert style.patches == 0 and style.heights[0] > style.heights[1] > style.heights[2]
    assert "3 colours of layers.png, in layers: #141e50 (25%)" in style.summary
    pattern = read_style(checked(tmp_path / "checked.png"))
    assert pattern.colours == style.colours and pattern.shares == style.shares and pattern.patches > 4
    assert pattern.digest != style.digest
    assert Style.from_json(json.loads(json.dumps(style.to_json()))) == style


def test_shades_are_one_colour_and_specks_none_and_what_is_transparent_does_not_count(tmp_path: Path) -> None:
    shades = np.random.default_rng(0).normal((200, 40, 40), 3, (64, 64, 3)).round().astype(np.uint8)
    shades[:2, :4] = (0, 255, 0)
    Image.fromarray(shades).save(tmp_path / "red.png")
    assert len(read_style(tmp_path / "red.png").colours) == 1
    cut = np.concatenate([np.full((20, 20, 4), (0, 200, 0, 0)), np.full((20, 20, 4), (*TEAL, 255))]).astype(np.uint8)
    Image.fromarray(cut).save(tmp_path / "cut.png")
    assert read_style(tmp_path / "cut.png").colours == tuple([tuple(round(part / 255, 4) for part in TEAL)])
    Image.fromarray(np.full((1, 1, 3), 128, np.uint8)).save(tmp_path / "dot.png")
    assert read_style(tmp_path / "dot.png").shares == (1.0,)


def test_a_picture_that_shows_nothing_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((20, 20, 4), np.uint8)).save(tmp_path / "nothing.png")
    (tmp_path / "torn.png").write_bytes(layered(tmp_path / "whole.png").read_bytes()[:60])
    for name, reason in (("nothing.png", "transparent everywhere"), ("torn.png", "decoded"), ("none.png", "no file")):
        with pytest.raises(UsageError, match=reason):
            read_style(tmp_path / name)


# On a thing.


def test_dark_parts_take_dark_colours_and_the_rest_is_divided_by_height(tmp_path: Path) -> None:
    thing, style = Thing(), read_style(layered(tmp_path / "layers.png"))
    put_on = dress(thing, style, torch.device("cpu"))
    assert put_on is not None
    points = thing.surface(4000, torch.Generator().manual_seed(1))
    colours = put_on(thing.albedo(points), points)
    navy, teal, sand = torch.tensor([NAVY, TEAL, SAND]) / 255
    torch.testing.assert_close(
        colours[points[:, 1] < -0.41], navy.expand(int((points[:, 1] < -0.41).sum()), 3), atol=1e-3, rtol=0
    )
    for colour, share in ((sand, 0.28), (teal, 0.69), (navy, 1.0)):  # the middles of theirs, from below
        there = (points[:, 1] - (-0.4 + 0.9 * share)).abs() < 0.01
        assert there.any() and (colours[there] - colour).abs().max() < 0.06
    again = dress(thing, style, torch.device("cpu"))
    assert again is not None and torch.equal(again(thing.albedo(points), points), colours)


def test_patches_have_the_pictures_colours_in_its_shares(tmp_path: Path) -> None:
    thing, style = Thing(), read_style(checked(tmp_path / "checked.png"))
    put_on = dress(thing, style, torch.device("cpu"))
    assert put_on is not None
    points = thing.surface(8000, torch.Generator().manual_seed(1))
    colours = put_on(thing.albedo(points), points)
    apart = torch.cdist(colours, torch.tensor([NAVY, TEAL, SAND]) / 255)
    assert (apart.amin(1) < 0.02).float().mean() > 0.8  # the rest is edges
    shares = torch.bincount(apart.argmin(1), minlength=3) / len(points)
    torch.testing.assert_close(shares, torch.tensor([0.25, 0.25, 0.5]), atol=0.06, rtol=0)


@pytest.mark.slow
def test_the_builtin_prior_draws_in_the_pictures_colours_and_without_it_in_its_own(tmp_path: Path) -> None:
    style = read_style(checked(tmp_path / "checked.png"))
    priors = choose_priors({stage: [WeightedPrior("builtin")] for stage in STAGES}, "a teapot", 0, "cpu", print)
    loaded: Loaded = {}
    plain, styled, again = (
        PriorGuide(priors, "a teapot", 0, "cpu", loaded=loaded, style=worn) for worn in (None, style, None)
    )
    assert styled.sha256("fine") == f"{plain.sha256('fine')} +style:{style.digest}"
    points = plain.volume().surface(4000, torch.Generator().manual_seed(0))  # type: ignore[union-attr]
    looks = [guide.volume().albedo(points) for guide in (plain, styled, again)]  # type: ignore[union-attr]
    palette = torch.tensor(style.colours)
    near = [float(torch.cdist(look, palette).amin(1).median()) for look in looks]
    assert near[1] < 0.1 < near[0]
    assert torch.equal(looks[0], looks[2])


# The command.


@pytest.mark.slow
def test_a_style_is_part_of_what_a_run_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    play_tiny(monkeypatch)
    layered(Path("one.png")), checked(Path("two.png"))
    command = ["generate", "a red ball", "--style"]
    assert magic3d(*command, "one.png", "-q") == 0
    assert magic3d(*command, "one.png") == 0
    err = capsys.readouterr().err
    assert "finished already" in err and "3 colours of one.png, in layers" in err
    assert magic3d(*command, "two.png", "-q") == 0
    assert magic3d("generate", "a red ball", "-q") == 0
    assert [Path(f"red-ball{number}.glb").is_file() for number in ("", "-1", "-2", "-3")] == [True, True, True, False]
    saved = Saved.load(Path("red-ball-1.run/coarse.ckpt"))
    assert saved.style == read_style(Path("two.png"))
    assert Saved.load(Path("red-ball-2.run/coarse.ckpt")).style is None


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--style", "none.png"], 2, "no file none.png"),
        (["--style", "text.png"], 2, "text, not a picture"),
        (["--style", "one.png", "--prior", "sd15"], 2, "IP-Adapter"),
        (["--style", "one.png", "--also-prior", "sd15"], 2, "IP-Adapter"),
        (["--style", "one.png", "--image", "thing.png"], 2, "one or the other"),
        (["--style", "one.png", "--variations", "4"], 2, "--variations"),
    ],
)
def test_styles_that_cannot_be_are_refused(
    arguments: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    layered(Path("one.png"))
    Path("text.png").write_text("no picture")
    thing = np.zeros((64, 64, 4), np.uint8)
    thing[16:48, 16:48] = (*TEAL, 255)
    Image.fromarray(thing).save("thing.png")
    assert magic3d("generate", "a teapot", *arguments) == code
    err = capsys.readouterr().err
    assert message in err and "next: " in err and "Traceback" not in err


@pytest.mark.slow
def test_a_finished_run_is_painted_anew_by_an_edit_and_refined_in_its_own_style(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_draft(monkeypatch)
    monkeypatch.setattr(initial, "COLOUR_STEPS", 200)  # as a run takes
    monkeypatch.setattr(initial, "POOL", 1 << 14)
    monkeypatch.setattr(initial, "POINTS", 2048)
    monkeypatch.setattr(editing, "SAMPLES", 20_000)
    Image.fromarray(np.full((8, 8, 3), NAVY, np.uint8)).save("navy.png")
    assert magic3d("generate", "a teapot", "--init", "auto", "-o", "pot.glb", "-q") == 0
    assert magic3d("edit", "pot.run", "a teapot", "--style", "navy.png", "-o", "blue.glb", "-q") == 0
    parent, child = (Saved.load(Path(name) / "fine.ckpt") for name in ("pot.run", "blue.run"))
    old, new = (saved.stage(saved.settings, "cpu") for saved in (parent, child))
    assert torch.equal(old.mesh()[0], new.mesh()[0])  # type: ignore[union-attr]
    palette, points = torch.tensor(read_style(Path("navy.png")).colours), old.mesh()[0]  # type: ignore[union-attr]
    near = [float(torch.cdist(stage.albedo(points), palette).amin(1).mean()) for stage in (old, new)]  # type: ignore[union-attr]
    assert near[1] < 0.7 * near[0]
    capsys.readouterr()
    assert magic3d("generate", "a teapot", "--init", "auto", "--style", "navy.png", "-o", "styled.glb", "-q") == 0
    Path("navy.png").unlink()
    assert magic3d("refine", "styled.run", "--fresh", "-o", "styled.glb") == 0
    assert "of navy.png" in capsys.readouterr().err

"""`magic3d preview`: pictures of the asset from all sides, and a page that needs nothing but a browser."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from command import magic3d
from PIL import Image
from tiny_run import run_tiny

from magic3d_cli.asset.show import film
from magic3d_cli.run import callbacks
from magic3d_cli.run.callbacks import Intervals, film_frames, write_frame
from magic3d_cli.run.directory import RunDirectory
from magic3d_cli.run.interrupts import Interrupts
from magic3d_cli.run.observer import Observer
from magic3d_cli.run.timings import Timings
from magic3d_cli.scene.render import Render
from magic3d_cli.scene.views import Views
from magic3d_cli.training.distributed import Processes
from magic3d_cli.training.report import StepReport


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    run_tiny(folder / "red-ball.glb")
    return folder


@pytest.fixture(autouse=True)
def _there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


@pytest.mark.parametrize("source", [["red-ball.glb"], ["red-ball.run"], []])
def test_an_asset_a_run_and_nothing_show_the_same_files(
    source: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert magic3d("preview", *source, "-o", tmp_path / "ball", "--frames", 4, "--size", 64, "--json", "-q") == 0
    files = [Path(file) for file in json.loads(capsys.readouterr().out)["files"]]
    assert {file.name for file in files} == {"ball.html", "ball-sheet.png", "ball-turntable.webp", "ball-film.webp"}
    with Image.open(tmp_path / "ball-turntable.webp") as turning:
        assert (getattr(turning, "n_frames", 1), turning.size) == (4, (64, 64))
        seen = np.asarray(turning.convert("RGB"))[32, 32].astype(int)
    assert seen[0] > seen[1] + 50  # a red ball in the middle
    with Image.open(tmp_path / "ball-sheet.png") as sheet:
        assert sheet.size == (4 * 64, 2 * 64)


class Still:
    """A stage that always looks the same."""

    def render(self, views: Views, size: int) -> Render:
        flat, image = torch.zeros(len(views), size, size), torch.zeros(len(views), size, size, 3)
        return Render(rgb=image + 0.5, opacity=flat, depth=flat, normal=image, albedo=image)


def test_a_run_keeps_the_shape_appearing_and_preview_makes_a_film_of_it(folder: Path, tmp_path: Path) -> None:
    run = RunDirectory(folder / "red-ball.run")
    assert film_frames(run)  # taken while it ran
    for step, grey in enumerate((0.2, 0.5, 0.8)):
        write_frame(tmp_path / f"{step}.webp", torch.full((32, 32, 3), grey))
    (tmp_path / "9.webp").write_bytes(b"cut off")
    made = film(sorted(tmp_path.glob("*.webp")))
    assert made is not None
    with Image.open(io.BytesIO(made)) as moving:
        assert getattr(moving, "n_frames", 1) == 3 and moving.size == (32, 32)
        moving.seek(2)
        assert np.abs(np.asarray(moving.convert("RGB")).mean() - 204) < 4
    assert film(sorted(tmp_path.glob("0.webp"))) is None


def test_a_long_film_is_thinned_instead_of_growing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callbacks, "FRAMES", 4)
    run = RunDirectory(tmp_path / "x.run")
    run.film.mkdir(parents=True)
    (run.film / "coarse-000300.webp").write_bytes(b"of an earlier run")
    watched = callbacks.Callbacks(
        run, Still(), lambda: None, Timings(), Observer(), Interrupts(), Intervals(), Processes()
    )
    for step in range(1, 12):
        watched.film(StepReport("coarse", step, 11, {}, {}))
    assert 2 <= len(film_frames(run)) < 4 and film_frames(run)[0].name == "coarse-000001.webp"
    assert run.film / "coarse-000300.webp" not in film_frames(run)


def test_the_page_holds_the_asset_and_asks_nothing_of_the_network(folder: Path, tmp_path: Path) -> None:
    assert magic3d("preview", "red-ball.glb", "-o", tmp_path / "ball", "--frames", 2, "--size", 32, "-q") == 0
    page = (tmp_path / "ball.html").read_text(encoding="utf-8")
    inlined = re.search(r'id="glb">([A-Za-z0-9+/=]+)</script>', page)
    assert inlined and base64.b64decode(inlined[1]) == (folder / "red-ball.glb").read_bytes()
    assert not re.search(r"https?:|src=|import |fetch\(|@[A-Z]+@", page.replace(inlined[1], ""))
    assert "<title>a red ball</title>" in page


def test_the_turntable_as_mp4_has_all_pictures_of_the_turn(folder: Path, tmp_path: Path) -> None:
    command = ["preview", "red-ball.glb", "-o", tmp_path / "ball", "--frames", 4, "--size", 64, "--mp4", "-q"]
    assert magic3d(*command) == 0
    data = imageio_ffmpeg.read_frames(str(tmp_path / "ball-turntable.mp4"))
    facts = next(data)
    pictures = [np.frombuffer(frame, np.uint8).reshape(64, 64, 3) for frame in data]
    assert facts["size"] == (64, 64) and facts["codec"] == "h264" and len(pictures) == 4
    assert facts["duration"] == pytest.approx(3.0, abs=0.1)
    for picture in pictures:  # the ball, on white
        assert picture[32, 32, 0] > picture[32, 32, 2] + 40 and picture[0, 0].min() > 230


def test_no_file_of_another_is_overwritten_but_an_earlier_preview(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["preview", "red-ball.glb", "-o", tmp_path / "ball", "--frames", 2, "--size", 32, "-q"]
    (tmp_path / "ball.html").write_text("<title>my own page</title>")
    assert magic3d(*command) == 2
    assert "ball.html exists already" in capsys.readouterr().err
    (tmp_path / "ball.html").unlink()
    (tmp_path / "ball-sheet.png").write_text("mine")
    assert magic3d(*command) == 2
    assert "ball-sheet.png exists already" in capsys.readouterr().err
    assert magic3d(*command, "--force") == 0
    assert magic3d(*command) == 0  # what it made itself


def test_a_title_cannot_break_out_of_the_page(folder: Path) -> None:
    from magic3d_cli.asset.show import page

    assert b"<script>alert" not in page(b"glTF", "<script>alert(1)</script>")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.glb"], "no file"),
        (["red-ball.run/coarse.ckpt"], "neither .glb nor .obj"),
        (["red-ball.glb", "--frames", "0"], "--frames 0"),
        (["red-ball.glb", "--size", "9999"], "--size 9999"),
        (["red-ball.glb", "-o", "absent/x"], "does not exist"),
        (["red-ball.glb", "--mp4", "--size", "33"], "even --size"),
    ],
)
def test_what_cannot_be_shown_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert magic3d("preview", *arguments) == 2
    assert message in capsys.readouterr().err

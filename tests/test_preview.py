"""`magic3d preview`: pictures of the asset from all sides, and a page that needs nothing but a browser."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest
from command import magic3d
from PIL import Image
from tiny_run import run_tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    run_tiny(folder / "red-ball.glb")
    return folder


@pytest.fixture(autouse=True)
def _there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


@pytest.mark.parametrize("source", [["red-ball.glb"], ["red-ball.run"], []])
def test_an_asset_a_run_and_nothing_show_the_same_three_files(
    source: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert magic3d("preview", *source, "-o", tmp_path / "ball", "--frames", 4, "--size", 64, "--json", "-q") == 0
    files = [Path(file) for file in json.loads(capsys.readouterr().out)["files"]]
    assert {file.name for file in files} == {"ball.html", "ball-sheet.png", "ball-turntable.webp"}
    with Image.open(tmp_path / "ball-turntable.webp") as turning:
        assert (getattr(turning, "n_frames", 1), turning.size) == (4, (64, 64))
        seen = np.asarray(turning.convert("RGB"))[32, 32].astype(int)
    assert seen[0] > seen[1] + 50  # a red ball in the middle
    with Image.open(tmp_path / "ball-sheet.png") as sheet:
        assert sheet.size == (4 * 64, 2 * 64)


def test_the_page_holds_the_asset_and_asks_nothing_of_the_network(folder: Path, tmp_path: Path) -> None:
    assert magic3d("preview", "red-ball.glb", "-o", tmp_path / "ball", "--frames", 2, "--size", 32, "-q") == 0
    page = (tmp_path / "ball.html").read_text(encoding="utf-8")
    inlined = re.search(r'id="glb">([A-Za-z0-9+/=]+)</script>', page)
    assert inlined and base64.b64decode(inlined[1]) == (folder / "red-ball.glb").read_bytes()
    assert not re.search(r"https?:|src=|import |fetch\(|@[A-Z]+@", page.replace(inlined[1], ""))
    assert "<title>a red ball</title>" in page


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
    ],
)
def test_what_cannot_be_shown_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert magic3d("preview", *arguments) == 2
    assert message in capsys.readouterr().err

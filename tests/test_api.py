"""`magic3d_cli.generate`: the whole job from Python, also outside the main thread, with losses of one's own."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import trimesh
from PIL import Image
from tiny_run import one_thread, play_tiny, run_tiny

import magic3d_cli
from magic3d_cli.errors import UsageError
from magic3d_cli.run.interrupts import Interrupted
from magic3d_cli.run.resume import Saved
from magic3d_cli.scene.views import turntable
from magic3d_cli.training.report import StepReport

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

from own_loss import like_picture

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    play_tiny(monkeypatch)
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
def test_an_asset_is_returned_with_its_mesh_texture_and_report_and_saved_anywhere(tmp_path: Path) -> None:
    steps: list[StepReport] = []
    asset = magic3d_cli.generate("a red ball", on_progress=steps.append)
    assert asset.vertices.shape[1] == 3 and asset.texture.shape == (64, 64, 3)
    assert len(asset.uvs) == len(asset.normals) == len(asset.vertices) and asset.faces.max() < len(asset.vertices)
    assert asset.report["prompt"] == "a red ball" and asset.report["asset"]["faces"] == len(asset.faces)
    assert [(r.stage, r.step) for r in steps] == [("coarse", n + 1) for n in range(10)] + [
        ("fine", n + 1) for n in range(6)
    ]
    assert list(tmp_path.iterdir()) == []  # without an output nothing is left
    (file,) = asset.save(tmp_path / "ball.glb")
    read: Any = trimesh.load(file, force="mesh")
    assert len(read.faces) == len(asset.faces)
    with pytest.raises(UsageError, match="suffix"):
        asset.save("ball.step")


def test_what_python_makes_is_what_the_command_makes(tmp_path: Path) -> None:
    with one_thread():
        magic3d_cli.generate("a red ball", output=tmp_path / "python.glb")
    run_tiny(tmp_path / "command.glb")
    assert (tmp_path / "python.glb").read_bytes() == (tmp_path / "command.glb").read_bytes()


def test_a_thread_can_generate_and_be_cancelled_and_the_run_goes_on(tmp_path: Path) -> None:
    stop, caught = threading.Event(), []

    def work() -> None:
        try:
            magic3d_cli.generate(
                "a red ball",
                output=tmp_path / "ball.glb",
                on_progress=lambda report: stop.set() if report.step == 4 else None,
                cancelled=stop.is_set,
            )
        except Interrupted as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(120)
    assert len(caught) == 1 and not (tmp_path / "ball.glb").exists()
    assert Saved.load(tmp_path / "ball.run" / "coarse.ckpt").header["step"] == 4
    notes: list[str] = []
    magic3d_cli.generate("a red ball", output=tmp_path / "ball.glb", on_note=notes.append)
    assert (tmp_path / "ball.glb").is_file() and any("4 of 10 steps done" in note for note in notes)


def test_wrong_arguments_are_refused_before_any_work() -> None:
    for arguments in ({"prompt": " "}, {"prompt": "a ball", "faces": 3}, {"prompt": "a ball", "preset": "best"}):
        with pytest.raises(UsageError):
            magic3d_cli.generate(**arguments)


def test_a_loss_of_ones_own_pulls_the_asset_and_makes_another_run(tmp_path: Path) -> None:
    """The example of the README: a picture of the front, here all blue where the guide says red."""
    Image.new("RGBA", (8, 8), (0, 0, 255, 255)).save(tmp_path / "front.png")

    def blue(more_views: list[Any]) -> float:
        out = tmp_path / f"{len(more_views)}.glb"
        asset = magic3d_cli.generate("a red ball", output=out, more_views=more_views)
        saved = Saved.load(tmp_path / f"{len(more_views)}.run" / "coarse.ckpt")
        assert (saved.header["origin"].get("losses") == ["picture"]) == bool(more_views)
        image = saved.stage(saved.settings, "cpu").render(turntable(1, elevation=0), 24)
        assert asset.report["asset"]["faces"] > 0
        return float((image.rgb[..., 2] - image.rgb[..., 0]).mean())

    assert blue([like_picture("front.png", 24)]) > blue([]) + 0.03


def test_the_readmes_example_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    section = README.read_text(encoding="utf-8").split("## In Python")[1]
    exec(section.split("```python\n")[1].split("```")[0], {})  # the program that a reader would copy
    assert (tmp_path / "red-car.obj").is_file() and "coarse 1" in capsys.readouterr().out

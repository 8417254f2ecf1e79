"""A run that was interrupted, killed or starved of disk goes on, and ends in the same bytes."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_run import BallGuide, Recorder, run_tiny, tiny_settings, with_fine_steps

from magic3d_cli.coarse.stage import CoarseStage
from magic3d_cli.errors import UsageError
from magic3d_cli.fine.stage import FineStage
from magic3d_cli.run import checkpoint
from magic3d_cli.run.callbacks import Callbacks, Intervals
from magic3d_cli.run.directory import RunDirectory
from magic3d_cli.run.interrupts import Interrupted, Interrupts
from magic3d_cli.run.resume import Saved
from magic3d_cli.run.timings import Timings
from magic3d_cli.training.distributed import Processes
from magic3d_cli.training.report import StepReport

COARSE, FINE = tiny_settings().coarse.steps, tiny_settings().fine.steps


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of an uninterrupted run."""
    output = tmp_path_factory.mktemp("reference") / "ball.glb"
    run_tiny(output)
    return output


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """The same, to be tampered with."""
    shutil.copytree(finished.parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / "ball.glb"


class Stopper(Recorder):
    """Asks to stop, as Ctrl-C would, once a given step is done."""

    def __init__(self, stage: str, step: int) -> None:
        super().__init__()
        self.interrupts, self._at = Interrupts(), (stage, step)

    def step(self, report: StepReport) -> None:
        super().step(report)
        if (report.stage, report.step) == self._at:
            self.interrupts.stop(signal.SIGINT)


def test_a_run_stopped_in_each_stage_ends_in_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    output = tmp_path / "ball.glb"
    for stage, step in (("coarse", 4), ("fine", 3)):
        stopper = Stopper(stage, step)
        with pytest.raises(Interrupted):
            run_tiny(output, observer=stopper, interrupts=stopper.interrupts)
        assert not output.exists()
        assert checkpoint.read_header(tmp_path / "ball.run" / f"{stage}.ckpt")["step"] == step
    last = Recorder()
    report = run_tiny(output, observer=last)
    assert last.steps == [("fine", step) for step in range(4, FINE + 1)]
    assert any("Resuming" in note and "fine stage, 3 of 6" in note for note in last.notes)
    assert output.read_bytes() == finished.read_bytes()
    one, other = (checkpoint.load(p.parent / "ball.run" / "fine.ckpt")[0] for p in (output, finished))
    assert all(one[name].equal(other[name]) for name in other)
    assert report["seconds"]["coarse"] > 0  # remembered from before the interruption


@pytest.mark.slow
def test_a_killed_process_resumes_from_its_last_checkpoint(finished: Path, tmp_path: Path) -> None:
    output, script = tmp_path / "ball.glb", Path(__file__).with_name("tiny_run.py")
    process = subprocess.Popen([sys.executable, str(script), str(output), "0.3", "coarse"])
    try:
        saved, deadline = tmp_path / "ball.run" / "coarse.ckpt", time.monotonic() + 60
        while not (saved.is_file() and checkpoint.read_header(saved)["step"] >= 2):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    kept = checkpoint.read_header(saved)["step"]
    recorder = Recorder()
    run_tiny(output, observer=recorder)
    assert recorder.steps[0] == ("coarse", kept + 1)
    assert output.read_bytes() == finished.read_bytes()


@pytest.mark.slow
def test_a_terminated_process_saves_and_says_143(tmp_path: Path) -> None:
    output, script = tmp_path / "ball.glb", Path(__file__).with_name("tiny_run.py")
    process = subprocess.Popen(
        [sys.executable, str(script), str(output), "0.3", "coarse"], stderr=subprocess.PIPE, text=True
    )
    saved, deadline = tmp_path / "ball.run" / "coarse.ckpt", time.monotonic() + 60
    while not (saved.is_file() and checkpoint.read_header(saved)["step"] >= 1):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert "Interrupted: 15" in process.communicate(timeout=60)[1]
    assert checkpoint.read_header(saved)["step"] >= 1


def test_a_finished_run_only_writes_the_asset_again(finished: Path, copied: Path) -> None:
    copied.unlink()
    recorder = Recorder()
    run_tiny(copied, observer=recorder)
    assert recorder.steps == []
    assert any("finished already" in note for note in recorder.notes)
    assert copied.read_bytes() == finished.read_bytes()


def test_other_asset_settings_do_not_optimise_again(copied: Path) -> None:
    settings = tiny_settings()
    recorder = Recorder()
    report = run_tiny(copied, settings=replace(settings, asset=replace(settings.asset, faces=200)), observer=recorder)
    assert recorder.steps == []
    assert report["asset"]["faces"] <= 200


def test_other_fine_settings_keep_the_coarse_stage(copied: Path) -> None:
    recorder = Recorder()
    run_tiny(copied, settings=with_fine_steps(2), observer=recorder)
    assert recorder.steps == [("fine", 1), ("fine", 2)]
    aside = copied.parent / "ball.run.1"
    assert [p.name for p in aside.iterdir()] == ["fine.ckpt"]
    assert checkpoint.read_header(aside / "fine.ckpt")["step"] == FINE


@pytest.mark.parametrize("change", ["prompt", "seed", "weights", "fresh"])
def test_another_request_keeps_the_old_run_aside(copied: Path, change: str) -> None:
    stopper = Stopper("coarse", 1)
    with pytest.raises(Interrupted):
        run_tiny(
            copied,
            prompt="a blue ball" if change == "prompt" else "a red ball",
            settings=tiny_settings(seed=1 if change == "seed" else 0),
            guide=BallGuide(weights="other" if change == "weights" else "one"),
            fresh=change == "fresh",
            observer=stopper,
            interrupts=stopper.interrupts,
        )
    assert stopper.steps == [("coarse", 1)]
    assert any("ball.run.1" in note for note in stopper.notes)
    assert checkpoint.read_header(copied.parent / "ball.run.1" / "fine.ckpt")["step"] == FINE


def test_a_damaged_checkpoint_is_reported_and_fresh_gets_past_it(copied: Path) -> None:
    fine = copied.parent / "ball.run" / "fine.ckpt"
    fine.write_bytes(fine.read_bytes()[:-10])
    with pytest.raises(UsageError) as failure:
        run_tiny(copied)
    assert "--fresh" in failure.value.next_step
    stopper = Stopper("coarse", 1)
    with pytest.raises(Interrupted):
        run_tiny(copied, fresh=True, observer=stopper, interrupts=stopper.interrupts)


def test_a_full_disk_loses_nothing_that_was_saved(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "ball.glb"
    real, calls = os.fsync, 0

    def fills_up(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls > 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fills_up)
    with pytest.raises(OSError, match="No space"):
        run_tiny(output)
    monkeypatch.undo()
    kept = checkpoint.load(tmp_path / "ball.run" / "coarse.ckpt")[1]["step"]
    assert kept >= 2
    recorder = Recorder()
    run_tiny(output, observer=recorder)
    assert recorder.steps[0] == ("coarse", kept + 1)
    assert output.read_bytes() == finished.read_bytes()


def test_a_preview_is_drawn_while_it_works(finished: Path) -> None:
    from PIL import Image

    with Image.open(finished.parent / "ball.run" / "preview.png") as picture:
        assert picture.size == (32, 32)  # two by two views of the 16 pixels that tiny_run asks for
        pixels = np.asarray(picture.convert("RGB"))[8::16, 8::16].reshape(-1, 3)
    assert all(red != green for red, green, _ in pixels)  # the ball in each, not the white backdrop


@pytest.mark.parametrize(("seconds", "size"), [(0.0, 256), (20.0, 128), (60.0, 64)])
def test_a_preview_is_large_enough_to_see_and_as_sharp_as_its_share_of_the_time_allows(
    seconds: float, size: int, tmp_path: Path, monkeypatch
) -> None:
    """`seconds` are what a megapixel takes; half a second every ten may be spent."""
    from PIL import Image

    clock = [0.0]
    sizes: list[int] = []
    monkeypatch.setattr("magic3d_cli.run.callbacks.time", SimpleNamespace(monotonic=lambda: clock[0]))

    class Stage:
        def render(self, views: object, size: int) -> SimpleNamespace:
            sizes.append(size)
            clock[0] += seconds * size**2 / 1e6
            return SimpleNamespace(rgb=torch.zeros(4, size, size, 3))

    recorder = Recorder()
    with RunDirectory(tmp_path / "x.run") as run:
        stage: Any = Stage()
        callbacks = Callbacks(run, stage, lambda: None, Timings(), recorder, Interrupts(), Intervals(), Processes())
        callbacks.draw()
        callbacks.draw()
        callbacks.draw(last=True)
        assert recorder.notes == [f"Watch the shape appear: {run.preview}"]  # once, when it is there
    assert sizes == [128, size, min(2 * size, 256)]
    with Image.open(run.preview) as picture:
        assert picture.size == (512, 512)


def test_a_gpu_too_full_for_a_checkpoint_is_not_taken_for_a_foreign_one(copied: Path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(FineStage, "from_state", full)
    saved = Saved.load(copied.with_suffix(".run") / "fine.ckpt")
    with pytest.raises(torch.OutOfMemoryError):
        saved.stage(saved.settings, "cpu")


def test_no_memory_for_a_preview_does_not_stop_the_run(tmp_path: Path, monkeypatch) -> None:
    drawn: list[int] = []

    def full(*_: object) -> None:
        drawn.append(1)
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(CoarseStage, "render", full)
    stopper = Stopper("coarse", 2)
    with pytest.raises(Interrupted):
        run_tiny(tmp_path / "ball.glb", observer=stopper, interrupts=stopper.interrupts)
    assert drawn

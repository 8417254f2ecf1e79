"""Numbers that are not finite inside a step, and memory that runs out at any place: told, kept, and gone on from."""

from __future__ import annotations

import errno
import itertools
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_run import Recorder, run_tiny

from magic3d_cli.asset import build, write
from magic3d_cli.asset.check import read_mesh
from magic3d_cli.cli.failures import explain
from magic3d_cli.coarse.stage import CoarseStage
from magic3d_cli.errors import Collapsed, UsageError
from magic3d_cli.fine import stage as fine_stage
from magic3d_cli.fine.stage import FineStage
from magic3d_cli.run import checkpoint, stages
from magic3d_cli.run.directory import RunDirectory
from magic3d_cli.training import loop, optimiser
from magic3d_cli.training.loop import Stage
from magic3d_cli.training.optimiser import FiniteAdam

KINDS: dict[str, type[Stage]] = {"coarse": CoarseStage, "fine": FineStage}
NAN, INF = float("nan"), float("inf")
SPOILT = 4
"""The step that is."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run that nothing disturbed."""
    output = tmp_path_factory.mktemp("reference") / "ball.glb"
    run_tiny(output)
    return output


def all_finite(path: Path) -> bool:
    """Whether a checkpoint's numbers are."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in checkpoint.load(path)[0].values())


def spoil_images(patch: pytest.MonkeyPatch, kind: type[Stage], bad: float, lasting: bool) -> None:
    """Of the SPOILT step, and with `lasting` of all after it, one pixel in the middle."""
    whole = kind._render_step

    def rendered(self: Any, *arguments: Any) -> Any:
        image = whole(self, *arguments)
        if self.step + 1 != SPOILT and not (lasting and self.step + 1 > SPOILT):
            return image
        wrong = torch.zeros_like(image.rgb)
        wrong[0, len(wrong[0]) // 2, len(wrong[0]) // 2] = bad  # where the ball is
        return replace(image, rgb=image.rgb + wrong, opacity=image.opacity + wrong[..., 0])

    patch.setattr(kind, "_render_step", rendered)


def spoil_gradients(patch: pytest.MonkeyPatch, kind: type[Stage], bad: float, lasting: bool) -> None:
    whole = kind._render_step

    def rendered(self: Any, *arguments: Any) -> Any:
        image = whole(self, *arguments)
        if self.step + 1 == SPOILT or (lasting and self.step + 1 > SPOILT):
            image.rgb.register_hook(lambda gradient: gradient * bad)
        return image

    patch.setattr(kind, "_render_step", rendered)


@pytest.mark.slow
@pytest.mark.parametrize("stage", KINDS)
@pytest.mark.parametrize(("spoil", "bad"), [(spoil_images, NAN), (spoil_images, INF), (spoil_gradients, NAN)])
def test_one_spoilt_step_is_skipped_and_told(
    spoil: Callable[..., None], stage: str, bad: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, KINDS[stage], bad, lasting=False)
    observer = Recorder()
    run_tiny(tmp_path / "ball.glb", observer=observer)
    skipped = [note for note in observer.notes if "skipped" in note]
    assert skipped == [f"{stage} step {SPOILT} was skipped: its gradient was not finite."]
    mesh = read_mesh(tmp_path / "ball.glb")
    assert np.isfinite(mesh.positions).all() and np.isfinite(mesh.uvs).all() and np.ptp(mesh.texture) > 50
    assert all_finite(tmp_path / "ball.run" / "fine.ckpt")


@pytest.mark.parametrize(("spoil", "stage"), [(spoil_images, "fine"), (spoil_gradients, "coarse")])
def test_steps_that_stay_spoilt_end_the_run_and_leave_what_was_good(
    spoil: Callable[..., None], stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimiser, "_PATIENCE", 3)
    spoil(monkeypatch, KINDS[stage], NAN, lasting=True)
    with pytest.raises(Collapsed, match="not finite for 3 steps"):
        run_tiny(tmp_path / "ball.glb")
    assert not (tmp_path / "ball.glb").exists() and all_finite(tmp_path / "ball.run" / f"{stage}.ckpt")


@pytest.mark.slow
@pytest.mark.parametrize("stage", KINDS)
@pytest.mark.parametrize(
    ("place", "bad"), [("parameter", NAN), ("parameter", INF), ("exp_avg", NAN), ("exp_avg_sq", INF)]
)
def test_a_spoilt_scene_is_not_saved_over_a_good_one(
    stage: str, place: str, bad: float, finished: Path, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        whole = Stage._step

        def stepped(self: Stage, groups: Any) -> Any:
            report = whole(self, groups)
            if (self.name, self.step) == (stage, SPOILT):
                first = self.optimiser.parameters()[0]
                tensor = first.data if place == "parameter" else self.optimiser.adam.state[first][place]
                tensor.view(-1)[0] = bad
            return report

        patch.setattr(Stage, "_step", stepped)
        with pytest.raises(Collapsed, match=f"not finite, by step {SPOILT}") as told:
            run_tiny(tmp_path / "ball.glb")
    assert "same command" in told.value.next_step and not (tmp_path / "ball.glb").exists()
    saved = tmp_path / "ball.run" / f"{stage}.ckpt"
    assert checkpoint.read_header(saved)["step"] == SPOILT - 1 and all_finite(saved)
    run_tiny(tmp_path / "ball.glb")  # it was an accident
    assert (tmp_path / "ball.glb").read_bytes() == finished.read_bytes()


def test_a_finished_checkpoint_that_is_spoilt_makes_no_asset(finished: Path, tmp_path: Path) -> None:
    """As older versions could save it, with the right checksum."""
    shutil.copytree(finished.parent, tmp_path, dirs_exist_ok=True)
    (tmp_path / "ball.glb").unlink()
    path = tmp_path / "ball.run" / "fine.ckpt"
    tensors, header = checkpoint.load(path)
    tensors["geometry.sdf"].view(-1)[0] = torch.nan
    checkpoint.save(path, tensors, header)
    with pytest.raises(UsageError, match="not finite"):
        run_tiny(tmp_path / "ball.glb")
    assert not (tmp_path / "ball.glb").exists()


SITES: dict[str, tuple[Any, str, int]] = {
    "images of the coarse stage": (CoarseStage, "_render_step", 2),
    "images of the fine stage": (FineStage, "_render_step", 2),
    "Adam's first step": (FiniteAdam, "step", 0),
    "Adam's step": (FiniteAdam, "step", 13),
    "a checkpoint's tensors": (loop, "pack_state", 3),
    "a checkpoint's bytes": (stages.checkpoint, "save", 14),
    "the hand-over's surface": (fine_stage, "field_to_surface", 0),
    "the hand-over's images": (fine_stage, "render_mesh", 0),
    "cleaning": (build, "clean", 0),
    "simplifying": (build, "simplify", 0),
    "unwrapping": (build, "unwrap", 0),
    "baking": (build, "bake", 0),
    "reading the bake back": (build, "bake_psnr", 0),
    "the file's bytes": (write, "glb_bytes", 0),
    "the file itself": (write, "write_atomically", 0),
    "the report": (RunDirectory, "write_json", 1),
}
"""Where memory runs out, and how many calls go well before."""


ERRORS = (MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), OSError(errno.ENOMEM, "Cannot allocate memory"))


@pytest.mark.slow
@pytest.mark.parametrize(("site", "error"), list(zip(SITES, itertools.cycle(ERRORS), strict=False)))
def test_memory_that_runs_out_is_told_and_nothing_is_lost(
    site: str, error: Exception, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["magic3d", "generate", "a red ball"])
    output = tmp_path / "ball.glb"
    if list(SITES).index(site) >= list(SITES).index("cleaning"):  # after both stages
        shutil.copytree(finished.parent, tmp_path, dirs_exist_ok=True)
        output.unlink()
    with pytest.MonkeyPatch.context() as patch:
        owner, name, well = SITES[site]
        whole, calls = getattr(owner, name), 0

        def short(*arguments: Any, **more: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > well:
                raise error
            return whole(*arguments, **more)

        patch.setattr(owner, name, short)
        with pytest.raises(type(error)) as failed:
            run_tiny(output)
    assert explain(failed.value) == 4
    told = capsys.readouterr().err
    run = RunDirectory.for_output(output)
    assert "Out of memory." in told and f"{run.furthest} keeps the" in told and "next: Close other" in told
    assert not output.exists() or site == "the report"
    run_tiny(output)
    assert output.read_bytes() == finished.read_bytes()

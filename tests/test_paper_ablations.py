"""The ways in which examples/evaluate/paper_ablations.py makes a scene: what each begins with and is guided by."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_run import BallGuide, tiny_settings

from magic3d_cli.coarse.stage import CoarseStage
from magic3d_cli.run import checkpoint
from magic3d_cli.scene.views import turntable
from magic3d_cli.settings import Settings, TimestepSchedule

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "evaluate"))

import paper_ablations as ablations
import stages


@pytest.fixture(scope="module")
def settings() -> Settings:
    """Tiny, with times that tell the two stages apart."""
    tiny = tiny_settings()
    coarse, fine = (
        replace(stage.guidance, times=TimestepSchedule(start, end, 0.8))
        for stage, start, end in ((tiny.coarse, (0.7, 0.9), (0.5, 0.6)), (tiny.fine, (0.4, 0.5), (0.2, 0.3)))
    )
    return replace(tiny, coarse=replace(tiny.coarse, guidance=coarse), fine=replace(tiny.fine, guidance=fine))


@pytest.fixture(scope="module")
def before(settings: Settings) -> CoarseStage:
    stage = ablations.coarse(settings, None)
    stage.run([stage.random_views(*BallGuide().terms("coarse", settings.coarse))])
    return stage


def test_the_refined_nerf_begins_with_the_coarse_scene_and_is_guided_as_the_mesh_is(
    settings: Settings, before: CoarseStage
) -> None:
    stage, fine = ablations.nerf(settings, before), settings.fine
    assert torch.equal(stage.render(turntable(3), 16).rgb, before.render(turntable(3), 16).rgb)
    own = stage.settings.coarse
    for name in ("steps", "views", "render_size", "guidance", "sampling"):
        assert getattr(own, name) == getattr(fine, name)
    assert stage.step == 0 and stage.total == fine.steps == ablations.mesh(settings, before).total
    group = stage.random_views(*BallGuide().terms("fine", own))
    assert group.size_at(0.0) == fine.render_size
    stage.run([group], until=1)
    assert not torch.equal(stage.render(turntable(3), 16).rgb, before.render(turntable(3), 16).rgb)


def test_a_single_stage_begins_with_the_ball_and_has_the_steps_and_the_times_of_both(settings: Settings) -> None:
    stage = ablations.single(settings, None)
    vertices, faces = stage.mesh()
    radius = settings.coarse.field.bias_radius
    assert (vertices.norm(dim=1) - radius).abs().max() < stage.geometry.lattice.cell / 4 and len(faces) > 100
    assert stage.total == settings.coarse.steps + settings.fine.steps
    times = stage.settings.fine.guidance.times
    assert (times.start, times.end) == ((0.7, 0.9), (0.2, 0.3))
    stage.run([stage.random_views(*BallGuide().terms("fine", stage.settings.fine))], until=2)
    assert not torch.equal(stage.mesh()[0], vertices)


def test_scenes_are_opened_again_as_they_were_and_what_failed_is_left_out(
    settings: Settings, before: CoarseStage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "SIDE", 48)
    scenes: dict[str, ablations.Scene] = {ablations.COARSE: before, ablations.SINGLE: ablations.single(settings, None)}
    for name, stage in scenes.items():
        path = ablations.place(tmp_path, "a red car", name)
        path.parent.mkdir(exist_ok=True)
        tensors, state = stage.state()
        checkpoint.save(path, tensors, {"state": state, "settings": stage.settings.to_json()})
        again = ablations.load(path)
        assert type(again) is type(stage)
        assert torch.equal(again.render(turntable(2), 16).rgb, stage.render(turntable(2), 16).rgb)
        path.with_suffix(".json").write_text('{"seconds": 60.4, "gigabytes": 1.25}')
    found, rows = ablations.judge(["a red car"], tmp_path, None)
    assert [name for _, name, _ in rows] == list(scenes)
    told = ablations.table(found).splitlines()
    assert told[0].startswith("| made as | prompts | ") and len(told) == 2 + len(ablations.BEGIN)
    assert told[2].startswith(f"| {ablations.COARSE} | 1 |") and told[2].endswith("| 60 | 1.25 |")
    assert told[3].startswith(f"| {ablations.MESH} | 0 |")
    assert ablations.sheet(rows).size == (ablations.MARGIN + 8 * ablations.SMALL, 2 * ablations.SMALL)

"""The campaign against faults, in short: whatever disturbs a run, nothing crashes and the same bytes come out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_run import BallGuide, tiny_settings

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "reliability"))

from fleet import Fleet, simulate

from magic3d_cli.coarse.stage import CoarseStage
from magic3d_cli.errors import Collapsed
from magic3d_cli.fine.surface import field_to_surface
from magic3d_cli.scene.views import turntable

FOLDER = Path(__file__).parents[1] / "examples" / "reliability"


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="it forks and kills processes")
def test_a_disturbed_run_ends_in_the_bytes_of_an_undisturbed_one(tmp_path: Path) -> None:
    command = [sys.executable, str(FOLDER / "campaign.py"), "-o", str(tmp_path / "out"), "--short"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    tries = [json.loads(line) for line in (tmp_path / "out" / "tries.jsonl").read_text().splitlines()]
    assert {name for name, *_ in tries} == {
        "kills",
        "operations",
        "torn-writes",
        "damaged-files",
        "numbers",
        "prior-files",
        "two-at-once",
    }


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_spoilt_in_the_last_steps_are_not_handed_on(bad: float) -> None:
    settings = tiny_settings()
    stage = CoarseStage(settings, 0, "cpu")
    stage.step = stage.total - 2  # too late for twenty skipped steps
    parameter = stage.optimiser.parameters()[0]
    with torch.no_grad():
        parameter.view(-1)[0] = bad
    with pytest.raises(Collapsed, match="not finite"):
        stage.run([stage.random_views(*BallGuide().terms("coarse", settings.coarse))])


def test_a_volume_of_no_numbers_has_no_surface() -> None:
    views, images = turntable(2), torch.full((2, 8, 8), 0.5)
    with pytest.raises(Collapsed, match="not finite"):
        field_to_surface(lambda points: torch.full((len(points),), torch.nan), views, images, images, 8)
    with pytest.raises(Collapsed, match="not finite"):
        field_to_surface(lambda points: points[:, 0], views, images * torch.nan, images, 8)


FLEET = Fleet(jobs=400, gpus=10, start=0.0, dispatch=0.0, megabytes=0.0, spread=0.0, hours_between_failures=1e9)


def test_a_fleet_without_losses_takes_the_ideal_time() -> None:
    assert simulate(FLEET).efficiency == pytest.approx(1.0)


def test_what_a_fleet_waits_for_is_counted() -> None:
    slow_disk = simulate(replace(FLEET, megabytes=100.0, disk=10.0))
    assert slow_disk.makespan == pytest.approx(400 * 100 / 10, rel=0.01)  # the disk alone decides
    slow_driver = simulate(replace(FLEET, dispatch=5.0))
    assert slow_driver.makespan == pytest.approx(400 * 5.0, rel=0.02)
    failing = simulate(replace(FLEET, seconds=600.0, hours_between_failures=1.0))
    assert failing.failures > 10 and 0 < failing.lost <= failing.failures * FLEET.checkpoint
    assert failing.makespan > simulate(replace(FLEET, seconds=600.0)).makespan

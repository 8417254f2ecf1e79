"""Several processes make what one makes: the same scene, from the same random numbers, in shares."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_priors import save_builtin
from tiny_run import run_tiny, tiny_settings

from magic3d_cli.cli import failures
from magic3d_cli.errors import EnvironmentFault, UsageError
from magic3d_cli.guidance.conditioning import condition, read_prompt
from magic3d_cli.guidance.diffusers.prior import load_prior
from magic3d_cli.guidance.distillation import ScoreDistillation
from magic3d_cli.run.resume import Saved
from magic3d_cli.scene.render import Render
from magic3d_cli.scene.views import sample_views, turntable
from magic3d_cli.settings import GuidanceSettings, Settings, ViewSampling
from magic3d_cli.training.distributed import Processes, joined
from magic3d_cli.training.terms import Step

TINY = Path(__file__).with_name("tiny_run.py")


def two(*arguments: object) -> subprocess.Popen[str]:
    """tiny_run.py in two gloo processes."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, str(TINY), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def views_of(settings: Settings) -> dict[str, int]:
    return {"coarse": settings.coarse.views, "fine": settings.fine.views}


def picture(checkpoint: Path) -> torch.Tensor:
    saved = Saved.load(checkpoint)
    return saved.stage(saved.settings, "cpu").render(turntable(4), 48).rgb


@pytest.mark.slow
def test_two_processes_make_the_scene_of_one(tmp_path: Path) -> None:
    run_tiny(tmp_path / "one.glb")
    run_tiny(tmp_path / "other.glb", settings=tiny_settings(seed=1))
    process = two(tmp_path / "two.glb")
    assert process.communicate(timeout=300)[0] is not None and process.returncode == 0
    assert (tmp_path / "two.glb").is_file()
    for stage in ("coarse", "fine"):
        one, both, other = (picture(tmp_path / f"{name}.run" / f"{stage}.ckpt") for name in ("one", "two", "other"))
        assert (one - both).abs().mean() < 0.1 * (one - other).abs().mean()


@pytest.mark.slow
def test_one_process_told_to_stop_stops_both_and_the_run_goes_on_alone(tmp_path: Path) -> None:
    process = two(tmp_path / "ball.glb", 0.3, "coarse")
    log = tmp_path / "ball.run" / "log.jsonl"
    while process.poll() is None and not (log.is_file() and '"step": 3' in log.read_text()):
        time.sleep(0.05)
    os.kill(int((tmp_path / "process.1").read_text()), signal.SIGTERM)
    process.communicate(timeout=300)
    assert process.returncode != 0 and not (tmp_path / "ball.glb").exists()
    assert 3 <= Saved.load(tmp_path / "ball.run" / "coarse.ckpt").header["step"] < 10
    assert run_tiny(tmp_path / "ball.glb")["output"].endswith("ball.glb")


@pytest.mark.parametrize("count", [2, 4])
def test_shares_of_score_distillation_add_up_to_the_whole(tmp_path: Path, count: int) -> None:
    prior = load_prior(str(save_builtin(tmp_path / "prior")), stage="coarse")
    distillation = ScoreDistillation(prior, condition(prior, read_prompt(prior, "a red car", 0)), GuidanceSettings())
    views = sample_views(4, ViewSampling(), torch.Generator().manual_seed(0))
    images = torch.rand(4, 16, 16, 3, generator=torch.Generator().manual_seed(1), requires_grad=True)

    def gradient(processes: Processes) -> torch.Tensor:
        own, empty = processes.shard(images), torch.zeros(0)
        step = Step(processes.shard(views), 0.3, torch.Generator().manual_seed(2), processes)
        loss, _ = distillation(Render(own, empty, empty, empty, empty), step)
        return torch.autograd.grad(loss, images)[0]

    whole = gradient(Processes())
    shares = torch.stack([gradient(Processes(index, count)) for index in range(count)]).mean(0)
    torch.testing.assert_close(shares, whole, rtol=1e-3, atol=1e-5 * float(whole.abs().max()))


def test_views_that_cannot_be_shared_out_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    settings = tiny_settings()
    with pytest.raises(UsageError, match="coarse stage's 2 views"), joined("cpu", views_of(settings)):
        pass
    settings = replace(settings, coarse=replace(settings.coarse, views=6))
    with pytest.raises(UsageError, match="fine stage's 2 views"), joined("cpu", views_of(settings)):
        pass


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("WORLD_SIZE", "2"), ("LOCAL_WORLD_SIZE", "2"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    settings = replace(tiny_settings(), coarse=replace(tiny_settings().coarse, views=2))
    with (
        pytest.raises(EnvironmentFault, match="2 processes want a GPU each, and this machine has 1") as fault,
        joined("cuda", views_of(settings)),
    ):
        pass
    assert "--nproc-per-node 1" in fault.value.next_step


@pytest.mark.parametrize(("rank", "lines"), [("0", 2), ("1", 0)])
def test_what_all_processes_come_upon_is_said_once(rank: str, lines: int, monkeypatch, capsys) -> None:
    monkeypatch.setenv("RANK", rank)
    assert failures.explain(UsageError("There is no preset.", "Use draft.")) == 2
    assert len(capsys.readouterr().err.splitlines()) == lines


BROADCAST = """
import torch, torch.distributed as dist
from magic3d_cli.training.distributed import Processes
dist.init_process_group("gloo")
grid = [torch.full((3,), float(dist.get_rank())), torch.tensor([dist.get_rank() == 0])]
Processes(dist.get_rank(), 2).broadcast(grid)
assert grid[0].tolist() == [0.0] * 3 and grid[1].item(), grid
dist.destroy_process_group()
"""


def test_the_others_take_over_what_the_first_has(tmp_path: Path) -> None:
    (tmp_path / "broadcast.py").write_text(BROADCAST)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*torchrun, str(tmp_path / "broadcast.py")], check=True, timeout=120)

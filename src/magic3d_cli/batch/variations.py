"""Several seeds of one request, and which of them its prior agrees with most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from magic3d_cli.batch.tasks import FAILED, Task
from magic3d_cli.fine.stage import FineStage
from magic3d_cli.guidance.distillation import ScoreDistillation
from magic3d_cli.guidance.guide import Loaded, PriorGuide
from magic3d_cli.guidance.priors import WeightedPrior, choose_priors
from magic3d_cli.run.directory import RunDirectory
from magic3d_cli.run.resume import Saved
from magic3d_cli.scene.views import turntable
from magic3d_cli.settings import SDS

VIEWS, TIME = 8, 0.4
"""Views round the thing that are judged, and the diffusion time at which the prior is asked."""
SHORT = "draft"
"""The preset of the runs that are compared."""


def tasks_of(prompt: str, seed: int, count: int, folder: Path, distillation: str | None) -> list[Task]:
    """The seeds from `seed` on, as short runs in a folder."""
    return [
        Task(str(folder / f"{n}.glb"), prompt, n, preset=SHORT, distillation=distillation)
        for n in range(seed, seed + count)
    ]


def agreement(run: Path, device: str, loaded: Loaded) -> float:
    """How little a run's prior would still change of its thing, see `agreement_of`."""
    saved = Saved.load(RunDirectory(run).fine)
    stage, header = saved.stage(saved.settings, device), saved.header
    assert isinstance(stage, FineStage)
    wanted = {"coarse": [WeightedPrior(header["prior"]["id"])]}
    priors = choose_priors(wanted, header["prompt"], header["seed"], device, lambda text: None)
    guide = PriorGuide(priors, header["prompt"], header["seed"], device, loaded=loaded)
    plain = replace(saved.settings.fine.guidance, method=SDS)
    return agreement_of(stage, guide.distillation("coarse", plain))


@torch.no_grad()
def agreement_of(stage: FineStage, loss: ScoreDistillation) -> float:
    """How little a prior would still change of a thing, in dB: higher is better.

    Renders from VIEWS sides are noised to TIME with fixed noise and denoised once, with the prompt and without
    guidance; what comes back is compared with the renders, in the prior's own space, as a PSNR of a range of 2.
    """
    loss = replace(loss, settings=replace(loss.settings, weighting="uniform", perp_neg=0.0))
    prior, views = loss.prior, turntable(VIEWS).to(stage.device)
    clean = prior.encode_image(stage.render(views, prior.image_size).rgb.permute(0, 3, 1, 2))
    time = torch.full((VIEWS,), round(TIME * (len(prior.alphas_cumprod) - 1)), device=clean.device)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)).to(clean)
    changed = loss.gradient(clean, time, noise, views, 1.0)
    return -10 * math.log10(max(float(changed.square().mean()), 1e-12) / 4)


def ranked(records: Sequence[dict[str, Any]], device: str) -> list[dict[str, Any]]:
    """Records with their "agreement", the best first; those that failed last."""
    loaded: Loaded = {}
    judged = [
        record
        if record["status"] == FAILED
        else record | {"agreement": round(agreement(Path(record["output"]).with_suffix(".run"), device, loaded), 2)}
        for record in records
    ]
    return sorted(judged, key=lambda record: -record.get("agreement", -math.inf))

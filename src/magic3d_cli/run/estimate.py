"""How long a whole job takes on this machine, said before the first step: counted work by a measured speed."""

from __future__ import annotations

import time

import torch

from magic3d_cli.run.forecast import ENCODER, FIT, LATENT_NETWORK, asset_shares, parts_of, view_work
from magic3d_cli.settings import AUTO, BALL, CoarseSettings, FineSettings, Settings

REFERENCE = 0.16
"""TFLOP/s of a large matrix product on the two cores on which SECONDS was measured (examples/bench.md)."""
SECONDS = {"draft": 0.13, "standard": 0.147, "paper": 2.635}
"""A unit of `forecast`, with the built-in prior from a ball (examples/bench.md)."""
SHAPED_SECONDS = {"draft": 0.101, "standard": 0.128}
"""The same from the prior's own volume: whole runs of 36 s and 87 s, by their units, the fit's among them."""
ON_GPU, AFTERWARDS = {"coarse": 0.025, "fine": 0.034}, 9.0
"""Seconds a step with the built-in prior on a GPU, and of mesh and asset: an H200's (examples/bench.md)."""
LOADING = 6.0  # seconds, of libraries and weights
SHARE = {"cpu": 0.5, "cuda": 0.3}
"""Of a matrix product's speed, what a step's counted work reaches with Stable Diffusion's image encoder: on a CPU less
than the 65 to 73 % of the prior alone, on an H200 as measured (examples/bench.md)."""
FULL_SIZE = 3.4e9
"""Bytes of the denoiser's weights of Stable Diffusion 1.5 in single precision."""
OTHER = {"cpu": {"coarse": (0.15, 0.1), "fine": (0.5, 0.9)}, "cuda": {"coarse": (0.02, 0.0004), "fine": (0.03, 0.0005)}}
"""Seconds of a step beside the prior's work, and for each view: rendering both ways, the optimiser. On two cores and on
an H200, by the shares of `magic3d bench` with the preset paper (examples/bench.md), there 29 and 45 ms in all."""
FITTING = {"cpu": 40.0, "cuda": 10.0}
"""Seconds in which a field is fitted to the shape that it begins with, on the same machines."""


def seconds_of(
    settings: Settings,
    priors: dict[str, str],
    device: str,
    teraflops: float,
    weights: dict[str, int] | None = None,
    fits: bool = True,
    shown: bool = False,
) -> float:
    """Of a whole job, from nothing.

    Args:
        priors: the first one of each stage; "builtin" also for others of its layout. Those beside it are in the
            settings.
        teraflops: `matrix_speed` of the device.
        weights: bytes of priors that are directories here, whose work is taken to be as their size.
        fits: whether the field is fitted to the shape that the settings name; false where what that made is taken over.
        shown: priors of others see a picture, by an IP-Adapter.
    """
    afterwards = AFTERWARDS * sum(asset_shares(settings).values())
    stages: dict[str, CoarseSettings | FineSettings] = {"coarse": settings.coarse, "fine": settings.fine}
    if all(name == "builtin" for name in priors.values()) and not any(s.added_guidance for s in stages.values()):
        if device != "cpu":
            steps = ON_GPU["coarse"] * settings.coarse.steps + ON_GPU["fine"] * settings.fine.steps
            return LOADING + steps + afterwards
        shaped = settings.coarse.init not in (AUTO, BALL) and settings.preset in SHAPED_SECONDS
        measured = SHAPED_SECONDS if shaped else SECONDS
        unit = measured.get(settings.preset, SECONDS["draft"]) * REFERENCE / teraflops
        parts = [part for part in parts_of(settings, priors) if fits or part.name != FIT]
        return LOADING + unit * sum(part.units(part.steps) for part in parts)
    slower = REFERENCE / teraflops if device == "cpu" else 1.0
    total = LOADING + afterwards * (3 * slower if device == "cpu" else 1.0)
    total += FITTING[device] * slower if fits and settings.coarse.init not in (AUTO, BALL) else 0.0
    for name, stage in stages.items():
        work = view_work(stage, priors[name], shown)
        for prior in (priors[name], *(added.prior for added in stage.added_guidance)):
            if weights and prior in weights:  # of unknown shape: by its size, for what an unlisted one is taken to be
                share = min(weights[prior] / FULL_SIZE, 2.0)
                work += (share - 1) * (LATENT_NETWORK + ENCODER)
        step, view = OTHER[device][name]
        total += stage.steps * ((step + view * stage.views) * slower + stage.views * work / (SHARE[device] * teraflops))
    return total


def matrix_speed(device: str) -> float:
    """TFLOP/s of a large matrix product, measured in a tenth of a second or so."""
    side = 1024 if device == "cpu" else 4096
    matrix = torch.ones(side, side, device=device, dtype=torch.float32 if device == "cpu" else torch.float16)
    best = float("inf")
    for _ in range(4):
        begun = time.perf_counter()
        float((matrix @ matrix)[0, 0])  # waits for a GPU
        best = min(best, time.perf_counter() - begun)
    return 2 * side**3 / best / 1e12

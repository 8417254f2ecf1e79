"""What a run costs on this machine, before it is paid: what a step's seconds go to, and how long presets take.

Real steps of both stages are timed, on a scene that was taught a ball first: a young one fills the whole box, and its
steps cost twice what those of an object do. A preset's time is predicted from them: steps at both of the
coarse stage's resolutions, the conversion, steps of the fine stage, the asset. Where a preset has more views a step
than are measured, all work but the optimiser's is scaled up with them. What a prior on a GPU takes to be compiled,
once a run, is told and not in the prediction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from magic3d_cli.asset.build import build_asset
from magic3d_cli.coarse.stage import CoarseStage
from magic3d_cli.fine.stage import FineStage
from magic3d_cli.guidance.diffusers.compile import uncompiled
from magic3d_cli.guidance.distillation import ScoreDistillation
from magic3d_cli.guidance.variational import RendersScore, VariationalDistillation
from magic3d_cli.kernels.dispatch import backends
from magic3d_cli.run.observer import Observer
from magic3d_cli.run.timings import forget_peak, peak_memory
from magic3d_cli.scene.render import Render
from magic3d_cli.scene.views import Views
from magic3d_cli.settings import CoarseSettings, FineSettings, GuidanceSettings, Settings
from magic3d_cli.training.report import StepReport, now
from magic3d_cli.training.terms import LossTerm, Step

WARM_UP = 2
"""Steps before the clock starts: kernels are compiled and memory is fetched in the first."""
BALL_STEPS, BALL_RADIUS = 60, 0.4
"""Steps that make the scene that is measured; half-width of what they make, of the box's half-side."""


class Priors(Protocol):
    """What is measured: `SpeedGuide`; tests put a tiny prior in its place."""

    def distillation(self, stage: str, settings: GuidanceSettings) -> ScoreDistillation:
        """Load the stage's prior."""

    def release(self) -> None:
        """Free it."""


@dataclass
class TimedPrior:
    """A prior that counts its seconds and its floating-point operations. Everything else is the prior's own."""

    prior: Any
    seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("encoder", "encoder backward", "prior"), 0.0)
    )
    rows: int = 0  # denoised; a step's may come in several calls, see MicroBatches
    operations: float = 0.0  # of one row

    def __getattr__(self, name: str) -> Any:
        return getattr(self.prior, name)

    def encode_image(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        encoded = self.charged("encoder", self.prior.encode_image, images)
        if images.requires_grad:
            # Its backward pass lasts from when the gradient of what it made is there to when that of the images is:
            # autograd runs the latest work first, so nothing of the scene comes between.
            begun = 0.0

            def begin(gradient: Tensor) -> None:
                nonlocal begun
                begun = now(self.prior.device)

            def end(gradient: Tensor) -> None:
                self.seconds["encoder backward"] += now(self.prior.device) - begun

            encoded.register_hook(begin)
            images.register_hook(end)
        return encoded

    def denoise(
        self, noisy: Tensor, timestep: Int[Tensor, "B"], text: Tensor, features: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        result = self.charged("prior", self.prior.denoise, noisy, timestep, text, features)
        self.rows += len(noisy)
        if self.operations == 0:
            # One row without the prompt and one with it, or a set: uncompiled, a whole batch might not fit the memory.
            together = self.prior.set_size
            few = slice(together) if together > 1 else slice(None, None, max(len(noisy) // 2, 1))
            told = None if features is None else features[few]
            with uncompiled(), FlopCounterMode(display=False) as counter:
                self.prior.denoise(noisy[few], timestep[few], text[few], told)
            self.operations = counter.get_total_flops() / len(noisy[few])
        return result

    def start(self) -> None:
        """Count from here."""
        self.seconds, self.rows = dict.fromkeys(self.seconds, 0.0), 0

    def charged(self, part: str, work: Callable[..., Any], *arguments: Any) -> Any:
        begun = now(self.prior.device)
        result = work(*arguments)
        self.seconds[part] += now(self.prior.device) - begun
        return result


@dataclass
class TimedRenders:
    """The score of the renders, whose evaluations and learning count as the prior's. Everything else is its own."""

    renders: RendersScore
    timed: TimedPrior

    def __getattr__(self, name: str) -> Any:
        return getattr(self.renders, name)

    def noise(self, noisy: Tensor, timestep: Int[Tensor, "B"], views: Views) -> Tensor:
        self.timed.rows += len(noisy)
        return self.timed.charged("prior", self.renders.noise, noisy, timestep, views)

    def learn(self, clean: Tensor, step: Step) -> None:
        self.timed.rows += 2 * len(clean)  # both ways
        self.timed.charged("prior", self.renders.learn, clean, step)


def run(
    presets: list[Settings], priors: Priors, device: str, steps: int, views: int, observer: Observer
) -> dict[str, Any]:
    """Measure presets; JSON-able, times in seconds. Peak memory is a GPU's in that part, a host's up to its end.

    Args:
        steps: timed of each kind. views: measured a step, at most.
    """
    results = {}
    for chosen in presets:
        observer.phase(f"measure {chosen.preset}")
        priors.release()  # each preset pays for loading, and one compiles what another does not
        results[chosen.preset] = _measure(chosen, priors, device, steps, views)
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "kernels": {operation: str(choice) for operation, choice in backends(torch.device(device)).items()},
        "presets": results,
    }


def ball(render: Render, step: Step) -> Float[Tensor, ""]:
    """A loss without a prior: a grey ball before each view's backdrop."""
    images, views = render.rgb, step.views
    origins, directions = views.rays(images.shape[1])
    nearest = origins - (origins * directions).sum(-1, keepdim=True) * directions
    behind = views.backdrop[:, None, None, :].expand_as(images)
    target = torch.where(nearest.norm(dim=-1, keepdim=True) < BALL_RADIUS, 0.5, behind)
    return 0.5 * (images - target).square().sum() / len(images)


def _measure(chosen: Settings, priors: Priors, device: str, steps: int, most: int) -> dict[str, Any]:
    where, coarse, fine = torch.device(device), chosen.coarse, chosen.fine
    few = replace(
        chosen,
        coarse=replace(coarse, views=_fewer(coarse, most)),
        fine=replace(fine, views=_fewer(fine, most)),
    )
    begun = now(where)
    distillation = priors.distillation("coarse", coarse.guidance)
    loading = now(where) - begun
    peak = _matmul_speed(distillation.prior.device, getattr(distillation.prior, "dtype", torch.float32))
    scene = CoarseStage(few, chosen.seed, device)
    scene.run([scene.random_views(LossTerm("ball", ball))], until=BALL_STEPS)
    begun = now(where)
    scene.occupancy.update(scene.field.density, scene.generator)
    upkeep = (now(where) - begun) / coarse.occupancy_every
    # An update comes too seldom to be met in a few steps, or would be met too often: no step that is timed has one.
    scene.settings = replace(few, coarse=replace(few.coarse, occupancy_every=coarse.steps + 1))
    parts: dict[str, Any] = {}
    more = coarse.views / few.coarse.views
    small = round(coarse.warmup * coarse.steps)
    for name, first, count in (("coarse, small", 0, small), ("coarse", small, coarse.steps - small)):
        if count:
            scene.step = first
            parts[name] = {"steps": count, **_steps(scene, distillation, _timed(steps, count), more, peak, upkeep)}
    del distillation  # or two priors would be held while the next is loaded
    forget_peak()
    begun = now(where)
    mesh = FineStage.from_coarse(few, scene)
    parts["mesh"] = {"seconds": now(where) - begun, "peak_memory_bytes": peak_memory()}
    begun = now(where)
    distillation = priors.distillation("fine", fine.guidance)
    loading += now(where) - begun
    more, count = fine.views / few.fine.views, _timed(steps, fine.steps)
    parts["fine"] = {"steps": fine.steps, **_steps(mesh, distillation, count, more, peak)}
    forget_peak()
    begun = now(where)
    vertices, faces = mesh.mesh()
    build_asset(vertices.numpy(), faces.numpy(), mesh.albedo, chosen.asset, device=mesh.device)
    parts["asset"] = {"seconds": now(where) - begun, "peak_memory_bytes": peak_memory()}
    parts["load"] = {"seconds": loading}
    total = sum(part["seconds"] if "step" not in part else part["steps"] * part["step"] for part in parts.values())
    return {
        "predicted_seconds": total,
        "views": [coarse.views, fine.views],
        "views_measured": [few.coarse.views, few.fine.views],
        "matmul_flops_per_second": peak,
        "parts": parts,
    }


def _fewer(stage: CoarseSettings | FineSettings, most: int) -> int:
    """Views to measure: no more than these, but in whole sets."""
    together = stage.sampling.together
    return min(stage.views, max(most // together, 1) * together)


def _timed(steps: int, total: int) -> int:
    """Steps to time of a kind that a run has `total` of: a stage takes no more than that."""
    return max(min(steps, total - WARM_UP), 1)


def _steps(
    stage: CoarseStage | FineStage,
    distillation: ScoreDistillation,
    count: int,
    more: float,
    peak: float,
    upkeep: float = 0.0,
) -> dict[str, Any]:
    """Seconds of a step with `more` times the views, by kind of work, and what is done in them.

    The encoder's are both of its passes (a prior on pixels has a resize in its place), backward's the scene's alone;
    "rest" is the share of the step that neither the prior nor the encoder takes. `upkeep` are the seconds a step that
    keeping the occupancy grid takes, on average; they are the optimiser's, as in the stage's own account.
    """
    forget_peak()
    timed = TimedPrior(distillation.prior)
    watched_loss = replace(distillation, prior=timed)
    if isinstance(watched_loss, VariationalDistillation):
        renders: Any = TimedRenders(watched_loss.renders, timed)
        watched_loss = replace(watched_loss, renders=renders)
    watched = [stage.random_views(LossTerm("distillation", watched_loss))]
    stage.run(watched, until=stage.step + WARM_UP)
    timed.start()
    reports: list[StepReport] = []
    stage.run(watched, until=stage.step + count, on_step=reports.append)
    seconds = {kind: sum(report.seconds[kind] for report in reports) / count for kind in reports[0].seconds}
    prior, encoder, encoder_backward = (
        timed.seconds[part] / count for part in ("prior", "encoder", "encoder backward")
    )
    split = {
        "prior": prior,
        "encoder": encoder + encoder_backward,
        "rendering": seconds["render"] + seconds["losses"] - prior - encoder,
        "backward": seconds["backward"] - encoder_backward,
        "optimizer": seconds["optimizer"] + upkeep,
    }
    split = {kind: value * (1 if kind == "optimizer" else more) for kind, value in split.items()}
    operations = timed.operations * timed.rows / count
    settings = stage.settings.coarse if isinstance(stage, CoarseStage) else stage.settings.fine
    work = _work(stage, reports, settings.views)
    step = sum(split.values())
    return {
        "step": step,
        "seconds": split,
        "rest": 1 - (split["prior"] + split["encoder"]) / step,
        "prior_flops": operations * more,
        "prior_flops_per_second": operations / prior,
        "prior_utilisation": operations / prior / peak,
        "peak_memory_bytes": peak_memory(),
        **{f"{name}_per_second": value / seconds["render"] for name, value in work.items()},
    }


def _work(stage: CoarseStage | FineStage, reports: list[StepReport], views: int) -> dict[str, float]:
    """What is rendered in a step, on average."""
    if isinstance(stage, FineStage):
        return {"triangles": views * sum(report.metrics["faces"] for report in reports) / len(reports)}
    coarse = stage.settings.coarse
    small = reports[0].step <= round(coarse.warmup * coarse.steps)
    rays = views * (coarse.warmup_render_size if small else coarse.render_size) ** 2
    return {"rays": rays, "samples": sum(report.metrics["samples"] for report in reports) / len(reports)}


def _matmul_speed(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of a large matrix product: what the prior could reach here at best."""
    side = 8192 if device.type == "cuda" else 1024
    a = torch.randn(side, side, device=device).to(dtype)
    best = 0.0
    for _ in range(8):
        begun = now(device)
        a @ a
        best = max(best, 2 * side**3 / (now(device) - begun))
    return best

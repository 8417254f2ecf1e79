"""A stage of a job: taken up where it stopped, run to its end and saved on the way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from magic3d_cli.atomic import write_atomically
from magic3d_cli.coarse.stage import CoarseStage
from magic3d_cli.fine.stage import FineStage
from magic3d_cli.guidance.adapters import marks
from magic3d_cli.guidance.priors import STAGES
from magic3d_cli.run import checkpoint
from magic3d_cli.run.callbacks import Callbacks
from magic3d_cli.run.context import Job
from magic3d_cli.run.resume import Origins, Saved, make_way, things_to_tensors
from magic3d_cli.run.timings import Timings
from magic3d_cli.training.reference_losses import reference_groups
from magic3d_cli.training.terms import ViewGroup
from magic3d_cli.version import __version__


def begin(job: Job, origins: Origins, fresh: bool, keep: Sequence[Path] = ()) -> None:
    """Make room in the run folder, and note there what is asked for. Raises OSError, UsageError for a damaged one."""
    moved = make_way(job.run, origins, fresh, keep)
    if moved is not None:
        job.observer.note(f"An earlier run was kept in {moved}; delete it when you do not need it.")
    priors = {stage: job.guide.name(stage) for stage in STAGES}
    job.observer.expect(job.settings, priors)
    asked: dict[str, Any] = {"prompt": job.prompt, "priors": priors, **job.settings.to_json()}
    if job.pictured is not None:
        asked |= {"typed": job.typed, "pictures": job.pictured.digest}
    if job.edit is not None:
        asked |= {"edit": job.edit.digest, "edited_from": job.edit.parent}
    if added := marks(job.adapters, job.style.digest if job.style else None):
        asked |= {"adapters": added}
    for earlier in (job.run.result, job.run.batch):  # of an asset that is made otherwise from here on
        earlier.unlink(missing_ok=True)
    job.run.write_json(job.run.settings, asked)
    if job.pictured is not None:
        write_atomically(job.run.picture, job.pictured.sheet(), durable=False)
    job.run.log("start", prompt=job.prompt, preset=job.settings.preset, device=job.device, version=__version__)


def resume(job: Job, path: Path) -> CoarseStage | FineStage | None:
    """The stage saved at `path`, with the job's timings so far; None where there is none.

    `begin` has seen to it that it belongs to this request. Raises UsageError for a damaged one.
    """
    if not path.is_file():
        return None
    saved = Saved.load(path)
    job.timings = Timings.from_json(saved.header["ledger"])
    job.things = saved.things
    name, step, total = (saved.header[key] for key in ("stage", "step", "total"))
    if saved.unfinished:
        job.observer.note(f"Resuming {job.run.path}: {name} stage, {step} of {total} steps done.")
    elif name == "fine":
        job.observer.note(f"{job.run.path} is finished already: writing the asset again (--fresh starts over).")
    job.run.log("resume", stage=name, step=step)
    return saved.stage(job.settings, job.device, job.processes)


def optimise(job: Job, stage: CoarseStage | FineStage, path: Path, origin: dict[str, Any]) -> None:
    """Run a stage to its end, saving as it goes. Raises what `Callbacks` does, and OutOfMemory."""
    if stage.step >= stage.total and path.is_file():
        return

    def save() -> None:
        stage.check_numbers()
        tensors, state = stage.state()
        if job.pictured is not None:
            tensors |= job.pictured.to_tensors()
        earlier = [run.things for run in job.edit.earlier] if job.edit else []
        tensors |= things_to_tensors([job.things, *earlier])
        checkpoint.save(path, tensors, _header(job, stage, state, origin))
        job.run.log("saved", file=path.name, step=stage.step)

    if stage.step == 0:
        save()  # also proves, before the work, that there is room for it
    if stage.step < stage.total:
        job.observer.phase(f"load the {job.guide.name(stage.name)} prior")
        with job.timings.timed("prior"):
            own = job.settings.coarse if stage.name == "coarse" else job.settings.fine
            terms = job.guide.terms(stage.name, own)
        job.observer.begin(stage.name, stage.step, stage.total)
        callbacks = Callbacks(
            job.run, stage, save, job.timings, job.observer, job.interrupts, job.intervals, job.processes
        )
        with job.interrupts.held():
            stage.run([stage.random_views(*terms), *_pictures(job, stage), *job.more_views], on_step=callbacks)
            callbacks.draw(last=True)
            save()


def _pictures(job: Job, stage: CoarseStage | FineStage) -> list[ViewGroup]:
    """The views of the pictures, with their losses."""
    if job.pictured is None:
        return []
    own = job.settings.coarse if stage.name == "coarse" else job.settings.fine
    return reference_groups(job.pictured.references, own.reference, stage.prior_pixels)


def _header(job: Job, stage: CoarseStage | FineStage, state: dict[str, Any], origin: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint says beside its tensors."""
    return {
        "version": __version__,
        "stage": stage.name,
        "step": stage.step,
        "total": stage.total,
        "prompt": job.prompt,
        "seed": job.settings.seed,
        "settings": job.settings.to_json(),
        "prior": {"id": job.guide.name(stage.name), "sha256": job.guide.sha256(stage.name)},
        "fine_prior": job.guide.name("fine"),
        "device": job.device,
        "origin": origin,
        "state": state,
        "ledger": job.timings.to_json(),
        **({"pictures": job.pictured.to_json()} if job.pictured else {}),
        **({"earlier": [run.to_json() for run in job.edit.earlier]} if job.edit else {}),
        **({"style": job.style.to_json()} if job.style else {}),
        **({"adapters": [adapter.to_json() for adapter in job.adapters]} if job.adapters else {}),
    }

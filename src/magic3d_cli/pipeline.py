"""The whole job on one page: prompt -> coarse -> mesh -> fine -> unwrap -> bake -> write.

Nothing here prints; an `Observer` is told. Whatever was computed is in the run folder before the next part
begins, so that any of this can be stopped, killed or run out of disk and be taken up again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from magic3d_cli.asset.write import Asset
from magic3d_cli.coarse.initial import fit
from magic3d_cli.coarse.stage import CoarseStage
from magic3d_cli.delivery import about_asset, build_files, own_surface, report_of, save_surface
from magic3d_cli.fine.edit import Edit, RunLook
from magic3d_cli.fine.stage import FineStage
from magic3d_cli.guidance.priors import STAGES
from magic3d_cli.run.context import Job
from magic3d_cli.run.directory import RunDirectory
from magic3d_cli.run.observer import Observer
from magic3d_cli.run.resume import Origins, Saved, as_json
from magic3d_cli.run.stages import begin, optimise, resume
from magic3d_cli.run.timings import Timings
from magic3d_cli.settings import BALL, EDITED_VOLUME, PICTURE_SHAPE, VOLUME, AssetSettings


def generate(job: Job, *, fresh: bool = False) -> tuple[Asset | None, dict[str, Any]]:
    """Prompt to written asset; goes on from whatever the run folder already holds of the same request.

    Returns the asset (None except in the main process) and a JSON-able report. Raises Collapsed, Interrupted,
    UsageError, OSError.
    """
    hashes = {stage: job.guide.sha256(stage) for stage in STAGES}
    losses = [term.name for group in job.more_views for term in group.terms]
    digest = job.pictured.digest if job.pictured else None
    origins = Origins.of_request(job.prompt, job.settings, hashes, losses, digest)
    begin(job, origins, fresh)
    fine = resume(job, job.run.fine)
    if fine is None and job.edit is not None and job.settings.fine.freeze_geometry:
        fine = _take_over(job, job.edit)
    if fine is None:
        coarse = resume(job, job.run.coarse)
        coarse = coarse or _start(job)
        optimise(job, coarse, job.run.coarse, origins.coarse)
        fine = _hand_over(job, coarse)
    optimise(job, fine, job.run.fine, origins.fine)
    return _write_asset(job, fine)


def refine(job: Job, coarse: Saved, *, fresh: bool = False) -> tuple[Asset | None, dict[str, Any]]:
    """A coarse checkpoint to a written asset. Otherwise as `generate`."""
    header = coarse.header
    origins = Origins.of_refinement(header["origin"], header["step"], job.settings, job.guide.sha256("fine"))
    begin(job, origins, fresh, keep=[coarse.path])
    fine = resume(job, job.run.fine)
    if fine is None:
        job.timings = Timings.from_json(header["ledger"])
        job.things = coarse.things
        fine = _hand_over(job, coarse.stage(job.settings, job.device, job.processes))
    optimise(job, fine, job.run.fine, origins.fine)
    return _write_asset(job, fine)


def export(saved: Saved, output: Path, asset: AssetSettings, device: str, observer: Observer) -> dict[str, Any]:
    """Write the asset of any checkpoint; a coarse one is turned into a mesh without refinement. Returns the report."""
    header, timings = saved.header, Timings.from_json(saved.header["ledger"])
    with timings.timed("export"):
        observer.phase("load")
        stage = saved.stage(saved.settings, device)
        if isinstance(stage, CoarseStage):
            observer.phase("mesh")
            stage = FineStage.from_coarse(saved.settings, stage)
        about = about_asset(header["prompt"], header["seed"], header["prior"]["id"])
        runs = (RunLook(header["prompt"], header["seed"], header["prior"]["id"], saved.things), *saved.earlier)
        built, files = build_files(stage, output, about, asset, observer, runs, own_surface(saved))
    run = RunDirectory.for_output(output)
    if run.path.absolute() == saved.path.absolute().parent:  # a later export may write them again
        run.log("exported", files=[str(file) for file in files])
    report = report_of(header["prompt"], saved.settings, header["prior"], files, stage, built, timings)
    observer.done(report)
    return report


def _start(job: Job) -> CoarseStage:
    """A fresh coarse stage: the paper's ball, or fitted to the shape that the settings name."""
    stage = CoarseStage(job.settings, job.settings.seed, job.device, job.processes)
    if job.settings.coarse.init != BALL:
        job.observer.phase("initial shape")
        with job.timings.timed("initial shape"):
            shape = (job.shape or job.guide.volume)()
            assert shape is not None  # the settings name one
            fit(stage, shape)
    job.things = job.edit.things if job.edit else job.guide.things() if job.shape is None else None
    if job.edit is not None and not job.edit.region.is_everything:
        stage.hold_outside(job.edit.region)
    return stage


def _hand_over(job: Job, coarse: CoarseStage | FineStage) -> FineStage:
    """Coarse volume to fine mesh (Magic3D section 4.2)."""
    assert isinstance(coarse, CoarseStage)
    job.observer.phase("mesh")
    with job.timings.timed("mesh"):
        # A prior's volume and what a picture shows look as asked; another shape need not, and what distillation
        # painted is kept.
        init = job.settings.coarse.init
        asked = init == VOLUME or init.startswith((PICTURE_SHAPE, EDITED_VOLUME))
        shape = (job.shape or job.guide.volume)() if asked else None
        fine = FineStage.from_coarse(job.settings, coarse, shape, job.edit.geometry if job.edit else None)
    return _meshed(job, fine)


def _take_over(job: Job, edit: Edit) -> FineStage:
    """The fine stage of an edit that keeps its parent's shape: the parent's mesh, without a coarse stage."""
    job.observer.phase("mesh")
    job.things = edit.things
    with job.timings.timed("mesh"):
        fine = FineStage.from_parent(job.settings, edit, edit.shape, job.processes)
    return _meshed(job, fine)


def _meshed(job: Job, fine: FineStage) -> FineStage:
    """Hold what an edit keeps, and note what the fine stage begins with."""
    if job.edit is not None and not job.edit.region.is_everything:
        fine.hold_outside(job.edit.region, job.edit.kept)
    job.run.log("mesh", **as_json(fine.handover))
    if job.surface is not None and job.processes.is_main:
        save_surface(job.run.mesh, job.surface)
    return fine


def _write_asset(job: Job, fine: CoarseStage | FineStage) -> tuple[Asset | None, dict[str, Any]]:
    assert isinstance(fine, FineStage)
    if not job.processes.is_main:
        return None, {}
    with job.timings.timed("asset"):
        about = about_asset(job.prompt, job.settings.seed, job.guide.name("fine"))
        own = RunLook(job.prompt, job.settings.seed, job.guide.name("fine"), job.things)
        runs = (own, *(job.edit.earlier if job.edit else ()))
        asset, files = build_files(fine, job.output, about, job.settings.asset, job.observer, runs, job.surface)
    prior = {"id": job.guide.name("fine"), "sha256": job.guide.sha256("fine")}
    result = report_of(job.prompt, job.settings, prior, files, fine, asset, job.timings)
    result["run"] = str(job.run.path)
    result |= {"edited": job.edit.to_json()} if job.edit else {}
    result |= {"adapters": [adapter.to_json() for adapter in job.adapters]} if job.adapters else {}
    result |= {"style": job.style.name} if job.style else {}
    job.run.write_json(job.run.result, result)
    job.run.log("done", files=result["files"])
    job.observer.done(result)
    return asset, result

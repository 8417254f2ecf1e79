"""The whole job on one page: prompt -> coarse -> refine -> unwrap -> bake -> write.

Nothing here prints; an `Observer` is told. Whatever was computed is in the run folder before the next part
begins, so that any of this can be stopped, killed or run out of disk and be taken up again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from magic3d_cli import __version__
from magic3d_cli.asset.build import build_asset
from magic3d_cli.asset.material import of_prompt
from magic3d_cli.asset.write import write
from magic3d_cli.coarse.stage import CoarseStage
from magic3d_cli.errors import UsageError, out_of_memory
from magic3d_cli.fine.stage import FineStage
from magic3d_cli.run import checkpoint
from magic3d_cli.run.directory import RunDirectory
from magic3d_cli.run.guide import Guide
from magic3d_cli.run.interrupts import Interrupts
from magic3d_cli.run.keeper import Cadence, Keeper
from magic3d_cli.run.ledger import Ledger, peak_memory
from magic3d_cli.run.observer import Observer
from magic3d_cli.settings import AssetSettings, Settings


@dataclass
class Job:
    """One asset to be made: what is asked for, where it goes, and who is told."""

    prompt: str
    settings: Settings
    output: Path  # .glb or .obj
    run: RunDirectory  # entered: the lock is held
    guide: Guide
    device: str = "cpu"
    leads: bool = True  # of several processes, the one that writes the asset
    observer: Observer = field(default_factory=Observer)
    interrupts: Interrupts = field(default_factory=Interrupts)
    cadence: Cadence = field(default_factory=Cadence)
    ledger: Ledger = field(default_factory=Ledger)


@dataclass(frozen=True)
class Saved:
    """A loaded checkpoint."""

    path: Path
    header: dict[str, Any]
    tensors: dict[str, Any]
    settings: Settings

    @staticmethod
    def load(path: Path) -> Saved:
        """Raises UsageError for a file that is missing, foreign, damaged or of another version."""
        tensors, header = checkpoint.load(path)
        try:
            settings = Settings.from_json(header["settings"])
        except (KeyError, TypeError) as error:
            raise _other_version(path, header) from error
        return Saved(path, header, tensors, settings)

    def stage(self, settings: Settings, device: str) -> CoarseStage | FineStage:
        """The stage as it was when saved. Raises UsageError when its tensors do not fit this version."""
        kind = CoarseStage if self.header["stage"] == "coarse" else FineStage
        try:
            return kind.from_state(settings, self.tensors, self.header["state"], device)
        except (KeyError, RuntimeError) as error:
            if out_of_memory(error):
                raise
            raise _other_version(self.path, self.header) from error


def generate(job: Job, *, fresh: bool = False) -> dict[str, Any]:
    """Prompt to written asset; goes on from whatever the run folder already holds of the same request.

    Returns a JSON-able report. Raises Collapsed, Interrupted, UsageError, OSError.
    """
    origin = _coarse_origin(job)
    fine_origin = _fine_origin(job, origin, job.settings.coarse.steps)
    _make_way(job, origin, fine_origin, fresh)
    job.observer.expect(job.settings, {stage: job.guide.name(stage) for stage in ("coarse", "fine")})
    fine = _resume(job, job.run.fine)
    if fine is None:
        coarse = _resume(job, job.run.coarse) or CoarseStage(job.settings, job.settings.seed, job.device)
        _optimise(job, coarse, job.run.coarse, origin)
        fine = _hand_over(job, coarse)
    _optimise(job, fine, job.run.fine, fine_origin)
    return _write_asset(job, fine)


def refine(job: Job, coarse: Saved, *, fresh: bool = False) -> dict[str, Any]:
    """A coarse checkpoint to a written asset. Otherwise as `generate`."""
    origin = coarse.header["origin"]
    fine_origin = _fine_origin(job, origin, coarse.header["step"])
    _make_way(job, origin, fine_origin, fresh, keep=[coarse.path])
    job.observer.expect(job.settings, {stage: job.guide.name(stage) for stage in ("coarse", "fine")})
    fine = _resume(job, job.run.fine)
    if fine is None:
        job.ledger = Ledger.from_json(coarse.header["ledger"])
        fine = _hand_over(job, coarse.stage(job.settings, job.device))
    _optimise(job, fine, job.run.fine, fine_origin)
    return _write_asset(job, fine)


def export(saved: Saved, output: Path, asset: AssetSettings, device: str, observer: Observer) -> dict[str, Any]:
    """Write the asset of any checkpoint; a coarse one is turned into a mesh without refinement."""
    ledger = Ledger.from_json(saved.header["ledger"])
    with ledger.timed("export"):
        observer.phase("load")
        stage = saved.stage(saved.settings, device)
        if isinstance(stage, CoarseStage):
            observer.phase("mesh")
            stage = FineStage.from_coarse(saved.settings, stage)
        files, report = _build(stage, output, saved.header["prompt"], asset, observer)
    return _report(saved.header["prompt"], saved.settings, saved.header["prior"], files, stage, report, ledger)


def _optimise(job: Job, stage: CoarseStage | FineStage, path: Path, origin: dict[str, Any]) -> None:
    """Run a stage to its end, saving as it goes."""
    coarse = isinstance(stage, CoarseStage)
    name = "coarse" if coarse else "fine"
    own = job.settings.coarse if coarse else job.settings.fine
    if stage.step >= own.steps and path.is_file():
        return

    def save() -> None:
        tensors, state = stage.state()
        header = {
            "version": __version__,
            "stage": name,
            "step": stage.step,
            "total": own.steps,
            "prompt": job.prompt,
            "seed": job.settings.seed,
            "settings": job.settings.to_json(),
            "prior": {"id": job.guide.name(name), "sha256": job.guide.sha256(name)},
            "fine_prior": job.guide.name("fine"),
            "device": job.device,
            "origin": origin,
            "state": state,
            "ledger": job.ledger.to_json(),
        }
        checkpoint.save(path, tensors, header)
        job.run.log("saved", file=path.name, step=stage.step)

    if stage.step == 0:
        save()  # also proves, before the work, that there is room for it
    if stage.step < own.steps:
        job.observer.phase(f"load the {job.guide.name(name)} prior")
        with job.ledger.timed("prior"):
            objective = job.guide.objective(name, own.guidance)
        job.observer.begin(name, stage.step, own.steps)
        keeper = Keeper(job.run, stage, save, job.ledger, job.observer, job.interrupts, job.cadence)
        with job.interrupts.held():
            stage.run(objective, on_step=keeper)
            keeper.draw()
            save()


def _hand_over(job: Job, coarse: CoarseStage | FineStage) -> FineStage:
    """Coarse volume to fine mesh (Magic3D section 4.2)."""
    assert isinstance(coarse, CoarseStage)
    job.observer.phase("mesh")
    with job.ledger.timed("mesh"):
        fine = FineStage.from_coarse(job.settings, coarse)
    job.run.log("mesh", **_plain(fine.handover))
    return fine


def _write_asset(job: Job, fine: CoarseStage | FineStage) -> dict[str, Any]:
    assert isinstance(fine, FineStage)
    if not job.leads:
        return {}
    with job.ledger.timed("asset"):
        files, report = _build(fine, job.output, job.prompt, job.settings.asset, job.observer)
    prior = {"id": job.guide.name("fine"), "sha256": job.guide.sha256("fine")}
    result = _report(job.prompt, job.settings, prior, files, fine, report, job.ledger)
    result["run"] = str(job.run.path)
    job.run.write_json(job.run.result, result)
    job.run.log("done", files=result["files"])
    return result


def _build(
    fine: FineStage, output: Path, prompt: str, settings: AssetSettings, observer: Observer
) -> tuple[list[Path], dict[str, Any]]:
    """Unwrap, bake, write."""
    vertices, faces = fine.mesh()
    asset = build_asset(
        vertices.numpy(),
        faces.numpy(),
        fine.albedo,
        settings,
        on_stage=observer.phase,
        device=fine.device,
        material=of_prompt(prompt),
    )
    if reason := asset.report.get("atlas_reason"):
        observer.note(f"Unwrapped by the simple atlas: {reason}.")
    observer.phase("write")
    return write(asset, output, prompt), asset.report


def _report(
    prompt: str,
    settings: Settings,
    prior: dict[str, str],
    files: list[Path],
    fine: FineStage,
    asset: dict[str, Any],
    ledger: Ledger,
) -> dict[str, Any]:
    return {
        "output": str(files[0]),
        "files": [str(file) for file in files],
        "prompt": prompt,
        "preset": settings.preset,
        "seed": settings.seed,
        "prior": prior,
        "seconds": {part: round(seconds, 2) for part, seconds in ledger.seconds.items()},
        "seconds_per_step": ledger.per_step(),
        "handover": _plain(fine.handover),
        "asset": _plain(asset),
        "peak_memory_bytes": peak_memory(),
    }


def _coarse_origin(job: Job) -> dict[str, Any]:
    """What the coarse stage's result depends on; a checkpoint with another origin is another run's."""
    return _plain(
        {
            "prompt": job.prompt,
            "seed": job.settings.seed,
            "settings": asdict(job.settings.coarse),
            "prior": job.guide.sha256("coarse"),
        }
    )


def _fine_origin(job: Job, coarse: dict[str, Any], step: int) -> dict[str, Any]:
    settings = asdict(job.settings.fine)
    prior = job.guide.sha256("fine")
    return _plain({"coarse": coarse, "coarse_step": step, "settings": settings, "prior": prior})


def _make_way(
    job: Job,
    coarse: dict[str, Any],
    fine: dict[str, Any],
    fresh: bool,
    keep: Iterable[Path] = (),
) -> None:
    """Set aside what another request left in the folder: only the fine stage where the coarse one serves."""
    run = job.run
    origins = {} if fresh else {p: checkpoint.read_header(p).get("origin") for p in _present(run)}
    wrong_coarse = run.coarse in origins and origins[run.coarse] != coarse
    wrong_fine = run.fine in origins and origins[run.fine] != fine
    moved = None
    if fresh or wrong_coarse or (wrong_fine and run.coarse not in origins):
        moved = run.set_aside(keep=keep)
    elif wrong_fine:
        moved = run.set_aside(only=[run.fine])
    if moved is not None:
        job.observer.note(f"An earlier run was kept in {moved}; delete it when you do not need it.")
    run.write_json(
        run.settings,
        {
            "prompt": job.prompt,
            "priors": {stage: job.guide.name(stage) for stage in ("coarse", "fine")},
            **job.settings.to_json(),
        },
    )
    run.log("start", prompt=job.prompt, preset=job.settings.preset, device=job.device, version=__version__)


def _present(run: RunDirectory) -> list[Path]:
    return [path for path in (run.coarse, run.fine) if path.is_file()]


def _resume(job: Job, path: Path) -> Any:
    """The stage saved at `path`, or None. `_make_way` has seen to it that it belongs to this request."""
    if not path.is_file():
        return None
    saved = Saved.load(path)
    stage = saved.stage(job.settings, job.device)
    job.ledger = Ledger.from_json(saved.header["ledger"])
    name, step, total = (saved.header[key] for key in ("stage", "step", "total"))
    if step < total:
        job.observer.note(f"Resuming {job.run.path}: {name} stage, {step} of {total} steps done.")
    elif name == "fine":
        job.observer.note(f"{job.run.path} is finished already: writing the asset again (--fresh starts over).")
    job.run.log("resume", stage=name, step=step)
    return stage


def _plain(data: Any) -> Any:
    """As JSON gives it back: tuples become lists."""
    return json.loads(json.dumps(data))


def _other_version(path: Path, header: dict[str, Any]) -> UsageError:
    return UsageError(
        f"{path} was written by magic3d {header.get('version', '?')} and does not fit version {__version__}.",
        "Use that version to export it, or repeat the generate command with --fresh.",
    )

"""`magic3d generate --variations N`: short runs of several seeds, a sheet to choose from, and the best one finished."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from magic3d_cli.cli.session import Session
from magic3d_cli.errors import Magic3DError, UsageError
from magic3d_cli.run.directory import RunDirectory

MOST = 64


def check_variations(count: int | None, pictured: bool) -> None:
    """Raises UsageError for a number out of range, and beside a picture, of which seeds make no variations."""
    if count is None:
        return
    if not 2 <= count <= MOST:
        raise UsageError(f"--variations {count} is out of range.", f"Use a number from 2 to {MOST}.")
    if pictured:
        raise UsageError("--variations are of words, and this is a picture.", "Leave out --variations, or --image.")


def choose(
    prompt: str, seed: int, count: int, output: Path, preset: str, options: dict[str, Any], work: Session
) -> tuple[int, list[dict[str, Any]]]:
    """The best seed of those from `seed` on, and the records of all, the best first.

    All stay in OUTPUT's .variations folder, with a page and a sheet. Where the preset asks for no more than the short
    run, the best one's run becomes the output's. Raises the failure of all, where all failed.
    """
    from magic3d_cli.assembly import choose_device
    from magic3d_cli.batch import gallery, pool
    from magic3d_cli.batch.variations import SHORT, ranked, tasks_of

    folder = output.with_suffix(".variations")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UsageError(f"The folder {folder} cannot be made: {error.strerror}.", "Choose another -o.") from error
    tasks = tasks_of(prompt, seed, count, folder, options["distillation"])
    team, gpus = pool.team_here(count, options["device"])
    work.observer.note(f"{count} short runs, {team} at a time, then the best.")

    def changed(progress: pool.Progress) -> None:
        work.observer.phase(f"{len(progress.records)} of {count} variations")

    records = pool.run_tasks(tasks, options, team, gpus, work.interrupts, changed)
    records = ranked(records, choose_device(options["device"], work.observer))
    page, sheet, _ = gallery.write_gallery(folder, records)
    best = records[0]
    if "agreement" not in best:
        what, following, code = (best["error"][key] for key in ("what", "next", "exit_code"))
        failure = Magic3DError(what, following)
        failure.exit_code = code
        raise failure
    agreements = ", ".join(f"seed {r['seed']} {r['agreement']:g} dB" for r in records if "agreement" in r)
    work.observer.note(f"How far the prior agrees with them: {agreements}. All are on {sheet}, to turn on {page}.")
    if preset == SHORT:
        _take_over(Path(best["output"]), output)
    return best["seed"], records


def _take_over(made: Path, output: Path) -> None:
    """The run of a short one for the output, unless that has one."""
    run = RunDirectory.for_output(output)
    if run.furthest is None:
        shutil.copytree(RunDirectory.for_output(made).path, run.path, dirs_exist_ok=True)


def summaries(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What --json says of them."""
    return [{key: record.get(key) for key in ("seed", "agreement", "output", "status")} for record in records]

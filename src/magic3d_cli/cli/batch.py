"""`magic3d batch LIST`: many prompts, made side by side, and a gallery of what was made."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from magic3d_cli import checks
from magic3d_cli.batch.tasks import COLUMNS, FAILED, KEPT, MADE, Choices, check_gallery, check_makeable, read_tasks
from magic3d_cli.cli import options
from magic3d_cli.cli.failures import reported, say
from magic3d_cli.cli.progress import Display, clock
from magic3d_cli.cli.session import put, session
from magic3d_cli.errors import UsageError
from magic3d_cli.guidance.adapters import read_adapters
from magic3d_cli.run.interrupts import Interrupted

if TYPE_CHECKING:
    from magic3d_cli.batch.pool import Progress

SEEDS, WORKERS = (1, 1000), (1, 256)


@reported
def batch(
    source: Annotated[
        str,
        typer.Argument(
            metavar="LIST",
            help=f"A file with a prompt a line, .csv or .jsonl with {', '.join(COLUMNS)}; - for standard input.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where everything goes; made if missing.")
    ] = Path("batch"),
    seeds: Annotated[int, typer.Option(metavar="N", help="Make each prompt with the seeds 0 to N - 1.")] = 1,
    preset: options.Preset = "draft",
    prior: options.Prior = "auto",
    also_prior: options.AlsoPrior = None,
    adapter: options.Adapter = None,
    style: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="A picture in whose colours or look all are made, see generate; a row's own style comes before it.",
            show_default=False,
        ),
    ] = None,
    distillation: options.Distillation = None,
    device: options.Device = "auto",
    faces: options.Faces = None,
    texture_size: options.TextureSize = None,
    lod: options.Lod = None,
    ao: options.Occlusion = None,
    normal_map: options.NormalMap = None,
    file_format: Annotated[
        str,
        typer.Option(
            "--format", metavar="NAME", help="Of files without a name.", autocompletion=options.one_of(checks.FORMATS)
        ),
    ] = "glb",
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Processes side by side; default: one a GPU, else one a core while there is memory.",
            show_default=False,
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Use a Ray cluster: its address, auto (a running one) or local (pip install ray). FOLDER should be on "
            "a disk that its machines share.",
            show_default=False,
        ),
    ] = None,
    strict: options.Strict = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Make many models from a list of prompts.

    Side by side, as many as this machine takes. The same command again goes on where it was stopped: what is made
    stays, what was begun goes on from its checkpoint. A prompt that fails does not stop the others, and the exit code
    is its (1 where several differ). In the end index.html shows all, to turn in a browser.
    """
    checks.check_choice("--preset", preset, checks.PRESETS)
    checks.check_choice("--device", device, checks.DEVICES)
    checks.check_choice("--format", file_format, checks.FORMATS)
    checks.check_sizes(faces, texture_size, lod=lod)
    checks.check_distillation(distillation)
    if ray is not None and workers is not None:
        raise UsageError("--workers is for this machine alone; a Ray cluster knows its own size.", "Leave one out.")
    for option, value, (low, high) in (("--seeds", seeds, SEEDS), ("--workers", workers, WORKERS)):
        if value is not None and not low <= value <= high:
            raise UsageError(f"{option} {value} is out of range.", f"Use a number from {low} to {high}.")
    added, adapters = checks.check_added(also_prior or []), read_adapters(adapter or [])
    _make_folder(output)
    chosen = Choices(preset=preset, style=style, distillation=distillation)
    tasks = read_tasks(source, output, seeds, chosen, file_format)
    check_makeable(tasks, prior, [name for name, _ in added], device, strict, adapters)
    choices: dict[str, Any] = {
        "coarse_prior": prior,
        "fine_prior": prior,
        "more_priors": added,
        "adapters": tuple(adapter or ()),
        "device": device,
        "faces": faces,
        "texture_size": texture_size,
        "lod": lod,
        "occlusion": ao,
        "normal_map": normal_map,
        "strict": strict,
    }
    with session(quiet, verbose) as work:
        from magic3d_cli.batch import gallery, pool, ray_pool

        begun = time.monotonic()
        lines = _Lines(work.observer)
        team, gpus = pool.team_here(len(tasks), device, workers)
        at_once = "on Ray" if ray else f"{team} at a time"
        work.observer.note(f"{len(tasks)} to make, {at_once}.")
        try:
            if ray is None:
                records = pool.run_tasks(tasks, choices, team, gpus, work.interrupts, lines.changed)
            else:
                records = ray_pool.run_tasks(tasks, choices, ray, work.interrupts, lines.changed)
        except Interrupted as stopped:
            say(
                f"Stopped on request. {lines.told} of {len(tasks)} had ended; what was begun is kept.",
                shlex.join(["magic3d", *sys.argv[1:]]),
                "interrupted",
            )
            raise typer.Exit(stopped.exit_code) from stopped
        work.observer.phase("gallery")
        files = gallery.write_gallery(output, records)
        work.observer.note(f"Open {files[0].resolve().as_uri()} in a browser.")
    counts = Counter(record["status"] for record in records)
    summary = {
        "folder": str(output),
        "gallery": str(files[0]),
        **{status: counts[status] for status in (MADE, KEPT, FAILED)},
        "seconds": round(time.monotonic() - begun, 1),
        "workers": None if ray else team,
        "tasks": records,
    }
    put(json.dumps(summary) if as_json else str(files[0]))
    if failed := [record for record in records if record["status"] == FAILED]:
        first = failed[0]["error"]
        name = checks.shown(failed[0]["prompt"] or failed[0]["image"])
        say(f"{len(failed)} of {len(records)} failed; the first, {name!r}: {first['what']}", first["next"])
        codes = {record["error"]["exit_code"] for record in failed}
        raise typer.Exit(codes.pop() if len(codes) == 1 else 1)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"The folder {folder} cannot be made: {error.strerror}.", "Name another one with -o."
        ) from error
    check_gallery(folder)


class _Lines:
    """A line for each task that ends, with how many there are and the time left."""

    def __init__(self, observer: Display) -> None:
        self._observer, self._begun, self.told = observer, time.monotonic(), 0

    def changed(self, progress: Progress) -> None:
        for record in progress.records[self.told :]:
            self.told += 1
            self._observer.note(_line(record, self.told, progress, time.monotonic() - self._begun))


def _line(record: dict[str, Any], number: int, progress: Progress, elapsed: float) -> str:
    name = f"{checks.shown(record['prompt'] or record['image'], 40)}, seed {record['seed']}"
    if record["status"] == FAILED:
        end = f"failed: {record['error']['what']}"
    else:
        end = f"{record['output']}" + ("" if record["status"] == MADE else ", made before")
        end += f", {record['seconds']:.0f} s" if record["status"] == MADE else ""
    left = elapsed * (1 - progress.share) / max(progress.share, 1e-3)
    rest = f"; {clock(left)} left" if number < progress.total else ""
    return f"[{number}/{progress.total}] {name}: {end}{rest}"

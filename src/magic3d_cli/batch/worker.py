"""A process that makes one task after the other: `python -m magic3d_cli.batch.worker`.

Tasks come as lines of JSON on standard input, events go out as lines of JSON on standard output. Priors stay loaded
between tasks. What a task computed is in its run folder, so a worker may be killed at any time.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from magic3d_cli import checks, precheck
from magic3d_cli.batch.tasks import FAILED, KEPT, MADE
from magic3d_cli.errors import Magic3DError, OutOfMemory, first_line, out_of_memory
from magic3d_cli.guidance.adapters import check_company, marks, read_adapters
from magic3d_cli.run.directory import RunDirectory
from magic3d_cli.run.interrupts import Interrupted, Interrupts
from magic3d_cli.run.observer import Observer
from magic3d_cli.settings import SDS

Emit = Callable[[dict[str, Any]], None]


class Telling(Observer):
    """Sends how far a task is, at most twice a second, and what is worth knowing."""

    def __init__(self, emit: Emit) -> None:
        self._emit, self.notes = emit, list[str]()
        self._total, self._stage, self._told = {"coarse": 1, "fine": 1}, "coarse", 0.0

    def expect(self, settings: Any, priors: dict[str, str]) -> None:
        self._total = {"coarse": max(settings.coarse.steps, 1), "fine": max(settings.fine.steps, 1)}

    def begin(self, stage: str, done: int, total: int) -> None:
        self._stage = stage

    def step(self, report: Any) -> None:
        if time.monotonic() - self._told < 0.5:
            return
        self._told = time.monotonic()
        before = 0 if self._stage == "coarse" else self._total["coarse"]
        self._emit({"event": "progress", "share": 0.9 * (before + report.step) / sum(self._total.values())})

    def note(self, text: str) -> None:
        self.notes.append(text)


def run_task(task: dict[str, Any], options: dict[str, Any], emit: Emit, interrupts: Interrupts, loaded: Any) -> Any:
    """Make one task; returns its record. Failures are recorded, interruptions raised.

    Args:
        task: as `Task.to_json`. options: for all tasks, arguments of `Request`.
        loaded: priors that are kept between tasks, see `PriorGuide`.
    """
    from magic3d_cli import job
    from magic3d_cli.guidance.priors import WeightedPrior
    from magic3d_cli.picture_request import read_pictures
    from magic3d_cli.request import Request, prior_names

    observer, begun = Telling(emit), time.monotonic()
    record = {**task, "status": FAILED}
    try:
        output = checks.check_output(Path(task["output"]))
        pictures = read_pictures([task["image"]]) if task["image"] else None
        digest = pictures.digest if pictures else None
        files = tuple(options.get("adapters", ()))
        adapters = read_adapters(files)
        check_company(adapters, pictures is not None, None)
        priors = tuple(WeightedPrior(*prior) for prior in options.get("more_priors", ()))
        own = {"preset": task["preset"], "distillation": task["distillation"], "pictures": pictures}
        request = Request(output, **options | {"more_priors": priors, "adapters": files} | own)
        if task["style"] is not None:
            names = (*prior_names(request).values(), *(prior.name for prior in priors))
            style = precheck.styled(Path(task["style"]), names, request.device, adapters, pictures is not None)
            request = replace(request, style=style)
        added = marks(adapters, request.style.digest if request.style else None)
        if (kept := finished(output, task, options, digest, added)) is not None:
            return record | kept | {"status": KEPT}
        run = RunDirectory.for_output(output)
        ours = run.is_of(task["prompt"], task["seed"], task["preset"], digest, added)
        precheck.refuse_to_overwrite(output, request.lod, precheck.own_names(output, ours))
        _, report = job.generate(task["prompt"], task["seed"], request, observer, interrupts, loaded=loaded)
        record |= {"status": MADE, **_summary(report)}
        with suppress(OSError):  # then the same command makes it again
            run.write_json(run.batch, _asked(task, options))
    except Magic3DError as error:
        record["error"] = {"what": error.what, "next": error.next_step, "exit_code": error.exit_code}
    except Exception as error:
        code = OutOfMemory.exit_code if out_of_memory(error) else 1
        what = "Out of memory." if code == OutOfMemory.exit_code else f"{type(error).__name__}: {first_line(error)}"
        log = RunDirectory.for_output(Path(task["output"])).log_path
        following = f"See the last line of {log}" if log.is_file() else "Make it alone: magic3d generate --verbose"
        record["error"] = {"what": what, "next": following, "exit_code": code}
    return record | {"seconds": round(time.monotonic() - begun, 1), "notes": observer.notes}


def finished(
    output: Path, task: dict[str, Any], options: dict[str, Any], digest: str | None, adapters: str | None = None
) -> dict[str, Any] | None:
    """What is reported of a task that an earlier command made with the same options; None where it has to be made.

    `digest` and `adapters` are those of `RunDirectory.is_of`.
    """
    run = RunDirectory.for_output(output)
    if not output.is_file() or not run.is_of(task["prompt"], task["seed"], task["preset"], digest, adapters):
        return None
    try:
        if checks.parse_json(run.batch.read_text(encoding="utf-8")) != _asked(task, options):
            return None
        report = checks.parse_json(run.result.read_text(encoding="utf-8"))
        return {"seconds": 0.0, "notes": [], **_summary(report)}
    except (OSError, ValueError, AttributeError, TypeError, KeyError):  # damaged: its files are written again
        return None


def _asked(task: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """What a result depends on beside what `RunDirectory.is_of` compares, as JSON gives it back."""
    own = {name: value for name, value in options.items() if name not in ("device", "strict", "adapters")}
    return dict(json.loads(json.dumps(own | {"distillation": task["distillation"] or SDS})))


def _summary(report: dict[str, Any]) -> dict[str, Any]:
    """What the summary keeps of a report."""
    asset = report.get("asset", {})
    return {
        "files": report.get("files", []),
        "prior": report.get("prior", {}).get("id", ""),
        "understood": report.get("understood"),
        "faces": asset.get("faces"),
        "work_seconds": round(sum(report.get("seconds", {}).values()), 1),
    }


def serve() -> int:
    """Make what standard input asks for, until it ends; returns the exit code."""
    out = sys.stdout
    sys.stdout = sys.stderr  # what libraries print must not get between events

    def emit(event: dict[str, Any]) -> None:
        out.write(json.dumps(event) + "\n")
        out.flush()

    loaded: dict[Any, Any] = {}
    try:
        with Interrupts().installed() as interrupts:
            for line in sys.stdin:
                order = json.loads(line)
                emit({"event": "done", "record": run_task(order["task"], order["options"], emit, interrupts, loaded)})
    except Interrupted as stopped:
        return stopped.exit_code
    except BrokenPipeError:  # the command that asked is gone
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(serve())

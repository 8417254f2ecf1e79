"""`magic3d runs [FOLDER]`: the run folders there, and making room."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from magic3d_cli import checks
from magic3d_cli.checks import parse_json
from magic3d_cli.cli import options
from magic3d_cli.cli.failures import reported
from magic3d_cli.cli.session import put
from magic3d_cli.errors import Magic3DError, UsageError
from magic3d_cli.run import checkpoint
from magic3d_cli.run.directory import CHECKPOINTS, RunDirectory

_DAY = 86_400.0


@dataclass(frozen=True)
class Found:
    """A run folder and what it holds."""

    path: str
    prompt: str
    seed: int
    preset: str
    state: str  # "finished", "coarse 120/300", "set aside", "nothing yet", "in use"
    bytes: int
    days: float  # since it was last written


@reported
def runs(
    folder: Annotated[
        Path, typer.Argument(help="Where to look; default: the current folder.", show_default=False)
    ] = Path(),
    clean: Annotated[
        bool, typer.Option("--clean", help="Delete what earlier requests set aside (dragon.run.1), after a question.")
    ] = False,
    older_than: Annotated[
        float | None, typer.Option(metavar="DAYS", help="With --clean: delete every run not written for so long.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before deleting.")] = False,
    as_json: options.Json = False,
) -> None:
    """List the runs of a folder, or delete old ones.

    A run is listed with what it made or how far it is, and its size. Assets are never deleted.
    """
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}.", "magic3d runs FOLDER")
    if older_than is not None and not (clean and older_than >= 0):
        raise UsageError(
            "--older-than belongs to --clean and is a number from 0 up.", "magic3d runs --clean --older-than 30"
        )
    found = find(folder)
    if not clean:
        put(json.dumps([asdict(run) for run in found]) if as_json else _table(found))
        return
    doomed = [run for run in found if run.state != "in use" and (
        run.days >= older_than if older_than is not None else run.state == "set aside")]  # fmt: skip
    if doomed and not yes:
        print(_table(doomed), file=sys.stderr)
        if not sys.stdin.isatty():
            raise UsageError(f"{len(doomed)} runs would be deleted.", "Add --yes to delete them.")
        if not typer.confirm(f"Delete these {len(doomed)} runs?", err=True):
            doomed = []
    deleted = []
    for run in doomed:
        if _in_use(RunDirectory(Path(run.path))):
            continue  # it was begun while the question was open
        shutil.rmtree(run.path)
        deleted.append(run)
    freed = sum(run.bytes for run in deleted)
    if as_json:
        put(json.dumps({"deleted": [run.path for run in deleted], "bytes": freed}))
    else:
        put(f"Deleted {len(deleted)} runs, {freed / 1e6:.0f} MB.")


def find(folder: Path) -> list[Found]:
    """The runs directly in a folder, the one written last first. Links are left out."""
    paths = [path for pattern in ("*.run", "*.run.*") for path in folder.glob(pattern)]
    found = [_found(path) for path in paths if path.is_dir() and not path.is_symlink() and _is_run(path)]
    return sorted(found, key=lambda run: run.days)


def _is_run(path: Path) -> bool:
    return any((path / name).is_file() for name in (*CHECKPOINTS, "settings.json", "log.jsonl"))


def _found(path: Path) -> Found:
    run = RunDirectory(path)
    prompt, seed, preset, state = "?", 0, "?", "nothing yet"
    try:
        if run.furthest is not None:
            header = checkpoint.read_header(run.furthest)
            prompt, seed, preset = _asked(header, header["settings"])
            state = f"{header['stage']} {header['step']}/{header['total']}"
        elif run.settings.is_file():
            asked = parse_json(run.settings.read_text(encoding="utf-8"))
            prompt, seed, preset = _asked(asked, asked)
        if run.result.is_file():
            state = "finished"
    except (Magic3DError, OSError, ValueError, KeyError, TypeError):
        state = "damaged"
    if path.suffix != ".run":
        state = "set aside"
    if _in_use(run):
        state = "in use"
    files = list(_files(path))
    written = max((file.st_mtime for file in files), default=path.stat().st_mtime)
    days = max(time.time() - written, 0.0) / _DAY
    return Found(str(path), prompt, seed, preset, state, sum(file.st_size for file in files), round(days, 3))


def _in_use(run: RunDirectory) -> bool:
    try:
        run.check_free()
    except Magic3DError:
        return True
    return False


def _files(path: Path) -> Iterator[os.stat_result]:
    """Of a run's files; those that a running job renames or deletes meanwhile are left out, as is the lock."""
    for file in path.rglob("*"):
        with suppress(FileNotFoundError):
            about = file.stat()
            if stat.S_ISREG(about.st_mode) and file.name != "lock":
                yield about


def _asked(request: dict[str, Any], settings: dict[str, Any]) -> tuple[str, int, str]:
    """Prompt, seed and preset. Raises KeyError or TypeError where they are none."""
    prompt, seed, preset = request["prompt"], request["seed"], settings["preset"]
    if not (isinstance(prompt, str) and isinstance(seed, int) and isinstance(preset, str)):
        raise TypeError
    return prompt, seed, preset


def _table(found: list[Found]) -> str:
    if not found:
        return 'No runs here. Make one: magic3d generate "a metal dragon"'
    rows = [
        (run.path, run.state, f"{run.bytes / 1e6:.0f} MB", _age(run.days), run.preset, f"seed {run.seed}",
         checks.shown(run.prompt))
        for run in found
    ]  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)) for row in rows]
    aside = sum(run.state == "set aside" for run in found)
    total = f"{len(found)} runs, {sum(run.bytes for run in found) / 1e6:.0f} MB"
    return "\n".join([*lines, total + (f"; magic3d runs --clean deletes the {aside} set aside" if aside else "")])


def _age(days: float) -> str:
    minutes = days * 1440
    if minutes < 60:
        return f"{minutes:.0f} min ago"
    return f"{minutes / 60:.0f} h ago" if days < 1 else f"{days:.0f} days ago"

"""Lists of what to make: a prompt a line, CSV, or JSONL. Read and checked before PyTorch is imported."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from magic3d_cli.checks import (
    PRESETS,
    check_choice,
    check_distillation,
    check_output,
    check_prompt,
    check_seed,
    default_output,
    expanded,
    shown,
)
from magic3d_cli.errors import UsageError
from magic3d_cli.guidance.adapters import Adapter
from magic3d_cli.guidance.diffusers.catalogue import check_name
from magic3d_cli.precheck import check_distilled, check_words, styled
from magic3d_cli.run.directory import RunDirectory

MADE, KEPT, FAILED = "made", "kept", "failed"
"""What became of a task; kept: it was made before."""
COLUMNS = ("prompt", "seed", "image", "preset", "style", "distillation", "output")
"""What a row may say; everything but the prompt (or an image) may be left out."""


GALLERY = ("index.html", "sheet.png", "results.csv")
"""What is written into a batch's folder, see `gallery`."""
_OF_A_BATCH = b"<title>magic3d batch</title>"


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What a row may choose for itself; a list's rows that do not say take the command's."""

    preset: str = "draft"
    style: str | None = None  # a picture's path, as an image's
    distillation: str | None = None  # of `settings.METHODS`


@dataclass(frozen=True)
class Task(Choices):
    """One asset to be made."""

    output: str
    prompt: str = ""
    seed: int = 0
    image: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def failure(self, what: str, next_step: str) -> dict[str, Any]:
        """The record of a task that failed before it could tell of itself."""
        error = {"what": what, "next": next_step, "exit_code": 1}
        return {**self.to_json(), "status": FAILED, "seconds": 0.0, "notes": [], "error": error}


def read_tasks(source: str, folder: Path, seeds: int, choices: Choices, suffix: str) -> list[Task]:
    """The tasks of a list: a file, or "-" for standard input.

    A line is a prompt, in a .csv a row with a header, in a .jsonl an object; `COLUMNS` names what may be said. A row
    without a seed is made with the seeds 0 to `seeds` - 1. Files without a name of their own are called after their
    prompt and seed, in `folder`, as `suffix` says.

    Raises UsageError for a list that cannot be read or is empty, and for a row that says something wrong, by its line.
    """
    tasks: list[Task] = []
    for line, row in _rows(source):
        try:
            tasks += _of_row(row, folder, seeds, choices, suffix)
        except UsageError as error:
            raise UsageError(f"{source}, line {line}: {error.what}", error.next_step) from error
    if not tasks:
        raise UsageError(f"{source} asks for nothing.", "Write one prompt a line.")
    return _named_apart(tasks)


def check_makeable(
    tasks: Sequence[Task],
    prior: str,
    added: Sequence[str],
    device: str,
    strict: bool,
    adapters: Sequence[Adapter] = (),
) -> None:
    """Raises UsageError where none of the tasks can be made: for its words, its style, its method of distillation;
    EnvironmentFault for a prior that does not exist. `prior` is both stages', those `added` are beside it.

    One that cannot be made among others is a failure of its own, later.
    """
    names = list(dict.fromkeys((prior, *added)))
    for name in names:
        check_name(name)
    read = cache(partial(styled, priors=names, device=device, adapters=adapters))
    faults = []
    for task in tasks:
        try:
            check_distilled(task.distillation, prior, prior, added, device)
            read(None if task.style is None else Path(task.style), pictured=task.image is not None)
            for name in names if task.image is None else ():
                check_words(name, task.prompt, task.seed, device, strict=strict, adapters=adapters)
        except UsageError as error:
            faults.append(error)
    if len(faults) == len(tasks):
        raise faults[0]


def check_gallery(folder: Path) -> None:
    """Raises UsageError where the gallery would overwrite files that are not a batch's: a folder may be anybody's."""
    there = [folder / name for name in GALLERY if (folder / name).exists()]
    page = folder / GALLERY[0]
    if there and not (page.is_file() and _OF_A_BATCH in page.read_bytes()[:1000]):
        raise UsageError(f"{there[0]} exists already, and was not written by a batch.", "Name another folder with -o.")


def _rows(source: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Line numbers and what the lines say."""
    try:
        text = sys.stdin.read() if source == "-" else expanded(source).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{source} is not UTF-8 text.", "Save it as UTF-8.") from error
    except OSError as error:
        raise UsageError(
            f"{source} cannot be read: {error.strerror}.", "Give a text file, or - for standard input."
        ) from error
    kind = Path(source).suffix.lower()
    if kind == ".csv":
        reader = csv.DictReader(io.StringIO(text, newline=""))  # a quoted cell may hold ends of lines
        try:
            unknown = [name for name in reader.fieldnames or () if name not in COLUMNS]
            if unknown or not reader.fieldnames:
                raise UsageError(
                    f"{source}: its first line names {shown(', '.join(map(str, unknown))) or 'nothing'}.",
                    f"Name columns there: {', '.join(COLUMNS)}.",
                )
            for row in reader:
                yield reader.line_num, row
        except csv.Error as error:
            raise UsageError(f"{source}, line {reader.line_num}: {error}.", "Save it as CSV anew.") from error
        return
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if kind == ".jsonl" or line.lstrip().startswith("{"):
            yield number, _object(source, number, line)
        else:
            yield number, {"prompt": line}


def _object(source: str, number: int, line: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise UsageError(f"{source}, line {number} is no JSON object.", 'Write: {"prompt": "a red car", "seed": 1}')
    return row


def _of_row(row: Mapping[Any, Any], folder: Path, seeds: int, choices: Choices, suffix: str) -> list[Task]:
    if unknown := [shown(str(key)) for key in row if key not in COLUMNS]:
        raise UsageError(f"{unknown[0]!r} is no column.", f"Use: {', '.join(COLUMNS)}.")
    row = {key: value for key, value in row.items() if value not in (None, "")}  # an empty cell says nothing
    if any("\0" in str(value) for value in row.values()):
        raise UsageError("It holds a null byte, which no text and no file name has.", "Save the list as UTF-8 text.")
    image = row.get("image")
    prompt = str(row.get("prompt", ""))
    if image is None or prompt.strip():
        prompt = check_prompt(prompt)
    said = {part.name: str(row[part.name]) for part in fields(Choices) if part.name in row}
    own = asdict(replace(choices, **said))
    check_choice("preset", own["preset"], PRESETS)
    check_distillation(own["distillation"])
    given = row.get("output")
    if given is not None:
        path = folder / str(given)
        if not path.resolve().is_relative_to(folder.resolve()):  # a list may be somebody else's
            raise UsageError(f"The output {shown(str(given))!r} is outside {folder}.", "Name a file inside it.")
        check_output(path)
    many = range(seeds) if row.get("seed") is None else [_seed(row["seed"])]
    stem = default_output(prompt or Path(str(image)).stem).stem
    tasks = []
    for seed in many:
        name = f"{stem}-{seed}.{suffix}" if given is None else str(given)
        if given is not None and len(many) > 1:
            name = str(Path(name).with_name(f"{Path(name).stem}-{seed}{Path(name).suffix}"))
        tasks.append(Task(str(folder / name), prompt, seed, None if image is None else str(image), **own))
    return tasks


def _seed(value: Any) -> int:
    try:
        return check_seed(int(str(value)))
    except ValueError as error:
        raise UsageError(f"The seed {shown(str(value))!r} is no whole number.", "Use a number from 0 up.") from error


def _named_apart(tasks: Sequence[Task]) -> list[Task]:
    """The same task once, and other ones under names of their own: the order of the list decides, so it stays so.

    dog.glb and dog.obj would have one run folder, in which only one of them could be made at a time.
    """
    taken: dict[str, Task] = {}
    for task in dict.fromkeys(tasks):
        path, number = Path(task.output), 1
        while (run := str(RunDirectory.for_output(Path(task.output)).path).lower()) in taken:
            number += 1
            task = replace(task, output=str(path.with_name(f"{path.stem}-{number}{path.suffix}")))
        taken[run] = task
    return list(taken.values())

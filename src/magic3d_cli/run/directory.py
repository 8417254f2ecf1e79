"""A run's folder beside its output: `dragon.glb` keeps `dragon.run/`."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from magic3d_cli.atomic import SUFFIX, write_atomically
from magic3d_cli.checks import parse_json
from magic3d_cli.errors import Magic3DError, UsageError
from magic3d_cli.run.lock import Lock

CHECKPOINTS = ("fine.ckpt", "coarse.ckpt")
"""Furthest first."""
_RUN = "_magic3d_run"


class RunDirectory:
    """Checkpoints, settings, log and previews of one run. As a context manager it holds the run's lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.coarse = path / "coarse.ckpt"
        self.fine = path / "fine.ckpt"
        self.preview = path / "preview.png"
        self.picture = path / "picture.png"
        self.film = path / "film"  # small pictures of the shape appearing, see `callbacks.film_frames`
        self.log_path = path / "log.jsonl"
        self.settings = path / "settings.json"
        self.result = path / "result.json"  # of the asset that is written; gone while another is being made
        self.batch = path / "batch.json"  # what a batch that made the asset was asked for, see `batch.worker`
        self.mesh = path / "mesh.npz"  # a person's own, in the scene, where its shape is kept
        self._lock = Lock(path / "lock")

    @staticmethod
    def for_output(output: Path) -> RunDirectory:
        """The run that belongs to an output file."""
        return RunDirectory(output.with_suffix(".run"))

    @staticmethod
    def newest(folder: Path) -> RunDirectory | None:
        """The run in `folder` whose checkpoint was written last, or None."""
        saved = [p for name in CHECKPOINTS for p in folder.glob(f"*.run/{name}")]
        return RunDirectory(max(saved, key=lambda p: p.stat().st_mtime).parent) if saved else None

    @property
    def furthest(self) -> Path | None:
        """The checkpoint of the last stage that has one."""
        return next((self.path / name for name in CHECKPOINTS if (self.path / name).is_file()), None)

    def is_of(
        self, prompt: str, seed: int, preset: str, digest: str | None = None, adapters: str | None = None
    ) -> bool:
        """Whether the run was last used for this request, as its settings.json says.

        `digest` is of what was asked with pictures or of an edit, `prompt` as it was typed, `adapters` as
        `guidance.adapters.marks`.
        """
        try:
            asked = parse_json(self.settings.read_text(encoding="utf-8"))
            typed, kept = asked.get("typed", asked["prompt"]), asked.get("pictures") or asked.get("edit")
            found = (typed, asked["seed"], asked["preset"], kept, asked.get("adapters"))
            return found == (prompt, seed, preset, digest, adapters)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False

    @property
    def written(self) -> set[str]:
        """Names of all files that were written from this run beside it, as its log says."""
        found: set[str] = set()
        try:
            lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return found
        for line in lines:
            try:
                found |= {Path(file).name for file in parse_json(line).get("files", [])}
            except (ValueError, TypeError, AttributeError):  # half a line, of a process that was killed
                continue
        return found

    def check_free(self) -> None:
        """Raises UsageError when another process uses the run; makes nothing."""
        if self._lock.path.is_file():
            with suppress(OSError):  # entering it says what is wrong
                self._lock.check()

    def __enter__(self) -> RunDirectory:
        """Make the folder, lock it, and remove what a killed process left half written.

        Raises UsageError when the folder cannot be made or another process uses it.
        """
        try:
            self.path.mkdir(exist_ok=True)
            self._lock.acquire()
            for leftover in self.path.rglob(f"*{SUFFIX}"):
                leftover.unlink()
        except OSError as error:
            self._lock.release()
            raise UsageError(
                f"The run folder {self.path} cannot be written: {error.strerror}.",
                "Choose another place for the output with -o.",
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def set_aside(self, keep: Iterable[Path] = (), only: Iterable[Path] | None = None) -> Path | None:
        """Move an earlier run's files to `dragon.run.1` (or 2, ...), and return that folder.

        `keep` stays where it is; with `only`, nothing but those is moved. None when there was nothing to keep. Nothing
        is deleted. The lock is held throughout, which renaming the folder itself would not allow on every system.
        """
        kept = {path.resolve() for path in (self._lock.path, *keep)}
        files = [p for p in (self.path.iterdir() if only is None else only) if p.exists() and p.resolve() not in kept]
        if not any(p.suffix == ".ckpt" for p in files):
            return None  # a run that saved nothing has nothing to lose
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.{number}")).exists():
            number += 1
        aside.mkdir()
        for file in files:
            file.rename(aside / file.name)
        return aside

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Log a failure inside in the run's own log, and note this run on it (`run_of`)."""
        try:
            yield
        except (Exception, KeyboardInterrupt) as error:
            setattr(error, _RUN, self)
            expected = isinstance(error, Magic3DError | KeyboardInterrupt)
            trace = None if expected else traceback.format_exc()
            self.log("stopped", type=type(error).__name__, message=str(error), traceback=trace)
            raise

    def write_json(self, path: Path, data: Any) -> None:
        """A readable JSON file in the folder. Raises OSError."""
        write_atomically(path, (json.dumps(data, indent=2) + "\n").encode())

    def log(self, event: str, **values: Any) -> None:
        """Append a line to log.jsonl. A full disk must not stop a run here: checkpoints report it better."""
        line = json.dumps({"time": round(time.time(), 3), "event": event, **values})
        try:
            with self.log_path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError:
            pass


def run_of(error: BaseException) -> RunDirectory | None:
    """The run in which a failure happened."""
    return getattr(error, _RUN, None)

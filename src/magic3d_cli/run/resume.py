"""What a run's checkpoints depend on, and how a run goes on from them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from jaxtyping import UInt8
from torch import Tensor

from magic3d_cli.coarse.stage import CoarseStage
from magic3d_cli.errors import Collapsed, UsageError, out_of_memory
from magic3d_cli.fine.edit import RunLook
from magic3d_cli.fine.stage import FineStage
from magic3d_cli.guidance.adapters import Adapter, edited, kept
from magic3d_cli.guidance.pictured import Pictured
from magic3d_cli.run import checkpoint
from magic3d_cli.run.directory import RunDirectory
from magic3d_cli.run.timings import Timings
from magic3d_cli.settings import CoarseSettings, FineSettings, Settings, canonical
from magic3d_cli.style import Style, style_of
from magic3d_cli.training.distributed import Processes
from magic3d_cli.version import __version__

_MISFITS = (LookupError, TypeError, ValueError, AttributeError)
"""What values raise that are not as this version writes them."""


@dataclass(frozen=True)
class Saved:
    """A loaded checkpoint."""

    path: Path
    header: dict[str, Any]
    tensors: dict[str, Any]
    settings: Settings

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises UsageError for a file that is missing, foreign, damaged or of another version."""
        tensors, header = checkpoint.load(path)
        checkpoint.check_header(path, header)
        try:
            settings = Settings.from_json(header["settings"])
            Timings.from_json(header["ledger"])
        except _MISFITS as error:
            raise _other_version(path, header) from error
        return cls(path, header, tensors, settings)

    @property
    def pictured(self) -> Pictured | None:
        """What its run understood of pictures, if it was given any. Raises UsageError when that does not fit."""
        if self.header.get("pictures") is None:
            return None
        try:
            return Pictured.restored(self.tensors, self.header["pictures"])
        except _MISFITS as error:
            raise _other_version(self.path, self.header) from error

    def adapters(self, given: Sequence[Adapter]) -> tuple[Adapter, ...]:
        """The adapters that its run was made with, see `guidance.adapters.kept`."""
        return kept(self.header.get("adapters", []), given, self.path)

    def adapters_of_edit(self, given: Sequence[Adapter]) -> tuple[tuple[Adapter, ...], tuple[Adapter, ...]]:
        """The adapters that its run was made with, and those of an edit of it, see `guidance.adapters.edited`."""
        return edited(self.header.get("adapters", []), given, self.path)

    @property
    def style(self) -> Style | None:
        """The style that its run was made in, if it was. Raises UsageError when that does not fit."""
        return style_of(self.header)

    @property
    def earlier(self) -> tuple[RunLook, ...]:
        """The runs that its run is an edit of, the last one first; none where no edit left anything as it was."""
        try:
            runs = enumerate(self.header.get("earlier", []), 1)
            return tuple(RunLook(**run, things=self.tensors.get(things_key(number))) for number, run in runs)
        except TypeError as error:
            raise _other_version(self.path, self.header) from error

    @property
    def things(self) -> UInt8[Tensor, "Z Y X"] | None:
        """Where each of several things is, see `scene.things`, if its run has them."""
        return self.tensors.get(things_key(0))

    @property
    def unfinished(self) -> bool:
        """Whether its stage had steps left."""
        return self.header["step"] < self.header["total"]

    def stage(self, settings: Settings, device: str, processes: Processes | None = None) -> CoarseStage | FineStage:
        """The stage as it was when saved. Raises UsageError when its tensors do not fit this version or are spoilt."""
        kind = CoarseStage if self.header["stage"] == "coarse" else FineStage
        try:
            stage = kind.from_state(settings, self.tensors, self.header["state"], device, processes)
            stage.check_numbers()
        except Collapsed as error:  # saved by an older version
            raise UsageError(f"{self.path}: {error.what}", "Repeat the generate command with --fresh.") from error
        except (*_MISFITS, RuntimeError) as error:
            if out_of_memory(error):
                raise
            raise _other_version(self.path, self.header) from error
        return stage


@dataclass(frozen=True)
class Origins:
    """What the results of both stages depend on, as JSON; a checkpoint with another origin is another run's."""

    coarse: dict[str, Any]
    fine: dict[str, Any]

    @staticmethod
    def of_request(
        prompt: str, settings: Settings, sha256: dict[str, str], losses: Iterable[str] = (), pictures: str | None = None
    ) -> Origins:
        """Of a whole run. `sha256` is of each stage's priors, `losses` are names of a caller's own, `pictures` is the
        digest of what was asked with pictures."""
        coarse = {
            "prompt": prompt,
            "seed": settings.seed,
            "settings": asdict(settings.coarse),
            "prior": sha256["coarse"],
            **({"losses": sorted(losses)} if losses else {}),
            **({"pictures": pictures} if pictures else {}),
        }
        return Origins.of_refinement(as_json(coarse), settings.coarse.steps, settings, sha256["fine"])

    @staticmethod
    def of_refinement(coarse: dict[str, Any], step: int, settings: Settings, sha256: str) -> Origins:
        """Of the fine stage of a coarse scene with that origin, after `step` steps."""
        fine = {"coarse": coarse, "coarse_step": step, "settings": asdict(settings.fine), "prior": sha256}
        return Origins(_normalised(coarse, CoarseSettings), _normalised(as_json(fine), FineSettings))


def make_way(run: RunDirectory, origins: Origins, fresh: bool, keep: Iterable[Path] = ()) -> Path | None:
    """Set aside what another request left in the folder: only the fine stage where the coarse one serves.

    Everything with `fresh`, except the files in `keep`. Returns the folder that they were moved to, if any were.
    """
    found = {} if fresh else {path: _origin(path) for path in (run.coarse, run.fine) if path.is_file()}
    wrong_coarse = run.coarse in found and found[run.coarse] != origins.coarse
    wrong_fine = run.fine in found and found[run.fine] != origins.fine
    if fresh or wrong_coarse or (wrong_fine and run.coarse not in found):
        return run.set_aside(keep=keep)
    return run.set_aside(only=[run.fine]) if wrong_fine else None


def things_key(number: int) -> str:
    """By which a checkpoint keeps the things of its own run, 0, and of the runs that it is an edit of."""
    return f"things.{number}"


def things_to_tensors(runs: Iterable[UInt8[Tensor, "Z Y X"] | None]) -> dict[str, Tensor]:
    """The things of a run and of the runs that it is an edit of, as a checkpoint keeps them."""
    return {things_key(number): things for number, things in enumerate(runs) if things is not None}


def as_json(data: Any) -> Any:
    """As JSON gives it back: tuples become lists."""
    return json.loads(json.dumps(data))


def _origin(path: Path) -> dict[str, Any]:
    header = checkpoint.read_header(path)
    kind = CoarseSettings if header.get("stage") == "coarse" else FineSettings
    return _normalised(header.get("origin") or {}, kind)


def _normalised(origin: dict[str, Any], kind: type) -> dict[str, Any]:
    """An origin with its settings as this version writes them, so that an older program's run goes on."""
    try:
        origin = {**origin, "settings": as_json(canonical(kind, origin["settings"]))}
        if "coarse" in origin:
            origin["coarse"] = _normalised(origin["coarse"], CoarseSettings)
    except (KeyError, TypeError):
        pass  # no version's: equal to nothing
    return origin


def _other_version(path: Path, header: dict[str, Any]) -> UsageError:
    return UsageError(
        f"{path} was written by magic3d {header.get('version', '?')} and does not fit version {__version__}.",
        "Use that version to export it, or repeat the generate command with --fresh.",
    )

"""One job, put together: what the pipeline and all that it calls works with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from magic3d_cli.fine.edit import Edit
from magic3d_cli.guidance.adapters import Adapter
from magic3d_cli.guidance.guide import Guide
from magic3d_cli.guidance.pictured import Pictured
from magic3d_cli.run.callbacks import Intervals
from magic3d_cli.run.directory import RunDirectory
from magic3d_cli.run.interrupts import Interrupts
from magic3d_cli.run.observer import Observer
from magic3d_cli.run.timings import Timings
from magic3d_cli.scene.shape import InitialShape
from magic3d_cli.settings import Settings
from magic3d_cli.style import Style
from magic3d_cli.training.distributed import Processes
from magic3d_cli.training.terms import ViewGroup

OwnSurface = tuple[Float[np.ndarray, "V 3"], Int[np.ndarray, "F 3"]]
"""A mesh that is to be written as it is, with new colours: vertices in the scene, faces."""


@dataclass
class Job:
    """One asset to be made: what is asked for, where it goes, and who is told. `job.py` puts it together."""

    prompt: str
    settings: Settings
    output: Path  # the suffix says the format
    run: RunDirectory  # entered: the lock is held
    guide: Guide
    device: str = "cpu"
    processes: Processes = field(default_factory=Processes)
    shape: Callable[[], InitialShape | None] | None = None  # to begin with; None: the guide's
    pictured: Pictured | None = None  # what pictures ask for, beside the prompt
    typed: str = ""  # the prompt as a person gave it, where there are pictures
    adapters: Sequence[Adapter] = ()  # what is added to the priors
    style: Style | None = None  # of a picture, which the priors paint in or are shown
    more_views: Sequence[ViewGroup] = ()  # a caller's own, added to every step of both stages
    edit: Edit | None = None  # of another run's scene
    things: UInt8[Tensor, "Z Y X"] | None = None  # where each of several is, see `scene.things`
    surface: OwnSurface | None = None  # written in place of the fine stage's, which stands for it
    observer: Observer = field(default_factory=Observer)
    interrupts: Interrupts = field(default_factory=Interrupts)
    intervals: Intervals = field(default_factory=Intervals)
    timings: Timings = field(default_factory=Timings)

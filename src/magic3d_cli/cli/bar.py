"""The live progress line, on a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.live import Live
from rich.text import Text

from magic3d_cli.cli.progress import COMPILING, Display, Tracker, clock, made, summary

if TYPE_CHECKING:  # would import torch
    from magic3d_cli.settings import Settings
    from magic3d_cli.training.report import StepReport

WIDEST_BAR = 24
_NARROWEST_BAR = 6
_LOSSES_FROM = 160  # columns; they are in the run's log, and few people read them while they wait
_QUICK = 2.0  # seconds; a phase without steps that took less leaves no line behind
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "|/-\\"
_FULL, _EMPTY = ("━", "#"), ("─", ".")


class Bar(Display):
    """One line that always fits: what is being done, percent and time left of the whole job, then what room is for."""

    def __init__(self, console: Console | None = None, verbose: bool = False) -> None:
        self._console = console or Console(stderr=True)
        self._plain = not self._console.encoding.lower().startswith("utf")
        self._tracker = Tracker()
        self._losses_from = 0 if verbose else _LOSSES_FROM
        self._stage = self._label = self._short = self._count = self._losses = ""
        self._steps: int | None = None
        self._begun = self._stage_begun = time.monotonic()
        self._live = Live(
            console=self._console,
            get_renderable=self._line,
            refresh_per_second=8,
            transient=True,
            redirect_stdout=False,
        )

    def __enter__(self) -> Bar:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        self._live.stop()

    @contextmanager
    def paused(self) -> Iterator[None]:
        self._live.stop()
        yield
        self._live.start()

    def expect(self, settings: Settings, priors: dict[str, str]) -> None:
        self.phase("prepare")
        self._tracker.expect(settings, priors)

    def begin(self, stage: str, done: int, total: int) -> None:
        self._open(stage, total)
        self._tracker.begin(stage, done)
        self._count = f"{done}/{total}"

    def step(self, report: StepReport) -> None:
        self._tracker.step(report.step)
        self._label = self._short = self._stage
        self._count = f"{report.step}/{report.total}"
        self._losses = summary(report.metrics)

    def phase(self, name: str) -> None:
        self._open(name, None)
        self._tracker.begin(name, 0)

    def compiling(self) -> None:
        self._tracker.compiling()
        self._label, self._short = f"{self._stage}: {COMPILING}", f"{self._stage}: compiling"

    def done(self, report: dict[str, Any]) -> None:
        self._close()
        for line in made(report):
            self.note(line)

    def note(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _open(self, name: str, steps: int | None) -> None:
        self._close()
        self._stage = self._label = self._short = name
        self._count, self._losses, self._steps = "", "", steps
        self._stage_begun = time.monotonic()

    def _close(self) -> None:
        """Leave one line of a stage that is done."""
        seconds = time.monotonic() - self._stage_begun
        if self._stage and (self._steps is not None or seconds >= _QUICK):
            self.note("  ".join(part for part in (self._stage, self._count, clock(seconds)) if part))
        self._stage = ""

    def _line(self) -> Text:
        """The line for the width that the terminal has now: parts are added in the order of their use."""
        now = time.monotonic()
        # One column less than there is: terminals that wrap at the last one would scroll.
        room = self._console.width - 1
        spinner = _SPINNER[self._plain]
        sign = spinner[int(now * 8) % len(spinner)]
        progress = self._tracker.progress()
        room -= len(sign) + 1 + sum(2 + len(part) for part in progress)
        label = self._label if cell_len(self._label) <= room else self._short
        if cell_len(label) > room:
            label = set_cell_size(label, max(room - 1, 0)) + (">" if self._plain else "…")
        room -= cell_len(label)
        count = f" {self._count}" if self._count and len(self._count) + 1 <= room else ""
        room -= len(count)
        line = Text(f"{sign} {label}{count}", no_wrap=True, overflow="crop", end="")
        fraction = self._tracker.fraction()
        width = min(room - 2, WIDEST_BAR)
        if fraction is not None and width >= _NARROWEST_BAR:
            full = round(width * fraction)
            line.append("  ").append(_FULL[self._plain] * full, "green")
            line.append(_EMPTY[self._plain] * (width - full), "dim")
            room -= width + 2
        for part in progress:
            line.append(f"  {part}")
        elapsed = f"  {clock(now - self._begun)} so far"
        if len(elapsed) <= room:
            line.append(elapsed, "dim")
            room -= len(elapsed)
        if self._losses and self._console.width >= self._losses_from and len(self._losses) + 2 <= room:
            line.append(f"  {self._losses}", "dim")
        return line

"""Progress on stderr: a live bar on a terminal, plain lines at intervals elsewhere, nothing with --quiet."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from magic3d_cli.run.observer import Observer

if TYPE_CHECKING:  # would import torch
    from magic3d_cli.training.report import StepReport

INTERVAL = 10.0  # seconds between plain lines
_TECHNICAL = ("time", "scale", "samples")  # metrics that are in the log but tell a person nothing


class Display(Observer):
    """An observer with a beginning and an end. This one shows nothing: --quiet."""

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class Lines(Display):
    """One plain line at a time, for logs and pipes."""

    def __init__(self) -> None:
        self._begun = self._last = time.monotonic()
        self._from = 0

    def begin(self, stage: str, done: int, total: int) -> None:
        self._begun = self._last = time.monotonic()
        self._from = done
        self.note(f"{stage}: step {done} of {total}")

    def step(self, report: StepReport) -> None:
        now = time.monotonic()
        if now - self._last < INTERVAL and report.step < report.total:
            return
        self._last = now
        pace = (now - self._begun) / max(report.step - self._from, 1)
        left = clock(pace * (report.total - report.step))
        shown = summary(report.metrics)
        self.note(f"{report.stage}: step {report.step} of {report.total}  {shown}  {pace:.2f} s/step  {left} left")

    def phase(self, name: str) -> None:
        self.note(name)

    def note(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def display(quiet: bool) -> Display:
    """The right one for this terminal. NO_COLOR is honoured by rich."""
    if quiet:
        return Display()
    live = sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")
    if not live:
        return Lines()
    from magic3d_cli.cli.bar import Bar  # rich takes longer to import than --help may take

    return Bar()


def summary(metrics: dict[str, float]) -> str:
    """The first three metrics that mean something to a person."""
    shown = [(name, value) for name, value in metrics.items() if name not in _TECHNICAL]
    return "  ".join(f"{name} {value:.3g}" for name, value in shown[:3])


def clock(seconds: float) -> str:
    """Minutes and seconds: 0:05, 12:30, 1:02:03."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
